"""A defect of ours costs the trimming and never the answer; the receipt says so, and no text reaches the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from compressor.tokens import count_tokens
from routing import policy
from tests.loopback import LoopbackProvider, echo
from tests.trimtab.asking import CONTEXTS, QUESTION, chat, documents, provider, serving, without_receipt_event
from trimtab import Trimtab, pipeline
from trimtab.serving import served

SECRET = "the-prompt-is-a-secret"
BODY = chat(
    [{"type": "text", "text": QUESTION}], seed=5, trimtab={"contexts": [*CONTEXTS, SECRET], "ratio": 0.2}, max_tokens=9
)


class Edge(NamedTuple):
    client: httpx.Client
    server: LoopbackProvider


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with LoopbackProvider() as server, serving(provider("a", server)) as client:
        yield Edge(client, server)


def broken(*_: object, **__: object) -> Any:
    raise IndexError(SECRET)


BREAKS = {
    "the ranker": ("compressor.Ranker.rank",),
    "the planner": ("routing.policy.plan",),
    "the cut": ("compressor.Ranking.cut",),
    "the curve": ("compressor.Ranking.coverage",),
}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_breaks_costs_no_answer(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str, stream: bool
) -> None:
    monkeypatch.setattr(BREAKS[what][0], broken)
    edge.server.then(echo())
    with caplog.at_level(logging.DEBUG, "trimtab"):
        answer = edge.client.post("/v1/chat/completions", json=BODY | {"stream": stream})
    assert answer.status_code == 200
    receipt = without_receipt_event(answer.content)[1] if stream else answer.json()["trimtab"]
    assert receipt["notes"] == ["trimming failed (IndexError); the original payload was forwarded"]
    tokens = sum(count_tokens(each["text"]) for each in CONTEXTS) + count_tokens(SECRET)
    assert (receipt["tokens_before"], receipt["tokens_after"]) == (tokens, tokens)
    assert receipt["saved_usd"] == "0" or stream
    forwarded = edge.server.requests[-1].json
    assert documents(forwarded["messages"][0]) == {each["title"]: each["text"] for each in CONTEXTS}
    assert f"<document>\n{SECRET}\n</document>" in forwarded["messages"][0]["content"]
    assert forwarded["messages"][1:] == BODY["messages"]
    assert (forwarded["seed"], forwarded["max_tokens"], "trimtab" in forwarded) == (5, 9, False)
    assert [record.message for record in caplog.records if record.name == "trimtab"] == [
        "trimming failed (IndexError); the original payload is forwarded"
    ]
    assert SECRET not in caplog.text


@pytest.mark.parametrize("what", ["the ranker", "the planner"])
def test_context_in_the_messages_goes_as_it_came(edge: Edge, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(BREAKS[what][0], broken)
    written = "\n".join(f'<document title="{each["title"]}"> {each["text"]}\n</document>' for each in CONTEXTS)
    body = chat(f"{written}\n\n{QUESTION}", trimtab={"ratio": 0.2})
    answer = edge.client.post("/v1/chat/completions", json=body)
    assert answer.json()["trimtab"]["notes"]
    assert edge.server.requests[-1].json["messages"] == body["messages"]


def test_a_plan_without_a_planner_is_the_whole_payload(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "plan", broken)
    answer = edge.client.post("/v1/plan", json=BODY)
    assert answer.status_code == 200
    assert answer.json()["chosen"]["coverage_estimate"] == 1.0


def test_an_encoder_that_cannot_be_loaded_costs_the_trimming_only(caplog: pytest.LogCaptureFixture) -> None:
    with LoopbackProvider() as server, serving(provider("a", server), encoder="/no/such/model") as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "failed"})
        answer = client.post("/v1/chat/completions", json=BODY)
        assert answer.status_code == 200
        assert "the original payload was forwarded" in answer.json()["trimtab"]["notes"][0]
        compressed = client.post("/v1/compress", json={"query": "q", "contexts": [SECRET]})
    assert compressed.status_code == 500
    error = compressed.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert SECRET not in compressed.text
    assert "Traceback" not in compressed.text
    assert "the encoder cannot be loaded" in caplog.text


def test_a_defect_outside_the_trimming_is_told_without_its_text(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.Ranker.rank", broken)
    answer = edge.client.post("/v1/compress", json={"query": "q", "contexts": ["a"]})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert SECRET not in answer.text


def test_warming_up_loads_the_model_although_the_cache_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    class Counting:
        identity = "counting"

        def encode(self, passages: Any) -> list[Any]:
            import numpy as np

            loaded.append(len(passages))
            return [np.ones((len(p.spans), 2), np.float32) for p in passages]

    monkeypatch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: Counting())
    for _ in range(2):
        Trimtab().warm_up()
    assert loaded == [1, 1]


def test_ready_when_the_encoder_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    wait = threading.Event()
    monkeypatch.setattr(Trimtab, "warm_up", lambda _: wait.wait(10) and None)
    with served(Trimtab()) as url, httpx.Client(base_url=url) as client:
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "loading"})
        assert client.get("/healthz").json() == {"status": "ok"}
        wait.set()
        while client.get("/readyz").json()["status"] == "loading":
            pass
        assert client.get("/readyz").status_code == 200

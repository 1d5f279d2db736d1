"""Request ids: whose they are, and that every answer has one."""

from __future__ import annotations

import logging
import threading

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import chat, provider, serving, serving_of
from trimtab import Trimtab
from trimtab.conclusion import Conclusion
from trimtab.telemetry import request_ids
from trimtab.telemetry.exchange import named

OURS = "x-trimtab-request-id"


@given(st.text(max_size=200))
def test_a_sane_id_needs_no_escape_anywhere(text: str) -> None:
    kept = request_ids.sane(text)
    assert kept in (None, text)
    if kept is not None:
        assert 0 < len(kept) <= 128
        assert kept.isascii()
        assert kept.isprintable()
        assert not set(kept) & set(" \"'<>&%\\;,{}()$`\r\n")


def test_uuids_ulids_and_trace_ids_are_sane() -> None:
    for each in (
        "8f14e45f-ceea-467f-9b2a-3a0f0b9d2c11",
        "01HV3J0ZQ8",
        "00-4bf92f35-00f0-01",
        "Root=1-67891233-abc",
        "a@b/c+d",
    ):
        assert request_ids.sane(each) == each
    assert request_ids.sane("") is None
    assert request_ids.sane(request_ids.new_id()) is not None
    assert request_ids.new_id() != request_ids.new_id()


def test_whose_id_an_answer_bears() -> None:
    theirs = [(b"x-request-id", b"theirs"), (b"a", b"b")]
    assert dict(named(theirs, "own", False))[b"x-request-id"] == b"theirs"
    assert dict(named([], "own", False)) == {b"x-request-id": b"own", OURS.encode(): b"own"}
    both = named(theirs, "given", True)
    assert [name for name, _ in both].count(b"x-request-id") == 1
    assert dict(both)[b"x-trimtab-provider-request-id"] == b"theirs"


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, Conclusion]]:
    return []


@pytest.fixture(scope="module")
def client(seen: list[tuple[str, Conclusion]]) -> object:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("a", server)], max_body_bytes=5_000)
        trimtab.listeners.append(lambda conclusion: seen.append((request_ids.current(), conclusion)))
        with serving_of(trimtab) as made:
            yield made


def test_every_answer_has_an_id(client: httpx.Client) -> None:
    answers = {
        200: client.post("/v1/chat/completions", json=chat()),
        400: client.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}),
        404: client.get("/no/such/path"),
        405: client.get("/v1/chat/completions"),
        413: client.post("/v1/chat/completions", json=chat("x" * 6_000)),
        415: client.post("/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"}),
    }
    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    ids = [answer.headers[OURS] for answer in answers.values()]
    assert len(set(ids)) == len(ids)
    assert all(each.startswith("req_") for each in ids)
    for status, answer in answers.items():
        assert answer.headers.get_list("x-request-id") == (
            ["req_loopback"] if status == 200 else [answer.headers[OURS]]
        )


def test_the_callers_own_id_comes_back_and_is_known_to_whoever_counts(
    client: httpx.Client, seen: list[tuple[str, Conclusion]]
) -> None:
    for body in (chat(), chat(stream=True)):
        answer = client.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine-42"})
        assert answer.headers["x-request-id"] == answer.headers[OURS] == "mine-42"
        assert answer.headers["x-trimtab-provider-request-id"] == "req_loopback"
        assert seen[-1][0] == "mine-42"
    keyed = {"x-request-id": "mine-43", "idempotency-key": "k1"}  # such a request is answered in a task of its own
    client.post("/v1/chat/completions", json=chat(), headers=keyed)
    assert seen[-1][0] == "mine-43"


def test_an_id_that_is_none_is_not_taken(client: httpx.Client) -> None:
    for bad in ("two words", "x" * 129, "<script>", 'a"b', "a;b"):
        answer = client.get("/healthz", headers={"x-request-id": bad})
        assert answer.headers[OURS].startswith("req_")
        assert bad not in str(answer.headers)


def test_the_callers_id_is_not_told_to_the_provider_and_its_client_request_id_is() -> None:
    with LoopbackProvider() as server, serving(provider("a", server)) as client:
        ids = {"x-request-id": "between-us", "x-client-request-id": "for-them"}
        client.post("/v1/chat/completions", json=chat(), headers=ids)
        sent = server.requests[-1].headers
    assert "between-us" not in str(sent)
    assert sent["x-client-request-id"] == "for-them"


def test_an_openai_client_shows_the_providers_id(client: httpx.Client) -> None:
    asking = openai.OpenAI(api_key="k", base_url=f"{client.base_url}/v1", http_client=client)
    answer = asking.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    assert answer._request_id == "req_loopback"


def test_a_defect_has_an_id_too_and_its_log_line_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trimtab = Trimtab()

    def broken(*_: object) -> None:
        raise KeyError("a defect")

    with serving_of(trimtab) as client, caplog.at_level(logging.INFO):
        monkeypatch.setattr(trimtab, "compress_request", broken)
        answer = client.post(
            "/v1/compress", json={"query": "q", "contexts": ["c"]}, headers={"x-request-id": "mine-500"}
        )
    assert (answer.status_code, answer.headers[OURS]) == (500, "mine-500")
    line = next(each for each in caplog.records if each.name == "trimtab.access" and "500" in each.getMessage())
    assert line.fields["defect"] == "KeyError"  # type: ignore[attr-defined]


def test_a_thread_that_works_for_a_request_knows_its_id() -> None:
    found = []
    with serving_of(Trimtab()) as client:
        compress = Trimtab.compress_request

        def watched(self: Trimtab, asked: object) -> object:
            found.append((request_ids.current(), threading.current_thread()))
            return compress(self, asked)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trimtab, "compress_request", watched)
            client.post("/v1/compress", json={"query": "q", "contexts": ["c"]}, headers={"x-request-id": "deep"})
    assert found[0][0] == "deep"
    assert "worker" in found[0][1].name.lower()
    assert request_ids.current() == ""

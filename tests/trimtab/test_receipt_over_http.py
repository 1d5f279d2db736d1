"""The receipt that comes back over HTTP: where it stands, and that its figures are true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import pytest

from compressor.tokens import count_tokens
from tests.loopback import LoopbackProvider, ok
from tests.trimtab.asking import CONTEXTS, QUESTION, chat, documents, outcomes, provider, serving, without_receipt_event

USAGE = {
    "prompt_tokens": 1_000,
    "completion_tokens": 50,
    "total_tokens": 1_050,
    "prompt_tokens_details": {"cached_tokens": 400},
}
DOLLARS = Decimal("0.000001")
BILLED_USD = (600 * 2 + 400 * Decimal("0.2") + 50 * 10) * DOLLARS
BODY = chat(trimtab={"contexts": CONTEXTS, "ratio": 0.4}, max_tokens=70)


class Edge(NamedTuple):
    client: httpx.Client
    server: LoopbackProvider


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with LoopbackProvider() as server, serving(provider("a", server)) as client:
        yield Edge(client, server)


def asked(
    edge: Edge, body: dict[str, Any], *, usage: dict[str, Any] | None = None
) -> tuple[httpx.Response, dict[str, Any]]:
    edge.server.then(ok("Five gigabytes.", usage=USAGE if usage is None else usage))
    answer = edge.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    receipt = without_receipt_event(answer.content)[1] if body.get("stream") else answer.json()["trimtab"]
    return answer, receipt


STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("more", [{}, STREAMED], ids=["whole", "stream"])
def test_the_figures_are_true(edge: Edge, more: dict[str, Any]) -> None:
    answer, receipt = asked(edge, BODY | more)
    before = sum(count_tokens(each["text"]) for each in CONTEXTS)
    written = edge.server.requests[-1].json["messages"][0]
    after = sum(count_tokens(text) for text in documents(written).values())
    assert (receipt["tokens_before"], receipt["tokens_after"]) == (before, after)
    assert 0 < after <= 0.4 * before
    assert (receipt["input_tokens_billed"], receipt["output_tokens_billed"]) == (1_000, 50)
    assert receipt["cache_read_tokens_billed"] == 400
    assert Decimal(receipt["billed_cost_usd"]) == BILLED_USD
    baseline_usd = BILLED_USD + (before - after) * 2 * DOLLARS
    assert Decimal(receipt["baseline_cost_usd"]) == baseline_usd
    assert Decimal(receipt["saved_usd"]) == baseline_usd - BILLED_USD
    estimated = receipt["input_tokens_estimated"] * 2 + receipt["output_tokens_estimated"] * 10
    assert Decimal(receipt["expected_cost_usd"]) == estimated * DOLLARS
    assert receipt["output_tokens_estimated"] == 70
    assert (receipt["model_asked"], receipt["model"], receipt["provider"], receipt["processing"]) == (
        "m",
        "m",
        "a",
        "sync",
    )
    assert receipt["prices_version"] == "stated in the configuration"
    assert receipt["notes"] == []
    assert outcomes(receipt) == [("a", "ok", 200)]
    assert receipt["attempts"][0]["latency_ms"] >= receipt["attempts"][0]["started_ms"] >= 0
    assert list(receipt["ms"]) == ["parse", "rank", "plan", "cut", "provider"]
    assert (
        dict(answer.headers).items()
        >= {
            "x-trimtab-receipt-id": receipt["id"],
            "x-trimtab-provider": "a",
            "x-trimtab-model": "m",
            "x-trimtab-attempts": "1",
            "x-trimtab-tokens-before": str(before),
            "x-trimtab-tokens-after": str(after),
            "x-trimtab-expected-cost-usd": receipt["expected_cost_usd"],
            "x-trimtab-coverage-estimate": f"{receipt['coverage_estimate']:.4f}",
        }.items()
    )


def test_the_estimate_is_near_what_a_tokenizer_counts(edge: Edge) -> None:
    _, receipt = asked(edge, BODY)
    sent = edge.server.requests[-1].json["messages"]
    counted = sum(count_tokens(each["content"]) for each in sent)
    assert (
        counted <= receipt["input_tokens_estimated"] <= counted + 60
    )  # an upper bound, tags of dropped contexts included


@pytest.mark.parametrize(
    ("more", "as_chunk"),
    [
        ({"stream": True, "trimtab": {}}, True),
        (STREAMED, True),
        ({"stream": True}, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": None}, False),
    ],
)
def test_a_stream_has_it_as_a_chunk_for_those_who_can_read_one(
    edge: Edge, more: dict[str, Any], as_chunk: bool
) -> None:
    answer, receipt = asked(edge, chat(**more))
    _, _, event = without_receipt_event(answer.content)
    after = answer.content.partition(event)[2]
    assert after.endswith(b"data: [DONE]\n\n")
    assert after.count(b"data: ") == (2 if more == STREAMED else 1)  # the usage, where it was asked for, and the end
    if as_chunk:
        chunk = json.loads(event.removeprefix(b"data: "))
        assert (chunk["object"], chunk["choices"], chunk["model"]) == ("chat.completion.chunk", [], "m")
    else:
        assert event == b": trimtab " + json.dumps(receipt, separators=(",", ":")).encode() + b"\n\n"


def test_a_stream_without_usage_bills_nothing_that_it_does_not_know(edge: Edge) -> None:
    _, receipt = asked(edge, chat(stream=True, trimtab={}))
    assert receipt["billed_cost_usd"] is None
    assert receipt["input_tokens_billed"] is None
    assert receipt["expected_cost_usd"] is not None


def test_a_loss_is_shown_as_a_loss() -> None:
    dear = {"input_mtok": "20", "output_mtok": "100"}
    with (
        LoopbackProvider() as cheap,
        LoopbackProvider() as rescue,
        serving(
            provider("cheap", cheap, "m", api_key_env="TRIMTAB_TEST_NO_SUCH_KEY"),
            provider("rescue", rescue, "m", prices=dear),
        ) as client,
    ):
        rescue.then(ok(usage=USAGE))
        receipt = client.post("/v1/chat/completions", json=chat()).json()["trimtab"]
    assert (receipt["provider"], outcomes(receipt)) == ("rescue", [("cheap", "rejected", None), ("rescue", "ok", 200)])
    assert Decimal(receipt["billed_cost_usd"]) == (1_000 * 20 + 50 * 100) * DOLLARS
    assert Decimal(receipt["saved_usd"]) < 0


def test_two_requests_have_two_receipts(edge: Edge) -> None:
    assert asked(edge, chat())[1]["id"] != asked(edge, chat())[1]["id"]


def test_no_text_and_no_question_stands_in_it(edge: Edge) -> None:
    _, receipt = asked(edge, BODY)
    told = json.dumps(receipt)
    assert QUESTION not in told
    assert "upload" not in told

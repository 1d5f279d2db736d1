"""The contract of `POST /v1/plan`: a dry run, with and without configuration."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from compressor.tokens import count_tokens
from tests.loopback import LoopbackProvider
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.asking import CONTEXTS, QUESTION, chat, provider, serving
from trimtab import Trimtab, pipeline

OFFER = [
    "provider",
    "model",
    "processing",
    "budget_tokens",
    "input_tokens",
    "output_tokens",
    "expected_cost_usd",
    "coverage_estimate",
]
TYPES = [str, str, str, int, int, int, str, float]
LONG = [
    f"Plan {n} has {n} seats and costs {n} dollars. Its upload limit is {n} GB. It is sold in region {n}."
    for n in range(30)
]


@pytest.fixture(scope="module")
def unconfigured() -> Iterator[httpx.Client]:
    with serving() as client:
        yield client


def planned(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/plan", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    assert list(made) == ["chosen", "runners_up"]
    assert list(made["chosen"]) == OFFER
    for each in made["runners_up"]:
        assert list(each) == [*OFFER, "why"]
        assert each["why"]
    for each in (made["chosen"], *made["runners_up"]):
        assert [type(each[name]) for name in OFFER] == TYPES
        assert "E" not in each["expected_cost_usd"]
        assert Decimal(each["expected_cost_usd"]) >= 0
    return made


def test_list_prices_do_without_configuration(unconfigured: httpx.Client) -> None:
    body = chat(max_tokens=100, trimtab={"contexts": CONTEXTS, "ratio": 0.5, "candidates": ["claude-haiku-5-5"]})
    made = planned(unconfigured, body | {"model": "gpt-6.1-sol"})
    everyone = [made["chosen"], *made["runners_up"]]
    assert {(each["provider"], each["model"], each["processing"]) for each in everyone} == {
        ("openai", "gpt-6.1-sol", "sync"),
        ("anthropic", "claude-haiku-5-5", "sync"),
    }
    full_tokens = sum(count_tokens(each["text"]) for each in CONTEXTS)
    assert {each["budget_tokens"] for each in everyone} == {full_tokens, full_tokens // 2}
    assert made["chosen"]["budget_tokens"] == full_tokens // 2
    assert made["chosen"]["output_tokens"] == 100
    allowed = [each for each in everyone if each["budget_tokens"] <= full_tokens // 2]
    assert made["chosen"] == min(allowed, key=lambda each: Decimal(each["expected_cost_usd"]))


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, 512),
        ({"max_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 9, "n": 3}, 27),
    ],
)
def test_the_expected_answer_is_the_callers_own_maximum(
    unconfigured: httpx.Client, more: dict[str, Any], tokens: int
) -> None:
    assert planned(unconfigured, chat(**more) | {"model": "gpt-6.1-sol"})["chosen"]["output_tokens"] == tokens


def test_a_coverage_is_bought_and_no_more(unconfigured: httpx.Client) -> None:
    body = chat(trimtab={"contexts": LONG, "min_coverage": 0.6}) | {"model": "gpt-6.1-sol"}
    chosen = planned(unconfigured, body)["chosen"]
    assert 0.6 <= chosen["coverage_estimate"] < 0.75
    more = planned(unconfigured, chat(trimtab={"contexts": LONG, "min_coverage": 0.9}) | {"model": "gpt-6.1-sol"})
    assert more["chosen"]["budget_tokens"] > chosen["budget_tokens"]


def test_a_limit_on_the_cost_is_hard(unconfigured: httpx.Client) -> None:
    body = chat(max_tokens=10, trimtab={"contexts": LONG, "candidates": ["gpt-5-nano"]}) | {"model": "gpt-6.1-sol"}
    everyone = planned(unconfigured, body)
    costs = sorted(Decimal(each["expected_cost_usd"]) for each in (everyone["chosen"], *everyone["runners_up"]))
    body["trimtab"]["max_cost_usd"] = str(costs[0])
    assert Decimal(planned(unconfigured, body)["chosen"]["expected_cost_usd"]) == costs[0]
    body["trimtab"]["max_cost_usd"] = float(costs[0]) / 2
    answer = unconfigured.post("/v1/plan", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_offer")
    assert "max_cost_usd" in answer.json()["error"]["message"]


def test_a_coverage_that_a_budget_cannot_keep_is_refused_with_both_ways_out(unconfigured: httpx.Client) -> None:
    body = chat(trimtab={"contexts": LONG, "min_coverage": 0.9, "budget_tokens": 20}) | {"model": "gpt-6.1-sol"}
    answer = unconfigured.post("/v1/plan", json=body)
    assert answer.status_code == 422
    assert "Raise budget_tokens to" in answer.json()["error"]["message"]


def test_a_payload_just_over_a_price_boundary_lands_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """claude-haiku-5-5 costs five times as much above 100,000 tokens of input (genai-prices 0.2.3)."""
    monkeypatch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("a boundary"))
    body = chat(max_tokens=1_000) | {"model": "claude-haiku-5-5"}
    trimtab = Trimtab()
    fixed_tokens = trimtab.plan(body).chosen.input_tokens
    texts = _contexts(100_600 - fixed_tokens - 200 * _tags_tokens(trimtab, body))
    body["trimtab"] = {"contexts": texts, "budget_tokens": 100_600}
    made = trimtab.plan(body).to_dict()
    chosen, runners_up = made["chosen"], made["runners_up"]
    assert isinstance(chosen, dict)
    assert isinstance(runners_up, list)
    dear = [each for each in runners_up if each["input_tokens"] == 100_600]
    assert [each["why"].endswith("100,600 input tokens are above the 100,000-token boundary") for each in dear] == [
        True
    ]
    assert 97_000 < chosen["input_tokens"] <= 100_000 / 1.02
    assert Decimal(chosen["expected_cost_usd"]) < Decimal("0.0105")
    assert Decimal(dear[0]["expected_cost_usd"]) > Decimal("0.0525")
    assert chosen["coverage_estimate"] >= 0.95


def _tags_tokens(trimtab: Trimtab, body: dict[str, Any]) -> int:
    """What the tags around one context cost."""
    one = trimtab.plan({**body, "trimtab": {"contexts": ["x"]}}).chosen
    return one.input_tokens - one.budget_tokens - trimtab.plan(body).chosen.input_tokens


def _contexts(tokens: int) -> list[str]:
    """200 texts of short sentences that come to exactly so many tokens."""
    sentence = "The upload limit is high."
    each, texts = tokens // 200, []
    for _ in range(200):
        text = sentence
        while count_tokens(text + " " + sentence) <= each:
            text += " " + sentence
        texts.append(text)
    missing = tokens - sum(map(count_tokens, texts))
    for number in range(missing):
        texts[number % 200] += " a"
    assert sum(map(count_tokens, texts)) == tokens
    return texts


def test_nothing_is_forwarded() -> None:
    with LoopbackProvider() as server, serving(provider("a", server, "m", "n")) as client:
        body = chat(trimtab={"contexts": LONG, "candidates": ["n"]})
        made = planned(client, body)
        assert {each["model"] for each in (made["chosen"], *made["runners_up"])} == {"m", "n"}
        assert planned(client, body | {"stream": True}) == made
        assert server.requests == []
        assert server.open_connections == 0


def test_python_plans_alike(unconfigured: httpx.Client) -> None:
    body = chat(trimtab={"contexts": CONTEXTS, "ratio": 0.5}) | {"model": "gpt-6.1-sol"}
    assert Trimtab().plan(body).to_dict() == planned(unconfigured, body)


def test_a_chat_completion_without_a_provider_says_what_to_configure(unconfigured: httpx.Client) -> None:
    answer = unconfigured.post("/v1/chat/completions", json=chat() | {"model": "gpt-6.1-sol"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_provider")
    assert "[[providers]]" in answer.json()["error"]["message"]


def test_context_in_the_messages_is_planned_with_too(unconfigured: httpx.Client) -> None:
    written = "\n".join(f'<document title="{n}">{text}</document>' for n, text in enumerate(LONG))
    body = chat(f"{written}\n\n{QUESTION}", trimtab={"ratio": 0.3}) | {"model": "gpt-6.1-sol"}
    chosen = planned(unconfigured, body)["chosen"]
    full_tokens = sum(count_tokens(text) for text in LONG)
    assert chosen["budget_tokens"] == int(0.3 * full_tokens)

"""The contract of `POST /v1/compress` and `Trimtab().compress`: shapes, spans, budgets, and no need of anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor import Kept
from compressor.tokens import count_each, count_tokens
from tests.trimtab.asking import CONTEXTS, QUESTION, serving
from trimtab import BadRequest, Compressed, Trimtab

GAPS = (" … ", "\n…\n", ", ", "\n", "")
TEXTS = [
    "An upload may be 5 GB. A bucket holds 100 TB. Names have 63 letters. There is no limit on the number of objects.",
    "",
    "Data is encrypted at rest. Keys rotate each year. Nobody at the provider can read them.",
    "| plan | upload |\n|---|---|\n| small | 1 GB |\n| large | 5 GB |\n| huge | 50 GB |",
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


def joins(kept: Kept, original: str) -> bool:
    """Whether the text is the slices of the original, in order, with one of GAPS between two."""
    ends = {0}
    for number, (start, end) in enumerate(kept.spans):
        part = original[start:end]
        begins = {at + len(gap) for at in ends for gap in (GAPS if number else ("",)) if kept.text.startswith(gap, at)}
        ends = {at + len(part) for at in begins if kept.text.startswith(part, at)}
    return len(kept.text) in ends


def check(result: Compressed, texts: list[str], budget_tokens: int | None = None) -> None:
    assert len(result.contexts) == len(texts)
    for kept, text in zip(result.contexts, texts, strict=True):
        assert all(0 <= start < end <= len(text) for start, end in kept.spans)
        assert all(before[1] <= after[0] for before, after in pairwise(kept.spans))
        assert joins(kept, text)
    assert result.tokens_before == sum(count_each(texts))
    assert result.tokens_after == sum(count_each([kept.text for kept in result.contexts]))
    assert result.tokens_after <= result.tokens_before
    assert budget_tokens is None or result.tokens_after <= budget_tokens
    assert 0 <= result.coverage_estimate <= 1
    assert result.dropped == sum(not kept.text for kept in result.contexts)


@pytest.mark.parametrize("size", [{"ratio": 0.4}, {"budget_tokens": 25}, {"min_coverage": 0.5}, {}])
def test_http_and_python_answer_alike_and_in_the_promised_shape(
    client: httpx.Client, trimtab: Trimtab, size: dict[str, Any]
) -> None:
    contexts: list[Any] = [{"id": "limits", "title": "Limits", "text": TEXTS[0]}, *TEXTS[1:]]
    answer = client.post("/v1/compress", json={"query": QUESTION, "contexts": contexts, "model": "gpt-5", **size})
    assert answer.status_code == 200
    told = answer.json()
    assert list(told) == [
        *("contexts", "tokens_before", "tokens_after", "coverage_estimate", "dropped", "ms"),
        *("lossless_tokens", "coverage_basis"),
    ]
    assert [list(each) for each in told["contexts"]] == [["id", "text", "spans"]] * 4
    assert [each["id"] for each in told["contexts"]] == ["limits", "1", "2", "3"]
    assert told["contexts"][1] == {"id": "1", "text": "", "spans": []}
    assert [type(told[name]) for name in list(told)[1:]] == [int, int, float, int, float, int, str]
    result = trimtab.compress(QUESTION, contexts, model="gpt-5", **size)
    check(result, TEXTS, size.get("budget_tokens"))
    kept = [{"id": k.id, "text": k.text, "spans": [list(span) for span in k.spans]} for k in result.contexts]
    assert told["contexts"] == kept
    for name in ("tokens_before", "tokens_after", "coverage_estimate", "dropped"):
        assert told[name] == getattr(result, name)
    assert result.ms > 0


def test_what_the_question_needs_is_what_is_kept(trimtab: Trimtab) -> None:
    result = trimtab.compress(QUESTION, CONTEXTS, budget_tokens=9)
    assert result.contexts[0].text == "An upload may be 5 GB."
    assert result.contexts[0].spans == ((0, 22),)
    assert [kept.text for kept in result.contexts[1:]] == ["", ""]
    assert result.dropped == 2


def test_a_ratio_is_a_share_of_the_contexts_tokens(trimtab: Trimtab) -> None:
    for ratio in (0.1, 0.25, 0.5, 0.999, 1.0):
        result = trimtab.compress(QUESTION, TEXTS, ratio=ratio)
        check(result, TEXTS, int(ratio * result.tokens_before))
    assert [kept.text for kept in result.contexts] == TEXTS
    assert result.coverage_estimate == 1.0


def test_what_is_small_is_left_alone_unless_a_budget_says_otherwise(trimtab: Trimtab) -> None:
    assert sum(count_each(TEXTS)) < 256
    assert [kept.text for kept in trimtab.compress(QUESTION, TEXTS).contexts] == TEXTS
    assert [kept.text for kept in trimtab.compress(QUESTION, TEXTS, min_coverage=0.1).contexts] == TEXTS


def test_a_coverage_that_is_asked_for_is_kept(trimtab: Trimtab) -> None:
    texts = [f"Plan {n} has {n} seats. It costs {n} dollars. Its upload limit is {n} GB." for n in range(30)]
    results = [trimtab.compress(QUESTION, texts, min_coverage=share) for share in (0.2, 0.5, 0.8)]
    assert [r.coverage_estimate >= share for r, share in zip(results, (0.2, 0.5, 0.8), strict=True)] == [True] * 3
    assert results[0].tokens_after < results[1].tokens_after < results[2].tokens_after < results[2].tokens_before


def test_tokens_are_those_of_the_model_that_is_named(trimtab: Trimtab) -> None:
    text = "Überraschungsgäste 日本語 " * 5
    assert trimtab.compress("q", [text], model="gpt-4").tokens_before == count_tokens(text, "cl100k_base")
    assert trimtab.compress("q", [text], model="openai/gpt-5").tokens_before == count_tokens(text, "o200k_base")
    assert trimtab.compress("q", [text], model="no such model").tokens_before == count_tokens(text, "o200k_base")


def test_a_budget_of_nothing_keeps_nothing(trimtab: Trimtab) -> None:
    result = trimtab.compress(QUESTION, TEXTS, budget_tokens=0)
    assert (result.tokens_after, result.dropped, result.coverage_estimate) == (0, 4, 0.0)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        (("", ["a"]), "query"),
        ((" \n", ["a"]), "query"),
        ((None, ["a"]), "query"),
        (("q", []), "contexts"),
        (("q", [1]), "contexts.0"),
        (("q", ["a", {"title": "t"}]), "contexts.1.text"),
    ],
)
def test_python_callers_are_told_the_argument(trimtab: Trimtab, arguments: tuple[Any, ...], param: str) -> None:
    with pytest.raises(BadRequest) as told:
        trimtab.compress(*arguments)
    assert told.value.param == param
    assert str(told.value).startswith(f"{param}: ")


_text = st.text(st.characters(exclude_categories=()), max_size=60) | st.lists(
    st.sampled_from(
        ["5 GB. ", "Upload? ", "| a | b |\n", '{"a": [1, 2]}', "\n\n", "```\nx = 1\n", "# T\n", "… ", " , ", "\ud83d"]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(query=_text.filter(str.strip), texts=st.lists(_text, min_size=1, max_size=4), budget_tokens=st.integers(0, 60))
def test_any_text_keeps_the_contract(trimtab: Trimtab, query: str, texts: list[str], budget_tokens: int) -> None:
    once = trimtab.compress(query, texts, budget_tokens=budget_tokens)
    check(once, texts, budget_tokens)
    kept = [each.text for each in once.contexts]
    twice = trimtab.compress(query, kept, budget_tokens=budget_tokens)
    assert [each.text for each in twice.contexts] == kept
    check(twice, kept, budget_tokens)


_ALONE = """
import socket, sys
def refuse(*args, **kwargs):
    raise RuntimeError("the network was asked for")
for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse

import asyncio, httpx
from trimtab import Trimtab
from trimtab.app import create_app

trimtab = Trimtab()
contexts = ["An upload may be 5 GB. A bucket holds 100 TB.", "Data is encrypted at rest."]
python = trimtab.compress("How large may an upload be?", contexts, ratio=0.4)

async def post():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(trimtab)), base_url="http://x") as client:
        return await client.post(
            "/v1/compress", json={"query": "How large may an upload be?", "contexts": contexts, "ratio": 0.4}
        )

answer = asyncio.run(post())
assert answer.status_code == 200, answer.text
assert answer.json()["contexts"][0]["text"] == python.contexts[0].text == "An upload may be 5 GB.", python
print("alone")
"""


def test_it_needs_no_configuration_no_key_and_no_network(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", _ALONE],
        cwd=Path(__file__).parents[2],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "alone\n"), ran.stderr

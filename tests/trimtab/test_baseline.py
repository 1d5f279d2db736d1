"""The baseline of a conversation: what the caller's own model would have read and held in its cache, had nothing been cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from routing.offers import Offer, Usage
from routing.receipt import Receipt
from tests.loopback import LoopbackProvider, bad_request, ok
from tests.trimtab.asking import provider
from trimtab import Trimtab
from trimtab.baseline import Baselines

PRICES = {"input_mtok": "2", "output_mtok": "10", "cache_read_mtok": "0.2"}
CONTEXTS = [
    f"Note {n}: the depot in town {n} keeps {n * 37} crates of part {n}-A, checked by team {n}." for n in range(90)
]


@pytest.fixture
def upstream() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as server:
        yield server


@pytest.fixture
def trimtab(upstream: LoopbackProvider) -> Trimtab:
    return Trimtab(providers=[provider("a", upstream, prices=PRICES)])


def ask(
    asked: Trimtab, upstream: LoopbackProvider, question: str, billed: int, /, messages: Any = (), **more: Any
) -> Receipt:
    """The receipt of a request that the provider bills `billed` input tokens and no cache reads."""
    upstream.then(ok(usage={"prompt_tokens": billed, "completion_tokens": 10, "total_tokens": billed + 10}))
    body = {"model": "m", "messages": [*messages, {"role": "user", "content": question}], **more}
    return asyncio.run(asked.acomplete(body)).receipt


def test_a_cut_that_broke_a_warm_prefix_is_a_loss(trimtab: Trimtab, upstream: LoopbackProvider) -> None:
    """The same documents and another question: untrimmed, the documents would have been read from the cache."""
    options = {"trimtab": {"contexts": CONTEXTS, "ratio": 0.2}}
    first = ask(trimtab, upstream, "How many crates are in town 7?", 600, **options)
    assert (first.baseline_cache_read_tokens, first.cache_loss_usd) == (0, 0)
    second = ask(trimtab, upstream, "Which team checks town 12?", 600, **options)
    full = second.tokens_before
    assert full is not None
    assert full > 1_024
    warm = second.baseline_cache_read_tokens
    assert full <= warm < full + 300  # the documents and what stands around them, and not the question
    assert second.cache_loss_usd == warm * (Decimal("2") - Decimal("0.2")) / 1_000_000
    billed = 600 + full - (second.tokens_after or 0)
    cold_usd = (Decimal("2") * billed + Decimal("10") * 10) / 1_000_000
    assert second.baseline_cost_usd == cold_usd - second.cache_loss_usd
    assert second.saved_usd == second.baseline_cost_usd - Decimal("0.0013")


def test_a_saving_can_turn_into_a_loss(trimtab: Trimtab, upstream: LoopbackProvider) -> None:
    """Half the context at the full price is dearer than all of it at a tenth."""
    options = {"trimtab": {"contexts": CONTEXTS, "ratio": 0.5}}
    receipts = [ask(trimtab, upstream, f"Which team checks town {n}?", 1_400, **options) for n in (3, 40)]
    assert receipts[0].saved_usd is not None
    assert receipts[0].saved_usd > 0
    assert receipts[1].saved_usd is not None
    assert receipts[1].saved_usd < 0


def test_other_documents_are_no_warm_prefix(trimtab: Trimtab, upstream: LoopbackProvider) -> None:
    ask(trimtab, upstream, "How many crates are in town 7?", 600, trimtab={"contexts": CONTEXTS, "ratio": 0.2})
    other = [f"{text} As of May." for text in CONTEXTS]
    told = ask(trimtab, upstream, "How many crates are in town 7?", 600, trimtab={"contexts": other, "ratio": 0.2})
    assert told.baseline_cache_read_tokens == 0


def test_a_refused_request_warms_nothing(trimtab: Trimtab, upstream: LoopbackProvider) -> None:
    options = {"trimtab": {"contexts": CONTEXTS, "ratio": 0.2}}
    upstream.then(bad_request())
    body = {"model": "m", "messages": [{"role": "user", "content": "Which team checks town 3?"}], **options}
    refused = asyncio.run(trimtab.acomplete(body)).receipt
    assert refused.saved_usd is None
    assert ask(trimtab, upstream, "Which team checks town 12?", 600, **options).baseline_cache_read_tokens == 0


def test_what_was_cut_from_earlier_turns_is_in_the_baseline(trimtab: Trimtab, upstream: LoopbackProvider) -> None:
    """A second turn sends the first one as it was cut; the caller's own model would have read all of it, from its cache."""
    stuffed = "Context:\n\n" + "\n\n".join(CONTEXTS) + "\n\nQuestion: How many crates are in town 7?"
    first = ask(trimtab, upstream, stuffed, 1_500, trimtab={"ratio": 0.6})
    assert first.tokens_before is not None
    assert first.tokens_after is not None
    cut = first.tokens_before - first.tokens_after
    assert cut > 900
    before = [{"role": "user", "content": stuffed}, {"role": "assistant", "content": "Hello from loopback."}]
    second = ask(trimtab, upstream, "And in town 8?", 1_550, before)
    earlier = second.earlier_cut_tokens
    assert abs(earlier - cut) <= 2  # counted as one text, and not note by note
    assert (second.tokens_before, second.tokens_after) == (0, 0)
    warm = second.baseline_cache_read_tokens
    assert first.tokens_before < warm < first.tokens_before + 50
    assert second.baseline_cost_usd == (2 * (1_550 + earlier) - Decimal("1.8") * warm + 100) / 1_000_000
    third = ask(
        trimtab, upstream, "And in 9?", 1_600, [*before, {"role": "user", "content": "And in town 8?"}, before[1]]
    )
    assert abs(third.earlier_cut_tokens - cut) <= 2


def test_it_forgets(trimtab: Trimtab, upstream: LoopbackProvider) -> None:
    options = {"trimtab": {"contexts": CONTEXTS, "ratio": 0.2}}
    ask(trimtab, upstream, "How many crates are in town 7?", 600, **options)
    trimtab.forget()
    assert ask(trimtab, upstream, "Which team checks town 12?", 600, **options).baseline_cache_read_tokens == 0


def test_it_holds_so_many_links_and_no_more(trimtab: Trimtab, upstream: LoopbackProvider) -> None:
    trimtab.baselines = Baselines(max_links=2)
    options = {"trimtab": {"contexts": CONTEXTS, "ratio": 0.2}}
    ask(trimtab, upstream, "How many crates are in town 7?", 600, **options)
    ask(trimtab, upstream, "How is the weather?", 20)
    ask(trimtab, upstream, "How is the weather there?", 20)
    assert ask(trimtab, upstream, "Which team checks town 12?", 600, **options).baseline_cache_read_tokens == 0


def test_only_a_model_that_writes_longer_than_the_callers_own_counts(trimtab: Trimtab) -> None:
    own, other = (Offer("a", name, "sync", (), None, "") for name in ("own", "other"))
    assert trimtab.experience.usual_share(own, other) == 1.0  # nothing is known
    for _ in range(40):
        trimtab.experience.history.observed(own, "", None, Usage(10, 100))
        trimtab.experience.history.observed(other, "", None, Usage(10, 250))
    assert trimtab.experience.usual_share(own, other) == pytest.approx(0.4)
    assert trimtab.experience.usual_share(other, own) == 1.0
    assert trimtab.experience.usual_share(own, own) == 1.0

"""The receipt: what a request was expected to cost, what was billed, and what it would have cost untouched.

A receipt is opened from a plan (`opened`) and settled with what the provider reported (`settled`); both are pure.
It holds counts, names and dollars. Never text of a prompt or an answer, and never a key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from routing.offers import Offer, Usage, plain, price
from routing.planner import Plan

if TYPE_CHECKING:
    from routing.attempts import Attempt

_ANSWERED: Final = ("ok", "streaming", "cut_off", "abandoned")
"""Outcomes of an attempt that a provider may bill."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A context of which something was cut: its id, the digest of its whole text, and its tokens before and after."""

    id: str
    digest: str
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class Expansion:
    """A call of `trimtab_expand` that was answered: in which round, the digests of the contexts that it drew on, and the
    tokens of what it was given."""

    round: int
    digests: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request's account. What is not known is None, never 0.

    `at` is the moment of pricing, with its zone. `model_asked` is the caller's word; `provider`, `model` and
    `processing` are what answered (until then, what was planned). `tokens_before` and `tokens_after` count the context
    alone; input and output tokens the whole request, as estimated and as billed by the provider. `baseline_cost_usd` is
    the caller's own model at full context at the same moment. `prices_version` is that of the offer that answered.
    `earlier_cut_tokens` were cut from turns that are sent as they were sent before; `baseline_cache_read_tokens` is what
    the caller's own model would have read from its cache, had nothing ever been cut, and `cache_loss_usd` what of
    that the answer did not: it is taken off the baseline already.
    `at_once_cost_usd` is what a request that could wait would have cost had it been answered at once.
    `cache` says what the answer cache did: "hit" and "near" (an answer to another wording) cost nothing, "miss" was bought;
    None where it was not asked. `coverage_basis` says what `coverage_estimate` rests on. `notes` say what fell through,
    such as "ranking failed; the original payload was forwarded"; `stage_ms` holds (stage, milliseconds) in the order they
    ran. `cut` lists what was cut, and `expansions` what of it the model asked to see after all; what is billed counts every
    round of asking.

    When planning itself breaks, a receipt is built directly, with what is known.
    """

    id: str
    model_asked: str
    at: datetime | None = None
    provider: str | None = None
    model: str | None = None
    processing: str | None = None
    tokens_before: int | None = None
    tokens_after: int | None = None
    input_tokens_estimated: int | None = None
    output_tokens_estimated: int | None = None
    input_tokens_billed: int | None = None
    output_tokens_billed: int | None = None
    cache_read_tokens_billed: int | None = None
    cache_write_tokens_billed: int | None = None
    expected_cost_usd: Decimal | None = None
    billed_cost_usd: Decimal | None = None
    baseline_cost_usd: Decimal | None = None
    coverage_estimate: float | None = None
    coverage_basis: str | None = None
    prices_version: str | None = None
    earlier_cut_tokens: int = 0
    baseline_cache_read_tokens: int = 0
    cache_loss_usd: Decimal | None = None
    at_once_cost_usd: Decimal | None = None
    cache: str | None = None
    attempts: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    stage_ms: tuple[tuple[str, float], ...] = ()
    cut: tuple[Cut, ...] = ()
    expansions: tuple[Expansion, ...] = ()

    @property
    def saved_usd(self) -> Decimal | None:
        """The baseline less what was billed (less the expected cost where no bill is known).

        Negative where trimtab made the request dearer; it is shown as such and never floored. None where every attempt
        failed: what was not answered has saved nothing.
        """
        if self.attempts and self.attempts[-1].outcome not in _ANSWERED:
            return None
        cost_usd = self.expected_cost_usd if self.billed_cost_usd is None else self.billed_cost_usd
        return None if cost_usd is None or self.baseline_cost_usd is None else self.baseline_cost_usd - cost_usd

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON: the fields by their names, dollars as decimal strings, `stage_ms` as {"ms": {stage: ms}}."""
        return {
            "id": self.id,
            "model_asked": self.model_asked,
            "at": None if self.at is None else self.at.isoformat(timespec="milliseconds"),
            "provider": self.provider,
            "model": self.model,
            "processing": self.processing,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "input_tokens_estimated": self.input_tokens_estimated,
            "output_tokens_estimated": self.output_tokens_estimated,
            "input_tokens_billed": self.input_tokens_billed,
            "output_tokens_billed": self.output_tokens_billed,
            "cache_read_tokens_billed": self.cache_read_tokens_billed,
            "cache_write_tokens_billed": self.cache_write_tokens_billed,
            "expected_cost_usd": _plain(self.expected_cost_usd),
            "billed_cost_usd": _plain(self.billed_cost_usd),
            "baseline_cost_usd": _plain(self.baseline_cost_usd),
            "at_once_cost_usd": _plain(self.at_once_cost_usd),
            "saved_usd": _plain(self.saved_usd),
            "coverage_estimate": self.coverage_estimate,
            "coverage_basis": self.coverage_basis,
            "prices_version": self.prices_version,
            "earlier_cut_tokens": self.earlier_cut_tokens,
            "baseline_cache_read_tokens": self.baseline_cache_read_tokens,
            "cache_loss_usd": _plain(self.cache_loss_usd),
            "cache": self.cache,
            "attempts": [_fields(each) for each in self.attempts],
            "cut": [_fields(each) for each in self.cut],
            "expansions": [_fields(each) for each in self.expansions],
            "notes": list(self.notes),
            "ms": dict(self.stage_ms),
        }


def opened(
    plan: Plan,
    *,
    receipt_id: str,
    model_asked: str,
    baseline: Offer,
    tokens_before: int,
    tokens_after: int,
    at: datetime | None = None,
    coverage_basis: str | None = None,
    earlier_cut_tokens: int = 0,
    warm_tokens: int = 0,
) -> Receipt:
    """The receipt of a request that is about to be sent: estimates only.

    `baseline` is the caller's own model as it is bought without trimtab, at the prices of the plan's moment;
    `tokens_before` and `tokens_after` are the context before and after the cut that was really made,
    `earlier_cut_tokens` those cut from earlier turns. `warm_tokens` are what the baseline's cache would hold of the request
    as it came.
    """
    chosen = plan.chosen
    fixed_tokens = chosen.input_tokens - chosen.budget_tokens
    full_tokens = fixed_tokens + tokens_before + earlier_cut_tokens
    untouched = Usage(full_tokens, chosen.output_tokens, min(warm_tokens, full_tokens))
    return Receipt(
        id=receipt_id,
        model_asked=model_asked,
        at=at,
        provider=chosen.offer.provider,
        model=chosen.offer.model,
        processing=chosen.offer.processing,
        tokens_before=tokens_before,
        tokens_after=tokens_after,
        input_tokens_estimated=chosen.input_tokens,
        output_tokens_estimated=chosen.output_tokens,
        expected_cost_usd=chosen.expected_cost_usd,
        baseline_cost_usd=price(baseline, untouched),
        coverage_estimate=chosen.coverage_estimate,
        coverage_basis=coverage_basis,
        prices_version=chosen.offer.prices_version,
        earlier_cut_tokens=earlier_cut_tokens,
        baseline_cache_read_tokens=untouched.cache_read_tokens,
    )


def settled(
    receipt: Receipt,
    *,
    answered: Offer,
    baseline: Offer,
    usage: Usage | None,
    attempts: tuple[Attempt, ...] = (),
    stage_ms: tuple[tuple[str, float], ...] = (),
    notes: tuple[str, ...] = (),
    marked: bool = False,
    usual_share: float = 1.0,
) -> Receipt:
    """The receipt once `answered` has answered and reported `usage` (None where it said nothing, or nothing readable).

    The baseline is reckoned again on the billed counts: the billed input plus all that was cut. So a wrong estimate of the
    answer's length is no saving. Where the answering model is known to write longer than the caller's own, `usual_share` is
    the share of its output that the latter would have written, 1 at most; the rest counts against what was saved.

    The caller's own model would have read from its cache what was read now, and at least what it would hold had nothing
    been cut (`baseline_cache_read_tokens`): so a cache that would have been warm anyway is no saving, and one that a cut
    made useless is a loss. Of a prefix that we `marked`, and not the caller, it would have read and written nothing.

    `attempts`, `stage_ms` and `notes` are added to those on the receipt.
    """
    receipt = replace(
        receipt,
        provider=answered.provider,
        model=answered.model,
        processing=answered.processing,
        prices_version=answered.prices_version,
        attempts=receipt.attempts + attempts,
        stage_ms=receipt.stage_ms + stage_ms,
        notes=receipt.notes + notes,
    )
    if usage is None:
        return receipt
    untouched, as_cold = _untouched(receipt, usage, marked, usual_share)
    baseline_usd = price(baseline, untouched)
    return replace(
        billed(receipt, usage),
        billed_cost_usd=price(answered, usage),
        baseline_cost_usd=baseline_usd,
        baseline_cache_read_tokens=untouched.cache_read_tokens,
        cache_loss_usd=price(baseline, as_cold) - baseline_usd,
    )


def _untouched(receipt: Receipt, usage: Usage, marked: bool, usual_share: float) -> tuple[Usage, Usage]:
    """What the caller's own model would have billed; and the same with no more read from its cache than was read now."""
    read_tokens = 0 if marked else usage.cache_read_tokens
    write_tokens = 0 if marked else usage.cache_write_tokens
    cut_tokens = (receipt.tokens_before or 0) - (receipt.tokens_after or 0) + receipt.earlier_cut_tokens
    input_tokens = max(read_tokens + write_tokens, usage.input_tokens + cut_tokens)
    output_tokens = math.ceil(usage.output_tokens * min(1.0, usual_share))
    as_cold = Usage(input_tokens, output_tokens, read_tokens, write_tokens)
    warm_tokens = min(max(read_tokens, receipt.baseline_cache_read_tokens), input_tokens)
    # what is read need not be written
    written_tokens = max(0, min(write_tokens - (warm_tokens - read_tokens), input_tokens - warm_tokens))
    return Usage(input_tokens, output_tokens, warm_tokens, written_tokens), as_cold


def billed(receipt: Receipt, usage: Usage) -> Receipt:
    """The receipt with the tokens that were billed, and no word on what they cost."""
    return replace(
        receipt,
        input_tokens_billed=usage.input_tokens,
        output_tokens_billed=usage.output_tokens,
        cache_read_tokens_billed=usage.cache_read_tokens,
        cache_write_tokens_billed=usage.cache_write_tokens,
    )


def _fields(flat: Attempt | Cut | Expansion) -> dict[str, object]:
    """The fields by their names. Not dataclasses.asdict: it copies every value deeply, which took a tenth of a millisecond."""
    return {name: getattr(flat, name) for name in flat.__slots__}


def _plain(amount_usd: Decimal | None) -> str | None:
    return None if amount_usd is None else plain(amount_usd)

"""Prepared: a request that is ready to be sent, and the pure steps on the way there."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from compressor import Ranking
from compressor.citations import Shown
from compressor.ranking import whole
from compressor.tokens import count_each
from routing.costs import Carried
from routing.offers import Offer, Usage, price
from routing.planner import Candidate, Needs, Plan
from routing.prompt_cache import CacheRules, Link
from routing.receipt import Receipt, opened
from routing.standing import Called, called
from trimtab.baseline import NOT_KNOWN, Untouched
from trimtab.cache_marks import marked
from trimtab.contexts import Original
from trimtab.expansion import Expander
from trimtab.request import EXPECTED_OUTPUT_TOKENS, Request, cap, max_output_tokens

Body = Mapping[str, Any]

WORTH_TRIMMING_TOKENS: Final = 256
"""Below it a cut saves less than a hundredth of a cent: only an explicit budget is obeyed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to be sent: the reduced body, who may answer it in what order, and the open receipt.

    `shown` are the documents that were cut and may be cited, by number; `originals` all that was cut, and `expander`
    answers the model's calls for more of it, where it may make them. `chain` is the body as prompt caches know it,
    `marked` what goes in its place to an offer whose cache wants marks; `asked` is the request as it came, with the tokens
    that may not be cut, and `untouched` with all of them. `ranking` is None where it broke.
    """

    request: Request
    body: Body
    offers: tuple[Offer, ...]
    baseline: Offer
    plan: Plan
    receipt: Receipt
    shown: Mapping[int, Shown] = field(default_factory=dict)
    chain: tuple[Link, ...] = ()
    marked: Mapping[Called, Body] = field(default_factory=dict)
    asked: tuple[Link, ...] = ()
    originals: tuple[Original, ...] = ()
    expander: Expander | None = None
    ranking: Ranking | None = None
    untouched: Untouched = NOT_KNOWN

    @property
    def max_latency_ms(self) -> float | None:
        return self.request.options.max_latency_ms


def needs_of(request: Request, ranking: Ranking, carried: Carried, min_coverage: float) -> Needs:
    """What the caller needs of an answer; `min_coverage` is what holds where no budget is asked for."""
    options = request.options
    most = cap(ranking.full_tokens, options.ratio, options.budget_tokens)
    coverage = options.min_coverage
    if most is None and coverage is None and options.wrong_answer_usd is None:
        worth = ranking.full_tokens >= WORTH_TRIMMING_TOKENS
        coverage = min_coverage if worth else 1.0
    if coverage is not None and not request.payload.query.strip():
        coverage = 1.0  # without a question nobody can say what is evidence: only what loses nothing may go
    fixed = sum(request.fixed_tokens.values())
    longest = max_output_tokens(request.asked, request.answers)
    return Needs(
        fixed_tokens=fixed,
        output_tokens=longest or EXPECTED_OUTPUT_TOKENS * request.answers,
        max_output_tokens=longest,
        budget_tokens=most,
        min_coverage=coverage,
        max_cost_usd=options.max_cost_usd,
        wrong_answer_usd=options.wrong_answer_usd,
        min_quality=options.min_quality,
        max_latency_ms=options.max_latency_ms,
        deadline_s=options.deadline_s,
        carried=carried,
    )


def marked_for(request: Request, body: Body, chosen: Candidate, turn: int, rules: CacheRules) -> Mapping[Called, Body]:
    """What goes to the chosen offer instead of `body`, where its prefix, up to `turn` as it came, is worth marking for the
    provider's cache."""
    if not (chosen.marks_cache or (chosen.cache_read_tokens and rules.marked)):
        return {}
    with_mark = marked(request.api, body, request.sent_turn(body, turn))
    return {} if with_mark is None else {called(chosen.offer): with_mark}


def untouched(request: Request, note: str, now: datetime) -> Prepared:
    """The request as it came, for the caller's own model: what is sent when trimming or planning breaks."""
    first, payload = request.offers[0], request.payload
    kept = whole(payload.sources)
    context = sum(count_each([each.text for each in kept], request.encoding))
    longest = max_output_tokens(request.asked, request.answers)
    usage = Usage(sum(request.fixed_tokens.values()) + context, longest or EXPECTED_OUTPUT_TOKENS * request.answers)
    cost = price(first, usage)
    only = Candidate(first, context, usage.input_tokens, usage.output_tokens, cost, 1.0)
    unplanned = Plan(only, first.prices_version)
    receipt = opened(
        unplanned,
        receipt_id=receipt_id(),
        model_asked=request.model,
        baseline=request.admitted.baseline,
        tokens_before=context,
        tokens_after=context,
        at=now,
    )
    receipt = replace(receipt, notes=(note,))
    offers = answering(request.admitted.in_turn(request.offers))
    return Prepared(request, payload.rebuilt(kept), offers, request.admitted.baseline, unplanned, receipt)


def answering(offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """Those of `offers` that answer a call: a batch does not."""
    return tuple(each for each in offers if each.processing != "batch")


def receipt_id() -> str:
    """A new one."""
    return f"rcpt_{uuid.uuid4().hex}"

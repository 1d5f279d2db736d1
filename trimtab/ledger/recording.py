"""Recording: what a request that is over leaves in the ledger. Pure, and CPU-bound: not for an event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from routing.attempts import Attempt
from routing.offers import Offer
from routing.planner import Plan
from routing.receipt import Receipt
from trimtab.conclusion import Conclusion
from trimtab.contexts import Original
from trimtab.ledger.entries import Entry
from trimtab.prepared import Prepared
from trimtab.surfaces import tongue_of

CURVE_POINTS: Final = 20
RUNNERS_UP: Final = 8
"""Of a plan, the cheapest are kept."""
MOST_TURNS: Final = 64
"""Of a conversation, the first are kept: caches hold beginnings."""
MOST_SPANS: Final = 200
"""Of one context; of one that was cut finer, the first are kept."""
MOST_PAIRS, MOST_NAME_CHARACTERS, MOST_CHARACTERS = 16, 64, 512
"""What OpenAI admits in `metadata`; it holds for every tag."""


def entry_of(conclusion: Conclusion, request_id: str = "", *, with_text: bool = False) -> Entry:
    """The request's line. `with_text` keeps its body as it came, which is all of the prompt."""
    prepared, receipt, caller = conclusion.prepared, conclusion.receipt, conclusion.caller
    request = prepared.request
    outcome = _outcome(conclusion)
    answered = 200 <= conclusion.status < 300
    cost_usd = _cost_usd(receipt, answered)
    priced = answered and cost_usd is not None and receipt.baseline_cost_usd is not None
    boundary_tokens, over_tokens = _boundary(prepared, receipt)
    provider_ms = [ms for stage, ms in receipt.stage_ms if stage == "provider"]
    prefix = prepared.asked[0] if prepared.asked else None
    return Entry(
        receipt_id=receipt.id,
        at=receipt.at or datetime.now(UTC),
        model_asked=_clean(receipt.model_asked),
        tenant=caller.tenant,
        key=caller.key,
        team=caller.team,
        request_id=request_id,
        route=_clean(request.options.route),
        user=_user(request.asked),
        surface=tongue_of(request.api).name,
        stream=conclusion.stream,
        status=conclusion.status,
        outcome=outcome,
        answered=answered,
        attempts=len(receipt.attempts),
        provider=_clean(receipt.provider or ""),
        model=_clean(receipt.model or ""),
        processing=receipt.processing or "",
        baseline_provider=_clean(prepared.baseline.provider),
        baseline_model=_clean(prepared.baseline.model),
        prices_version=_clean(receipt.prices_version or ""),
        tokens_before=receipt.tokens_before,
        tokens_after=receipt.tokens_after,
        input_tokens_estimated=receipt.input_tokens_estimated,
        output_tokens_estimated=receipt.output_tokens_estimated,
        input_tokens_billed=receipt.input_tokens_billed,
        output_tokens_billed=receipt.output_tokens_billed,
        cache_read_tokens_billed=receipt.cache_read_tokens_billed,
        cache_write_tokens_billed=receipt.cache_write_tokens_billed,
        expected_usd=receipt.expected_cost_usd,
        billed_usd=receipt.billed_cost_usd,
        cost_usd=cost_usd,
        baseline_usd=receipt.baseline_cost_usd if answered else None,
        saved_usd=receipt.baseline_cost_usd - cost_usd if priced else None,  # type: ignore[operator]
        cache_loss_usd=receipt.cache_loss_usd if priced else None,
        coverage_estimate=receipt.coverage_estimate,
        boundary_tokens=boundary_tokens,
        over_boundary_tokens=over_tokens,
        trimtab_ms=round(sum(ms for stage, ms in receipt.stage_ms if stage != "provider"), 3),
        provider_ms=round(sum(provider_ms), 3) if provider_ms else None,
        first_byte_ms=receipt.attempts[-1].first_byte_ms if receipt.attempts else None,
        prefix_digest="" if prefix is None else prefix.digest.hex()[:32],
        prefix_tokens=None if prefix is None else prefix.tokens,
        detail=_detail(prepared, receipt, with_text),
    )


def _outcome(conclusion: Conclusion) -> str:
    if conclusion.receipt.attempts:
        return conclusion.receipt.attempts[-1].outcome
    return {499: "abandoned", 504: "timeout"}.get(conclusion.status, "ok" if conclusion.status < 400 else "failed")


def _cost_usd(receipt: Receipt, answered: bool) -> Decimal | None:
    """What counts as spent. A request that nobody answered is taken to have cost nothing, whatever was expected of it."""
    if receipt.billed_cost_usd is not None:
        return receipt.billed_cost_usd
    return receipt.expected_cost_usd if answered else Decimal(0)


def _boundary(prepared: Prepared, receipt: Receipt) -> tuple[int | None, int | None]:
    """The price boundary nearest to the input, and how far above it the input was."""
    offer = _answering(prepared, receipt)
    known = receipt.input_tokens_billed
    tokens = receipt.input_tokens_estimated if known is None else known
    if tokens is None or not offer.boundaries:
        return None, None
    boundary = min(offer.boundaries, key=lambda each: abs(each - tokens))
    return boundary, tokens - boundary


def _answering(prepared: Prepared, receipt: Receipt) -> Offer:
    name = (receipt.provider, receipt.model, receipt.processing)
    found = (each for each in prepared.offers if (each.provider, each.model, each.processing) == name)
    return next(found, prepared.plan.chosen.offer)


def _detail(prepared: Prepared, receipt: Receipt, with_text: bool) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "coverage_basis": receipt.coverage_basis,
        "attempts": [{name: getattr(each, name) for name in Attempt.__slots__} for each in receipt.attempts],
        "cut": [_cut(each) for each in prepared.originals],
        "expansions": [asdict(each) for each in receipt.expansions],
        # where no price is known the plan was made with one that only says "fewer tokens": no dollar of it is true
        "plan": None if receipt.expected_cost_usd is None else _plan(prepared.plan),
        "curve": _curve(prepared),
        "stage_ms": dict(receipt.stage_ms),
        "metadata": _metadata(prepared.request.asked),
        "notes": list(receipt.notes),
        "turns": [[link.digest.hex()[:32], link.tokens] for link in prepared.asked[:MOST_TURNS]],
    }
    if with_text:
        detail["body"] = prepared.request.asked
    return detail


def _cut(original: Original) -> dict[str, Any]:
    """A context of which something was dropped: all of its characters that are in no kept span."""
    cut = original.cut
    return {
        "id": _clean(cut.id),
        "digest": cut.digest,
        "tokens_before": cut.tokens_before,
        "tokens_after": cut.tokens_after,
        "characters": len(original.source.text),
        "kept_spans": original.kept.spans[:MOST_SPANS],
    }


def _plan(plan: Plan) -> dict[str, object]:
    told = plan.to_dict(RUNNERS_UP)
    told["considered"] = len(plan.behind) + 1
    return told


def _curve(prepared: Prepared) -> list[list[float]]:
    """Pairs of a budget in tokens and the coverage that it buys, from nothing to all."""
    ranking = prepared.ranking
    if ranking is None or not ranking.full_tokens:
        return []
    budgets = dict.fromkeys(ranking.full_tokens * step // CURVE_POINTS for step in range(CURVE_POINTS + 1))
    return [[budget, round(ranking.coverage(budget), 4)] for budget in budgets]


def _user(body: Mapping[str, Any]) -> str:
    """Whom the caller asks for: OpenAI's `user` or `safety_identifier`, Anthropic's `metadata.user_id`."""
    metadata = body.get("metadata")
    within = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    named = (body.get("user"), body.get("safety_identifier"), within)
    return next((_clean(each) for each in named if isinstance(each, str) and each), "")


def _metadata(body: Mapping[str, Any]) -> dict[str, str]:
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        return {}
    plain = [(name, each) for name, each in metadata.items() if isinstance(each, (str, int, float))]
    return {_clean(str(name))[:MOST_NAME_CHARACTERS]: _clean(str(each)) for name, each in _first(plain)}


def _first(pairs: Sequence[tuple[Any, Any]]) -> Sequence[tuple[Any, Any]]:
    return pairs[:MOST_PAIRS]


def _clean(text: str) -> str:
    """A tag as any database takes it: PostgreSQL has no NUL, UTF-8 no half surrogate pair."""
    if text.isascii() and "\x00" not in text:  # nearly all of them
        return text[:MOST_CHARACTERS]
    return text[:MOST_CHARACTERS].replace("\x00", "").encode("utf-8", "replace").decode("utf-8")

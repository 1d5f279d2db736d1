"""Accounts: what is noted of an answer that is kept, and the receipt of a request that it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from compressor.ranking import whole
from routing.chat_answer import to_bytes
from routing.offers import Usage, price
from routing.receipt import Receipt
from routing.replies import Reply
from routing.standing import called
from trimtab.answers.cache import Found, Looking
from trimtab.answers.entry import Entry, worth_keeping
from trimtab.answers.replay import folded
from trimtab.contexts import digest_of
from trimtab.prepared import Prepared
from trimtab.surfaces import Surface

if TYPE_CHECKING:
    from trimtab.pipeline import Trimtab


def entry_for(
    looking: Looking, surface: Surface, prepared: Prepared, reply: Reply, receipt: Receipt, content: bytes, stream: bool
) -> Entry | None:
    """What is kept of an answer that is over; None for one that is not to be kept. CPU-bound."""
    whole_and_well = reply.status == 200 and bool(reply.attempts) and reply.attempts[-1].outcome == "ok"
    if not whole_and_well:
        return None
    if stream:
        made = folded(surface.tongue.name, content)
        content = b"" if made is None else to_bytes(made)
    else:
        try:
            made = orjson.loads(content)
        except orjson.JSONDecodeError:
            return None
    if not isinstance(made, Mapping) or not worth_keeping(surface.tongue.name, made):
        return None
    usage = reply.usage
    read = receipt.input_tokens_estimated if usage is None else usage.input_tokens
    written = receipt.output_tokens_estimated if usage is None else usage.output_tokens
    cut = (receipt.tokens_before or 0) - (receipt.tokens_after or 0) + receipt.earlier_cut_tokens
    return Entry(
        name=looking.name.hex(),
        at_s=looking.came_s,
        contexts=tuple(dict.fromkeys(digest_of(each.text) for each in prepared.request.payload.sources)),
        provider=reply.offer.provider,
        model=reply.offer.model,
        processing=reply.offer.processing,
        prices_version=reply.offer.prices_version or "",
        input_tokens=max(0, (read or 0) + cut),
        output_tokens=written or 0,
        tokens_before=receipt.tokens_before or 0,
        receipt_id=receipt.id,
        answer=content,
    )


def prepared_from(trimtab: Trimtab, surface: Surface, body: Mapping[str, Any], found: Found) -> Prepared:
    """The request as one that the cache answers: nothing is trimmed, planned or sent. CPU-bound. Raises as `prepare`.

    Its receipt says what the caller's own model would have billed at full context, with what its prompt cache would have
    held by then; it would hold this request too from now on. What is billed is nothing.
    """
    prepared = trimtab.unplanned(body, (), surface.api)
    request, own, entry = prepared.request, prepared.baseline, found.entry
    rules = trimtab.experience.rules(own)
    sent = request.sent_chain(prepared.body, whole(request.payload.sources))
    known = trimtab.baselines.untouched(called(own), request, prepared.body, sent, (), rules)
    warm_tokens = trimtab.baselines.warm_tokens(called(own), known, rules, time.monotonic())
    trimtab.baselines.came(called(own), known, time.monotonic())
    usage = Usage(entry.input_tokens, entry.output_tokens, min(warm_tokens, entry.input_tokens))
    receipt = replace(
        prepared.receipt,
        provider=entry.provider,
        model=entry.model,
        processing=entry.processing,
        prices_version=entry.prices_version or None,
        tokens_after=0,
        input_tokens_billed=0,
        output_tokens_billed=0,
        cache_read_tokens_billed=0,
        cache_write_tokens_billed=0,
        expected_cost_usd=Decimal(0),
        billed_cost_usd=Decimal(0),
        baseline_cost_usd=price(own, usage),
        baseline_cache_read_tokens=usage.cache_read_tokens,
        coverage_estimate=None,
        cache=found.how,
        notes=(f"answered from the answer cache, {found.age_s:.0f} s after {entry.receipt_id} paid for it",),
    )
    return replace(prepared, receipt=receipt)

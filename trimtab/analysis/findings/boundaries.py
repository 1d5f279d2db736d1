"""Requests just above a boundary from which every token is dearer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.analysis.changes import Change
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import counted

_JUST_ABOVE: Final = 0.15


def near_boundaries(study: Study) -> Iterator[Finding]:
    """For each model and boundary, the requests that stand above it by up to a seventh."""
    found: dict[tuple[str, int], list[Change]] = {}
    for i, request in enumerate(study.requests):
        offer = study.prices.offer(request, request.model, request.processing)
        if offer is None:
            continue
        tokens = study.usage(i).input_tokens
        boundary = max((each for each in offer.boundaries if each < tokens), default=None)
        if boundary is not None and tokens <= boundary * (1 + _JUST_ABOVE):
            found.setdefault((request.model, boundary), []).append(Change(i, at_most_tokens=boundary))
    for (model, boundary), changes in found.items():
        requests = [change.request for change in changes]
        over = [study.usage(i).input_tokens - boundary for i in requests]
        context = sum(1 for i, tokens in zip(requests, over, strict=True) if _context_tokens(study, i) >= tokens)
        known = any(study.requests[i].api is not None for i in requests)
        cuttable = f" In {context:,} of them the retrieved context alone is as large as that." if known else ""
        yield Finding(
            kind="tier-boundary",
            title=f"{counted(len(changes), 'request')} of {model} just above {boundary:,} input tokens, "
            "where every token gets dearer",
            advice=f"Cut {_span(over)} tokens of context (a budget of {boundary:,} in all).{cuttable}",
            reckoned=f"the whole request at the price below {boundary:,} tokens, with the input cut to exactly that",
            basis="measured" if study.measured(requests) else "estimated",
            changes=tuple(changes),
            tokens=sum(over),
        )


def _span(counts: list[int]) -> str:
    return f"{min(counts):,} to {max(counts):,}" if min(counts) < max(counts) else f"{counts[0]:,}"


def _context_tokens(study: Study, i: int) -> int:
    """About how many tokens the retrieved contexts have: their share of the characters."""
    anatomy = study.anatomies[i]
    if anatomy.payload is None:
        return 0
    return (
        sum(len(source.text) for source in anatomy.payload.sources)
        * anatomy.input_tokens
        // max(1, sum(len(part.text) for part in anatomy.parts))
    )

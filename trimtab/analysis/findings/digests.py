"""Prefixes that change from request to request, told by their digests alone: what the ledger holds of them.

What of them stays the same nobody can say without the texts. So this says where to look, and what there is to gain at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from trimtab.analysis.changes import Change
from trimtab.analysis.study import Finding, Study

_FEWEST: Final = 20
_CHANGING: Final = 0.9
_SPREAD: Final = 0.05
"""Between the shortest and the longest: prefixes of one application differ in a name or a time, and so little in length."""


def changing_prefixes(study: Study) -> Iterator[Finding]:
    """For each model and route, where nearly every request has a prefix of its own, all about as long."""
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for i, request in enumerate(study.requests):
        if request.prefix is not None and request.prefix.tokens >= study.cache_rules(i).minimum_tokens > 0:
            found.setdefault((request.model, request.signs[:1]), []).append(i)
    for (model, signs), requests in found.items():
        prefixes = [prefix for i in requests if (prefix := study.requests[i].prefix) is not None]
        least, most = (pick(prefix.tokens for prefix in prefixes) for pick in (min, max))
        if len(requests) < _FEWEST or len({prefix.digest for prefix in prefixes}) < _CHANGING * len(requests):
            continue
        if most - least > _SPREAD * most:
            continue
        changes = tuple(
            Change(i, cached_tokens=least, minimum_tokens=study.cache_rules(i).minimum_tokens)
            for before, i in pairwise(requests)
            if _soon(study, before, i) and study.usage(i).cache_read_tokens < least
        )
        if not changes or study.saved_usd(changes) <= 0:
            continue
        route = f" of the route {signs[0]}" if signs else ""
        yield Finding(
            kind="changing-prefix",
            title=f"{len(requests):,} requests of {model}{route} begin with {least:,} tokens or so, "
            "others nearly each time",
            advice="Record some of these requests with their texts and analyse them: a time, a name or an order of tools in what "
            "stands before the conversation can be moved behind it.",
            reckoned=f"at most: {least:,} tokens at the cache's price in each request that soon follows another, "
            "if nearly all of them could stay the same, which digests cannot say",
            basis="estimated",
            changes=changes,
            tokens=sum(least - study.usage(change.request).cache_read_tokens for change in changes),
        )


def _soon(study: Study, before: int, i: int) -> bool:
    """Whether the cache still remembers the request before."""
    first, second = study.requests[before].at, study.requests[i].at
    return (
        first is not None and second is not None and (second - first).total_seconds() < study.cache_rules(i).lifetime_s
    )

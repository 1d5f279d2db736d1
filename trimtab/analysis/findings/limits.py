"""max_tokens far above what is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trimtab.analysis.changes import Change
from trimtab.analysis.study import Finding, Study
from trimtab.request import max_output_tokens

_FEWEST: Final = 20
_TIMES: Final = 8
_LEAST_TOKENS: Final = 2_000


def far_limits(study: Study) -> Iterator[Finding]:
    """For each group, where the largest answer is an eighth of what was allowed, or less."""
    for group in study.groups:
        limits = {
            i: limit
            for i in group.requests
            if study.requests[i].usage is not None and (limit := max_output_tokens(study.requests[i].body, 1))
        }
        if len(limits) < _FEWEST:
            continue
        most = max(study.usage(i).output_tokens for i in limits)
        far = {
            i: limit for i, limit in limits.items() if limit >= _TIMES * max(1, most) and limit - most >= _LEAST_TOKENS
        }
        if len(far) < _FEWEST:
            continue
        enough = -(-2 * max(most, 1) // 100) * 100
        yield Finding(
            kind="far-limit",
            title=f"max_tokens is up to {max(far.values()):,} in {len(far):,} requests of {group.model} "
            f"whose longest answer has {most:,}",
            advice=f"Set it to {enough:,} (twice the longest answer).",
            reckoned="no dollars: only what is written is billed. OpenAI and others count the limit against tokens a minute, "
            "and reserved capacity is sized by it, so it costs room and not money",
            basis="measured",
            changes=tuple(Change(i) for i in far),
        )

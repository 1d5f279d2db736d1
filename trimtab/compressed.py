"""Compressed: what is left of texts that were cut, without a request around them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from compressor import Kept, Ranking
from compressor.tokens import encoding_for_model
from trimtab.errors import BadRequest
from trimtab.options import CompressIn, sources_of
from trimtab.prepared import WORTH_TRIMMING_TOKENS
from trimtab.ranking_pool import Ranks
from trimtab.request import cap


@dataclass(frozen=True, slots=True)
class Compressed:
    """What `compress` gives: one entry of `contexts` for every input, in order; `dropped` counts the emptied ones."""

    contexts: tuple[Kept, ...]
    tokens_before: int
    tokens_after: int
    coverage_estimate: float
    dropped: int
    ms: float
    lossless_tokens: int = 0
    coverage_basis: str = ""


def compressed(ranker: Ranks, min_coverage: float, asked: CompressIn) -> Compressed:
    """The contexts of a checked body, cut to what it asks for; `min_coverage` holds where it asks for nothing."""
    began = time.perf_counter()
    ranking, budget_tokens = ranked(ranker, min_coverage, asked)
    trimmed = ranking.cut(budget_tokens)
    return Compressed(
        trimmed.contexts,
        trimmed.tokens_before,
        trimmed.tokens_after,
        trimmed.coverage_estimate,
        trimmed.dropped,
        (time.perf_counter() - began) * 1000,
        trimmed.lossless_tokens,
        trimmed.coverage_basis,
    )


def ranked(ranker: Ranks, min_coverage: float, asked: CompressIn) -> tuple[Ranking, int]:
    """The ranking of a checked body's contexts, and the budget in tokens that it asks for. Raises BadRequest."""
    if not asked.query.strip():
        raise BadRequest("query", "must say what the contexts are needed for, and is blank")
    ranking = ranker.rank(asked.query, sources_of(asked.contexts), encoding_for_model(asked.model or ""))
    most = cap(ranking.full_tokens, asked.ratio, asked.budget_tokens)
    if most is not None and asked.min_coverage is None:
        return ranking, most
    if ranking.full_tokens < WORTH_TRIMMING_TOKENS:
        return ranking, ranking.full_tokens if most is None else most
    needed = ranking.budget_for(asked.min_coverage or min_coverage)
    return ranking, needed if most is None else min(most, needed)

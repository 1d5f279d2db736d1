"""Retrieved texts, cut to what a question needs, as the retrieval frameworks hand them over.

What their compressors share. Knows nothing of the frameworks' own classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.ranking import Kept, Ranking
from trimtab.errors import TrimtabError
from trimtab.options import CompressIn, checked
from trimtab.pipeline import Trimtab

logger = logging.getLogger("trimtab")


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of one text: `text`, made of the slices `spans` of the original, and the share of the evidence, 0 to 1,
    that the whole text was expected to hold (the shares of a call sum to 1); None where nothing was ranked."""

    text: str
    spans: tuple[tuple[int, int], ...]
    score: float | None

    def to_metadata(self) -> dict[str, Any]:
        """For a document's metadata: {"spans": [[start, end], ...], "score": share}."""
        return {"spans": [list(span) for span in self.spans], "score": self.score}


def cut_texts(
    trimtab: Trimtab, query: str, texts: Sequence[tuple[str, str]], size: Mapping[str, float | int | str | None]
) -> tuple[Cut, ...]:
    """One `Cut` for each (text, title), in order; an empty text for one of which nothing is kept.

    `size` holds `ratio`, `budget_tokens`, `min_coverage` and `model`, as `Trimtab.compress` takes them. Without a question,
    and where ranking fails, every text is kept whole. Raises BadRequest for a size that cannot be.
    """
    asked_size = checked(CompressIn, {"query": "any", "contexts": ["any"], **size}, None)  # before anything is given up
    if not texts or not query.strip():
        return _whole(texts)
    contexts = [{"text": text, "title": title} for text, title in texts]
    try:
        asked = checked(
            CompressIn, {"query": query, "contexts": contexts, **asked_size.model_dump(exclude=_ASKED)}, None
        )
        ranking, budget_tokens = trimtab.ranked(asked)
        kept = ranking.cut(budget_tokens).contexts
        scores = _scores(ranking)
    except TrimtabError:
        raise
    except Exception as defect:  # noqa: BLE001 (a defect of ours must not cost an answer)
        logger.error("trimming failed (%s); the retrieved texts are kept whole", type(defect).__name__)
        return _whole(texts)
    return tuple(_cut(each, score) for each, score in zip(kept, scores, strict=True))


_ASKED = {"query", "contexts"}


def _cut(kept: Kept, score: float) -> Cut:
    return Cut(kept.text, kept.spans, round(score, 4))


def _scores(ranking: Ranking) -> list[float]:
    sources = [segment.source for segment in ranking.segments]
    return [float(share) for share in np.bincount(sources, ranking.probabilities, len(ranking.sources))]


def _whole(texts: Sequence[tuple[str, str]]) -> tuple[Cut, ...]:
    return tuple(Cut(text, ((0, len(text)),) if text else (), None) for text, _ in texts)

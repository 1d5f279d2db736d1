"""The encoder seam: strings in, unit vectors out. Knows nothing of models, caches, scores or budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to read in one pass, and the character spans of it that each get a vector."""

    text: str
    spans: tuple[Span, ...]
    title: str = ""


class Encoder(Protocol):
    """Turns passages into vectors. `identity` names everything that the vectors depend on: it is their cache key."""

    @property
    def identity(self) -> str: ...

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        """One array of shape (len(passage.spans), dimension) a passage, rows of unit length (zero for a span without tokens)."""
        ...

"""Nearest neighbours by inner product, through FAISS: exact while that is fast, approximate when it is not."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.encoder import Vectors

Rows = NDArray[np.int64]

EXACT_BELOW = 10_000  # rows. Above, a graph (HNSW: Malkov and Yashunin, arXiv 1603.09320) finds neighbours in log time
_LINKS = 32
_BUILD_EFFORT = 80
_SEARCH_EFFORT = 128


class VectorIndex:
    """An index over the rows of `vectors` (shape (n, dimension), unit length). Grows by `add`; rows keep their numbers."""

    def __init__(self, vectors: Vectors) -> None:
        self._rows = np.ascontiguousarray(vectors, np.float32)
        self._index = self._build(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def exact(self) -> bool:
        """Whether `search` returns the true nearest rows, or very probably most of them."""
        return len(self._rows) < EXACT_BELOW

    def add(self, vectors: Vectors) -> None:
        """Append rows."""
        was_exact, new = self.exact, np.ascontiguousarray(vectors, np.float32)
        self._rows = np.concatenate([self._rows, new])
        if was_exact and not self.exact:
            self._index = self._build(self._rows)
        else:
            self._index.add(new)

    def search(self, queries: Vectors, k: int, allowed: Rows | None = None) -> tuple[Vectors, Rows]:
        """The `k` rows nearest to each query, best first: (scores, rows), both of shape (len(queries), k).

        Among `allowed` rows only, when given. Fewer than k: the rest of `rows` is -1.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if allowed is not None and len(allowed) < EXACT_BELOW:  # a graph loses its way among few allowed rows
            scores, places = faiss.knn(queries, self._rows[allowed], k, faiss.METRIC_INNER_PRODUCT)
            return scores, np.where(places >= 0, np.append(allowed, -1)[places], -1)
        effort = None if self.exact else faiss.SearchParametersHNSW(efSearch=max(_SEARCH_EFFORT, 2 * k))
        if effort is not None and allowed is not None:
            effort.sel = faiss.IDSelectorBatch(allowed)
        scores, rows = self._index.search(queries, k, params=effort)
        return scores, rows

    @staticmethod
    def _build(rows: Vectors) -> faiss.Index:
        if len(rows) < EXACT_BELOW:
            index = faiss.IndexFlatIP(rows.shape[1])
        else:
            index = faiss.IndexHNSWFlat(rows.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _BUILD_EFFORT
        index.add(rows)
        return index


def near_duplicates(vectors: Vectors, threshold: float) -> Rows:
    """For each row, the first row that stands for it: one that no earlier row stands for, and whose inner product with it
    is at least `threshold`. Its own number if there is none.

    So no chain a~b~c joins unlike ends. Exact below `EXACT_BELOW` rows; above, a group of more than 16 may be split.
    """
    n = len(vectors)
    representative = np.arange(n, dtype=np.int64)
    for row, neighbours in _neighbours_above(vectors, threshold):
        earlier = [int(other) for other in neighbours if other < row and representative[other] == other]
        if earlier:
            representative[row] = min(earlier)
    return representative


def _neighbours_above(vectors: Vectors, threshold: float) -> Iterator[tuple[int, Rows]]:
    index = VectorIndex(vectors)
    block = 1024
    above = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))  # FAISS means "greater than"
    for start in range(0, len(vectors), block):
        queries = np.ascontiguousarray(vectors[start : start + block], np.float32)
        if index.exact:
            limits, _, rows = index._index.range_search(queries, above)
            for i in range(len(queries)):
                yield start + i, rows[limits[i] : limits[i + 1]]
        else:
            scores, rows = index.search(queries, 16)
            for i in range(len(queries)):
                yield start + i, rows[i][scores[i] >= threshold]

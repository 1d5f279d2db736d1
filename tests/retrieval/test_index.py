"""The index against brute force: equal where it is exact, and nearly so where it is a graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retrieval.index
from retrieval import VectorIndex, near_duplicates
from retrieval.encoder import Vectors
from retrieval.index import EXACT_BELOW, Rows


def unit(rng: np.random.Generator, n: int, dimension: int = 16) -> Vectors:
    vectors = rng.normal(size=(n, dimension))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def like_texts(rng: np.random.Generator, n: int) -> Vectors:
    """Clustered, as vectors of texts are: some are near each other and most are not."""
    centres = unit(rng, 100, 48)
    vectors = centres[rng.integers(0, len(centres), n)] + 0.6 * unit(rng, n, 48)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def brute_force(vectors: Vectors, queries: Vectors, k: int, allowed: Rows | None = None) -> list[list[int]]:
    rows = np.arange(len(vectors)) if allowed is None else allowed
    products = queries.astype(np.float64) @ vectors[rows].T.astype(np.float64)
    return [rows[np.argsort(-line, kind="stable")[:k]].tolist() for line in products]


def recall(index: VectorIndex, vectors: Vectors, queries: Vectors, k: int, allowed: Rows | None = None) -> float:
    _, found = index.search(queries, k, allowed)
    true = brute_force(vectors, queries, k, allowed)
    return float(np.mean([len(set(a) & set(b.tolist())) / len(a) for a, b in zip(true, found, strict=True)]))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), k=st.integers(1, 70), some=st.booleans())
def test_exact_is_brute_force(seed: int, n: int, k: int, some: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = unit(rng, n), unit(rng, 3)
    allowed = np.sort(rng.choice(n, rng.integers(1, n + 1), replace=False)) if some else None
    index = VectorIndex(vectors)
    assert index.exact
    assert len(index) == n
    scores, rows = index.search(queries, k, allowed)
    assert scores.shape == rows.shape == (3, k)
    for query, line, values, expected in zip(
        queries, rows, scores, brute_force(vectors, queries, k, allowed), strict=True
    ):
        found = line[line >= 0].tolist()
        assert found == expected
        assert (line[len(found) :] == -1).all()
        np.testing.assert_allclose(values[: len(found)], vectors[found] @ query, atol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), parts=st.lists(st.integers(0, 12), max_size=5))
def test_rows_keep_their_numbers_as_it_grows(seed: int, parts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    added = [unit(rng, 4), *(unit(rng, n) for n in parts)]
    index = VectorIndex(added[0])
    for more in added[1:]:
        index.add(more)
    everything = np.concatenate(added)
    _, rows = index.search(everything, 1)
    assert rows[:, 0].tolist() == list(range(len(everything)))
    assert len(index) == len(everything)


def test_no_rows_allowed() -> None:
    _, rows = VectorIndex(unit(np.random.default_rng(0), 5)).search(
        unit(np.random.default_rng(1), 2), 3, np.zeros(0, np.int64)
    )
    assert rows.tolist() == [[-1] * 3] * 2


@pytest.fixture(scope="module")
def large() -> tuple[VectorIndex, Vectors, Vectors]:
    """A graph that crossed the threshold by `add`, its vectors, and questions near some of them."""
    rng = np.random.default_rng(7)
    vectors = like_texts(rng, EXACT_BELOW + 500)
    index = VectorIndex(vectors[: EXACT_BELOW - 1])
    assert index.exact
    index.add(vectors[EXACT_BELOW - 1 : EXACT_BELOW])  # the row that makes it large
    assert not index.exact
    index.add(vectors[EXACT_BELOW:])
    queries = vectors[rng.integers(0, len(vectors), 100)] + 0.1 * unit(rng, 100, 48)
    return index, vectors, queries


def test_a_large_index_finds_nearly_all(large: tuple[VectorIndex, Vectors, Vectors]) -> None:
    index, vectors, queries = large
    assert len(index) == len(vectors)
    assert recall(index, vectors, queries, 10) >= 0.95
    assert recall(index, vectors, queries, 200) >= 0.95
    scores, rows = index.search(queries, 10)
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[rows]), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("count", [0, 1, 5, 300, 9_999, 10_200])
def test_a_large_index_among_few_rows(large: tuple[VectorIndex, Vectors, Vectors], count: int) -> None:
    """A graph that is walked through forbidden rows gets lost: with 5 allowed of 12,000 it found 13 % of them."""
    index, vectors, queries = large
    allowed = np.sort(np.random.default_rng(3).choice(len(vectors), count, replace=False))
    _, rows = index.search(queries, 10, allowed)
    assert set(rows[rows >= 0].tolist()) <= set(allowed.tolist())
    assert ((rows >= 0).sum(axis=1) == min(count, 10)).all()
    if count:
        assert recall(index, vectors, queries, 10, allowed) >= (1 if count < EXACT_BELOW else 0.95)


def test_more_than_there_are(large: tuple[VectorIndex, Vectors, Vectors]) -> None:
    index, vectors, queries = large
    _, rows = index.search(queries[:1], len(vectors) + 5)
    assert sorted(rows[0].tolist())[:5] == [-1] * 5
    assert (rows >= 0).sum() > 0.95 * len(vectors)


def leaders(vectors: Vectors, threshold: float) -> list[int]:
    """The definition: in order, each row joins the first row that stands for itself and is near enough."""
    out: list[int] = []
    for row, vector in enumerate(vectors):
        near = [other for other in range(row) if out[other] == other and vectors[other] @ vector >= threshold]
        out.append(near[0] if near else row)
    return out


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 40), threshold=st.sampled_from([0.3, 0.7, 0.95]))
def test_near_duplicates_are_brute_forces(seed: int, n: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    base = unit(rng, 6, 8)
    vectors = base[rng.integers(0, 6, n)] + 0.4 * rng.random((n, 1)).astype(np.float32) * unit(rng, n, 8)
    vectors = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32).reshape(n, 8)
    products = vectors @ vectors.T
    if np.abs(products - threshold).min(initial=1) < 1e-5:
        return  # a matter of rounding
    assert near_duplicates(vectors, threshold).tolist() == leaders(vectors, threshold)


def test_a_chain_does_not_join_its_ends() -> None:
    angles = np.radians([0, 20, 40, 60])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert near_duplicates(vectors, np.cos(np.radians(25))).tolist() == [0, 0, 2, 2]


def test_the_threshold_itself_counts() -> None:
    assert near_duplicates(np.eye(3, dtype=np.float32)[[0, 0, 1]], 1.0).tolist() == [0, 0, 2]


def test_near_duplicates_in_a_large_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval.index, "EXACT_BELOW", 500)
    rng = np.random.default_rng(5)
    originals = unit(rng, 500, 48)
    copies = originals[:300] + 0.02 * unit(rng, 300, 48)
    vectors = np.concatenate([originals, copies / np.linalg.norm(copies, axis=1, keepdims=True)]).astype(np.float32)
    found = near_duplicates(vectors, 0.98)
    assert found[:500].tolist() == list(range(500))
    assert np.mean(found[500:] == np.arange(300)) >= 0.98

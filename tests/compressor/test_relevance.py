"""The ranker on real questions: how much evidence it keeps, what a warm request costs, and what it must never do."""

from __future__ import annotations

import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor import Ranker, Source
from retrieval import CachedEncoder, Passage, SentenceTransformerEncoder
from retrieval.store import DiskStore

DATA = Path(__file__).parents[3] / "shared" / "data" / "evidence"

# Issue 2 asks for these at a quarter of the tokens, on the whole files. A few questions stand for each here, so two
# standard errors are allowed: coverage of a question deviates by about .3, "complete" (yes or no) by about .48.
FIGURES = {"hotpotqa": (0.83, 0.66, 12), "musique": (0.74, 0.48, 6), "chunkeval": (0.86, 0.79, 8)}


@pytest.mark.skipif(not DATA.is_dir(), reason="the development data is not beside this checkout")
@pytest.mark.parametrize("dataset", FIGURES)
def test_evidence_kept_at_a_quarter(dataset: str, encoder: SentenceTransformerEncoder) -> None:
    coverage, complete, count = FIGURES[dataset]
    shares = [share_kept(Ranker(encoder), question) for question in spread(DATA / f"{dataset}.jsonl.gz", count)]
    assert statistics.mean(shares) >= coverage - 2 * 0.3 / count**0.5
    assert statistics.mean(share == 1 for share in shares) >= complete - 2 * 0.48 / count**0.5


def spread(file: Path, count: int) -> list[dict[str, Any]]:
    """`count` questions at even distances: neighbours in a file come from the same corpus."""
    with gzip.open(file, "rt") as lines:
        questions = [json.loads(line) for line in lines]
    return questions[:: len(questions) // count][:count]


def share_kept(ranker: Ranker, question: dict[str, Any]) -> float:
    sources = [Source(c["id"], c["text"], c["title"]) for c in question["contexts"]]
    ranking = ranker.rank(question["query"], sources)
    trimmed = ranking.cut(ranking.full_tokens // 4)
    assert trimmed.tokens_after <= ranking.full_tokens // 4
    kept = [" ".join(context.text.split()) for context in trimmed.contexts]
    return statistics.mean(" ".join(e["text"].split()) in kept[e["context"]] for e in question["evidence"])


def passage(n: int) -> Source:
    facts = (
        f"Tenant {n} may keep {n * 3 + 2} snapshots of a volume, each for {n + 2} days after it was taken.",
        f"Requests above {n * 50 + 10} a second are answered with status 429 and a header that says when to come again.",
        f"Backups of region {n} are written at {n % 24:02}:30 UTC and verified within {n + 1} hours.",
        f"The key of store {n} is rotated every {n * 5 + 30} days, and the old one is destroyed {n + 7} days later.",
    )
    return Source(f"p{n}", " ".join(facts), f"Handbook, section {n}")


def test_a_warm_payload_encodes_no_passage_and_is_fast(tmp_path: Path, encoder: SentenceTransformerEncoder) -> None:
    """20 passages, 2,000 tokens. The aim is 25 ms at the median with the question's own encoding, which is left out here: on
    a busy machine it takes what it gets. The ceiling is generous; it is about 10 ms."""
    vectors = CachedEncoder(encoder, DiskStore(tmp_path / "vectors", 2**30))
    ranker = Ranker(vectors)
    sources = [passage(n) for n in range(20)]
    full = ranker.rank("warm up", sources).full_tokens
    assert 1700 < full < 2500
    passages_encoded = vectors.encoded_passages
    assert passages_encoded == 21  # the passages and the question
    took = []
    for n in range(20):
        question = f"How many snapshots may tenant {n} keep?"
        vectors.encode([Passage(question, ((0, len(question)),))])
        began = time.perf_counter()
        trimmed = ranker.rank(question, sources).cut(full // 4)
        took.append((time.perf_counter() - began) * 1000)
        assert f"Tenant {n} may keep {n * 3 + 2} snapshots" in trimmed.contexts[n].text
    assert vectors.encoded_passages == passages_encoded + 20  # the questions and nothing else
    assert statistics.median(took) < 100


def test_ranking_is_deterministic_and_its_shares_sum_to_one(encoder: SentenceTransformerEncoder) -> None:
    sources = [passage(n) for n in range(4)]
    first, second = (Ranker(encoder).rank("How often is the key rotated?", sources) for _ in range(2))
    np.testing.assert_array_equal(first.scores, second.scores)
    assert first.segments == second.segments
    assert len(first.scores) == len(first.probabilities) == len(first.segments) > 0
    assert first.probabilities.sum() == pytest.approx(1)
    assert (first.probabilities >= 0).all()
    assert np.isfinite(first.scores).all()


@pytest.mark.parametrize("query", ["", " ", "?", "\ud800", "x " * 600, "東京都の人口は？"])
@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["", " \n"],
        ["x"],
        ["\ud800"],
        ["One. Two.", ""],
        ["same", "same", "same"],
        ["{}", "[]", "|", "```", "\0"],
    ],
)
def test_odd_payloads(query: str, texts: list[str], encoder: SentenceTransformerEncoder) -> None:
    ranking = Ranker(encoder).rank(query, [Source(str(n), text, "t" * n) for n, text in enumerate(texts)])
    assert np.isfinite(ranking.scores).all()
    for budget in range(ranking.full_tokens + 1):
        trimmed = ranking.cut(budget)
        assert trimmed.tokens_after <= budget
        assert len(trimmed.contexts) == len(texts)

"""The ranking taken apart: what training adds, and how much of that is a data set's own habits.

Four arms, each at every ratio: the prior (no training), the shipped weights, weights trained on the *other* data sets
("left out": a user's first day), and weights trained on the others and on half of this one, measured on the other half
("in domain": a user who has trained on their own traffic).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.judging import judge
from benchmarks.peers.peer import Cut, Sent
from benchmarks.questions import Dataset, Question
from benchmarks.sections import Progress, Section, Table
from compressor.features import Evidence, Scores
from compressor.fusion import Fusion, shipped_fusion
from compressor.labelled import Labelled, located
from compressor.ranking import Ranking
from compressor.relevance import Ranker, fused
from compressor.segments import Segment, segmented
from compressor.training import Example, train
from retrieval import CachedEncoder, SentenceTransformerEncoder
from retrieval.store import DiskStore
from retrieval.vectors import DEFAULT_SIZE_LIMIT_BYTES

RATIOS = (0.10, 0.25, 0.50)


@dataclass(frozen=True, slots=True)
class Item:
    """One question with all that ranking knows of it, so that many weights can be tried."""

    question: Question
    labelled: Labelled
    segments: tuple[Segment, ...]
    known: Evidence
    example: Example

    def ranked(self, scores: Scores, shares: Scores | None = None) -> Ranking:
        return Ranking(
            self.question.contexts, self.segments, scores, np.zeros(len(scores)) if shares is None else shares
        )


def run(datasets: Sequence[Dataset], folder: Path, progress: Progress) -> Section:
    """The section of all data sets; those arms that need another data set are left out where there is none."""
    items = items_of(datasets, folder, progress)
    rows: list[tuple[str, ...]] = []
    records: list[Mapping[str, object]] = []
    for name, own in items.items():
        others = [item.example for other, each in items.items() if other != name for item in each]
        for arm, kept in _arms(own, others).items():
            figures = [(np.mean([k[r] for k in kept]), np.mean([k[r] == 1 for k in kept])) for r in range(len(RATIOS))]
            rows.append((name, arm, *(f"{coverage:.3f} / {complete:.2f}" for coverage, complete in figures)))
            for ratio, (coverage, complete) in zip(RATIOS, figures, strict=True):
                records.append(
                    {
                        "record": "ranking",
                        "dataset": name,
                        "arm": arm,
                        "ratio": ratio,
                        "questions": len(kept),
                        "coverage": float(coverage),
                        "complete": float(complete),
                    }
                )
    headers = ("questions", "weights", *(f"at {ratio:.2f}" for ratio in RATIOS))
    note = "Coverage / complete. Shipped weights have seen the questions of the sets that docs/ranker.md names."
    table = Table("What training adds to the ranking", headers, tuple(rows), note)
    return Section("ranking", "Ranking", tables=(table,), records=tuple(records))


def items_of(datasets: Sequence[Dataset], folder: Path, progress: Progress) -> dict[str, list[Item]]:
    """The questions with evidence of each data set, by its name."""
    ranker = Ranker(
        CachedEncoder(SentenceTransformerEncoder(), DiskStore(folder / "vectors", DEFAULT_SIZE_LIMIT_BYTES))
    )
    return {dataset.name: _items(dataset, ranker, progress) for dataset in datasets}


def _items(dataset: Dataset, ranker: Ranker, progress: Progress) -> list[Item]:
    step = progress(f"features of {dataset.name}", len(dataset.questions))
    items = []
    for question in dataset.questions:
        if question.evidence:
            spans = tuple((e.context, *located(e.text, question.contexts[e.context].text)) for e in question.evidence)
            labelled = Labelled(dataset.name, question.query, question.contexts, spans)
            segments = segmented(question.contexts)
            known = ranker.evidence(question.query, question.contexts, segments)
            example = Example(dataset.name, known.matrix, labelled.held_by(segments))
            items.append(Item(question, labelled, segments, known, example))
        step()
    return items


def _arms(own: Sequence[Item], others: Sequence[Example]) -> dict[str, list[tuple[float, ...]]]:
    arms = {
        "prior alone": [_kept(item, item.known.prior) for item in own],
        "shipped": _with(own, shipped_fusion()),
    }
    if others:
        arms["left out"] = _with(own, train(others))
    halves = (own[0::2], own[1::2])
    if len(own) >= 20:
        arms["in domain"] = [
            kept
            for tested, seen in (halves, halves[::-1])
            for kept in _with(tested, train([*others, *(item.example for item in seen)]))
        ]
    return arms


def _with(items: Sequence[Item], fusion: Fusion) -> list[tuple[float, ...]]:
    return [_kept(item, fused(item.known, fusion, item.segments)[0]) for item in items]


def _kept(item: Item, scores: Scores) -> tuple[float, ...]:
    """Coverage at every ratio, judged as every compressor's cut is."""
    ranking = item.ranked(scores)
    return tuple(_coverage(item.question, ranking, int(ratio * ranking.full_tokens)) for ratio in RATIOS)


def _coverage(question: Question, ranking: Ranking, budget_tokens: int) -> float:
    kept = ranking.cut(budget_tokens).contexts
    cut = Cut(tuple(Sent(n, each.text, each.spans) for n, each in enumerate(kept) if each.text))
    return judge(question, cut, budget_tokens, ("…", ",")).coverage or 0.0

"""Suite `evidence`: does the answer survive the cut? Every peer on every question at every ratio, each cut judged."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.intervals import Spread, spread
from benchmarks.judging import Judgement, judge
from benchmarks.peers import PEERS, Arm, Cut, Peer, Sent, Skipped
from benchmarks.peers.peer import Stateless
from benchmarks.peers.reference import FullContext, NoContext
from benchmarks.questions import Dataset, Question
from benchmarks.sections import Progress, silent
from compressor import Source
from compressor.tokens import count_each

RATIOS = (0.10, 0.15, 0.20, 0.25, 0.33, 0.50)
QUICK_RATIOS = (0.10, 0.25, 0.50)
MAIN_RATIO = 0.25
TIMED_QUESTIONS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One peer's cut of one question, judged. `ratio` is what was asked for; 0 for a row of reference."""

    peer: str
    dataset: str
    question: str
    kind: str
    ratio: float
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Timing:
    """A peer's times at `MAIN_RATIO`: `cold` from nothing, `warm` when the same payload comes again."""

    peer: str
    dataset: str
    cold: Spread
    warm: Spread


@dataclass(frozen=True, slots=True)
class Miss:
    """A question of which trimtab lost evidence at `MAIN_RATIO`, with the cut, to be read by people."""

    dataset: str
    question: Question
    cut: Cut
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Results:
    """All that the suite measured. `absent` is (peer, reason) for each that did not run."""

    datasets: tuple[Dataset, ...]
    ratios: tuple[float, ...]
    outcomes: tuple[Outcome, ...]
    timings: tuple[Timing, ...]
    absent: tuple[tuple[Peer, str], ...]
    misses: tuple[Miss, ...]


class OracleEvidence(Stateless):
    """Exactly the evidence: what a perfect extractor would keep. It has to be shown the question's evidence first."""

    def __init__(self) -> None:
        self.question: Question | None = None

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        return oracle_cut(self.question) if self.question else Cut(())


def oracle_cut(question: Question) -> Cut:
    """The evidence spans of each context, in the order of the text."""
    by_context: dict[int, list[str]] = {}
    for span in question.evidence:
        by_context.setdefault(span.context, []).append(span.text)
    return Cut(
        tuple(
            Sent(n, "\n".join(sorted(dict.fromkeys(texts), key=question.contexts[n].text.find)))
            for n, texts in sorted(by_context.items())
        )
    )


REFERENCES = (
    Peer("no context", "the question alone", lambda *_: NoContext(), budget="none"),
    Peer("oracle evidence", "exactly the evidence", lambda *_: OracleEvidence(), budget="none"),
    Peer("full context", "everything", lambda *_: FullContext(), budget="none"),
)


def measure(
    datasets: Sequence[Dataset],
    seed: int,
    folder: Path,
    *,
    peers: Sequence[Peer] = PEERS,
    ratios: Sequence[float] = RATIOS,
    progress: Progress = silent,
) -> Results:
    """Run every peer over every question. Cuts are judged first; only then is a sample of them timed."""
    outcomes: list[Outcome] = []
    timings: list[Timing] = []
    absent: list[tuple[Peer, str]] = []
    misses: list[Miss] = []
    for peer in (*REFERENCES, *peers):
        arm = opened(peer, seed, folder)
        if isinstance(arm, str):
            absent.append((peer, arm))
            continue
        asked = (0.0,) if peer.budget == "none" else tuple(ratios)
        step = progress(peer.name, sum(len(d.questions) for d in datasets))
        for dataset in datasets:
            for question in dataset.questions:
                for ratio in asked:
                    judgement, cut = _judged(peer, arm, question, ratio)
                    outcomes.append(Outcome(peer.name, dataset.name, question.id, question.kind, ratio, judgement))
                    if (
                        peer.name == "trimtab"
                        and ratio == MAIN_RATIO
                        and (judgement.coverage or 0) < 1
                        and question.evidence
                    ):
                        misses.append(Miss(dataset.name, question, cut, judgement))
                step()
            if peer.budget != "none":
                timings.append(_timed(peer, arm, dataset))
    return Results(tuple(datasets), tuple(ratios), tuple(outcomes), tuple(timings), tuple(absent), tuple(misses))


def opened(peer: Peer, seed: int, folder: Path) -> Arm | str:
    """The peer's arm, or the reason why there is none."""
    try:
        return peer.open(seed, folder)
    except ModuleNotFoundError as error:
        return f"not installed: {peer.install or error.name}"
    except Skipped as reason:
        return str(reason)


def budget_of(question: Question, ratio: float) -> int:
    return math.floor(ratio * sum(count_each([context.text for context in question.contexts])))


def _judged(peer: Peer, arm: Arm, question: Question, ratio: float) -> tuple[Judgement, Cut]:
    budget = budget_of(question, ratio)
    if isinstance(arm, OracleEvidence):
        arm.question = question
    cut = arm.cut(question.query, question.contexts, budget, ratio)
    return judge(question, cut, budget if peer.budget == "told" else None, peer.markers), cut


def _timed(peer: Peer, arm: Arm, dataset: Dataset) -> Timing:
    """A few questions, evenly over the set. A peer that remembers nothing is as fast the second time as the first."""
    every = max(1, len(dataset.questions) // TIMED_QUESTIONS)
    cold: list[float] = []
    warm: list[float] = []
    for question in dataset.questions[::every][:TIMED_QUESTIONS]:
        budget = budget_of(question, MAIN_RATIO)
        arm.forget()
        for times in (cold, warm) if peer.remembers else (cold,):
            began = time.perf_counter()
            arm.cut(question.query, question.contexts, budget, MAIN_RATIO)
            times.append((time.perf_counter() - began) * 1000)
    return Timing(peer.name, dataset.name, spread(cold), spread(warm or cold))

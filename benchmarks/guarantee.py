"""Suite `guarantee`: does `min_coverage` hold on questions that took no part, and what does it cost?

Each data set is ranked by weights trained on the *other* ones. Then, 200 times: half of all questions calibrate, and the
other half is cut at the budget that is promised to keep the target. And under shift: calibrated on one data set, used on
another, with the rule alone, and with the guard that asks whether a request is like what was calibrated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.questions import Dataset
from benchmarks.ranking import Item, items_of
from benchmarks.sections import Plot, Progress, Section, Series, Table
from compressor.breadth import asks_for_everything
from compressor.calibrating import kept_shares
from compressor.calibration import LEVELS, Calibration, Floats
from compressor.fusion import Fusion, shipped_fusion
from compressor.relevance import fused
from compressor.training import train

NDArrayInt = NDArray[np.int64]

TARGETS = (0.80, 0.90, 0.95, 0.99)
SPLITS, QUICK_SPLITS = 200, 20


@dataclass(frozen=True, slots=True)
class Cuts:
    """Questions of one data set: what each keeps at every level, what share of the tokens that takes, what its scores
    look like, and whether it asks for everything. The last column of `kept` and `ratios` is the whole payload."""

    name: str
    kept: Floats
    ratios: Floats
    signatures: Floats
    spans: NDArrayInt
    everything: tuple[bool, ...]

    def calibration(self, chosen: Sequence[int]) -> Calibration:
        return joined([self], [chosen])


def joined(cuts: Sequence[Cuts], chosen: Sequence[Iterable[int]]) -> Calibration:
    """The calibration of the chosen questions of each data set."""
    numbers = [list(each) for each in chosen]
    kind = np.repeat(np.arange(len(cuts)), [len(each) for each in numbers])
    kept = np.concatenate([each.kept[own, :-1] for each, own in zip(cuts, numbers, strict=True)])
    signatures = np.concatenate([each.signatures[own] for each, own in zip(cuts, numbers, strict=True)])
    spans = np.concatenate([each.spans[own] for each, own in zip(cuts, numbers, strict=True)])
    return Calibration(tuple(each.name for each in cuts), kind, kept, signatures, spans)


def run(datasets: Sequence[Dataset], splits: int, seed: int, folder: Path, progress: Progress) -> Section:
    """The section. With one data set the shipped weights are used, which may have seen its questions; a note says so."""
    cuts = cuts_of(items_of(datasets, folder, progress), progress)
    rows, records = _splits(cuts, splits, seed, progress)
    headers = (
        "min_coverage",
        "kept, mean",
        "splits at or above",
        "within the error of a half",
        "tokens kept",
        "kept by each",
    )
    held = Table(
        "The promise, on held-out halves",
        headers,
        rows,
        f"{splits} random halvings of {sum(len(each.kept) for each in cuts)} questions of {len(cuts)} data sets. The "
        "promise is about the mean over requests like those calibrated. A half's own mean is a sample: its error is 1.645 "
        "standard errors.",
        readme=True,
    )
    tables = [held]
    if len(cuts) > 1:
        shifted, more = _shifts(cuts)
        records = (*records, *more)
        note = "min_coverage 0.90. The rule alone promises nothing here: the questions are of another kind."
        tables.append(Table("Under shift", ("calibrated on", "used on", "rule alone", "with the guard"), shifted, note))
    names = [each.name for each in cuts]
    mean_ratio = [tuple(map(float, each.ratios.mean(axis=0))) for each in cuts]
    mean_kept = [tuple(map(float, each.kept.mean(axis=0))) for each in cuts]
    series = tuple(Series(*each) for each in zip(names, mean_ratio, mean_kept, strict=True))
    plot = Plot("Evidence kept against tokens kept, by level", "share of tokens", "share of evidence", series)
    notes = () if len(cuts) > 1 else ("One data set alone: ranked by the shipped weights, which may have seen it.",)
    return Section("guarantee", "The guarantee", notes, tuple(tables), (plot,), records=records)


def cuts_of(items: Mapping[str, Sequence[Item]], progress: Progress) -> list[Cuts]:
    """Every question cut at every level, by weights that have not seen its data set."""
    cuts = []
    for name, own in items.items():
        others = [item.example for other, each in items.items() if other != name for item in each]
        fusion = train(others) if others else shipped_fusion()
        step = progress(f"cutting {name}", len(own))
        rows = []
        for item in own:
            rows.append(_cut(item, fusion))
            step()
        kept, ratios, signatures = (np.stack(part) for part in zip(*rows, strict=True))
        everything = tuple(asks_for_everything(item.question.query) for item in own)
        spans = np.array([len(item.labelled.spans) for item in own])
        cuts.append(Cuts(name, kept, ratios, signatures, spans, everything))
    return cuts


def _cut(item: Item, fusion: Fusion) -> tuple[Floats, Floats, Floats]:
    found = fused(item.known, fusion, item.segments)
    ranking = item.ranked(found.scores, found.shares)
    kept = kept_shares(item.labelled, ranking)
    full_tokens = ranking.full_tokens
    ratios = [ranking.budget_for(float(level)) / full_tokens for level in LEVELS]
    return np.append(kept, 1.0), np.append(ratios, ranking.lean_tokens / full_tokens), found.signature


def _splits(
    cuts: Sequence[Cuts], splits: int, seed: int, progress: Progress
) -> tuple[tuple[tuple[str, ...], ...], tuple[Mapping[str, object], ...]]:
    rng = np.random.default_rng(seed)
    kept: dict[float, list[Floats]] = {target: [] for target in TARGETS}
    ratios: dict[float, list[Floats]] = {target: [] for target in TARGETS}
    owners: list[NDArrayInt] = []
    step = progress("halving", splits)
    for _ in range(splits):
        orders = [rng.permutation(len(each.kept)) for each in cuts]
        calibration = joined(cuts, [order[: len(order) // 2] for order in orders])
        tested = [
            (each, number) for each, order in zip(cuts, orders, strict=True) for number in order[len(order) // 2 :]
        ]
        owners.append(np.array([cuts.index(each) for each, _ in tested]))
        found = [_promised(each, int(number), calibration) for each, number in tested]
        for target in TARGETS:
            at = [int(np.searchsorted(promised, target)) for promised in found]
            kept[target].append(np.array([e.kept[n, i] for (e, n), i in zip(tested, at, strict=True)]))
            ratios[target].append(np.array([e.ratios[n, i] for (e, n), i in zip(tested, at, strict=True)]))
        step()
    rows, records = [], []
    for target in TARGETS:
        means = np.array([each.mean() for each in kept[target]])
        errors = np.array([1.645 * each.std() / np.sqrt(len(each)) for each in kept[target]])
        ratio = float(np.mean([each.mean() for each in ratios[target]]))
        by_kind = {
            cuts[n].name: float(np.mean([k[o == n].mean() for k, o in zip(kept[target], owners, strict=True)]))
            for n in range(len(cuts))
        }
        at_or_above, within = float((means >= target).mean()), float((means + errors >= target).mean())
        each_kind = ", ".join(f"{name} {share:.2f}" for name, share in by_kind.items())
        rows.append(
            (f"{target:.2f}", f"{means.mean():.3f}", f"{at_or_above:.0%}", f"{within:.0%}", f"{ratio:.2f}", each_kind)
        )
        records.append(
            {
                "record": "guarantee",
                "target": target,
                "kept": float(means.mean()),
                "splits_at_or_above": at_or_above,
                "splits_within_error": within,
                "ratio": ratio,
                "kept_by_kind": by_kind,
            }
        )
    return tuple(rows), tuple(records)


def _promised(cuts: Cuts, number: int, calibration: Calibration) -> Floats:
    """What is promised at each level for that question, the whole payload at the end."""
    bound = calibration.bound(cuts.signatures[number], cuts.everything[number])
    return np.append(bound.coverages, 1.0)


def _shifts(cuts: Sequence[Cuts]) -> tuple[tuple[tuple[str, ...], ...], list[Mapping[str, object]]]:
    """Calibrated on one data set, used on another, at 0.90; the guard has one kind to compare with, and so can only
    refuse: what is unlike it is sent whole."""
    target = 0.90
    rows: list[tuple[str, ...]] = []
    records: list[Mapping[str, object]] = []
    for one in cuts:
        calibration = one.calibration(range(len(one.kept)))
        for other in cuts:
            if other is one:
                continue
            alone, guarded = [], []
            for number in range(len(other.kept)):
                bound = calibration.bound(other.signatures[number], other.everything[number])
                at = int(np.searchsorted(np.append(bound.coverages, 1.0), target))
                alone.append((other.kept[number, at], other.ratios[number, at]))
                like = "; like" in bound.says
                guarded.append(alone[-1] if like else (1.0, other.ratios[number, -1]))
            said = [
                f"{np.mean([k for k, _ in each]):.2f} at {np.mean([r for _, r in each]):.2f}"
                for each in (alone, guarded)
            ]
            rows.append((one.name, other.name, *said))
            records.append(
                {
                    "record": "shift",
                    "calibrated_on": one.name,
                    "used_on": other.name,
                    "alone": said[0],
                    "guarded": said[1],
                }
            )
    return tuple(rows), records

"""What the router suite shows: tables of what is recovered, what it costs and how honest the chances are, and their plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing_curves import SHARES, Numbers, calibration, chosen, mean_with_interval, recovered, worth_within
from benchmarks.sections import Plot, Section, Series, Table

BUDGETS = (0.20, 0.40, 0.60, 0.80)

DRAWN = ("half", "task left out")
"""The arms in the plot of the calibration; all of them would be a tangle, and are in its table."""

LEAST_DRAWN = 50
"""Predictions in a tenth that is drawn: fewer say little."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """The chances, shape (prompts, models), that a router gave without having seen the prompts.

    There are as many `runs` as `halves`, each of which says in which half every prompt was; or one, and no halves.
    """

    name: str
    runs: tuple[Numbers, ...]
    halves: tuple[NDArray[np.intp], ...] = ()

    def gains(self, weak: int, strong: int) -> tuple[Numbers, ...]:
        """What the strong model is expected to add, one half at a time, with NaN in the other half."""
        runs = tuple(run[:, strong] - run[:, weak] for run in self.runs)
        return by_half(runs, self.halves) if self.halves else runs


def by_half(runs: Sequence[Numbers], halves: Sequence[NDArray[np.intp]]) -> tuple[Numbers, ...]:
    """Every run twice: with NaN for the prompts of the one half, and of the other."""
    return tuple(np.where(half == side, run, np.nan) for run, half in zip(runs, halves, strict=True) for side in (0, 1))


@dataclass(frozen=True, slots=True)
class Pair:
    """A file with two models. `baselines`: what the better one is expected to add, by other means than ours."""

    name: str
    models: tuple[str, ...]
    scores: Numbers
    arms: tuple[Arm, ...]
    baselines: Mapping[str, tuple[Numbers, ...]]

    @property
    def order(self) -> tuple[int, int]:
        """Which model is the weak one, and which the strong, by their mean scores."""
        weak, strong = np.argsort(self.scores.mean(axis=0))
        return int(weak), int(strong)

    def gains(self) -> Iterator[tuple[str, tuple[Numbers, ...]]]:
        """Every router, ours first, and what it expects the strong model to add to each prompt."""
        weak, strong = self.order
        for arm in self.arms:
            yield f"trimtab, {arm.name}", arm.gains(weak, strong)
        yield from self.baselines.items()


@dataclass(frozen=True, slots=True)
class Pool:
    """A file with more than two models, and the dollars of each prompt at each. `halves` deal them into two."""

    name: str
    models: tuple[str, ...]
    scores: Numbers
    arms: tuple[Arm, ...]
    costs: Numbers
    halves: tuple[NDArray[np.intp], ...]


def section(pairs: Sequence[Pair], pools: Sequence[Pool], unnamed: Sequence[str], seed: int) -> Section:
    """The suite's section. `unnamed` are the files whose groups of like prompts stand in for tasks."""
    tables: list[Table] = []
    plots: list[Plot] = []
    records: list[Record] = []
    for pair in pairs:
        table, plot, rows = _recovered(pair, seed)
        tables += [table, _confusion(pair)]
        plots.append(plot)
        records += rows
    for pool in pools:
        table, plot, rows = _costed(pool, seed)
        tables.append(table)
        plots.append(plot)
        records += rows
    table, bins, plot, rows = _calibrated([*pairs, *pools])
    notes = [
        "Every chance is of a prompt that the router was not trained on. Intervals are 95 %, bootstrapped over prompts; "
        "where APGR's holds 0.5, the data do not tell the router from chance."
    ]
    if unnamed:
        notes.append(f"{', '.join(unnamed)}: names no tasks; ten groups of like prompts stand in for them.")
    return Section(
        "router",
        "Router",
        notes=tuple(notes),
        tables=(*tables, table, bins),
        plots=(*plots, plot),
        records=(*records, *rows),
    )


def _recovered(pair: Pair, seed: int) -> tuple[Table, Plot, list[Record]]:
    weak, strong = pair.order
    rows: list[tuple[str, ...]] = []
    series: list[Series] = []
    records: list[Record] = []
    for name, gains in pair.gains():
        found = recovered(gains, pair.scores[:, weak], pair.scores[:, strong], seed)
        apgr, cpt = found.apgr, found.cpt50
        beyond = "yes" if apgr.low > 0.5 else "worse" if apgr.high < 0.5 else "no"
        rows.append(
            (name, f"{apgr.mean:.3f} [{apgr.low:.3f}-{apgr.high:.3f}]", _percents(cpt.mean, cpt.low, cpt.high), beyond)
        )
        series.append(Series(name, tuple(100 * share for share in SHARES), found.pgr))
        figures = {"apgr": apgr.mean, "apgr_low": apgr.low, "apgr_high": apgr.high, "cpt50": cpt.mean}
        records.append({"record": "router pair", "file": pair.name, "router": name, "prompts": apgr.count, **figures})
    rows.append(("random", "0.500", "50 %", ""))
    series.append(Series("random", (0.0, 100.0), (0.0, 1.0)))
    means = pair.scores.mean(axis=0)
    note = (
        f"{len(pair.scores):,} prompts. Always {pair.models[weak]}: {means[weak]:.3f}; always {pair.models[strong]}: "
        f'{means[strong]:.3f}. "task\'s name" is told the task of every prompt, which no router is.'
    )
    headers = ("router", "APGR", "CPT(50 %)", "beats random")
    table = Table(f"{pair.name}: what of the gap is recovered", headers, tuple(rows), note)
    plot = Plot(f"{pair.name}: gap recovered", "prompts sent to the strong model (%)", "PGR", tuple(series))
    return table, plot, records


def _confusion(pair: Pair) -> Table:
    """Who was sent where, with half of the prompts at each model. Of the first run."""
    weak, strong = pair.order
    right = pair.scores >= 0.5
    kinds = {
        "both right": right[:, weak] & right[:, strong],
        "only the strong": ~right[:, weak] & right[:, strong],
        "only the weak": right[:, weak] & ~right[:, strong],
        "both wrong": ~right[:, weak] & ~right[:, strong],
    }
    rows = []
    for name, gains in pair.gains():
        measured = np.flatnonzero(np.isfinite(gains[0]))
        order = measured[np.argsort(-gains[0][measured], kind="stable")]
        sent = {"weak": order[len(order) // 2 :], "strong": order[: len(order) // 2]}
        for where, prompts in sent.items():
            rows.append((name, where, *(f"{int(kind[prompts].sum()):,}" for kind in kinds.values())))
    note = (
        "Prompts by who answers them right; half of them are sent to each model. Of the first half that was held back."
    )
    return Table(f"{pair.name}: confusion", ("router", "sent to", *kinds), tuple(rows), note, wide=True)


def _costed(pool: Pool, seed: int) -> tuple[Table, Plot, list[Record]]:
    best = int(np.argmax(pool.scores.mean(axis=0)))
    whole_usd = pool.costs[:, best].mean()
    rows: list[tuple[str, ...]] = []
    series: list[Series] = []
    records: list[Record] = []
    for arm in pool.arms:
        points = []
        for budget in BUDGETS:
            score, cost = _bought(pool, arm, budget * whole_usd)
            difference = mean_with_interval(score - pool.scores[:, best], seed)
            share = cost.mean() / whole_usd
            verdict = "yes" if difference.low >= 0 else "no" if difference.high < 0 else "not told apart"
            rows.append(
                (
                    f"trimtab, {arm.name}",
                    f"{budget:.0%}",
                    f"{share:.0%}",
                    f"{score.mean():.3f}",
                    f"{difference.mean:+.3f} [{difference.low:+.3f} to {difference.high:+.3f}]",
                    verdict,
                )
            )
            points.append((100 * share, float(score.mean())))
            figures = {"budget": budget, "cost_share": float(share), "score": float(score.mean())}
            records.append({"record": "router pool", "file": pool.name, "router": arm.name, **figures})
        series.append(Series(f"trimtab, {arm.name}", tuple(x for x, _ in points), tuple(y for _, y in points)))
    means, shares = pool.scores.mean(axis=0), pool.costs.mean(axis=0) / whole_usd
    mixed = [_mixed(shares, means, budget) for budget in BUDGETS]
    rows += [
        (
            "random mix of two models",
            f"{budget:.0%}",
            f"{budget:.0%}",
            f"{score:.3f}",
            f"{score - means[best]:+.3f}",
            "",
        )
        for budget, score in zip(BUDGETS, mixed, strict=True)
    ]
    series.append(Series("random mix of two models", tuple(100 * budget for budget in BUDGETS), tuple(mixed)))
    rows += [
        (f"always {pool.models[at]}", "", f"{shares[at]:.0%}", f"{means[at]:.3f}", "", "") for at in np.argsort(-means)
    ]
    oracle = np.argmax(pool.scores - pool.costs / pool.costs.max() / 1e6, axis=1)
    every = np.arange(len(oracle))
    oracle_score, oracle_usd = pool.scores[every, oracle].mean(), pool.costs[every, oracle].mean()
    rows.append(("knows every answer", "", f"{oracle_usd / whole_usd:.0%}", f"{oracle_score:.3f}", "", ""))
    series.append(
        Series("one model", tuple(100 * float(each) for each in shares), tuple(map(float, means)), points_only=True)
    )
    note = (
        f"{len(pool.scores):,} prompts; cost beside always {pool.models[best]}, the best single model. What a right answer is "
        "worth is set on one half of the prompts so that the budget holds there, and used on the other."
    )
    headers = ("router", "budget", "cost", "score", "beside the best model", "better")
    table = Table(f"{pool.name}: score for cost", headers, tuple(rows), note)
    plot = Plot(f"{pool.name}: score for cost", f"cost (% of always {pool.models[best]})", "score", tuple(series))
    return table, plot, records


def _mixed(shares: Numbers, means: Numbers, budget: float) -> float:
    """The best score that two models reach by the toss of a coin, where a prompt may cost `budget` of the best model's."""
    within, above = np.flatnonzero(shares <= budget), np.flatnonzero(shares > budget)
    scores = [float(means[at]) for at in within]
    for low in within:
        for high in above:
            tossed = (budget - shares[low]) / (shares[high] - shares[low])
            scores.append(float(means[low] + tossed * (means[high] - means[low])))
    return max(scores, default=0.0)


def _bought(pool: Pool, arm: Arm, most_usd: float) -> tuple[Numbers, Numbers]:
    """Each prompt's score and cost, averaged over the halvings, where a prompt may cost `most_usd` on average."""
    every = np.arange(len(pool.scores))
    scores, costs = np.zeros(len(every)), np.zeros(len(every))
    for number, half in enumerate(pool.halves):
        chances = arm.runs[number % len(arm.runs)]
        picked = np.zeros(len(every), np.intp)
        for tested in (half == 0, half == 1):
            worth = worth_within(chances[~tested], pool.costs[~tested], most_usd)
            picked[tested] = chosen(chances[tested], pool.costs[tested], worth)
        scores += pool.scores[every, picked] / len(pool.halves)
        costs += pool.costs[every, picked] / len(pool.halves)
    return scores, costs


def _calibrated(files: Sequence[Pair | Pool]) -> tuple[Table, Table, Plot, list[Record]]:
    rows: list[tuple[str, ...]] = []
    filled: list[tuple[str, ...]] = []
    series: list[Series] = []
    records: list[Record] = []
    for file in files:
        for arm in file.arms:
            chances = np.concatenate([run.ravel() for run in arm.runs])
            bins, error = calibration(chances, np.tile(file.scores.ravel(), len(arm.runs)))
            predicted, observed = float(chances.mean()), float(file.scores.mean())
            rows.append((file.name, arm.name, f"{error:.3f}", f"{predicted:.3f}", f"{observed:.3f}"))
            if arm.name in DRAWN:
                full = [each for each in bins if each.count >= LEAST_DRAWN]
                xs, ys = tuple(each.predicted for each in full), tuple(each.observed for each in full)
                series.append(Series(f"{file.name}, {arm.name}", xs, ys))
            records.append({"record": "router calibration", "file": file.name, "router": arm.name, "error": error})
            filled += [(file.name, arm.name, f"{b.count:,}", f"{b.predicted:.2f}", f"{b.observed:.2f}") for b in bins]
    table = Table(
        "How honest the chances are",
        ("file", "trimtab", "calibration error", "mean chance", "mean score"),
        tuple(rows),
        "The error is the mean distance between a chance and what came true, over tenths. All models of a file together.",
    )
    bins_table = Table(
        "Chances and what came true, by tenths",
        ("file", "trimtab", "predictions", "mean chance", "mean score"),
        tuple(filled),
        wide=True,
    )
    series.append(Series("perfect", (0.0, 1.0), (0.0, 1.0)))
    return table, bins_table, Plot("Calibration", "chance", "score", tuple(series)), records


def _percents(mean: float, low: float, high: float) -> str:
    return f"{mean:.0%} [{low:.0%}-{high:.0%}]".replace("%", " %")

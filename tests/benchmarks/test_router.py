"""The router suite: its figures against RouteLLM's definitions, and a run on prompts whose difficulty is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.router import FOLDS, measured, run, scored_file
from benchmarks.routing_curves import calibration, chosen, recovered, worth_within
from benchmarks.sections import silent
from trimtab.prompt_features import NAMES
from trimtab.scored import Scored

WEAK = np.array([1, 0, 0, 1, 0, 1, 0, 0] * 25, np.float64)
STRONG = np.array([1, 1, 0, 1, 1, 0, 1, 0] * 25, np.float64)


def by_definition(gains: np.ndarray) -> tuple[float, float]:
    """APGR and CPT(50 %) with loops, as RouteLLM defines them; a sum of trapezoids."""
    order = sorted(range(len(gains)), key=lambda at: -gains[at])
    pgr = []
    for calls in range(len(order) + 1):
        strong = set(order[:calls])
        score = np.mean([STRONG[at] if at in strong else WEAK[at] for at in range(len(order))])
        pgr.append((score - WEAK.mean()) / (STRONG.mean() - WEAK.mean()))
    apgr = sum((left + right) / 2 for left, right in itertools.pairwise(pgr)) / len(order)
    return apgr, next(calls for calls, value in enumerate(pgr) if value >= 0.5) / len(order)


@pytest.mark.parametrize("seed", range(4))
def test_the_figures_are_those_of_their_definitions(seed: int) -> None:
    gains = np.random.default_rng(seed).normal(size=len(WEAK)) + (STRONG - WEAK)
    found = recovered([gains], WEAK, STRONG, seed)
    apgr, cpt50 = by_definition(gains)
    assert found.apgr.mean == pytest.approx(apgr)
    assert found.cpt50.mean == pytest.approx(cpt50)
    assert found.apgr.low < apgr < found.apgr.high
    assert (found.pgr[0], found.pgr[-1]) == (0, pytest.approx(1))


def test_chance_recovers_half_and_a_prompt_outside_of_the_run_does_not_count() -> None:
    nothing_known = [np.zeros(len(WEAK))] * 40
    assert recovered(nothing_known, WEAK, STRONG, 1).apgr.mean == pytest.approx(0.5, abs=0.05)
    gains = np.where(np.arange(len(WEAK)) < 80, STRONG - WEAK, np.nan)
    alone = recovered([gains[:80]], WEAK[:80], STRONG[:80], 1).apgr.mean
    assert recovered([gains], WEAK, STRONG, 1).apgr.mean == pytest.approx(alone)


def test_the_calibration_error_is_the_distance_between_chance_and_what_came_true() -> None:
    chances = np.array([0.2] * 10 + [0.9] * 10)
    scores = np.array([1] * 2 + [0] * 8 + [1] * 5 + [0] * 5, np.float64)
    bins, error = calibration(chances, scores)
    assert [(each.count, each.predicted, each.observed) for each in bins] == [
        (10, pytest.approx(0.2), pytest.approx(0.2)),
        (10, pytest.approx(0.9), pytest.approx(0.5)),
    ]
    assert error == pytest.approx(0.2)
    assert calibration(np.ones(3), np.ones(3))[1] == 0


def test_what_an_answer_is_worth_spends_no_more_than_the_budget_and_nearly_all_of_it() -> None:
    rng = np.random.default_rng(2)
    chances, costs = rng.random((2_000, 3)), np.tile([1.0, 2.0, 9.0], (2_000, 1))
    for most in (1.5, 2.0, 3.5):  # without a limit 4.0 are spent
        worth = worth_within(chances, costs, most)
        spent = costs[np.arange(2_000), chosen(chances, costs, worth)].mean()
        assert most * 0.97 < spent <= most


def made(name: str, models: tuple[str, ...], count: int, seed: int, task: str = "t"):  # type: ignore[no-untyped-def]
    """Prompts whose difficulty is the last column of a row, and of whose models each is stronger than the one before."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 8 + len(NAMES))).astype(np.float32)
    prompts = []
    for number, row in enumerate(rows):
        chances = 1 / (1 + np.exp(-(np.linspace(0, 2, len(models)) - 2 * row[-1])))
        scores = tuple(zip(models, (rng.random(len(models)) < chances).astype(float).tolist(), strict=True))
        prompts.append(Scored(f"prompt {number}", f"{task}{number % 12}" if task else "", scores))
    return scored_file(name, prompts, rows, 1)


def test_a_run_finds_the_difficulty_that_is_there_and_the_same_digits_each_time() -> None:
    pool = ("gemma-2-9b-it", "llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct")
    files = [
        made("pair", ("Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"), 800, 1),
        made("pool", pool, 600, 2, task=""),
    ]
    sections = [measured(files, "columns", 1, 2, silent) for _ in range(2)]
    assert sections[0].records == sections[1].records
    apgr = {r["router"]: r["apgr"] for r in sections[0].records if r["record"] == "router pair"}
    assert apgr["trimtab, half"] > 0.58
    assert apgr["trimtab, task left out"] > 0.58
    assert abs(apgr["length"] - 0.5) < 0.12
    errors = {r["router"]: r["error"] for r in sections[0].records if r["record"] == "router calibration"}
    assert errors["half"] < 0.1
    spent = [r for r in sections[0].records if r["record"] == "router pool"]
    assert all(abs(r["cost_share"] - r["budget"]) < 0.1 for r in spent if r["router"] == "half")
    assert "pool: names no tasks" in " ".join(sections[0].notes)
    assert {plot.title for plot in sections[0].plots} == {"pair: gap recovered", "pool: score for cost", "Calibration"}


def test_tasks_are_left_out_whole_and_a_prompt_without_every_score_is_left_out() -> None:
    file = made("pair", ("a", "b"), 240, 3)
    tasks = {each.task: set() for each in file.prompts}
    for each, fold in zip(file.prompts, file.folds, strict=True):
        tasks[each.task].add(int(fold))
    assert all(len(folds) == 1 for folds in tasks.values())
    assert set.union(*tasks.values()) <= set(range(FOLDS))
    halved = [Scored(p.prompt, p.task, p.scores[:1] if n % 2 else p.scores) for n, p in enumerate(file.prompts)]
    assert len(scored_file("half", halved, file.rows, 1).prompts) == 120


def test_without_scored_prompts_the_suite_says_so(tmp_path: Path) -> None:
    section = run((), 1, True, tmp_path, silent)
    assert "--scored" in section.notes[0]
    assert not section.tables

"""The difficulty router on scored prompts it has not seen: other prompts of its tasks, other tasks, and other models.

Arms. "half": trained on one half of every file, measured on the other, both ways round. "task left out": the tasks are
dealt into ten groups, and each group is predicted by what the other nine teach; a file that names no tasks has ten groups
of like prompts (k-means over the vectors) in their place. "first day": trained only on files with other models, so that
of these nothing is known but a price. Beside them the length of the prompt, its nearest neighbours' scores, and somebody
who knows the task's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.router_report import Arm, Pair, Pool, section
from benchmarks.routing_curves import Numbers
from benchmarks.sections import Progress, Section
from compressor.tokens import count_each
from retrieval import CachedEncoder, Encoder, SentenceTransformerEncoder
from routing.difficulty import Difficulty, Rows
from routing.difficulty_training import train
from trimtab.prompt_features import NAMES, columns
from trimtab.prompt_features import rows as rows_of
from trimtab.scored import Scored, read_scored, score_table

FOLDS = 10
NEIGHBOURS = 40
BATCH = 256
QUICK_PROMPTS = 1_000
LEAST_OF_A_TASK = 5.0  # prompts of the overall mean that a task's own mean is drawn towards

PRICES_USD_PER_MTOK = {
    "codegemma-7b": 0.20,
    "gemma-2-9b-it": 0.10,
    "gpt-4-1106-preview": 15.00,
    "llama-3.1-8b-instruct": 0.20,
    "llama-3.1-nemotron-51b-instruct": 0.90,
    "llama-3.3-nemotron-super-49b-v1": 0.90,
    "llama3-chatqa-1.5-70b": 0.90,
    "llama3-chatqa-1.5-8b": 0.20,
    "mistral-7b-instruct-v0.3": 0.20,
    "mixtral-8x7b-instruct-v0.1": 0.60,
    "qwen2.5-7b-instruct": 0.20,
}
"""Of the open models those of LLMRouter's own `llm_candidates/default_llm.json` (MIT, 2025), input and output alike; of
GPT-4-1106 OpenAI's $10 and $30, three to one."""

ANSWER_TOKENS = 256
"""Added to a prompt's tokens for what is billed. How long each model's answers were is not in the data, so that a model's
cost beside another's is the ratio of their prices."""


@dataclass(frozen=True, slots=True)
class ScoredFile:
    """Scored prompts with their rows. `models` and `scores`, shape (prompts, models), are the file's own; `folds` deals the
    tasks into groups. `names_tasks`: whether the file says what is a task."""

    name: str
    prompts: tuple[Scored, ...]
    rows: Rows
    models: tuple[str, ...]
    scores: Numbers
    folds: NDArray[np.intp]
    names_tasks: bool


def run(files: Sequence[Path], seed: int, quick: bool, folder: Path, progress: Progress) -> Section:
    """The section. Without files there is nothing to measure, and it says so."""
    if not files:
        why = "it needs scored prompts, given with --scored FILE (docs/router.md says of what shape)"
        record = {"record": "skipped", "suite": "router", "reason": why}
        return Section("router", "Router", notes=(f"Skipped: {why}.",), records=(record,))
    encoder = CachedEncoder(SentenceTransformerEncoder(), folder / "vectors")
    read = [_read(file, encoder, seed, quick, progress) for file in files]
    return measured(read, columns(encoder), seed, progress)


def measured(files: Sequence[ScoredFile], columns_: str, seed: int, progress: Progress) -> Section:
    """The section of files that are read and encoded."""
    rng = np.random.default_rng(seed)
    halves = [np.asarray(rng.permutation(len(file.rows)) % 2, np.intp) for file in files]
    arms = {
        "half": _crossed(files, halves, columns_, progress),
        "task left out": _crossed(files, [file.folds for file in files], columns_, progress),
        "first day": [_first_day(file, files, columns_) for file in files],
    }
    pairs, pools = [], []
    for at, file in enumerate(files):
        own = tuple(Arm(name, each[at]) for name, each in arms.items() if np.isfinite(each[at]).all())
        if len(file.models) == 2:
            pairs.append(Pair(file.name, file.models, file.scores, own, _baselines(file, halves[at])))
        elif (costs := _costs(file)) is not None:
            pools.append(Pool(file.name, file.models, file.scores, own, costs, halves[at]))
    return section(pairs, pools, tuple(file.name for file in files if not file.names_tasks), seed)


def scored_file(name: str, prompts: Sequence[Scored], rows: Rows, seed: int) -> ScoredFile:
    """A file of encoded prompts. Those that not every model of the file has a score for are left out."""
    models, scores = score_table(prompts)
    whole = np.flatnonzero(np.isfinite(scores).all(axis=1))
    kept = tuple(prompts[at] for at in whole)
    tasks = sorted({each.task for each in kept})
    if names_tasks := any(tasks):
        dealt = dict(zip(tasks, np.random.default_rng(seed).permutation(len(tasks)) % FOLDS, strict=True))
        folds = np.array([dealt[each.task] for each in kept], np.intp)
    else:
        folds = _alike(rows[whole], seed)
    return ScoredFile(name, kept, rows[whole], models, scores[whole], folds, names_tasks)


def _read(file: Path, encoder: Encoder, seed: int, quick: bool, progress: Progress) -> ScoredFile:
    prompts = list(read_scored(file))
    if quick and len(prompts) > QUICK_PROMPTS:
        drawn = np.sort(np.random.default_rng(seed).choice(len(prompts), QUICK_PROMPTS, replace=False))
        prompts = [prompts[at] for at in drawn]
    name = file.name.removesuffix(".gz").removesuffix(".jsonl")
    starts = range(0, len(prompts), BATCH)
    step = progress(f"encoding {name}", len(starts))
    made = []
    for at in starts:
        made.append(rows_of([each.prompt for each in prompts[at : at + BATCH]], encoder))
        step()
    return scored_file(name, prompts, np.concatenate(made), seed)


def _alike(rows: Rows, seed: int) -> NDArray[np.intp]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        found = KMeans(FOLDS, n_init=1, random_state=seed).fit_predict(rows[:, : -len(NAMES)])
    return np.asarray(found, np.intp)


def _crossed(
    files: Sequence[ScoredFile], folds: Sequence[NDArray[np.intp]], columns_: str, progress: Progress
) -> list[Numbers]:
    """Each fold's chances by what the other folds of all files teach; NaN where they teach nothing of a model."""
    chances = [np.full(file.scores.shape, np.nan) for file in files]
    numbers = sorted({int(number) for each in folds for number in each})
    step = progress(f"training, {len(numbers)} folds", len(numbers))
    for number in numbers:
        weights = _taught(files, [each != number for each in folds], columns_)
        for file, fold, own in zip(files, folds, chances, strict=True):
            told = [at for at, model in enumerate(file.models) if model in weights.models]
            tested = fold == number
            if told and tested.any():
                known = [weights.models.index(file.models[at]) for at in told]
                own[np.ix_(tested, told)] = weights.chances(file.rows[tested])[:, known]
        step()
    return chances


def _taught(files: Sequence[ScoredFile], kept: Sequence[NDArray[np.bool_]], columns_: str) -> Difficulty:
    """Weights of the `kept` prompts of every file. A model whose scores there are all the same is left out."""
    prompts = [
        each for file, keep in zip(files, kept, strict=True) for each, k in zip(file.prompts, keep, strict=True) if k
    ]
    rows = np.concatenate([file.rows[keep] for file, keep in zip(files, kept, strict=True)])
    models, scores = score_table(prompts)
    useful = [at for at in range(len(models)) if len(np.unique(scores[np.isfinite(scores[:, at]), at])) > 1]
    return train(rows, scores[:, useful], [models[at] for at in useful], columns_)


def _first_day(file: ScoredFile, files: Sequence[ScoredFile], columns_: str) -> Numbers:
    """Chances of models of which only the price is known, by what other models found hard; NaN without such a file."""
    others = [each for each in files if not set(each.models) & set(file.models)]
    prices = _prices(file)
    if not others or prices is None:
        return np.full(file.scores.shape, np.nan)
    weights = _taught(others, [np.ones(len(each.rows), np.bool_) for each in others], columns_)
    judged = (weights.qualities(row, file.models, prices_usd=prices) for row in file.rows)
    return np.array([[each[model] for model in file.models] for each in judged])


def _prices(file: ScoredFile) -> dict[str, float] | None:
    found = {model: PRICES_USD_PER_MTOK.get(model.lower()) for model in file.models}
    known = {model: price for model, price in found.items() if price is not None}
    return known if len(known) == len(found) else None


def _costs(file: ScoredFile) -> Numbers | None:
    """Dollars of each prompt at each model; None where a price is not known."""
    prices = _prices(file)
    if prices is None:
        return None
    tokens = np.array(count_each([each.prompt for each in file.prompts], "o200k_base"), np.float64) + ANSWER_TOKENS
    return np.asarray(tokens[:, None] * np.array([prices[model] for model in file.models]) / 1e6)


def _baselines(file: ScoredFile, half: NDArray[np.intp]) -> dict[str, Numbers]:
    """What the dearer model is expected to add to each prompt, by simpler means."""
    weak, strong = np.argsort(file.scores.mean(axis=0))
    gains = file.scores[:, strong] - file.scores[:, weak]
    vectors = file.rows[:, : -len(NAMES)]
    near, named = np.zeros(len(gains)), np.zeros(len(gains))
    for tested in (half == 0, half == 1):
        order = np.argsort(-(vectors[tested] @ vectors[~tested].T), axis=1)[:, :NEIGHBOURS]
        near[tested] = gains[~tested][order].mean(axis=1)
        tasks = np.array([each.task for each in file.prompts])
        overall = gains[~tested].mean()
        for task in set(tasks[tested]):
            seen = gains[~tested & (tasks == task)]
            drawn = (seen.sum() + LEAST_OF_A_TASK * overall) / (len(seen) + LEAST_OF_A_TASK)
            named[tested & (tasks == task)] = drawn
    length = np.array([len(each.prompt) for each in file.prompts], np.float64)
    return {"length": length, "nearest neighbours": near, "task's name": named}

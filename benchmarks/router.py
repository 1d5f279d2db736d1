"""The difficulty router on scored prompts it has not seen: other prompts of its tasks, other tasks, and other models.

Arms. "half": trained on one half of every file, measured on the other, both ways round. "task left out": the tasks are
dealt into ten groups, and each group is predicted by what the other nine teach; a file that names no tasks has ten groups
of like prompts (k-means over the vectors) in their place. "first day": trained only on files with other models, so that
of these nothing is known but a price. Beside them the length of the prompt, its nearest neighbours' scores, and somebody
who knows the task's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.router_report import Arm, Pair, Pool, section
from benchmarks.routing_curves import Numbers
from benchmarks.sections import Progress, Section
from compressor.tokens import count_each
from retrieval import CachedEncoder, Encoder, SentenceTransformerEncoder
from routing.difficulty import Rows
from routing.difficulty_training import train
from trimtab.prompt_features import NAMES, columns
from trimtab.prompt_features import rows as rows_of
from trimtab.scored import Scored, read_scored, score_table

FOLDS = 10
NEIGHBOURS = 40
BATCH = 256
QUICK_PROMPTS = 1_000
LEAST_OF_A_TASK = 5.0  # prompts of the mean gain that a task's own is drawn towards

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
class _File:
    """Scored prompts with their rows. `scores`: shape (prompts, models). `groups` is the task of each, as a number."""

    name: str
    prompts: tuple[Scored, ...]
    rows: Rows
    models: tuple[str, ...]
    scores: Numbers
    groups: NDArray[np.intp]
    names_tasks: bool


def run(files: Sequence[Path], seed: int, quick: bool, folder: Path, progress: Progress) -> Section:
    """The section. Without files there is nothing to measure, and it says so."""
    if not files:
        return Section(
            "router",
            "Router",
            notes=("Skipped: it needs scored prompts, given with --scored FILE (docs/router.md says of what shape).",),
            records=({"record": "skipped", "suite": "router", "reason": "no scored prompts were given"},),
        )
    encoder = CachedEncoder(SentenceTransformerEncoder(), folder / "vectors")
    return measured([_read(file, encoder, seed, quick, progress) for file in files], columns(encoder), seed, progress)


def measured(files: Sequence[_File], columns_: str, seed: int, progress: Progress) -> Section:
    """The section of files that are read and encoded."""
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(file.rows)) % 2 for file in files]
    groups = [file.groups for file in files]
    arms = {
        "half": _crossed(files, halves, columns_, progress, "halves"),
        "task left out": _crossed(files, groups, columns_, progress, "tasks left out"),
        "first day": [_first_day(file, files, columns_) for file in files],
    }
    pairs, pools = [], []
    for at, file in enumerate(files):
        own = tuple(Arm(name, each[at]) for name, each in arms.items() if np.isfinite(each[at]).all())
        if len(file.models) == 2:
            pairs.append(_pair(file, halves[at], own, seed))
        elif (costs := _costs(file)) is not None:
            pools.append(Pool(file.name, file.models, file.scores, costs, halves[at], own))
    unnamed = tuple(file.name for file in files if not file.names_tasks)
    return section(pairs, pools, unnamed, seed)


def _read(file: Path, encoder: Encoder, seed: int, quick: bool, progress: Progress) -> _File:
    prompts = tuple(read_scored(file))
    if quick and len(prompts) > QUICK_PROMPTS:
        drawn = np.sort(np.random.default_rng(seed).choice(len(prompts), QUICK_PROMPTS, replace=False))
        prompts = tuple(prompts[at] for at in drawn)
    name = file.name.removesuffix(".gz").removesuffix(".jsonl")
    starts = range(0, len(prompts), BATCH)
    step = progress(f"encoding {name}", len(starts))
    made = []
    for at in starts:
        made.append(rows_of([each.prompt for each in prompts[at : at + BATCH]], encoder))
        step()
    return read_in(name, prompts, np.concatenate(made), seed)


def read_in(name: str, prompts: tuple[Scored, ...], rows: Rows, seed: int) -> _File:
    """A file whose prompts are encoded. A prompt that not every model of the file answered is left out."""
    models, scores = score_table(prompts)
    whole = np.flatnonzero(np.isfinite(scores).all(axis=1))
    prompts, rows, scores = tuple(prompts[at] for at in whole), rows[whole], scores[whole]
    tasks = sorted({each.task for each in prompts})
    if names_tasks := any(tasks):
        dealt = dict(zip(tasks, np.random.default_rng(seed).permutation(len(tasks)) % FOLDS, strict=True))
        groups = np.array([dealt[each.task] for each in prompts])
    else:
        groups = _alike(rows, seed)
    return _File(name, prompts, rows, models, scores, groups, names_tasks)


def _alike(rows: Rows, seed: int) -> NDArray[np.intp]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        found = KMeans(FOLDS, n_init=1, random_state=seed).fit_predict(rows[:, : -len(NAMES)])
    return np.asarray(found, np.intp)


def _crossed(
    files: Sequence[_File], folds: Sequence[NDArray[np.intp]], columns_: str, progress: Progress, what: str
) -> list[Numbers]:
    """Each fold's chances by what the other folds of all files teach; NaN of a model of which they teach nothing."""
    chances = [np.full(file.scores.shape, np.nan) for file in files]
    numbers = sorted({int(fold) for each in folds for fold in each})
    step = progress(what, len(numbers))
    for number in numbers:
        taught = _taught(files, [each != number for each in folds], columns_)
        for file, fold, own in zip(files, folds, chances, strict=True):
            told = [(at, model) for at, model in enumerate(file.models) if model in taught.models]
            if told and (fold == number).any():
                found = taught.chances(file.rows[fold == number])
                own[np.ix_(fold == number, [at for at, _ in told])] = found[:, [taught.models.index(m) for _, m in told]]
        step()
    return chances


def _taught(files: Sequence[_File], kept: Sequence[NDArray[np.bool_]], columns_: str):  # type: ignore[no-untyped-def]
    prompts = [each for file, keep in zip(files, kept, strict=True) for each in np.array(file.prompts, object)[keep]]
    rows = np.concatenate([file.rows[keep] for file, keep in zip(files, kept, strict=True)])
    models, scores = score_table(prompts)
    useful = [at for at in range(len(models)) if len(np.unique(scores[np.isfinite(scores[:, at]), at])) > 1]
    return train(rows, scores[:, useful], [models[at] for at in useful], columns_)

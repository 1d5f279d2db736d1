"""The difficulty router on scored prompts it has not seen: other prompts of its tasks, other tasks, and other models.

Arms. "half": trained on one half of every file, measured on the other, both ways round, for five halvings whose figures
are averaged. "models unknown": the same weights, told nothing of the models but their prices; "shares told": nothing but
how many of the training half's prompts each answers well. "task left out": the tasks are dealt into ten groups, and each
group is predicted by what the other nine teach; a file that names no tasks has ten groups of like prompts (k-means over
the vectors) in their place. "all unknown": trained only on files with other models, which are also other tasks, and told
nothing but prices. Beside them the length of the prompt, its nearest neighbours' scores, and somebody who knows the
task's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.router_report import Arm, Pair, Pool, by_half, section
from benchmarks.routing_curves import Numbers
from benchmarks.sections import Progress, Section
from compressor.tokens import count_each
from retrieval import CachedEncoder, Encoder, SentenceTransformerEncoder
from retrieval.store import DiskStore
from retrieval.vectors import DEFAULT_SIZE_LIMIT_BYTES
from routing.difficulty import Difficulty, Rows, sigmoid
from trimtab.prompt_features import NAMES, columns
from trimtab.prompt_features import rows as rows_of
from trimtab.router_training import set_weights, trained
from trimtab.scored import Scored, read_scored, score_table

FOLDS = 10
HALVINGS = 5
QUICK_HALVINGS = 2
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
    encoder = CachedEncoder(SentenceTransformerEncoder(), DiskStore(folder / "vectors", DEFAULT_SIZE_LIMIT_BYTES))
    read = [_read(file, encoder, seed, quick, progress) for file in files]
    return measured(read, columns(encoder), seed, QUICK_HALVINGS if quick else HALVINGS, progress)


def measured(files: Sequence[ScoredFile], columns_: str, seed: int, halvings: int, progress: Progress) -> Section:
    """The section of files that are read and encoded."""
    rng = np.random.default_rng(seed)
    dealt = [[np.asarray(rng.permutation(len(file.rows)) % 2, np.intp) for file in files] for _ in range(halvings)]
    step = progress("training", 2 * halvings + FOLDS)
    halves = [_crossed(files, halving, columns_, step) for halving in dealt]
    left_out = _crossed(files, [file.folds for file in files], columns_, step).known
    pairs, pools = [], []
    for at, file in enumerate(files):
        mine = tuple(halving[at] for halving in dealt)
        possible = (
            Arm("half", tuple(each.known[at] for each in halves), mine),
            Arm("models unknown", tuple(each.unknown[at] for each in halves), mine),
            Arm("shares told", tuple(each.shares[at] for each in halves), mine),
            Arm("task left out", (left_out[at],)),
            Arm("all unknown", (_all_unknown(file, files, columns_),)),
        )
        arms = tuple(arm for arm in possible if all(np.isfinite(run).all() for run in arm.runs))
        if len(file.models) == 2:
            pairs.append(Pair(file.name, file.models, file.scores, arms, _baselines(file, mine)))
        elif (costs := _costs(file)) is not None:
            pools.append(Pool(file.name, file.models, file.scores, arms, costs, mine))
    return section(pairs, pools, tuple(file.name for file in files if not file.names_tasks), seed)


def scored_file(name: str, prompts: Sequence[Scored], rows: Rows, seed: int) -> ScoredFile:
    """A file of encoded prompts. Those that not every model of the file has a score for are left out."""
    models, scores = score_table(prompts)
    whole = np.flatnonzero(np.isfinite(scores).all(axis=1))
    kept = tuple(prompts[int(at)] for at in whole)
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


@dataclass(frozen=True, slots=True)
class _Chances:
    """Of each file, shape (prompts, models); NaN where nothing can be said.

    `unknown`: told only what the models cost; `shares`: told only what share of the other folds' prompts each answers well.
    """

    known: tuple[Numbers, ...]
    unknown: tuple[Numbers, ...]
    shares: tuple[Numbers, ...]


def _crossed(
    files: Sequence[ScoredFile], folds: Sequence[NDArray[np.intp]], columns_: str, step: Callable[[], None]
) -> _Chances:
    """Each fold's chances by what the other folds of all files teach."""
    known, unknown, told = ([np.full(file.scores.shape, np.nan) for file in files] for _ in range(3))
    for number in sorted({int(number) for each in folds for number in each}):
        weights = _taught(files, [each != number for each in folds], columns_)
        for at, (file, fold) in enumerate(zip(files, folds, strict=True)):
            tested = fold == number
            both = [model for model in file.models if model in weights.models]
            if both and tested.any():
                places = np.ix_(tested, [file.models.index(model) for model in both])
                known[at][places] = weights.chances(file.rows[tested])[:, [weights.models.index(m) for m in both]]
            unknown[at][tested] = _nameless(file, tested, weights, prices_usd=_prices(file))
            if 0 < tested.sum() < len(tested):
                means = dict(zip(file.models, file.scores[~tested].mean(axis=0), strict=True))
                told[at][tested] = _nameless(file, tested, weights, shares=means)
        step()
    return _Chances(tuple(known), tuple(unknown), tuple(told))


def _taught(files: Sequence[ScoredFile], kept: Sequence[NDArray[np.bool_]], columns_: str) -> Difficulty:
    """Weights of the `kept` prompts of every file."""
    prompts = [p for file, keep in zip(files, kept, strict=True) for p, k in zip(file.prompts, keep, strict=True) if k]
    rows = np.concatenate([file.rows[keep] for file, keep in zip(files, kept, strict=True)])
    return trained(prompts, rows, set_weights([int(keep.sum()) for keep in kept]), columns_)


def _nameless(
    file: ScoredFile,
    tested: NDArray[np.bool_],
    weights: Difficulty,
    *,
    prices_usd: Mapping[str, float] | None = None,
    shares: Mapping[str, float] | None = None,
) -> Numbers:
    """Chances of the file's models by prices or shares, as of names that training has not seen; NaN without either."""
    said = prices_usd or shares
    if said is None:
        return np.full((int(tested.sum()), len(file.models)), np.nan)
    nameless = {f"unknown:{model}": said[model] for model in file.models}
    by_price, by_share = (nameless, None) if prices_usd else (None, nameless)
    strengths = np.array(list(weights.strengths(tuple(nameless), by_share, by_price).values()))
    return sigmoid(strengths - weights.difficulty(file.rows[tested])[:, None])


def _all_unknown(file: ScoredFile, files: Sequence[ScoredFile], columns_: str) -> Numbers:
    """Chances by what other models found hard elsewhere; NaN without a file of other models."""
    others = [each for each in files if not set(each.models) & set(file.models)]
    if not others:
        return np.full(file.scores.shape, np.nan)
    weights = _taught(others, [np.ones(len(each.rows), np.bool_) for each in others], columns_)
    return _nameless(file, np.ones(len(file.rows), np.bool_), weights, prices_usd=_prices(file))


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


def _baselines(file: ScoredFile, halves: Sequence[NDArray[np.intp]]) -> dict[str, tuple[Numbers, ...]]:
    """What the better model is expected to add to each prompt, by simpler means; once for every halving."""
    length = np.array([len(each.prompt) for each in file.prompts], np.float64)
    weak, strong = np.argsort(file.scores.mean(axis=0))
    gains = file.scores[:, strong] - file.scores[:, weak]
    return {
        "length": (length,),
        "nearest neighbours": by_half([_crossed_gains(half, gains, file, _of_neighbours) for half in halves], halves),
        "task's name": by_half([_crossed_gains(half, gains, file, _of_task) for half in halves], halves),
    }


def _crossed_gains(
    half: NDArray[np.intp],
    gains: Numbers,
    file: ScoredFile,
    told: Callable[[ScoredFile, Numbers, NDArray[np.bool_]], Numbers],
) -> Numbers:
    found = np.zeros(len(gains))
    for tested in (half == 0, half == 1):
        found[tested] = told(file, gains, tested)
    return found


def _of_neighbours(file: ScoredFile, gains: Numbers, tested: NDArray[np.bool_]) -> Numbers:
    vectors = file.rows[:, : -len(NAMES)]
    nearest = np.argsort(-(vectors[tested] @ vectors[~tested].T), axis=1)[:, :NEIGHBOURS]
    return np.asarray(gains[~tested][nearest].mean(axis=1))


def _of_task(file: ScoredFile, gains: Numbers, tested: NDArray[np.bool_]) -> Numbers:
    tasks = np.array([each.task for each in file.prompts])
    overall = gains[~tested].mean()
    means = {}
    for task in set(tasks):
        seen = gains[~tested & (tasks == task)]
        means[task] = (seen.sum() + LEAST_OF_A_TASK * overall) / (len(seen) + LEAST_OF_A_TASK)
    return np.array([means[task] for task in tasks[tested]])

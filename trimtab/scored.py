"""Scored prompts: recorded traffic of which it is known how well each model answered, one JSON object a line, plain or gzipped.

    {"prompt": "...", "task": "billing", "scores": {"gpt-5-mini": 1, "gpt-6.1-sol": 0.5}}

A score is from 0 (wrong) to 1 (right). `task` groups prompts of one kind and may be missing; so may models, line by line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BadScores(ValueError):
    """A line that is not a scored prompt. The message names the file, the line, the field and what is wrong."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A prompt and how well each model answered it, 0 to 1."""

    prompt: str
    task: str
    scores: tuple[tuple[str, float], ...]


def read_scored(file: Path) -> Iterator[Scored]:
    """The prompts of a JSONL file, in order. Raises BadScores at the first bad line, OSError for an unreadable file."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _scored(json.loads(line))
                except ValueError as error:
                    raise BadScores(f"{file}, line {number}: {error}") from None


def _scored(row: Any) -> Scored:
    if not isinstance(row, dict):
        raise ValueError("must be a JSON object")
    prompt, task, scores = row.get("prompt"), row.get("task", ""), row.get("scores")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("prompt must be a text that is not blank")
    if not isinstance(task, str):
        raise ValueError("task must be a text")
    if not isinstance(scores, dict) or not scores:
        raise ValueError('scores must name a model, such as {"gpt-5-mini": 1}')
    for model, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
            raise ValueError(f"the score of {model!r} must be a number from 0 to 1, not {score!r}")
    return Scored(prompt, task, tuple((model, float(score)) for model, score in scores.items()))


def score_table(prompts: Sequence[Scored]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The models that were scored, by name, and their scores, shape (prompts, models), NaN where there is none."""
    models = tuple(sorted({model for each in prompts for model, _ in each.scores}))
    column = {model: at for at, model in enumerate(models)}
    table = np.full((len(prompts), len(models)), np.nan)
    for row, each in enumerate(prompts):
        for model, score in each.scores:
            table[row, column[model]] = score
    return models, table

"""`trimtab train-router`: teach the difficulty router on scored prompts of your own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from retrieval import Encoder
from routing.difficulty import Difficulty
from routing.difficulty_training import train
from trimtab.console import ConfigOption, err, fail, told
from trimtab.pipeline import Trimtab
from trimtab.prompt_features import Rows, columns, rows
from trimtab.scored import BadScores, Scored, read_scored, score_table

BATCH = 256


def train_router(
    files: Annotated[list[Path], typer.Argument(help="Scored prompts, JSONL, plain or gzipped (docs/router.md).")],
    to: Annotated[Path, typer.Option("--out", help="Where to write the weights.")] = Path("router.npz"),
    limit: Annotated[int | None, typer.Option(min=1, help="Take at most this many prompts of each file.")] = None,
    config: ConfigOption = None,
) -> None:
    """Teach `model: "auto"` what your models find hard; then set `router` in the settings to the file."""
    with told():
        encoder = Trimtab(config).encoder
        try:
            prompts = [each for file in files for each in islice(read_scored(file), limit)]
            weights = trained(prompts, encoder, progress=True)
            weights.save(to)
        except (BadScores, OSError, ValueError) as error:
            fail(str(error))
    err.print(f"{len(prompts):,} prompts, {len(weights.models)} models -> {to}")


def trained(prompts: Sequence[Scored], encoder: Encoder, *, progress: bool = False) -> Difficulty:
    """Weights for `prompts`. Raises ValueError where they are too few or say nothing."""
    models, scores = score_table(prompts)
    return train(encoded(prompts, encoder, progress=progress), scores, models, columns(encoder))


def encoded(prompts: Sequence[Scored], encoder: Encoder, *, progress: bool = False) -> Rows:
    """The rows of `prompts`, in batches, so that a bar can say how far it is."""
    starts = range(0, len(prompts), BATCH)
    batches = track(starts, "Encoding", console=err, disable=not progress)
    made = [rows([each.prompt for each in prompts[at : at + BATCH]], encoder) for at in batches]
    return np.concatenate(made) if made else rows([], encoder)

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
from trimtab.console import ConfigOption, JsonOption, err, fail, out, told
from trimtab.pipeline import Trimtab
from trimtab.prompt_features import Rows, columns, rows
from trimtab.router_training import set_weights, trained
from trimtab.scored import BadScores, Scored, read_scored

BATCH = 256


def train_router(
    files: Annotated[list[Path], typer.Argument(help="Scored prompts, JSONL, plain or gzipped (docs/router.md).")],
    to: Annotated[Path, typer.Option("--out", help="Where to write the weights.")] = Path("router.npz"),
    limit: Annotated[int | None, typer.Option(min=1, help="Take at most this many prompts of each file.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Teach `model: "auto"` what your models find hard; then set `router` in the settings to the file."""
    with told():
        encoder = Trimtab(config).encoder
        try:
            sets = [list(islice(read_scored(file), limit)) for file in files]
            prompts = [each for one in sets for each in one]
            made = _encoded(prompts, encoder)
            with err.status("Training"):
                weights = trained(prompts, made, set_weights([len(one) for one in sets]), columns(encoder))
            weights.save(to)
        except (BadScores, OSError, ValueError) as error:
            fail(str(error))
    if as_json:
        out.print_json(data={"prompts": len(prompts), "models": list(weights.models), "file": str(to)})
    else:
        err.print(f"{len(prompts):,} prompts, {len(weights.models)} models -> {to}", markup=False)


def _encoded(prompts: Sequence[Scored], encoder: Encoder) -> Rows:
    starts = track(range(0, len(prompts), BATCH), "Encoding", console=err)
    made = [rows([each.prompt for each in prompts[at : at + BATCH]], encoder) for at in starts]
    return np.concatenate(made) if made else rows([], encoder)

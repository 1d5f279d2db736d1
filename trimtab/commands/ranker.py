"""`trimtab train-ranker` and `trimtab calibrate`: the ranking and its promise, made your own traffic's."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from compressor.labelled import BadQuestion, Labelled, read_labelled
from trimtab.console import ConfigOption, JsonOption, err, fail, out, told
from trimtab.pipeline import Trimtab

Files = Annotated[list[Path], typer.Argument(help="Labelled questions, JSONL, plain or gzipped (docs/ranker.md).")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take at most this many questions of each file.")]


def train_ranker(
    files: Files,
    to: Annotated[Path, typer.Option("--out", help="Where to write the weights.")] = Path("ranker.npz"),
    limit: Limit = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Teach the ranking the habits of your own traffic; then set `ranker` in the settings to the file."""
    from compressor.training import examples_of, train

    with told():
        ranker = Trimtab(config).ranker
        questions = _questions(files, limit)
        try:
            examples = list(track(examples_of(questions, ranker), "Encoding", len(questions), console=err))
            with err.status("Training"):
                train(examples).save(to)
        except (OSError, ValueError) as error:
            fail(str(error))
    if as_json:
        out.print_json(data={"questions": len(examples), "file": str(to)})
    else:
        err.print(f"{len(examples):,} questions -> {to}", markup=False)


def calibrate(
    files: Files,
    to: Annotated[Path, typer.Option("--out", help="Where to write the calibration.")] = Path("calibration.npz"),
    limit: Limit = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Rank each data set by weights trained on the others.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make `min_coverage` a promise about your own traffic; then set `calibration` in the settings to the file.

    The questions must not be those that the ranking was trained on, or it promises more than it keeps. Where they are,
    --leave-out trains again for each data set, on the others.
    """
    from compressor.calibrating import calibrated, left_out

    with told():
        ranker = Trimtab(config).ranker
        questions = _questions(files, limit)
        try:
            if leave_out:
                with err.status(f"Training and cutting {len(questions):,} questions"):
                    calibration = left_out(questions, ranker)
            else:
                asked = track(questions, "Cutting", len(questions), console=err)
                calibration = calibrated(asked, lambda each: ranker.judged(each.query, each.sources))
            calibration.save(to)
        except (OSError, ValueError) as error:
            fail(str(error))
    if as_json:
        counts = {"questions": len(calibration.kind), "kinds": len(calibration.kinds)}
        out.print_json(data={**counts, "file": str(to)})
    else:
        err.print(f"{len(calibration.kind):,} questions of {len(calibration.kinds)} kinds -> {to}", markup=False)


def _questions(files: list[Path], limit: int | None) -> list[Labelled]:
    try:
        return [question for file in files for question in islice(read_labelled(file), limit)]
    except (BadQuestion, OSError) as error:
        fail(str(error))

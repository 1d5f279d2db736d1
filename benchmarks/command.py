"""The command: which suites on which data, and where the report goes."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.docstrings import stdlib_docstrings
from benchmarks.endpoint import Endpoint, EndpointFailed
from benchmarks.evidence import QUICK_RATIOS, RATIOS
from benchmarks.hub import SETS, load_public
from benchmarks.machine import run_record
from benchmarks.peers import PEERS
from benchmarks.peers.offline import provide_tiktoken
from benchmarks.questions import Dataset, load, selfwritten
from benchmarks.reader import RemoteReader
from benchmarks.readme import NoMarkers, write_results
from benchmarks.report import html_report
from benchmarks.sections import Section
from benchmarks.suites import ON_REQUEST, SUITES, Setting
from benchmarks.terminal import progress_bars, show
from compressor.labelled import BadQuestion
from trimtab.local_model import LocalModelMissing
from trimtab.scored import BadScores

QUICK_QUESTIONS = 8

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def bench(
    suites: Annotated[
        list[str] | None,
        typer.Argument(help=f"Any of: {', '.join(SUITES)}. Without one, all but {', '.join(ON_REQUEST)}."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few questions, small sizes: a check that it runs.")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own questions, a file (docs/benchmarks.md), or a public set by name, instead of the built-in sets: "
            f"{', '.join(SETS)}."
        ),
    ] = None,
    peers: Annotated[str | None, typer.Option(help="Names, with commas between: only these compressors.")] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, help="At most this many of each set, drawn by the seed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For every draw. One seed, the same digits, but for times.")] = 1,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("bench-report"),
    readme: Annotated[Path | None, typer.Option(help="Write the results between the markers of this file.")] = None,
    scored: Annotated[
        list[Path] | None, typer.Option(help="Prompts with models' scores (docs/router.md), for the suite router.")
    ] = None,
    reader_url: Annotated[str | None, typer.Option(help="An OpenAI-compatible endpoint as the reader.")] = None,
    reader_model: Annotated[str, typer.Option(help="The model to ask for there.")] = "gpt-5-mini",
    reader_key_env: Annotated[str | None, typer.Option(help="The environment variable with its key.")] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint that judges the answers.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The model to ask for there.")] = "gpt-5-mini",
    judge_key_env: Annotated[str | None, typer.Option(help="The environment variable with its key.")] = None,
) -> None:
    """Measure token savings, evidence kept, answers kept, latency and dollars, beside named peers."""
    # into a file, the tables as wide as they are
    console, errors = Console(width=None if sys.stdout.isatty() else 180), Console(stderr=True)
    chosen = suites or [name for name in SUITES if name not in ON_REQUEST]
    for name in chosen:
        if name not in SUITES:
            raise typer.BadParameter(f"there is no suite {name!r}; there are {', '.join(SUITES)}")
    if peers is not None and (unknown := set(peers.split(",")) - {peer.name for peer in PEERS}):
        known = ", ".join(peer.name for peer in PEERS)
        raise typer.BadParameter(f"there is no peer {', '.join(sorted(unknown))!r}; there are {known}")
    if quick and questions is None:
        questions = QUICK_QUESTIONS
    try:
        datasets = tuple(_datasets(data or [], questions, seed))
    except BadQuestion as error:
        raise typer.BadParameter(str(error)) from None
    run = run_record(chosen, seed, quick)
    with tempfile.TemporaryDirectory() as scratch, progress_bars(errors) as progress:
        provide_tiktoken(Path(scratch) / "tiktoken")
        _no_bars_of_others()
        setting = Setting(
            datasets=datasets,
            peers=tuple(peer for peer in PEERS if peers is None or peer.name in peers.split(",")),
            ratios=QUICK_RATIOS if quick else RATIOS,
            seed=seed,
            quick=quick,
            folder=Path(scratch),
            progress=progress,
            remote=RemoteReader(Endpoint(reader_url, reader_model, reader_key_env)) if reader_url else None,
            scored=tuple(scored or ()),
            judge=Endpoint(judge_url, judge_model, judge_key_env) if judge_url else None,
        )
        sections = [_section(name, setting, errors) for name in chosen]
    for section in sections:
        show(section, console)
    _write(out, run, sections)
    console.print(f"Report: {out / 'report.html'}   Records: {out / 'results.jsonl'}")
    if readme is not None:
        try:
            write_results(readme, run, sections)
        except (NoMarkers, OSError) as error:
            raise typer.BadParameter(str(error)) from None


def _datasets(given: list[str], questions: int | None, seed: int) -> list[Dataset]:
    found = [_dataset(each) for each in given] or [selfwritten(), stdlib_docstrings()]
    return found if questions is None else [dataset.sample(questions, seed) for dataset in found]


def _dataset(given: str) -> Dataset:
    """A file where there is one of that name, else the public set."""
    file = Path(given)
    if file.exists():
        return load(file)
    if given in SETS:
        return load_public(given)
    raise BadQuestion(f"{given}: there is no such file, and no public set of that name; there are {', '.join(SETS)}")


def _section(name: str, setting: Setting, errors: Console) -> Section:
    began = time.perf_counter()
    try:
        section = SUITES[name](setting)
    except (LocalModelMissing, EndpointFailed, BadScores) as missing:
        section = Section(name, name.capitalize(), notes=(f"Skipped: {missing}",))
    errors.print(f"{name}: {time.perf_counter() - began:.0f} s", style="dim")
    return section


def _write(out: Path, run: dict[str, Any], sections: list[Section]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [run, *({"suite": s.suite, **record} for s in sections for record in s.records)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "results.jsonl").write_text(lines, encoding="utf-8")
    (out / "report.html").write_text(html_report(run, sections), encoding="utf-8")


def _no_bars_of_others() -> None:
    """transformers draws a bar for every model that it loads, over ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()

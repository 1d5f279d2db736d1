"""The README's results, written by the command that measured them, between two markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import Section, Table

START, END = "<!-- results -->", "<!-- /results -->"


class NoMarkers(ValueError):
    """The file has no place for results; the message says what to add."""


def write_results(file: Path, run: Mapping[str, Any], sections: Sequence[Section]) -> None:
    """Replace what stands between the markers of `file` by every table that belongs there. Raises NoMarkers."""
    text = file.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise NoMarkers(f"{file}: put the lines {START} and {END} where the results belong")
    file.write_text(f"{before}{START}\n{results_markdown(run, sections)}\n{END}{after}", encoding="utf-8")


def results_markdown(run: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """Every table marked for the README, as Markdown, with the command, machine and versions that made it."""
    command = " ".join(
        ["python -m benchmarks", *run["suites"], *(["--quick"] if run["quick"] else []), f"--seed {run['seed']}"]
    )
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    parts = [f"Written by `{command}` on {run['cores']} cores of {run['cpu']}, Python {run['python']}; {versions}."]
    for section in sections:
        wanted = [table for table in section.tables if table.readme]
        if wanted:
            parts += [f"### {section.title}", *section.notes, *(_markdown(table) for table in wanted)]
    return "\n\n".join(parts)


def _markdown(table: Table) -> str:
    lines = [f"**{table.title}**", "", _line(table.headers), _line(["---"] * len(table.headers))]
    lines += [_line([_cell(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, *(["", table.note] if table.note else [])])


def _cell(text: str) -> str:
    return "**trimtab**" if text == "trimtab" else text.replace("|", "\\|").replace("*", "\\*")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

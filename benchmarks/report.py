"""The report: one HTML file with everything in it, which opens from a disk and loads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.plots import can_draw, svg
from benchmarks.sections import Excerpt, Plot, Section, Table

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1.5rem; }
h1 { margin-bottom: 0; } h2 { border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1rem; }
h3 { margin-bottom: .3rem; }
summary h3 { display: inline-block; margin-top: .6rem; }
nav a { margin-right: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
td.text { white-space: normal; min-width: 22rem; }
tr.ours { font-weight: 600; }
.note { color: #777; font-size: 13px; margin: .3rem 0 1rem; }
figure { background: #fff; border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0; padding: .5rem; }
figure svg { display: block; height: auto; margin: auto; max-width: 100%; }
pre { background: var(--soft); border-radius: 6px; font-size: 12.5px; padding: .8rem; white-space: pre-wrap; }
"""
_LONG_CELL = 60
_LONG_TABLE = 30  # rows; a longer one is folded away, so that what comes after it is found


def html_report(run: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The whole page."""
    links = "".join(f'<a href="#{escape(s.suite)}">{escape(s.title)}</a>' for s in sections)
    body = "".join(_section(section) for section in sections)
    facts = escape(json.dumps(dict(run), indent=2, ensure_ascii=False))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>trimtab benchmarks</title><style>{_STYLE}</style></head><body>"
        f"<h1>trimtab benchmarks</h1><p class=note>{escape(_made_on(run))}</p><nav>{links}</nav>{body}"
        f"<h2>Made with</h2><pre>{facts}</pre></body></html>\n"
    )


def _made_on(run: Mapping[str, Any]) -> str:
    quick = ", a quick run" if run["quick"] else ""
    return f"seed {run['seed']}{quick} · {run['cpu']}, {run['cores']} cores · Python {run['python']}"


def _section(section: Section) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in section.notes)
    plots = "".join(_figure(plot) for plot in section.plots if plot.series) if can_draw() else ""
    if section.plots and not plots:
        plots = "<p class=note>No plots: matplotlib is not installed (pip install 'trimtab[bench]').</p>"
    tables = "".join(_table(table) for table in section.tables)
    cases = "".join(_excerpt(excerpt) for excerpt in section.excerpts)
    cases = f"<h3>Worst cases</h3>{cases}" if cases else ""
    return f'<h2 id="{escape(section.suite)}">{escape(section.title)}</h2>{notes}{plots}{tables}{cases}'


def _figure(plot: Plot) -> str:
    return f"<figure>{svg(plot)}</figure>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.headers)
    rows = "".join(
        f"<tr{' class=ours' if row[0].startswith('trimtab') else ''}>{''.join(_cell(cell) for cell in row)}</tr>"
        for row in table.rows
    )
    note = f"<p class=note>{escape(table.note)}</p>" if table.note else ""
    title = f"<h3>{escape(table.title)}</h3>"
    body = f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>{note}"
    if len(table.rows) > _LONG_TABLE:
        return f"<details><summary>{title} ({len(table.rows)} rows)</summary>{body}</details>"
    return title + body


def _cell(cell: str) -> str:
    return f"<td{' class=text' if len(cell) > _LONG_CELL else ''}>{escape(cell)}</td>"


def _excerpt(excerpt: Excerpt) -> str:
    return f"<h4>{escape(excerpt.title)}</h4><pre>{escape(excerpt.text)}</pre>"

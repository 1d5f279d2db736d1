"""Page: the report as one HTML file that needs nothing else: no script, no font, no picture, no network."""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from trimtab.analysis.report import MAX_NAMED, MAX_PROBLEMS, Report
from trimtab.analysis.wording import dollars

_KIND_NAMES: Final = {
    "unstable-prefix": "unstable prefix",
    "changing-prefix": "changing prefix",
    "unmarked-prefix": "unmarked prefix",
    "repeated-chunk": "repeated chunk",
    "repeated-across-turns": "repeated across turns",
    "near-duplicate-documents": "near-duplicate documents",
    "oversized-examples": "oversized examples",
    "unused-tools": "unused tools",
    "tabular-json": "tabular JSON",
    "indented-json": "indented JSON",
    "tier-boundary": "tier boundary",
    "could-wait": "could wait",
    "model-too-good": "model too good",
    "far-limit": "far limit",
}


def page(report: Report) -> str:
    """The HTML. Every text of a recording is escaped, and a policy in the page forbids scripts and requests."""
    environment = Environment(
        loader=PackageLoader("trimtab.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["dollars"] = dollars
    most = max((row.saved_usd for row in report.rows), default=None)
    return environment.get_template("report.html").render(
        report=report,
        most=most or None,
        several=report.days is not None and report.days > 1,
        kinds=_KIND_NAMES,
        max_named=MAX_NAMED,
        max_problems=MAX_PROBLEMS,
    )

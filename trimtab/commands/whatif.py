"""`trimtab whatif`: real traffic again, under a proposed contract or another price list. Which would have been cheaper?"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from routing.catalog import Catalog
from routing.commitments import Commitment, load_commitments
from routing.errors import UnknownModel
from routing.offers import plain
from routing.replay import Call, Replayed, Use, billed, offer_of, replayed
from trimtab.commands.prices import OverlayOption, catalog_of
from trimtab.console import ConfigOption, JsonOption, err, fail, out, read_text, told
from trimtab.errors import BadSettings

_SHOWN_PROBLEMS = 5


def whatif(
    ledger: Annotated[str, typer.Option("--ledger", help="Receipts, one JSON object a line, or - for standard input.")],
    commit: Annotated[Path | None, typer.Option("--commit", help="A TOML file with [[commitments]].")] = None,
    overlay: OverlayOption = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the dollars over time into this PNG or SVG.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay real traffic under a proposed contract or another price list: which would have been cheaper?"""
    if commit is None and overlay is None:
        fail("say what to try: --commit FILE for a contract, --prices FILE for other prices")
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        fail("--plot needs matplotlib, which is not installed: pip install 'trimtab[bench]'")
    with told():
        listed = catalog_of(config, None)
        proposed = catalog_of(config, overlay)
        commitments = _commitments(commit)
        calls, problems = _calls(read_text(ledger).splitlines(), (listed, proposed))
    if not calls:
        fail(f"{ledger}: no line could be replayed" + (f"; {problems[0]}" if problems else ""))
    ways = _ways(calls, listed, proposed, commitments, overlay is not None)
    if plot is not None:
        _draw(ways, plot)
    if as_json:
        out.print_json(data=_plain(ways, calls, problems))
        return
    _show(ways, calls, problems)


def _commitments(file: Path | None) -> tuple[Commitment, ...]:
    try:
        return load_commitments(file) if file is not None else ()
    except ValueError as error:
        raise BadSettings(str(error)) from None


def _calls(lines: Iterable[str], catalogs: Sequence[Catalog]) -> tuple[list[Call], list[str]]:
    """The calls that every catalog can price, and for every other line what is wrong with it. Blank lines are none."""
    calls: list[Call] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            receipt = json.loads(line)
            if not isinstance(receipt, dict):
                raise ValueError("must be a JSON object")
            call = Call.of(receipt)
            for catalog in catalogs:
                offer_of(call, catalog)
        except json.JSONDecodeError:
            problems.append(f"line {number}: is not JSON")
        except (ValueError, TypeError, RecursionError, UnknownModel) as error:
            problems.append(f"line {number}: {error}")
        else:
            calls.append(call)
    return calls, problems


def _ways(
    calls: Sequence[Call], listed: Catalog, proposed: Catalog, commitments: Sequence[Commitment], other_prices: bool
) -> list[Replayed]:
    """What there is to compare: first what was paid (list prices too, where they may differ), then what is proposed."""
    ways = [way for way in (billed(calls),) if way is not None]
    ways.append(replayed("list prices", calls, listed))
    if other_prices:
        ways.append(replayed("the other prices", calls, proposed))
    if commitments:
        ways.append(replayed("the contract", calls, listed, commitments))
    if other_prices and commitments:
        ways.append(replayed("both", calls, proposed, commitments))
    return ways


def _verdict(ways: Sequence[Replayed]) -> str:
    cheapest = min(ways, key=lambda way: way.total_usd)
    now = ways[0]
    if cheapest.total_usd == now.total_usd:
        return f"Nothing would have been cheaper than {now.name!r}."
    less = now.total_usd - cheapest.total_usd
    share = f" ({less / now.total_usd:.1%})" if now.total_usd else ""
    return f"{cheapest.name!r} would have been cheapest: ${plain(less)} less than {now.name!r}{share}."


def _show(ways: Sequence[Replayed], calls: Sequence[Call], problems: Sequence[str]) -> None:
    first, last = min(call.at for call in calls), max(call.at for call in calls)
    table = Table(title=f"{len(calls):,} calls, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}")
    table.add_column("paid by")
    for name in ("dollars", "difference"):
        table.add_column(name, justify="right")
    table.add_column("commitments")
    cheapest = min(way.total_usd for way in ways)
    for way in ways:
        more_usd = way.total_usd - ways[0].total_usd
        sign = "-" if more_usd < 0 else "+" if more_usd else ""
        table.add_row(
            way.name,
            f"${way.total_usd:,.4f}",
            f"{sign}${abs(more_usd):,.4f}" if way is not ways[0] else "",
            "\n".join(escape(_used(use)) for use in way.uses),
            style="bold" if way.total_usd == cheapest else None,
        )
    out.print(table)
    out.print(_verdict(ways))
    for problem in problems[:_SHOWN_PROBLEMS]:
        err.print(escape(problem), style="dim")
    if problems:
        more = f" (the first {_SHOWN_PROBLEMS} are above)" if len(problems) > _SHOWN_PROBLEMS else ""
        were = "1 line was" if len(problems) == 1 else f"{len(problems):,} lines were"
        err.print(f"{were} left out{more}", style="yellow")


def _used(use: Use) -> str:
    periods = "period" if use.periods == 1 else "periods"
    return f"{use.name}: {use.share:.0%} used of {use.periods} {periods}, ${use.paid_usd:,.2f} paid"


def _plain(ways: Sequence[Replayed], calls: Sequence[Call], problems: Sequence[str]) -> dict[str, Any]:
    return {
        "calls": len(calls),
        "from": min(call.at for call in calls).isoformat(),
        "until": max(call.at for call in calls).isoformat(),
        "ways": [
            {
                "name": way.name,
                "total_usd": plain(way.total_usd),
                "commitments": [
                    {
                        "name": use.name,
                        "periods": use.periods,
                        "paid_usd": plain(use.paid_usd),
                        "drawn": plain(use.drawn),
                        "bought": plain(use.bought),
                    }
                    for use in way.uses
                ],
            }
            for way in ways
        ],
        "cheapest": min(ways, key=lambda way: way.total_usd).name,
        "verdict": _verdict(ways),
        "left_out": list(problems),
    }


def _draw(ways: Sequence[Replayed], file: Path) -> None:
    """The dollars paid so far, over time, a line for each way of paying."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.6, 4.6), layout="constrained")
    for way in ways:
        moments = [at for at, _ in way.paid]
        so_far = [float(usd) for usd in accumulate(usd for _, usd in way.paid)]
        axes.step(moments, so_far, where="post", label=f"{way.name}: ${way.total_usd:,.2f}")
    axes.set_ylabel("dollars so far")
    axes.set_title("What the same calls would have cost")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.autofmt_xdate()
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        fail(f"{file}: cannot be drawn ({error})")
    finally:
        pyplot.close(figure)

"""Suite `deferred`: a simulated day of requests that may wait. Are all deadlines kept, and at what cost?

The clock jumps from event to event. Prices are the catalog's, delays and an outage are scripted (`deferred_world`), and
what to do is decided by the very policy of the deferred lane (`deferred_day`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from benchmarks.deferred_day import Day
from benchmarks.deferred_rivals import all_at_once, all_in_batches, oracle
from benchmarks.deferred_world import BATCHES_S, HOUR_S, Outcome, Request, World, is_met
from benchmarks.sections import Progress, Section, Table
from routing.catalog import PRICES_VERSION

REQUESTS: Final = 10_000
QUICK_REQUESTS: Final = 1_000
BANDS: Final = (
    ("under 15 min", 900.0),
    ("15 min to 1 h", HOUR_S),
    ("1 to 6 h", 6 * HOUR_S),
    ("6 to 24 h", 25 * HOUR_S),
)


def run(count: int, seed: int, progress: Progress) -> Section:
    world = World(seed)
    requests = world.requests(count)
    done = progress("days", 4)
    at_once = all_at_once(world, requests)
    done()
    in_batches = all_in_batches(world, requests)
    done()
    best = oracle(world, requests)
    done()
    day = Day(world, requests)
    ours = day.outcome()
    done()
    # What can be kept at all is what a call at the arrival would keep.
    feasible = [each for each in requests if is_met(at_once.fates[each.number], each)]
    outcomes = (at_once, in_batches, ours, best)
    rows = [_row(each, at_once, feasible, requests) for each in outcomes]
    bands = list(_bands(at_once, ours, best, requests))
    return Section(
        suite="deferred",
        title="A day of requests that may wait",
        notes=(
            f"{count:,} requests over a day, of which {len(feasible):,} can be kept at all: a call at their arrival would "
            f"make it. Deadlines from 10 seconds to a day, {PRICES_VERSION} with DeepSeek's hours.",
            f"Batches take {', '.join(f'{s / 60:.0f} minutes at {name}' for name, (s, _) in BATCHES_S.items())} in the "
            "median, with a long tail. Anthropic is out of order from 09 to 12 UTC, and Google accepts batches from 14 to "
            "19 UTC that it lets expire. Every request may be answered by models of two sellers or more.",
            f"trimtab handed over {day.shipments:,} batches and called {day.recalls:,} of them back. What a batch that was "
            "called back had answered, and what was bought twice, is in its cost.",
        ),
        tables=(
            Table(
                title="Deferred: deadlines kept and what the day cost",
                headers=("Policy", "Deadlines kept", "Cost", "Of everything synchronous", "Bought as"),
                rows=tuple(tuple(row) for row in rows),
                note="The oracle knows every delay of the day in advance; nobody can.",
                readme=True,
            ),
            Table(
                title="By the time that requests leave",
                headers=("Time left", "Requests", "Synchronous", "trimtab", "Oracle", "Of what can be saved"),
                rows=tuple(_band_row(each) for each in bands),
            ),
        ),
        records=(*(_record(each, feasible, requests) for each in outcomes), *map(_plain, bands)),
    )


def _row(outcome: Outcome, at_once: Outcome, feasible: Sequence[Request], requests: Sequence[Request]) -> list[str]:
    record = _record(outcome, feasible, requests)
    share = outcome.billed_usd / at_once.billed_usd
    classes = ", ".join(f"{record[f'by_{how}']:,} {how}" for how in ("sync", "flex", "batch") if record[f"by_{how}"])
    kept = f"{record['kept']:,} of {record['feasible']:,} ({_percent(record['kept'], record['feasible'])})"
    return [outcome.name, kept, f"${outcome.billed_usd:.2f}", f"{share:.1%}", classes]


def _percent(part: int, whole: int) -> str:
    """Never 100 % where one is missing."""
    return f"{min(100 * part / whole, 100.0 if part == whole else 99.9):.1f} %" if whole else "none"


def _record(outcome: Outcome, feasible: Sequence[Request], requests: Sequence[Request]) -> dict[str, Any]:
    classes = Counter(fate.how for fate in outcome.fates.values())
    return {
        "record": "policy",
        "policy": outcome.name,
        "requests": len(requests),
        "feasible": len(feasible),
        "kept": outcome.met(feasible),
        "cost_usd": str(outcome.billed_usd),
        **{f"by_{how}": classes[how] for how in ("sync", "flex", "batch")},
    }


def _bands(at_once: Outcome, ours: Outcome, best: Outcome, requests: Sequence[Request]) -> Iterator[Mapping[str, Any]]:
    least_s = 0.0
    for name, most_s in BANDS:
        numbers = [each.number for each in requests if least_s <= each.deadline_at - each.at < most_s]
        least_s = most_s
        costs = {
            key: sum((outcome.fates[number].billed_usd for number in numbers), Decimal(0))
            for key, outcome in (("sync_usd", at_once), ("trimtab_usd", ours), ("oracle_usd", best))
        }
        yield {"record": "band", "time_left": name, "requests": len(numbers), **costs}


def _plain(band: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in band.items()}


def _band_row(band: Mapping[str, Any]) -> tuple[str, ...]:
    sync_usd, ours_usd, best_usd = (band[key] for key in ("sync_usd", "trimtab_usd", "oracle_usd"))
    possible_usd = sync_usd - best_usd
    share = f"{(sync_usd - ours_usd) / possible_usd:.0%}" if possible_usd > 0 else "nothing"
    return (
        band["time_left"],
        f"{band['requests']:,}",
        *(f"${each:.2f}" for each in (sync_usd, ours_usd, best_usd)),
        share,
    )

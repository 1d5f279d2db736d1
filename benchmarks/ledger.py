"""Suite `ledger`: what keeping the ledger takes from a server, with and without it in turns, on one server in one run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.ledger_server import Server, ledger_server
from benchmarks.loopback import loopback_provider
from benchmarks.sections import Progress, Section, Table
from trimtab.database import Database
from trimtab.ledger.queries import totals

ROUNDS, REQUESTS = 20, 200
QUICK_ROUNDS, QUICK_REQUESTS = 2, 20
AT_ONCE: Final = 8
_SENTENCES: Final = (
    "The depot in town {n} keeps {m} crates of part {n}-A, and team {n} checks them every week.",
    "An upload to bucket {n} may be {m} MB; larger ones are cut into parts of equal size.",
)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of requests: how many a second, and the server's CPU milliseconds for each."""

    per_second: float
    cpu_ms: float


def run(rounds: int, requests: int, folder: Path, progress: Progress) -> Section:
    """Each payload in `rounds` pairs of rounds, with the ledger and without it, the order changing with each pair."""
    rows = []
    records: list[Mapping[str, object]] = []
    kinds = {"a question alone": 0, "a question and 2,000 tokens of context": 90}
    with loopback_provider() as provider_url:
        for number, (kind, contexts) in enumerate(kinds.items()):
            place = folder / f"ledger-{number}"
            place.mkdir(parents=True)
            with ledger_server(provider_url, str(place)) as server:
                step = progress(kind, rounds)
                pairs = []
                for on in (True, False):  # what is loaded and cached by the first of each
                    _round(server, contexts, requests, on=on)
                for turn in range(rounds):
                    order = (True, False) if turn % 2 else (False, True)
                    made = {on: _round(server, contexts, requests, on=on) for on in order}
                    pairs.append((made[True], made[False]))
                    step()
                server.switch(False)
            _check(place, (rounds + 1) * requests)
            rows.append((kind, *_cells(pairs)))
            for turn, pair in enumerate(pairs):
                for side, one in zip(("with", "without"), pair, strict=True):
                    records.append({"record": "ledger", "payload": kind, "pair": turn, "ledger": side, **_plain(one)})
    columns = ("payload", "requests/s without", "with", "ratio", "CPU ms a request without", "with", "more CPU")
    note = (
        f"{rounds} pairs of rounds of {requests} requests, {AT_ONCE} at a time, over loopback. Ratios are of each pair, median "
        "and quartiles. Every request of the rounds with the ledger was found in it before these figures were taken."
    )
    table = Table("With the ledger and without it", columns, tuple(rows), note)
    return Section("ledger", "What the ledger costs", (), (table,), records=tuple(records))


def _round(server: Server, contexts: int, requests: int, *, on: bool) -> Round:
    before_s = server.switch(on)
    began = time.perf_counter()
    asyncio.run(_ask(server.url, contexts, requests))
    spent_s = time.perf_counter() - began
    cpu_s = server.switch(on) - before_s  # after all is written
    return Round(requests / spent_s, cpu_s / requests * 1000)


async def _ask(url: str, contexts: int, requests: int) -> None:
    numbers = iter(range(requests))
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:

        async def ask() -> None:
            for number in numbers:
                answer = await client.post("/v1/chat/completions", json=_body(number, contexts))
                answer.raise_for_status()

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


def _body(number: int, contexts: int) -> dict[str, Any]:
    question = f"How many crates are in town {number % 50}?"
    body: dict[str, Any] = {"model": "loopback-model", "messages": [{"role": "user", "content": question}]}
    if contexts:
        texts = [_SENTENCES[n % 2].format(n=n, m=n * 37) for n in range(contexts)]
        body["trimtab"] = {"contexts": texts, "ratio": 0.5}
    return body


def _check(folder: Path, wanted: int) -> None:
    """Raises RuntimeError where the ledger lacks a request: then its speed is worth nothing."""
    database = Database(f"sqlite:///{folder / 'trimtab.sqlite'}")
    (total,) = totals(database)
    database.close()
    if total.requests != wanted:
        raise RuntimeError(f"{wanted} requests were made with the ledger on, and it has {total.requests}")


def _cells(pairs: Sequence[tuple[Round, Round]]) -> tuple[str, ...]:
    speeds = [with_it.per_second / without.per_second for with_it, without in pairs]
    more = [with_it.cpu_ms / without.cpu_ms - 1 for with_it, without in pairs]
    sides = [[getattr(pair[side], name) for pair in pairs] for name in ("per_second", "cpu_ms") for side in (1, 0)]
    medians = [float(np.median(values)) for values in sides]
    low, middle, high = np.percentile(speeds, (25, 50, 75))
    ratio = f"{middle:.3f} [{low:.3f}-{high:.3f}]"
    low, middle, high = (100 * each for each in np.percentile(more, (25, 50, 75)))
    cpu = f"{middle:+.1f} % [{low:+.1f}, {high:+.1f}]"
    return (f"{medians[0]:.0f}", f"{medians[1]:.0f}", ratio, f"{medians[2]:.2f}", f"{medians[3]:.2f}", cpu)


def _plain(one: Round) -> dict[str, float]:
    return {"requests_per_s": round(one.per_second, 2), "cpu_ms": round(one.cpu_ms, 4)}

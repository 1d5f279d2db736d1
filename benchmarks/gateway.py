"""Suite `gateway`: what standing between a client and its provider costs, trimming off, beside other gateways.

One client, one connection, requests one after another, in rounds that take the gateways in turn, so that a busy moment
of the machine falls on all of them. A provider on loopback answers at once.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.gateways import GATEWAYS, MODEL, Gateway
from benchmarks.intervals import spread
from benchmarks.loopback import TEXT, loopback_provider
from benchmarks.offered import Offered, offer, wire
from benchmarks.peers import Skipped
from benchmarks.sections import Progress, Section, Table

ROUNDS = 8
QUICK_ROUNDS = 2
REQUESTS_A_ROUND = 60
WARM_UP = 20
CROWD = 16
CROWD_S = 1.0

BODY = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You answer questions about a storage service."},
        {"role": "user", "content": "How large may one upload be?"},
    ],
    "max_tokens": 32,
}


@dataclass(frozen=True, slots=True)
class _Live:
    gateway: Gateway
    client: httpx.Client
    times_ms: list[float]
    crowds: list[Offered]


def run(rounds: int, folder: Path, progress: Progress) -> Section:
    """Start what is installed, check one answer of each, then time them."""
    absent: list[tuple[str, str]] = []
    with ExitStack() as stack:
        provider = stack.enter_context(loopback_provider())
        live: list[_Live] = []
        starting = progress("starting gateways", len(GATEWAYS))
        for number, gateway in enumerate(GATEWAYS):
            home = folder / f"gateway-{number}"
            home.mkdir(parents=True, exist_ok=True)
            try:
                url = stack.enter_context(gateway.start(provider, home))
                headers = {**gateway.headers, **gateway.headers_for(provider)}
                client = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30))
                _checked(client)
                live.append(_Live(gateway, client, [], []))
            except Skipped as reason:
                absent.append((gateway.name, str(reason)))
            starting()
        step = progress("gateway", rounds)
        for _ in range(rounds):
            for each in live:
                each.times_ms.extend(_round(each.client))
                each.crowds.append(_crowd(each.client))
            step()
    return _section(live, absent)


def _checked(client: httpx.Client) -> None:
    """The answer must be the provider's; the first requests only warm up."""
    for _ in range(WARM_UP):
        response = client.post("/chat/completions", json=BODY)
        if response.is_error:
            raise Skipped(f"answered {response.status_code}: {response.text[:120]}")
        if response.json()["choices"][0]["message"]["content"] != TEXT:
            raise Skipped("answered something else than the provider did")


def _round(client: httpx.Client) -> list[float]:
    times: list[float] = []
    for _ in range(REQUESTS_A_ROUND):
        began = time.perf_counter()
        client.post("/chat/completions", json=BODY)
        times.append((time.perf_counter() - began) * 1000)
    return times


def _crowd(client: httpx.Client) -> Offered:
    """As much as goes through with CROWD connections. By a client that does less than httpx, which would be the limit."""
    headers = {name: client.headers[name] for name in client.headers if name in ("authorization", "x-portkey-config")}
    request = wire(str(client.base_url).rstrip("/"), "/chat/completions", BODY, headers)
    return asyncio.run(offer(str(client.base_url), lambda: request, CROWD, CROWD_S))


def _section(live: Sequence[_Live], absent: Sequence[tuple[str, str]]) -> Section:
    bare = spread(live[0].times_ms).median
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, object]] = []
    for each in live:
        times = spread(each.times_ms)
        p99 = sorted(each.times_ms)[int(0.99 * len(each.times_ms))]
        crowd_per_s = statistics.median(crowd.per_s for crowd in each.crowds)
        crowd_p99 = statistics.median(crowd.percentile_ms(0.99) for crowd in each.crowds)
        failed = sum(crowd.failed for crowd in each.crowds)
        added = "" if each is live[0] else f"+{times.median - bare:.2f}"
        rows.append(
            (
                each.gateway.name,
                f"{times.median:.2f}",
                added,
                f"{p99:.2f}",
                f"{times.low:.2f}",
                f"{times.high:.2f}",
                f"{crowd_per_s:,.0f}" + (f" ({failed} failed)" if failed else ""),
                f"{crowd_p99:.0f}",
            )
        )
        records.append(
            {
                "record": "gateway",
                "gateway": each.gateway.name,
                "requests": times.count,
                "median_ms": times.median,
                "p99_ms": p99,
                "minimum_ms": times.low,
                "maximum_ms": times.high,
                "crowd_per_s": crowd_per_s,
                "crowd_p99_ms": crowd_p99,
                "crowd_failed": failed,
            }
        )
    records += [{"record": "absent", "gateway": name, "reason": reason} for name, reason in absent]
    headers = (
        "",
        "median ms",
        "added",
        "99th percentile",
        "minimum",
        "maximum",
        f"requests/s at {CROWD}",
        "their 99th",
    )
    title = f"A small chat completion, one client, {len(live[0].times_ms)} requests each"
    tables = [Table(title, headers, tuple(rows), readme=True)]
    if absent:
        tables.append(Table("Gateways that did not run here", ("gateway", "why"), tuple(absent), readme=True))
    return Section(
        "gateway",
        "Gateway overhead",
        notes=("Trimming is off: the request has nothing to trim. Client, provider and gateways share this machine.",),
        tables=tuple(tables),
        records=tuple(records),
    )

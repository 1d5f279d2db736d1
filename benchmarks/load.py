"""Suite `load`: what one server process does at its limit, how a small request fares beside a large one, and, by a queueing
simulation, how many processes a much larger load would take.

Client, provider and server share this machine, so what is printed is the least that the server can do.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateways import trimtab_process
from benchmarks.loopback import loopback_provider
from benchmarks.machine import cores
from benchmarks.offered import Offered, ask, offer, wire
from benchmarks.payloads import chat, chunks
from benchmarks.queueing import processes_for
from benchmarks.sections import Progress, Section, Table

SECONDS = 8.0
QUICK_SECONDS = 1.5
CONTEXT_CHUNKS = 8
LARGE_TOKENS = 200_000
QUICK_LARGE_TOKENS = 20_000
TARGET_PER_S = 10_000.0


@dataclass(frozen=True, slots=True)
class _Run:
    what: str
    connections: int
    tokens: int
    offered: Offered
    cpu_s: float

    @property
    def service_s(self) -> float:
        """Processor time of the server and its ranking processes for a request."""
        return self.cpu_s / len(self.offered.answers)


def run(seconds: float, large_tokens: int, seed: int, folder: Path, progress: Progress) -> Section:
    with loopback_provider() as provider, trimtab_process(provider, folder) as (url, pid):
        kinds = _kinds(url)
        step = progress("load", 2 * len(kinds) + 1)
        runs: list[_Run] = []
        for what, tokens, next_request in kinds:
            asyncio.run(offer(url, next_request, 2, 1.0))  # processes start, and what is known is in the cache
            for connections in (1, 16):
                before = cpu_seconds(pid)
                offered = asyncio.run(offer(url, next_request, connections, seconds))
                runs.append(_Run(what, connections, tokens, offered, cpu_seconds(pid) - before))
                step()
        beside = asyncio.run(_beside(url, large_tokens, seconds))
        step()
    return _section(runs, beside, large_tokens, seed)


def _kinds(url: str) -> tuple[tuple[str, int, Callable[[], bytes]], ...]:
    path = "/chat/completions"
    small = wire(url, path, chat())
    warm = {
        tokens: wire(url, path, chat(chunks(CONTEXT_CHUNKS, tokens // CONTEXT_CHUNKS, 7))) for tokens in (4_000, 20_000)
    }
    seeds = itertools.count(1_000)
    return (
        ("pass-through", 0, lambda: small),
        ("4,000 tokens, warm", 4_000, lambda: warm[4_000]),
        ("20,000 tokens, warm", 20_000, lambda: warm[20_000]),
        ("4,000 tokens, cold", 4_000, lambda: wire(url, path, chat(chunks(CONTEXT_CHUNKS, 500, next(seeds))))),
    )


async def _beside(url: str, large_tokens: int, seconds: float) -> dict[str, Offered]:
    """Small requests, one every 20 ms: alone, and beside one large payload after another, cold first and then warm."""
    small = wire(url, "/chat/completions", chat())
    large = wire(url, "/chat/completions", chat(chunks(large_tokens // 500, 500, 99)))
    found = {"alone": await _paced(url, small, seconds, None)}
    for what in ("cold", "warm"):
        sending = asyncio.create_task(_send(url, large, 1 if what == "cold" else 4))
        found[what] = await _paced(url, small, 0.0, sending)
    return found


async def _send(url: str, request: bytes, times: int) -> None:
    reader, writer = await asyncio.open_connection(*_address(url))
    for _ in range(times):
        assert await ask(reader, writer, request) == 200
    writer.close()


async def _paced(url: str, request: bytes, seconds: float, beside: asyncio.Task[None] | None) -> Offered:
    reader, writer = await asyncio.open_connection(*_address(url))
    began, answers = time.perf_counter(), []
    while not beside.done() if beside else time.perf_counter() - began < seconds:
        sent = time.perf_counter()
        status = await ask(reader, writer, request)
        answers.append((status, (time.perf_counter() - sent) * 1000))
        await asyncio.sleep(0.02)
    if beside:
        await beside
    writer.close()
    return Offered(time.perf_counter() - began, tuple(answers))


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    return host, int(port)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have taken so far. Linux only; elsewhere 0."""
    total = 0.0
    for each in (pid, *children(pid)):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> tuple[int, ...]:
    """The processes that a process has started. Linux only; elsewhere none."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return tuple(int(each) for file in lists for each in file.read_text().split())


def _section(runs: list[_Run], beside: dict[str, Offered], large_tokens: int, seed: int) -> Section:
    rows = [
        (
            each.what,
            str(each.connections),
            f"{each.offered.per_s:,.0f}",
            f"{each.offered.per_s * each.tokens:,.0f}" if each.tokens else "",
            f"{each.tokens / each.service_s:,.0f}" if each.tokens and each.service_s else "",
            f"{each.service_s * 1000:.2f}",
            f"{each.offered.percentile_ms(0.5):.1f}",
            f"{each.offered.percentile_ms(0.99):.1f}",
            str(each.offered.failed),
        )
        for each in runs
    ]
    headers = ("", "at once", "requests/s", "tokens/s", "tokens/s a core", "CPU ms", "median ms", "99th", "failed")
    tables = [Table(f"One server process on {cores()} cores, with the client and the provider", headers, tuple(rows))]
    tables.append(
        Table(
            f"A small request every 20 ms beside {large_tokens:,} tokens",
            ("", "requests", "median ms", "99th percentile", "maximum"),
            tuple(
                (
                    what,
                    str(len(each.answers)),
                    *(f"{each.percentile_ms(share):.1f}" for share in (0.5, 0.99, 1.0)),
                )
                for what, each in beside.items()
            ),
        )
    )
    simulated = []
    for each in runs:
        if each.connections == 16 and each.service_s:
            # times vary as the answers' did; their mean is the processor time
            mean_ms = sum(ms for _, ms in each.offered.answers) / len(each.offered.answers)
            service_s = [each.service_s * ms / mean_ms for _, ms in each.offered.answers]
            simulated.append((each.what, f"{processes_for(TARGET_PER_S, service_s, seed):,}"))
    tables.append(
        Table(f"What {TARGET_PER_S:,.0f} requests a second would take, simulated", ("", "cores"), tuple(simulated))
    )
    records = [
        {
            "record": "load",
            "what": each.what,
            "connections": each.connections,
            "requests_per_s": each.offered.per_s,
            "cpu_ms": each.service_s * 1000,
            "median_ms": each.offered.percentile_ms(0.5),
            "p99_ms": each.offered.percentile_ms(0.99),
            "failed": each.offered.failed,
        }
        for each in runs
    ]
    records += [
        {"record": "beside", "what": what, "median_ms": each.percentile_ms(0.5), "p99_ms": each.percentile_ms(0.99)}
        for what, each in beside.items()
    ]
    return Section("load", "Load", tables=tuple(tables), records=tuple(records))

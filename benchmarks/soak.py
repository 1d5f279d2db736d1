"""`python -m benchmarks soak --minutes 30`: a server under mixed traffic at a share of its capacity, and what becomes of its
memory.

Of the requests most pass through; some bring context that is known, some context that was never seen, some are streamed,
some are errors, and some hang up before the answer. First the mix is sent as fast as it is answered, for the capacity;
then at random times at the share of it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.gateways import trimtab_process
from benchmarks.load import children
from benchmarks.loopback import REFUSE, loopback_provider
from benchmarks.offered import ask, offer, wire
from benchmarks.payloads import chat, chunks

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)

CAPACITY_S = 20.0
CONNECTIONS = 16
SAMPLES = 30
MIX: Mapping[str, int] = {"pass-through": 60, "warm": 15, "cold": 3, "stream": 15, "error": 4, "hang-up": 3}
"""Kinds of requests, and how many of a hundred are of each."""


@dataclass(slots=True)
class _Tally:
    times_ms: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in MIX})
    unexpected: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str, status: int, ms: float) -> None:
        if status != (400 if kind == "error" else 200):
            self.unexpected[f"{kind}: {status}"] = self.unexpected.get(f"{kind}: {status}", 0) + 1
        self.times_ms[kind].append(ms)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long.")] = 30.0,
    share: Annotated[float, typer.Option(min=0.05, max=1.0, help="Of the measured capacity.")] = 0.7,
    seed: Annotated[int, typer.Option(help="For the mix and the times.")] = 1,
) -> None:
    """Serve mixed traffic for a while; print memory over time, errors and latencies. Exits with 1 after an error."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        loopback_provider() as provider,
        trimtab_process(provider, Path(scratch)) as (url, pid),
    ):
        next_request = _requests(url, seed)
        full = asyncio.run(offer(url, lambda: next_request()[1], CONNECTIONS, CAPACITY_S))
        per_s = share * full.per_s
        print(f"capacity {full.per_s:,.0f} requests/s; offering {per_s:,.0f} for {minutes:g} minutes", flush=True)
        tally, memory_mb = asyncio.run(_soaked(url, pid, next_request, per_s, 60 * minutes, seed))
    for kind, times in tally.times_ms.items():
        if len(times) > 1:
            ordered = sorted(times)
            middle, late = statistics.median(ordered), ordered[int(0.99 * len(ordered))]
            print(f"{kind:>12}: {len(times):>7,} requests, median {middle:,.1f} ms, 99th percentile {late:,.1f} ms")
    tenth = max(1, len(memory_mb) // 10)
    early, end = statistics.mean(memory_mb[tenth : 2 * tenth]), statistics.mean(memory_mb[-tenth:])
    print(f"memory: {early:,.0f} MB early, {end:,.0f} MB at the end ({end / early - 1:+.1%})")
    print(f"not as expected: {tally.unexpected or 'none'}")
    raise typer.Exit(bool(tally.unexpected))


def _requests(url: str, seed: int) -> Callable[[], tuple[str, bytes]]:
    draw, fresh = random.Random(seed), itertools.count(10_000)
    known = [chat(chunks(8, 250, number)) for number in range(20)]

    def next_request() -> tuple[str, bytes]:
        (kind,) = draw.choices(list(MIX), list(MIX.values()))
        if kind == "warm":
            body = draw.choice(known)
        elif kind == "cold":
            body = chat(chunks(4, 250, next(fresh)))
        elif kind == "error":
            body = chat(user=REFUSE.decode())
        else:
            body = chat(stream=True) if kind == "stream" else chat()
        return kind, wire(url, "/chat/completions", body)

    return next_request


async def _soaked(
    url: str, pid: int, next_request: Callable[[], tuple[str, bytes]], per_s: float, seconds: float, seed: int
) -> tuple[_Tally, list[float]]:
    tally, memory_mb = _Tally(), []
    draw = random.Random(seed)
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(kind: str, request: bytes) -> None:
        began = time.perf_counter()
        reader, writer = idle.pop() if idle else await asyncio.open_connection(host, int(port))
        if kind == "hang-up":
            writer.write(request)
            await asyncio.sleep(draw.uniform(0, 0.005))
            writer.close()
            tally.note(kind, 200, 0.0)
            return
        try:
            status = await ask(reader, writer, request)
        except (asyncio.IncompleteReadError, ConnectionError):  # a connection that was idle for too long
            writer.close()
            reader, writer = await asyncio.open_connection(host, int(port))
            status = await ask(reader, writer, request)
        tally.note(kind, status, (time.perf_counter() - began) * 1000)
        idle.append((reader, writer))

    began, next_sample, sent = time.perf_counter(), 0.0, 0.0
    async with asyncio.TaskGroup() as group:
        while (now := time.perf_counter() - began) < seconds:
            if now >= next_sample:
                memory_mb.append(_memory_mb(pid))
                print(f"{now / 60:6.1f} min {memory_mb[-1]:8,.0f} MB", flush=True)
                next_sample += seconds / SAMPLES
            sent += draw.expovariate(per_s)
            await asyncio.sleep(max(0.0, sent - now))
            group.create_task(one(*next_request()))
    memory_mb.append(_memory_mb(pid))
    for _, writer in idle:
        writer.close()
    return tally, memory_mb


def _memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    total = 0
    for each in (pid, *children(pid)):
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * 4096 / 2**20


if __name__ == "__main__":
    app()

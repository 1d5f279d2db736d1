"""Suite `growth`: how time and memory grow with the size of a payload and with the number of its chunks.

Every size is compressed in a process of its own, twice: with no vector known (cold) and with all of them (warm). Memory is
the process's peak, the interpreter and the encoder included. The exponent is the slope of a line through the larger
sizes' times, both axes in logarithms: 1 is linear.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.payloads import QUESTION, chunks
from benchmarks.sections import Plot, Progress, Section, Series, Table

Row = dict[str, float]

TOKENS = (1_000, 10_000, 100_000, 1_000_000)
CHUNKS = (10, 100, 1_000, 10_000, 100_000)
QUICK_TOKENS = (1_000, 10_000)
QUICK_CHUNKS = (10, 100)
CHUNK_TOKENS = 500
SMALL_CHUNK_TOKENS = 10
_FIT_FROM = 10  # of the smallest size: below, what every call costs hides the slope


def run(tokens: Sequence[int], counts: Sequence[int], folder: Path, progress: Progress) -> Section:
    step = progress("growth", len(tokens) + len(counts))
    by_tokens: list[Row] = []
    by_chunks: list[Row] = []
    for size in tokens:
        by_tokens.append(_measured(max(2, size // CHUNK_TOKENS), min(CHUNK_TOKENS, size // 2), folder))
        step()
    for count in counts:
        by_chunks.append(_measured(count, SMALL_CHUNK_TOKENS, folder))
        step()
    return _section(by_tokens, by_chunks)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the line through the larger of some points, in logarithms. Of two or more points."""
    pairs = [(s, c) for s, c in zip(sizes, costs, strict=True) if s >= _FIT_FROM * sizes[0] * 0.9]
    pairs = pairs if len(pairs) > 1 else list(zip(sizes, costs, strict=True))
    xs, ys = np.log(np.array(pairs, np.float64)).T
    return float(np.polyfit(xs, ys, 1)[0])


def _measured(count: int, tokens_each: int, folder: Path) -> Row:
    command = [
        sys.executable,
        "-m",
        "benchmarks.growth",
        str(count),
        str(tokens_each),
        str(folder / f"{count}-{tokens_each}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (ourselves)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def _child(count: int, tokens_each: int, folder: str) -> Row:
    from trimtab import Trimtab  # here: the parent needs neither it nor the encoder

    trimtab = Trimtab(cache_dir=Path(folder))
    trimtab.warm_up()
    contexts = chunks(count, tokens_each, seed=count)
    idle_mb = _peak_mb()
    times: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        made = trimtab.compress(QUESTION, contexts, ratio=0.3)
        times.append((time.perf_counter() - began) * 1000)
        assert 0 < made.tokens_after <= 0.3 * made.tokens_before
    trimtab.encoder.close()
    return {
        "tokens": made.tokens_before,
        "chunks": count,
        "cold_ms": times[0],
        "warm_ms": times[1],
        "peak_mb": _peak_mb(),
        "idle_mb": idle_mb,
    }


def _peak_mb() -> float:
    kib_or_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib_or_bytes / (2**20 if sys.platform == "darwin" else 2**10)


def _section(by_tokens: Sequence[Row], by_chunks: Sequence[Row]) -> Section:
    tables, plots = [], []
    for rows, size, title in (
        (by_tokens, "tokens", f"By size of the payload, in chunks of {CHUNK_TOKENS} tokens"),
        (by_chunks, "chunks", f"By number of chunks, of about {SMALL_CHUNK_TOKENS} tokens each"),
    ):
        sizes = [row[size] for row in rows]
        cells: list[tuple[str, ...]] = [
            (
                f"{row['tokens']:,.0f}",
                f"{row['chunks']:,.0f}",
                f"{row['cold_ms'] / 1000:.2f}",
                f"{row['warm_ms'] / 1000:.3f}",
                f"{row['peak_mb']:,.0f}",
            )
            for row in rows
        ]
        fitted = [f"{exponent(sizes, [row[name] for row in rows]):.2f}" for name in ("cold_ms", "warm_ms")]
        cells.append(("exponent", "", *fitted, ""))
        tables.append(Table(title, ("tokens", "chunks", "cold, s", "warm, s", "peak memory, MB"), tuple(cells)))
        lines = tuple(
            Series(name, tuple(sizes), tuple(row[f"{name}_ms"] / 1000 for row in rows)) for name in ("cold", "warm")
        )
        plots.append(Plot(title, size, "seconds", lines, log_x=True, log_y=True))
        memory = Series("peak memory", tuple(sizes), tuple(row["peak_mb"] for row in rows))
        plots.append(Plot(f"Memory. {title}", size, "MB", (memory,), log_x=True))
    records = [
        {"record": "growth", "by": by, **row}
        for by, rows in (("tokens", by_tokens), ("chunks", by_chunks))
        for row in rows
    ]
    return Section("growth", "How cost grows", tables=tuple(tables), plots=tuple(plots), records=tuple(records))


if __name__ == "__main__":
    print(json.dumps(_child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))

"""Faults of one host: files that are damaged, a disk that is full, and a clock that jumps. Everything is embedded: SQLite,
and the cache on disk."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx

from benchmarks.fault_clients import Load, booked_lines, books, said
from benchmarks.fault_provider import BillingProvider
from benchmarks.fault_rig import ADMIN_ENV, Finding, Served, eventually, trimtab_served
from benchmarks.payloads import chunks
from benchmarks.peers import Skipped
from trimtab.ledger.entries import Entry, record_of
from trimtab.ledger.spill import Spill

DISK_MB: Final = 64
FULL_S: Final = 4.0
JUMPS_S: Final = (3_600, -7_200, 3_600)

_CLOCK: Final = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile int64_t *ahead_s;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
  int file = open(getenv("FAULT_CLOCK"), O_RDONLY);
  if (file >= 0) ahead_s = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
}
int clock_gettime(clockid_t id, struct timespec *at) {
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(id, at);
  if (!failed && id == CLOCK_REALTIME && ahead_s) at->tv_sec += *ahead_s;
  return failed;
}
time_t time(time_t *to) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  if (to) *to = at.tv_sec;
  return at.tv_sec;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  to->tv_sec = at.tv_sec;
  to->tv_usec = at.tv_nsec / 1000;
  return 0;
}
"""
"""What a process sees of the clock on the wall is ahead by the seconds in a file."""


def embedded(folder: Path) -> list[Finding]:
    """All of them, in `folder`."""
    found = []
    try:
        with (
            disk(folder / "disk") as place,
            BillingProvider() as provider,
            trimtab_served(place, provider.base_url, {}) as served,
        ):
            found += [fault(served, provider, place) for fault in (cache_damaged, spill_damaged, disk_full)]
    except Skipped as reason:
        found.append(Finding("the disk is full", "", str(reason), None))
        with BillingProvider() as provider, trimtab_served(folder / "plain", provider.base_url, {}) as served:
            found += [fault(served, provider, folder / "plain") for fault in (cache_damaged, spill_damaged)]
    try:
        found.append(clock_jumps(folder / "clock"))
    except Skipped as reason:
        found.append(Finding("the clock jumps", "", str(reason), None))
    return found


@contextmanager
def disk(folder: Path, size_mb: int = DISK_MB) -> Iterator[Path]:
    """A small file system in memory. Raises Skipped where one cannot be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    mounted = mount and subprocess.run(  # noqa: S603 (a fixed command)
        [mount, "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        raise Skipped("no file system can be mounted here (that takes root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)  # noqa: S603, S607 (a fixed command)


def database_url(place: Path) -> str:
    return f"sqlite:///{place / 'data' / 'trimtab.sqlite'}"


def trimmed(served: Served, seed: int) -> int:
    """The status of a request with contexts, which goes through every cache."""
    contexts = [{"text": each} for each in chunks(4, 120, seed)]
    body = {
        "model": "m",
        "user": f"context-{seed}",
        "messages": [{"role": "user", "content": "What is the limit?"}],
        "trimtab": {"contexts": contexts, "ratio": 0.5},
    }
    headers = {"authorization": "Bearer any"}
    got = httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=60)
    return got.status_code


def cache_damaged(served: Served, provider: BillingProvider, place: Path) -> Finding:
    """Every file of the cache is overwritten with noise while it is in use."""
    promise = "a damaged value is a miss: the same requests are answered"
    before = [trimmed(served, seed) for seed in range(5)]
    draw, files = random.Random(1), 0
    for file in sorted((place / "cache").rglob("*")):
        if file.is_file() and file.stat().st_size:
            files += 1
            with file.open("r+b") as out:
                out.write(draw.randbytes(min(file.stat().st_size, 4 * 2**20)))
    after = [trimmed(served, seed) for seed in range(5)] + [trimmed(served, seed) for seed in range(100, 105)]
    observed = f"{files} files overwritten; {before.count(200)} of 5 answered before, {after.count(200)} of 10 after"
    kept = set(before) == {200} == set(after)
    return Finding("cache files overwritten with noise while serving", promise, observed, kept)


def spill_damaged(served: Served, provider: BillingProvider, place: Path) -> Finding:
    """A file of the ledger's that a crash of the machine left in pieces, with good ones after it."""
    promise = "what can be read is taken up, the rest is kept for a person to look at; later files are not held up"
    spill = Spill(place / "data" / "ledger-spill")
    entries = [
        Entry(
            f"rcpt_fault{n}",
            datetime.now(UTC),
            "m",
            user=f"spilled-{n}",
            billed_usd=Decimal("0.003"),
            cost_usd=Decimal("0.003"),
        )
        for n in range(4)
    ]
    spill.add([record_of(each) for each in entries[:2]])
    first = spill.oldest()
    assert first is not None
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(lines[0] + random.Random(1).randbytes(300).replace(b"\n", b"") + b"\n" + lines[1][:50])
    spill.add([record_of(each) for each in entries[2:]])
    wanted = {"spilled-0", "spilled-2", "spilled-3"}
    came_s = eventually(lambda: wanted <= booked_lines(database_url(place)).keys(), 20)
    there = wanted & booked_lines(database_url(place)).keys()
    left = sorted(each.suffix for each in spill.folder.iterdir())
    with Load(served.url, "any", "afterspill") as load:
        time.sleep(1)
    observed = (
        f"{len(there)} of 3 readable lines are in the ledger after {came_s or 20:.1f} s; left: "
        f"{', '.join(left) or 'nothing'}; then {said(load)}"
    )
    kept = came_s is not None and set(load.statuses) == {200} and left == [".refused"]
    return Finding("a damaged file of spilled ledger lines", promise, observed, kept)


def disk_full(served: Served, provider: BillingProvider, place: Path) -> Finding:
    """Not a byte left, for some seconds."""
    promise = "requests are answered, what would have to be on disk is refused, and the ledger has all of it once there is room"
    filler = place / "filler"
    with Load(served.url, "any", "full") as load:
        time.sleep(1)
        with filler.open("wb", buffering=0) as out:
            try:
                while out.write(bytes(2**16)):
                    pass
            except OSError:
                pass
        time.sleep(FULL_S / 2)
        file = {"file": ("lines.jsonl", os.urandom(2**20), "application/jsonl")}
        headers = {"authorization": "Bearer any"}
        refused = httpx.post(
            f"{served.url}/v1/files",
            data={"purpose": "batch"},
            files=file,
            headers=headers,
            trust_env=False,
            timeout=60,
        ).status_code
        time.sleep(FULL_S / 2)
        during = len(load.asked)
        filler.unlink()
        time.sleep(2)
    made = [books(provider, database_url(place), ["full"], load.asked)]

    def balanced() -> bool:
        made.append(books(provider, database_url(place), ["full"], load.asked))
        return not made[-1].lost

    eventually(balanced, 20)
    observed = f"{said(load)} ({during} before there was room again); a file to keep: {refused}; {made[-1]}"
    kept = (
        set(load.statuses) == {200} and refused >= 400 and not (made[-1].lost or made[-1].unbooked or made[-1].double)
    )
    return Finding("the disk is full", promise, observed, kept)


def clock_jumps(folder: Path) -> Finding:
    """An hour ahead, two back, one ahead, under load of a key with a budget and a rate. Raises Skipped without a compiler."""
    promise = "requests are answered and booked; neither rates nor budgets lock anybody out"
    with ExitStack() as stack:
        jump, environment = jumping_clock(folder, stack)
        provider = stack.enter_context(BillingProvider())
        settings = {"keys": True, "admin_key_env": ADMIN_ENV}
        served = stack.enter_context(
            trimtab_served(folder / "served", provider.base_url, settings, environment=environment)
        )
        key = served.new_key("clock", budgets={"total": "1000"}, requests_per_minute=60_000)
        with Load(served.url, key, "clock") as load:
            for seconds in (0, *JUMPS_S):
                jump(seconds)
                time.sleep(2)
        url = database_url(folder / "served")
        eventually(lambda: not books(provider, url, ["clock"], load.asked).lost, 10)
        made = books(provider, url, ["clock"], load.asked)
    observed = f"{said(load)}; {made}"
    kept = set(load.statuses) == {200} and not (made.lost or made.unbooked or made.double)
    return Finding("the clock jumps: 1 h ahead, 2 h back, 1 h ahead", promise, observed, kept)


def jumping_clock(folder: Path, stack: ExitStack) -> tuple[Callable[[int], None], dict[str, str]]:
    """A function that moves the clock on the wall by so many seconds, and the environment of the processes that see it."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("no C compiler: processes get another clock by a library that is put before libc's")
    folder.mkdir(parents=True, exist_ok=True)
    source, library, ahead = folder / "clock.c", folder / "clock.so", folder / "ahead"
    source.write_text(_CLOCK)
    ahead.write_bytes(bytes(8))
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    if subprocess.run(command, capture_output=True, check=False).returncode:  # noqa: S603 (a fixed command)
        raise Skipped("the C compiler does not compile")
    opened = stack.enter_context(ahead.open("r+b"))
    shown = stack.enter_context(mmap.mmap(opened.fileno(), 8))

    def jump(seconds: int) -> None:
        (before,) = struct.unpack("q", shown[:8])
        shown[:8] = struct.pack("q", before + seconds)

    return jump, {"LD_PRELOAD": str(library), "FAULT_CLOCK": str(ahead)}

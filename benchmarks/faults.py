"""Suite `faults`: a campaign of faults against real servers (trimtab with two workers, Valkey, PostgreSQL), one after the
other, none of them restarted by hand in between. What was promised stands beside what was observed.

A fault that needs what is not there (root, a C compiler, iproute2) is skipped, and the table says why.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import sqlalchemy as sa

from benchmarks.fault_clients import Books, Load, ask, booked_lines, books, said
from benchmarks.fault_disks import embedded
from benchmarks.fault_hosts import two_hosts
from benchmarks.fault_provider import BillingProvider
from benchmarks.fault_rig import ADMIN_ENV, Finding, Postgres, Served, Valkey, eventually, trimtab_served
from benchmarks.fault_sockets import half_open, hang_up, open_files
from benchmarks.load import children
from benchmarks.peers import Skipped
from benchmarks.sections import Progress, Section, Table
from trimtab.database import Database
from trimtab.ledger.entries import ENTRIES

DOWN_S: Final = 4.0
QUICK_DOWN_S: Final = 2.0
CLIENTS: Final = 1_000
QUICK_CLIENTS: Final = 200
BATCH_LINES: Final = 40
SETTLED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Rig:
    """What the faults of one group share. `free` is a key without limits, `budgeted` one whose budget and rates are never
    reached."""

    served: Served
    provider: BillingProvider
    valkey: Valkey
    postgres: Postgres
    free: str
    budgeted: str
    draw: random.Random
    down_s: float
    clients: int


Fault = Callable[[Rig], Finding]


def run(quick: bool, seed: int, folder: Path, progress: Progress) -> Section:
    """The whole campaign; `quick` with short outages and fewer clients, and without the groups of their own."""
    step = progress("faults", len(SHARED) + (0 if quick else 2))
    findings: list[Finding] = []
    try:
        with shared_rig(folder / "shared", seed, quick=quick) as rig:
            for fault in SHARED:
                findings.append(fault(rig))
                step()
    except Skipped as reason:
        findings.append(Finding("Valkey and PostgreSQL, real ones", "", str(reason), None))
    if not quick:
        findings += embedded(folder / "embedded")
        step()
        findings += two_hosts(folder / "hosts")
        step()
    return section(findings)


def section(findings: Sequence[Finding]) -> Section:
    """The findings as the suite's outcome."""
    words = {True: "yes", False: "NO", None: "skipped"}
    rows = tuple((each.fault, each.promise, each.observed, words[each.kept]) for each in findings)
    kept = sum(each.kept is True for each in findings)
    tried = sum(each.kept is not None for each in findings)
    note = (
        f"{kept} of {tried} promises were kept. No server was restarted by hand between a fault and what was observed."
    )
    # `observed_ms`: what was observed holds times and counts that no two runs share
    records = tuple(
        {
            "record": "fault",
            "fault": each.fault,
            "promise": each.promise,
            "kept": each.kept,
            "observed_ms": each.observed,
        }
        for each in findings
    )
    table = Table("Faults, and what came of them", ("fault", "promise", "observed", "kept"), rows, note)
    return Section("faults", "Fault campaign", (), (table,), records=records)


@contextmanager
def shared_rig(folder: Path, seed: int, *, quick: bool) -> Iterator[Rig]:
    """Two workers that share a Valkey and a PostgreSQL. Raises Skipped."""
    with ExitStack() as stack:
        valkey = Valkey()
        stack.callback(valkey.kill)
        postgres = Postgres()
        stack.callback(postgres.close)
        provider = stack.enter_context(BillingProvider())
        settings = {
            "redis_url": valkey.url,
            "database_url": postgres.url,
            "workers": 2,
            "keys": True,
            "admin_key_env": ADMIN_ENV,
            "limits_when_away": "allow",
            "deferred_lease_s": 3,
        }
        served = stack.enter_context(trimtab_served(folder, provider.base_url, settings))
        free = served.new_key("free")
        budgeted = served.new_key("budgeted", budgets={"month": "1000"}, requests_per_minute=100_000)
        down_s, clients = (QUICK_DOWN_S, QUICK_CLIENTS) if quick else (DOWN_S, CLIENTS)
        yield Rig(served, provider, valkey, postgres, free, budgeted, random.Random(seed), down_s, clients)


def settled(rig: Rig, prefixes: Sequence[str], load: Sequence[Load], within_s: float = SETTLED_S) -> Books:
    """The books once nothing is lost in them, or as they are when that took too long."""
    asked = [each for one in load for each in one.asked]
    made: list[Books] = []

    def balanced() -> bool:
        made.append(books(rig.provider, rig.postgres.url, prefixes, asked))
        return not (made[-1].lost or made[-1].unbooked)

    eventually(balanced, within_s)
    return made[-1]


def worker_killed(rig: Rig) -> Finding:
    """SIGKILL to each worker in turn, under load."""
    promise = (
        "who retries under an idempotency key is answered; the ledger lacks no more than what was over in the last 0.2 s "
        "and a commit (counted: half a second)"
    )
    before, kills_s, came_s = workers(rig.served.pid), [], []
    with Load(rig.served.url, rig.budgeted, "kill") as load:
        time.sleep(1)
        for pid in sorted(before):
            kills_s.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)

            def replaced(gone: int = pid) -> bool:
                return len(workers(rig.served.pid) - {gone}) == 2 and rig.served.ready()

            came_s.append(eventually(replaced, 90))
            time.sleep(1)
    made = settled(rig, ["kill"], [load], 5)
    ended_s = {each.user: each.ended_s for each in load.asked}
    excused = {user for user in made.lost if any(-0.5 < ended_s[user] - at < 0.2 for at in kills_s)}
    broken = sum(each.broken for each in load.asked)
    slowest = max(each.took_s for each in load.asked)
    observed = (
        f"{said(load)}; {broken} connections broke and were retried, the slowest took {slowest:.1f} s; {made}; of the "
        f"{len(made.lost)} missing {len(excused)} were over in the half second before a kill; "
        f"new workers after {' and '.join(f'{each or 0:.1f}' for each in came_s)} s"
    )
    kept = set(load.statuses) == {200} and made.double == 0 and excused == made.lost and None not in came_s
    return Finding("each worker killed (SIGKILL) under load", promise, observed, kept)


def valkey_killed(rig: Rig) -> Finding:
    """Killed under load, and an empty one in its place."""
    promise = (
        'no request fails, with or without a budget (limits_when_away = "allow"); the budget goes on from the ledger'
    )
    with (
        Load(rig.served.url, rig.free, "vfree") as free,
        Load(rig.served.url, rig.budgeted, "vbudget") as budgeted,
    ):
        time.sleep(1)
        rig.valkey.kill()
        time.sleep(rig.down_s)
        rig.valkey.start()
        time.sleep(3)
    made = settled(rig, ["vfree", "vbudget"], [free, budgeted])
    agreed_s = eventually(lambda: spent_pico(rig, "budgeted") == ledger_pico(rig, "budgeted"), SETTLED_S)
    gap = (
        "agree" if agreed_s is not None else f"differ: {spent_pico(rig, 'budgeted')} and {ledger_pico(rig, 'budgeted')}"
    )
    slowest = max(each.took_s for each in (*free.asked, *budgeted.asked))
    observed = (
        f"{said(free, budgeted)}; {made}; slowest {slowest:.1f} s; what the budget says was spent and the ledger {gap}"
    )
    fine = set(free.statuses | budgeted.statuses) == {200} and not (made.lost or made.unbooked or made.double)
    return Finding(
        "Valkey killed under load, an empty one comes back", promise, observed, fine and agreed_s is not None
    )


def postgres_killed(rig: Rig) -> Finding:
    """Killed under load and in the middle of a batch; it comes back with its data."""
    promise = (
        "no request fails; lines go to files and come back, each once; the batch that was accepted is done, each line of it "
        "bought once"
    )
    batch = new_batch(rig)
    spill = rig.served.log.parent / "data" / "ledger-spill"
    with Load(rig.served.url, rig.free, "pfree") as load:
        time.sleep(1)
        rig.postgres.kill()
        time.sleep(rig.down_s)
        spilled = len(list(spill.glob("*.jsonl")))
        rig.postgres.start()
        time.sleep(2)
    emptied_s = eventually(lambda: not list(spill.glob("*.jsonl")), SETTLED_S)
    made = settled(rig, ["pfree"], [load])
    done_s = eventually(lambda: batch_status(rig, batch) in ("completed", "failed", "expired"), 90)
    bought = [rig.provider.bill[f"batch-{n}"] for n in range(BATCH_LINES)]
    observed = (
        f"{said(load)}; {spilled} files of lines while it was away, taken up {emptied_s or 0:.1f} s after; {made}; the batch "
        f"is {batch_status(rig, batch)}: {sum(each > 0 for each in bought)} of {BATCH_LINES} lines bought, "
        f"{sum(each > 1 for each in bought)} twice"
    )
    kept = set(load.statuses) == {200} and not (made.lost or made.unbooked or made.double) and emptied_s is not None
    return Finding(
        "PostgreSQL killed under load and within a batch, comes back",
        promise,
        observed,
        kept and done_s is not None and set(bought) == {1},
    )


def slow_clients(rig: Rig) -> Finding:
    """Clients that stop in the middle of a request and keep the connection."""
    promise = "others are served as ever"
    with half_open(rig.served.url, rig.free, 200), Load(rig.served.url, rig.free, "beside") as load:
        time.sleep(max(2.0, rig.down_s))
    made = settled(rig, ["beside"], [load])
    slowest = max(each.took_s for each in load.asked)
    observed = f"200 half requests kept open; beside them {said(load)}, slowest {slowest:.2f} s; {made}"
    kept = set(load.statuses) == {200} and not (made.lost or made.unbooked or made.double)
    return Finding("half-open and silent sockets from clients", promise, observed, kept)


def silent_provider(rig: Rig) -> Finding:
    """A provider that takes requests and answers nothing, or half."""
    promise = "refused with 5xx within total_timeout_ms (8 s), others are served as ever"
    return _troubled_provider(
        rig, ("hang", "half"), "half-open sockets to providers: silence, and half an answer", promise
    )


def dripping_provider(rig: Rig) -> Finding:
    """A byte a second is never silence."""
    promise = "refused with 5xx within total_timeout_ms (8 s), others are served as ever"
    return _troubled_provider(rig, ("drip",), "a provider that sends 1 byte a second", promise)


def _troubled_provider(rig: Rig, kinds: Sequence[str], fault: str, promise: str) -> Finding:
    name = f"by{kinds[0]}"
    with httpx.Client(trust_env=False, timeout=60) as client, Load(rig.served.url, rig.free, name) as load:
        told = [ask(client, rig.served.url, rig.free, f"{kind}-{n}") for kind in kinds for n in range(2)]
    recovered_s = eventually(lambda: _answers(rig, f"after{name}"), 60)
    made = settled(rig, [name], [load])
    seen = sorted({each.status for each in told})
    slowest = max(each.took_s for each in told)
    observed = (
        f"{len(told)} such requests: {', '.join(map(str, seen))}, slowest {slowest:.1f} s; beside them {said(load)}; {made}; "
        f"answered again after {recovered_s or 0:.1f} s"
    )
    open_or_fine = all(status == 200 or status >= 500 for status in load.statuses)
    kept = all(status >= 500 for status in seen) and slowest < 10 and open_or_fine and recovered_s is not None
    return Finding(fault, promise, observed, kept and not (made.lost or made.unbooked or made.double))


def clients_hang_up(rig: Rig) -> Finding:
    """At random moments of their request and of its answer."""
    promise = "nothing stays open, whatever reached a provider has its line in the ledger (a bill that nobody heard is not in it)"
    files, memory_mb = open_files(rig.served.pid), rig.served.rss_mb
    hang_up(rig.served.url, rig.free, "slow-gone", rig.clients, rig.draw)
    came_s = eventually(lambda: _answers(rig, "afterhang"), 60)
    made: list[tuple[int, int]] = []

    def all_there() -> bool:
        lines = booked_lines(rig.postgres.url, billed=False)
        reached = [user for user in rig.provider.bill if user.startswith("slow-gone")]
        made.append((len(reached), sum(lines[user] == 1 for user in reached)))
        return made[-1][0] == made[-1][1]

    there_s = eventually(all_there, 20)
    back_s = eventually(lambda: open_files(rig.served.pid) <= files + 40, 60)
    observed = (
        f"{made[-1][0]} of {rig.clients:,} were answered by the provider, {made[-1][1]} of these have one line; open files "
        f"{files} before and {open_files(rig.served.pid)} after, memory {memory_mb:,.0f} and {rig.served.rss_mb:,.0f} MB; "
        f"others were answered after {came_s or 0:.1f} s"
    )
    kept = None not in (came_s, there_s, back_s)
    return Finding(f"{rig.clients:,} clients that hang up", promise, observed, kept)


SHARED: Final[tuple[Fault, ...]] = (
    worker_killed,
    valkey_killed,
    postgres_killed,
    slow_clients,
    silent_provider,
    dripping_provider,
    clients_hang_up,
)


def workers(parent: int) -> set[int]:
    """The worker processes of a server."""
    found = set()
    for pid in children(parent):
        try:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
        except OSError:
            continue
    return found


def spent_pico(rig: Rig, key: str) -> int:
    """What the counters say that a key has spent this month."""
    (row,) = rig.served.admin("GET", f"/admin/keys/{key}")["usage"]
    return round(float(row["spent_usd"]) * 10**12)


def ledger_pico(rig: Rig, key: str) -> int:
    """What the ledger says of the same."""
    database = Database(rig.postgres.url)
    with database.read() as connection:
        found = connection.execute(sa.select(sa.func.sum(ENTRIES.c.cost_pico)).where(ENTRIES.c.key == key)).scalar()
    database.close()
    return int(found or 0)


def _answers(rig: Rig, name: str) -> bool:
    with httpx.Client(trust_env=False, timeout=20) as client:
        return ask(client, rig.served.url, rig.free, f"{name}-{time.monotonic_ns()}").status == 200


def new_batch(rig: Rig) -> str:
    """A batch of requests that are each billed by their own `user`."""
    lines = [
        {
            "custom_id": str(n),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "user": f"batch-{n}", "messages": [{"role": "user", "content": f"Line {n}?"}]},
        }
        for n in range(BATCH_LINES)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    headers = {"authorization": f"Bearer {rig.free}"}
    with httpx.Client(base_url=rig.served.url, headers=headers, trust_env=False, timeout=30) as client:
        files = {"file": ("lines.jsonl", content, "application/jsonl")}
        made = client.post("/v1/files", data={"purpose": "batch"}, files=files).raise_for_status()
        order = {"input_file_id": made.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(client.post("/v1/batches", json=order).raise_for_status().json()["id"])


def batch_status(rig: Rig, batch: str) -> str:
    headers = {"authorization": f"Bearer {rig.free}"}
    try:
        got = httpx.get(f"{rig.served.url}/v1/batches/{batch}", headers=headers, trust_env=False, timeout=20)
    except httpx.TransportError:
        return "not to be asked"
    return str(got.json().get("status", got.status_code))

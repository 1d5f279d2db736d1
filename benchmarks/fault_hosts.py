"""Two hosts, each in a network namespace of its own, that share a Valkey and a PostgreSQL; one of them is cut off from both
and heals. Each host has two links: one to the shared servers, which is cut, and one to clients and providers.

Packets to a link that is down are dropped, so that connections that are open are told nothing: the hardest way to be cut off.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.fault_clients import Asked, Load, ask, books, said
from benchmarks.fault_provider import INPUT_TOKENS, OUTPUT_TOKENS, BillingProvider
from benchmarks.fault_rig import ADMIN, ADMIN_ENV, Finding, Postgres, Served, Valkey, eventually, trimtab_served
from benchmarks.peers import Skipped

STORES: Final = "10.213.71"
WORLD: Final = "10.213.72"
HOSTS: Final = ("trimtab-a", "trimtab-b")
PORT: Final = 8_400
COST_USD: Final = Decimal(INPUT_TOKENS) * 2 / 10**6 + Decimal(OUTPUT_TOKENS) * 10 / 10**6
CUT_S: Final = 25.0
SLOWEST_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Two:
    a: Served
    b: Served
    provider: BillingProvider
    database_url: str


def two_hosts(folder: Path) -> list[Finding]:
    """What the two agree on, then what becomes of one that is cut off."""
    try:
        with ExitStack() as stack:
            stack.enter_context(network())
            valkey = Valkey(f"{STORES}.1")
            stack.callback(valkey.kill)
            postgres = Postgres(f"{STORES}.1")
            stack.callback(postgres.close)
            provider = stack.enter_context(BillingProvider(f"{WORLD}.1"))
            settings = {
                "redis_url": valkey.url,
                "database_url": postgres.url,
                "keys": True,
                "admin_key_env": ADMIN_ENV,
                "metrics_key_env": ADMIN_ENV,
                "max_attempts": 1,
            }
            hosts = [
                stack.enter_context(
                    trimtab_served(
                        folder / name,
                        provider.base_url,
                        settings,
                        host=f"{WORLD}.{number}",
                        port=PORT,
                        within=("ip", "netns", "exec", name),
                    )
                )
                for number, name in enumerate(HOSTS, 2)
            ]
            two = Two(hosts[0], hosts[1], provider, postgres.url)
            return [budget_agrees(two), limits_agree(two), cut_off(two), health_agrees(two)]
    except Skipped as reason:
        return [Finding("two hosts in network namespaces", "", str(reason), None)]


@contextmanager
def network() -> Iterator[None]:
    """Two bridges, and two namespaces with a link to each. Raises Skipped where they cannot be made."""
    if shutil.which("ip") is None:
        raise Skipped("iproute2 is not installed")
    try:
        for bridge, prefix in (("tt-stores", STORES), ("tt-world", WORLD)):
            _ip(f"link add {bridge} type bridge")
            _ip(f"addr add {prefix}.1/24 dev {bridge}")
            _ip(f"link set {bridge} up")
        for number, name in enumerate(HOSTS, 2):
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
            for bridge, prefix in (("tt-stores", STORES), ("tt-world", WORLD)):
                outside, inside = f"{bridge}{number}", f"{bridge[3:]}0"
                _ip(f"link add {outside} type veth peer name {inside} netns {name}")
                _ip(f"link set {outside} master {bridge}")
                _ip(f"link set {outside} up")
                _ip(f"-n {name} addr add {prefix}.{number}/24 dev {inside}")
                _ip(f"-n {name} link set {inside} up")
        yield
    finally:
        for name in HOSTS:
            _ip(f"netns del {name}", check=False)
        for bridge in ("tt-stores", "tt-world"):
            _ip(f"link del {bridge}", check=False)


def _ip(command: str, *, check: bool = True) -> None:
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)  # noqa: S603, S607 (fixed)
    if check and done.returncode:
        raise Skipped(f"no network namespaces can be made here: {done.stderr.strip()}")


def _asked(two: Two, key: str, name: str, count: int) -> list[Asked]:
    """So many requests at once, to the two hosts by turns."""
    with httpx.Client(trust_env=False, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        urls = (two.a.url, two.b.url)
        return list(pool.map(lambda n: ask(client, urls[n % 2], key, f"{name}-{n}"), range(count)))


def budget_agrees(two: Two) -> Finding:
    """A budget of some requests, asked for at both hosts at once."""
    key = two.a.new_key("purse", budgets={"total": "0.06"})
    time.sleep(2.5)  # "within 2 seconds everywhere"
    asked = [each for turn in range(4) for each in _asked(two, key, f"purse-{turn}", 40)]
    statuses = Counter(each.status for each in asked)
    spent = {Decimal(_spent(each, "purse")) for each in (two.a, two.b)}
    billed = sum(count for user, count in two.provider.bill.items() if user.startswith("purse")) * COST_USD
    observed = (
        f"$0.06 for both: {_counts(statuses)}; the provider billed ${billed}; the hosts say "
        f"{' and '.join(f'${each}' for each in sorted(spent))}"
    )
    kept = statuses.keys() == {200, 429} and billed <= Decimal("0.06") and spent == {billed}
    return Finding("two hosts: one budget", "they cannot overspend it together, and both say the same", observed, kept)


def limits_agree(two: Two) -> Finding:
    """A rate, likewise."""
    key = two.a.new_key("rate", requests_per_minute=30)
    time.sleep(2.5)
    began_s = time.monotonic()
    statuses = Counter(each.status for each in _asked(two, key, "rate", 80))
    allowed = 30 + 30 * (time.monotonic() - began_s) / 60 + 1
    observed = f"30 a minute for both: {_counts(statuses)} of 80 at once"
    kept = statuses.keys() == {200, 429} and 30 <= statuses[200] <= allowed
    return Finding("two hosts: one rate limit", "together they let through what one would", observed, kept)


def health_agrees(two: Two) -> Finding:
    """A provider that fails at one host."""
    key = two.a.new_key("health")
    time.sleep(2.5)
    two.provider.failing = True
    with httpx.Client(trust_env=False, timeout=30) as client:
        for number in range(5):
            ask(client, two.a.url, key, f"health-{number}")
        known_s = eventually(
            lambda: 'trimtab_breaker_state{model="m",processing="sync",provider="p"} 2.0' in _metrics(two.b), 10
        )
        two.provider.failing = False
        healed_s = eventually(lambda: ask(client, two.b.url, key, f"healed-{time.monotonic_ns()}").status == 200, 60)
    observed = (
        f"the other host's breaker opened {'never' if known_s is None else f'{known_s:.1f} s after'}; "
        f"answers again {'never' if healed_s is None else f'{healed_s:.0f} s after'} the provider was back"
    )
    kept = known_s is not None and healed_s is not None
    return Finding("two hosts: health", "a breaker that opens at one is open at the other", observed, kept)


def cut_off(two: Two) -> Finding:
    """The link of one host to both shared servers is down for some seconds."""
    promise = (
        "requests at the host that is cut off are refused with 503 within seconds (limits_when_away is refuse), never left "
        "hanging; the other serves; it heals by itself, and the books agree"
    )
    free = two.a.new_key("free")
    key = two.a.new_key("cut", budgets={"total": "1000"})
    time.sleep(2.5)
    loads = [
        Load(each.url, secret, name)
        for each, secret, name in ((two.a, key, "cuta"), (two.b, key, "cutb"), (two.b, free, "cutfree"))
    ]
    with ExitStack() as stack:
        for each in loads:
            stack.enter_context(each)
        time.sleep(1)
        _ip(f"link set tt-stores{2 + HOSTS.index('trimtab-b')} down")
        time.sleep(CUT_S)
        marks = [len(each.asked) for each in loads]
        _ip(f"link set tt-stores{2 + HOSTS.index('trimtab-b')} up")
        with httpx.Client(trust_env=False, timeout=30) as client:
            healed_s = eventually(
                lambda: ask(client, two.b.url, key, f"cutheal-{time.monotonic_ns()}").status == 200, 90
            )
        time.sleep(3)
    asked = [each for load in loads for each in load.asked]
    names = ["cuta", "cutb", "cutfree"]
    eventually(lambda: not books(two.provider, two.database_url, names, asked).unbooked, 40)
    made = books(two.provider, two.database_url, names, asked)
    agreed_s = eventually(lambda: _spent(two.a, "cut") == _spent(two.b, "cut"), 20)
    slowest = max(each.took_s for each in asked)
    observed = (
        f"the host that is linked: {said(loads[0])}; the other, a key with a budget: {said(loads[1])}, one without: "
        f"{said(loads[2])} ({marks[1]} and {marks[2]} until the end of the cut of {CUT_S:g} s); slowest {slowest:.1f} s; healed "
        f"{'never' if healed_s is None else f'{healed_s:.1f} s after'}; {made}; "
        f"budgets {'agree' if agreed_s is not None else 'differ'}"
    )
    kept = (
        set(loads[0].statuses) == {200}
        and set(loads[1].statuses | loads[2].statuses) <= {200, 503}
        and slowest < SLOWEST_S
        and healed_s is not None
        and agreed_s is not None
        and not (made.lost or made.unbooked or made.double)
    )
    return Finding("two hosts: one cut off from both shared servers, and back", promise, observed, kept)


def _counts(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} of {status}" for status, count in sorted(statuses.items()))


def _spent(host: Served, key: str) -> str:
    eventually(lambda: _row(host, key)["reserved_usd"] in ("0", "0.00"), 10)
    return str(_row(host, key)["spent_usd"])


def _row(host: Served, key: str) -> dict[str, Any]:
    (row,) = host.admin("GET", f"/admin/keys/{key}")["usage"]
    return dict(row)


def _metrics(host: Served) -> str:
    headers = {"authorization": f"Bearer {ADMIN}"}
    return httpx.get(f"{host.url}/metrics", headers=headers, trust_env=False, timeout=20).text

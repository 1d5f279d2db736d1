"""The campaign's clients, and its books: who was answered, what the provider billed, and what the ledger has."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import httpx
import sqlalchemy as sa

from benchmarks.fault_provider import MODEL, BillingProvider
from trimtab.database import Database
from trimtab.ledger.entries import ENTRIES

AT_ONCE: Final = 4
RETRY_S: Final = 0.2
PATIENCE_S: Final = 40.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, by the `user` that it names. `status` is the last try's, 0 where the connection broke; `broken` counts
    the tries of which nothing came back, `ended_s` is by the clock that does not jump."""

    user: str
    status: int
    broken: int
    took_s: float
    ended_s: float = 0.0


def ask(client: httpx.Client, url: str, key: str, user: str, *, retries: bool = False, **more: Any) -> Asked:
    """Ask once; with `retries` again after a connection that broke, under the same idempotency key, as clients do."""
    body = {
        "model": MODEL,
        "max_tokens": 100,
        "user": user,
        "messages": [{"role": "user", "content": f"Is it so, {user}?"}],
    }
    headers = {"authorization": f"Bearer {key}", **({"idempotency-key": user} if retries else {})}
    began_s, broken = time.monotonic(), 0
    while True:
        try:
            status = client.post(f"{url}/v1/chat/completions", json={**body, **more}, headers=headers).status_code
        except httpx.TransportError:
            status = 0
            broken += 1
        took_s = time.monotonic() - began_s
        if status or not retries or took_s > PATIENCE_S:
            return Asked(user, status, broken, took_s, time.monotonic())
        time.sleep(RETRY_S)


@dataclass
class Load:
    """Clients that ask one request after the other, until the block ends. Each names a `user` of its own."""

    url: str
    key: str
    name: str
    at_once: int = AT_ONCE
    retries: bool = True
    asked: list[Asked] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        for number in range(self.at_once):
            thread = threading.Thread(target=self._work, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def statuses(self) -> Counter[int]:
        return Counter(each.status for each in self.asked)

    def _work(self, number: int) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            turn = 0
            while not self._over.is_set():
                user = f"{self.name}-{number}-{turn}"
                self.asked.append(ask(client, self.url, self.key, user, retries=self.retries))
                turn += 1
                time.sleep(0.02)


def said(*loads: Load) -> str:
    """ "412 answers of 200, 3 of 503"."""
    counted: dict[int, int] = {}
    for load in loads:
        for status, count in load.statuses.items():
            counted[status] = counted.get(status, 0) + count
    return ", ".join(f"{count:,} answers of {status}" for status, count in sorted(counted.items()))


@dataclass(frozen=True, slots=True)
class Books:
    """What three sides say of the same requests. `lost`: answered, and not in the ledger. `unbooked`: billed by the
    provider beyond the ledger's lines. `double`: booked more often than the provider billed."""

    answered: int
    billed: int
    booked: int
    lost: frozenset[str]
    unbooked: int
    double: int

    def __str__(self) -> str:
        return f"{self.answered:,} answered, {self.billed:,} billed, {self.booked:,} in the ledger"


def books(provider: BillingProvider, database_url: str, prefixes: Iterable[str], asked: Iterable[Asked]) -> Books:
    """Of the requests whose `user` begins so."""
    begin = tuple(f"{each}-" for each in prefixes)
    bill = {user: count for user, count in provider.bill.items() if user.startswith(begin)}
    booked = {user: count for user, count in booked_lines(database_url).items() if user.startswith(begin)}
    answered = {each.user for each in asked if each.status == 200}
    return Books(
        answered=len(answered),
        billed=sum(bill.values()),
        booked=sum(booked.values()),
        lost=frozenset(answered - booked.keys()),
        unbooked=sum(max(0, count - booked.get(user, 0)) for user, count in bill.items()),
        double=sum(max(0, count - bill.get(user, 0)) for user, count in booked.items()),
    )


def booked_lines(database_url: str, *, billed: bool = True) -> Counter[str]:
    """How many lines of the ledger, of each `user`, say that something was billed; all lines with `billed` False."""
    database = Database(database_url)
    query = sa.select(ENTRIES.c.user, sa.func.count()).group_by(ENTRIES.c.user)
    query = query.where(ENTRIES.c.billed_pico > 0) if billed else query
    try:
        with database.read() as connection:
            return Counter({row[0]: int(row[1]) for row in connection.execute(query)})
    finally:
        database.close()

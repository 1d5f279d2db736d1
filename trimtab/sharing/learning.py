"""What workers learn from each other: each kind of event, and whom it is for."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from routing.attempts import Attempt
from routing.health import Sighting
from trimtab.database import Database
from trimtab.settings import Settings
from trimtab.sharing.bus import Bus, Event
from trimtab.sharing.log import Log
from trimtab.sharing.sql_log import SqlLog
from trimtab.telling import nobody

if TYPE_CHECKING:
    from trimtab.pipeline import Trimtab

_BLOCKING_WAIT_S = 2.0  # longer than the bus waits for news


@contextmanager
def learning(trimtab: Trimtab) -> Iterator[None]:
    """Within it, what `trimtab` learns is told to the other workers, and what they learn is learned here."""
    learned = _Learned(trimtab)
    bus = Bus(log_of(trimtab.settings), uuid.uuid4().hex, learned.hear)

    def tell(kind: str, event: Mapping[str, Any]) -> None:
        bus.publish({"kind": kind, **event})

    def tell_sighting(sighting: Sighting) -> None:
        tell("sighting", dataclasses.asdict(sighting))

    def tell_draw(name: str, amount: Decimal, at: datetime) -> None:
        tell("drawn", {"commitment": name, "amount": str(amount), "made": at.isoformat()})

    bus.start()
    health, drawdown = trimtab.experience.health, trimtab.drawdown
    tellers = (trimtab.experience, trimtab.baselines, trimtab.conversations)
    health.tell, drawdown.tell = tell_sighting, tell_draw
    for each in tellers:
        each.tell = tell
    try:
        yield
    finally:
        health.tell = drawdown.tell = None
        for each in tellers:
            each.tell = nobody
        bus.close()


def log_of(settings: Settings) -> Log:
    """Redis where there is one; else the PostgreSQL, or a file for the workers of this host."""
    if settings.redis_url is not None:
        from trimtab.sharing.redis_log import RedisLog  # here, since the package is there only where it is asked for
        from trimtab.sharing.redis_server import RedisServer

        return RedisLog(RedisServer(settings.redis_url, _BLOCKING_WAIT_S))
    if settings.database.startswith("sqlite"):
        # a file of its own: nothing in it is worth keeping the ledger's writers waiting
        return SqlLog(Database(f"sqlite:///{(settings.cache_dir / 'events.sqlite').absolute()}"))
    return SqlLog(Database(settings.database))


class _Learned:
    def __init__(self, trimtab: Trimtab) -> None:
        self._trimtab = trimtab

    def hear(self, event: Event, age_s: float) -> None:
        """Raises ValueError, KeyError or TypeError for what is no event; a kind that is not known is passed by."""
        kind, trimtab = event["kind"], self._trimtab
        if kind == "sighting":
            trimtab.experience.health.heard(_sighting(event), age_s)
        elif kind == "baseline":
            trimtab.baselines.heard(event, age_s)
        elif kind == "recut":
            trimtab.conversations.heard(event)
        elif kind == "drawn":
            made = datetime.fromisoformat(event["made"])
            trimtab.drawdown.draw(event["commitment"], Decimal(event["amount"]), made)
        else:
            trimtab.experience.heard(kind, event, age_s)


def _sighting(event: Event) -> Sighting:
    fields = {name: event[name] for name in Sighting.__slots__}
    attempt, allowed = fields["attempt"], fields["allowed"]
    fields["offer"] = tuple(fields["offer"])
    fields["attempt"] = None if attempt is None else Attempt(**attempt)
    fields["allowed"] = None if allowed is None else tuple(each and tuple(each) for each in allowed)
    return Sighting(**fields)

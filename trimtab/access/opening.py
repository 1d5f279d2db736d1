"""Opening: the gate that the settings ask for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trimtab.access.counters import Counters
from trimtab.access.gate import KeyGate
from trimtab.access.keys import Keys
from trimtab.access.redis_counters import RedisCounters
from trimtab.access.spending import Past, WhenAway
from trimtab.access.sql_counters import DatabaseCounters
from trimtab.database import Database
from trimtab.settings import Settings

COUNTERS_FILE = "counters.sqlite"


def counters_of(settings: Settings) -> Counters:
    """Redis where one is named, else PostgreSQL, else a file of its own beside the database.

    That file is written without waiting for the disk: what a power failure takes with it, the ledger still knows.
    """
    if settings.redis_url is not None:
        return RedisCounters(settings.redis_url)
    if settings.database_url is not None and not settings.database_url.startswith("sqlite"):
        return DatabaseCounters(Database(settings.database_url))
    file = Path(settings.data_dir).absolute() / COUNTERS_FILE
    return DatabaseCounters(Database(f"sqlite:///{file}", durable=False))


def key_gate(settings: Settings, database: Database, clock: Callable[[], float] = time.time) -> KeyGate:
    """The gate with keys. Connects at the first use."""
    when_away: WhenAway = "allow" if settings.limits_when_away == "allow" else "refuse"
    return KeyGate(Keys(database), counters_of(settings), Past(database), when_away, clock)

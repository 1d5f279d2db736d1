"""Receipts and the ledger: counts and dollars of trimtab itself, and no texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from routing.offers import Usage
from trimtab.analysis.recorded import Prefix, Recorded, moment
from trimtab.analysis.shapes.counts import count, usage
from trimtab.database import Database
from trimtab.ledger.entries import ENTRIES, Entry, entry_of


def recognises(entry: Mapping[str, Any]) -> bool:
    return "model_asked" in entry and "input_tokens_billed" in entry


def read(entry: Mapping[str, Any], where: str) -> Recorded | None:
    billed = usage(
        count(entry, "input_tokens_billed"),
        count(entry, "output_tokens_billed"),
        count(entry, "cache_read_tokens_billed") or 0,
        count(entry, "cache_write_tokens_billed") or 0,
    )
    if billed is None:  # nothing answered it
        return None
    model = entry.get("model") or entry.get("model_asked")
    if not isinstance(model, str):
        raise ValueError("names no model")
    return Recorded(
        id=str(entry.get("id") or where),
        where=where,
        model=model,
        body={},
        api=None,
        at=moment(entry.get("at")),
        usage=billed,
        processing=str(entry.get("processing") or "sync"),
        seller=str(entry.get("provider") or ""),
    )


def ledger_entries(database: Database, limit: int) -> Iterator[Recorded]:
    """The latest requests of the ledger that were answered and billed, in order of time."""
    newest = sa.select(ENTRIES).order_by(ENTRIES.c.number.desc()).limit(limit)
    with database.read() as connection:
        rows = [entry_of(row) for row in connection.execute(newest).mappings()]
    for entry in reversed(rows):
        billed = _billed(entry)
        if billed is not None:
            yield Recorded(
                id=entry.receipt_id,
                where=f"receipt {entry.receipt_id}",
                model=entry.model or entry.model_asked,
                body={},
                api=None,
                at=entry.at,
                usage=billed,
                processing=entry.processing or "sync",
                streamed=entry.stream,
                signs=tuple(each for each in (entry.route, entry.user) if each),
                seller=entry.provider,
                prefix=_prefix(entry),
            )


def _prefix(entry: Entry) -> Prefix | None:
    return Prefix(entry.prefix_digest, entry.prefix_tokens) if entry.prefix_digest and entry.prefix_tokens else None


def _billed(entry: Entry) -> Usage | None:
    return usage(
        entry.input_tokens_billed,
        entry.output_tokens_billed,
        entry.cache_read_tokens_billed or 0,
        entry.cache_write_tokens_billed or 0,
    )

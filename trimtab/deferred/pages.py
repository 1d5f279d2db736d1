"""Pages: ids that sort by the time they were given, and lists that are read page by page as OpenAI's clients do it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import sqlalchemy as sa

from trimtab.errors import BadRequest

Item = TypeVar("Item")

MAX_ID_CHARACTERS: Final = 100


def new_id(prefix: str, at_s: float) -> str:
    """A new id: microseconds since 1970 and 72 random bits, in hexadecimal digits, so that ids sort as they were given.

    >>> new_id("file-", 1_790_000_000.0)[:19]
    'file-065bfeda25e000'
    """
    return f"{prefix}{int(at_s * 1e6):014x}{secrets.token_hex(9)}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page. `after` is the id of the last item that the caller has; nothing need be there under it any more."""

    after: str | None
    limit: int
    ascending: bool = False

    @staticmethod
    def of(query: Mapping[str, str], most: int, usual: int) -> Asked:
        """What a query string asks for: `after`, `limit` (up to `most`, without it `usual`), `order`. Raises BadRequest."""
        limit, order, after = query.get("limit", str(usual)), query.get("order", "desc"), query.get("after")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 0 < int(limit) <= most):
            raise BadRequest("limit", f"must be a whole number from 1 to {most:,}")
        if order not in ("asc", "desc"):
            raise BadRequest("order", "must be asc or desc")
        if after is not None and not (0 < len(after) <= MAX_ID_CHARACTERS and after.isascii() and after.isprintable()):
            raise BadRequest("after", "must be the id of the last item of the page before")
        return Asked(after, int(limit), order == "asc")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and whether there are more behind them."""

    items: tuple[Item, ...]
    has_more: bool

    def to_dict(self, plain: Callable[[Item], Mapping[str, Any]]) -> dict[str, Any]:
        """As OpenAI writes a page."""
        data = [plain(each) for each in self.items]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return {"object": "list", "data": data, **ends, "has_more": self.has_more}


def read_page(
    connection: sa.Connection,
    table: sa.Table,
    conditions: Sequence[sa.ColumnElement[bool]],
    asked: Asked,
    make: Callable[[sa.Row[Any]], Item],
) -> Page[Item]:
    """The rows of `table` that meet all `conditions`, by their `id`."""
    column = table.c.id
    chosen = sa.select(table).where(*conditions)
    if asked.after is not None:
        chosen = chosen.where(column > asked.after if asked.ascending else column < asked.after)
    ordered = chosen.order_by(column.asc() if asked.ascending else column.desc()).limit(asked.limit + 1)
    rows = connection.execute(ordered).all()
    return Page(tuple(make(row) for row in rows[: asked.limit]), len(rows) > asked.limit)

"""Entries: the lines of the ledger, one for every request that is over, and the tables that hold them.

Dollars are whole pico-dollars (10 ** -12) in the tables: a price of $0.0375 a million tokens is 37,500 of them a token, so
that both engines add amounts up exactly, in whole numbers. What is finer is rounded to the nearest. SQLite refuses a sum
above $9.2 million and never gives a wrong one; PostgreSQL adds up without a bound.

Figures are in one table and what is shown of a single request in another, so that a sum over a month reads no JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from operator import attrgetter
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trimtab.database import Database

PICO: Final = Decimal(10) ** 12
MOST_PICO: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One request's line. What is not known is None, never 0.

    `at` is when it was priced, in UTC. `tenant`, `key`, `team` are the caller's, `route`, `user` and `detail["metadata"]` the
    caller's own tags. `surface` is "chat", "messages", "responses" or "embeddings". `outcome` is the last attempt's
    ("ok", "cut_off", "rate_limited", ...; `routing.attempts`), and "abandoned" or "timeout" where none was over.
    `provider`, `model` and `processing` are what answered, `baseline_*` the caller's own model, whose cost at full context
    `baseline_usd` is (None where nothing was answered, so that sums agree: the baseline less what was saved is the cost).
    `attempts` counts them. Tokens and dollars are the receipt's.

    `cost_usd` is what counts as spent: what was billed, what was expected where an answer's bill is not known, and 0 where
    nothing was answered. `saved_usd` is the baseline less that, negative where trimtab made it dearer, and None where
    nothing was answered or a price is not known. `cache_loss_usd` is a part of it that is already taken off: what the
    caller's own model would have read from its cache untrimmed, and the answer did not.

    `boundary_tokens` is the price boundary of the answering offer that the input came nearest to (None: it has none), and
    `over_boundary_tokens` how far above it the input was; negative below. `trimtab_ms` is our own time, `provider_ms`
    that of all attempts, `first_byte_ms` from the last attempt's beginning to its first content.

    `prefix_digest` names all that stands before the conversation (model, tools, instructions), and `prefix_tokens` counts it.
    `detail` is plain JSON, its shape in docs/ledger.md: `attempts`, `cut`, `expansions`, `plan`, `curve`, `stage_ms`,
    `metadata`, `notes`, `turns`, `coverage_basis`; text of the request only where the settings ask for it.
    """

    receipt_id: str
    at: datetime
    model_asked: str
    tenant: str = ""
    key: str = ""
    team: str = ""
    request_id: str = ""
    route: str = ""
    user: str = ""
    surface: str = "chat"
    stream: bool = False
    status: int = 200
    outcome: str = "ok"
    answered: bool = True
    attempts: int = 1
    provider: str = ""
    model: str = ""
    processing: str = ""
    baseline_provider: str = ""
    baseline_model: str = ""
    prices_version: str = ""
    tokens_before: int | None = None
    tokens_after: int | None = None
    input_tokens_estimated: int | None = None
    output_tokens_estimated: int | None = None
    input_tokens_billed: int | None = None
    output_tokens_billed: int | None = None
    cache_read_tokens_billed: int | None = None
    cache_write_tokens_billed: int | None = None
    expected_usd: Decimal | None = None
    billed_usd: Decimal | None = None
    cost_usd: Decimal | None = None
    baseline_usd: Decimal | None = None
    saved_usd: Decimal | None = None
    cache_loss_usd: Decimal | None = None
    coverage_estimate: float | None = None
    boundary_tokens: int | None = None
    over_boundary_tokens: int | None = None
    trimtab_ms: float | None = None
    provider_ms: float | None = None
    first_byte_ms: float | None = None
    prefix_digest: str = ""
    prefix_tokens: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


TABLES: Final = sa.MetaData()
_TYPES: Final[Mapping[str, Any]] = {
    "str": sa.Text,
    "bool": sa.Boolean,
    "int": sa.BigInteger,
    "float": sa.Double,
    "Decimal": sa.BigInteger,
    "datetime": sa.BigInteger,
}


def _column_name(name: str) -> str:
    return "at_ms" if name == "at" else name.removesuffix("_usd") + "_pico" if name.endswith("_usd") else name


FIGURES: Final = tuple(each.name for each in fields(Entry) if each.name != "detail")
"""The fields of an `Entry` that have a column, in order."""

ENTRIES: Final = sa.Table(
    "ledger_entries",
    TABLES,
    # in the order of writing, for whoever follows: SQLite gives out no number twice
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    *(
        sa.Column(
            _column_name(each.name),
            _TYPES[str(each.type).removesuffix(" | None")],
            nullable=str(each.type).endswith("None"),
            unique=each.name == "receipt_id",
            index=each.name == "at",
        )
        for each in fields(Entry)
        if each.name != "detail"
    ),
    sqlite_autoincrement=True,
)
"""A column for each field of `Entry` under its name; `at` is `at_ms`, milliseconds since 1970 in UTC, and each `*_usd` is
`*_pico`. `number` ascends in the order of writing."""

DETAILS: Final = sa.Table(
    "ledger_details",
    TABLES,
    sa.Column("receipt_id", sa.Text, primary_key=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("detail", sa.LargeBinary, nullable=False),
)
"""`Entry.detail` as JSON in UTF-8."""


def pico(amount_usd: Decimal | None) -> int | None:
    """Dollars as whole pico-dollars, to the nearest.

    >>> pico(Decimal("0.0000000375"))
    37500
    """
    if amount_usd is None:
        return None
    whole = int((amount_usd * PICO).to_integral_value(ROUND_HALF_EVEN))
    return max(-MOST_PICO, min(MOST_PICO, whole))


def usd(amount_pico: Any) -> Decimal | None:
    """Dollars of pico-dollars, exactly; of a sum too, which PostgreSQL gives as a Decimal.

    >>> usd(37500)
    Decimal('3.75E-8')
    """
    return None if amount_pico is None else int(amount_pico) / PICO


def row_of(entry: Entry) -> dict[str, Any]:
    """The entry's row in `ENTRIES`."""
    row = dict(zip(_NAMES, _VALUES(entry), strict=True))  # fifty values a request: a loop takes four times as long
    row["at_ms"] = at_ms(entry.at)
    for column in _DOLLARS:
        row[column] = pico(row[column])
    for column in _BILLED:  # a provider can say any number
        if row[column] is not None and row[column] > MOST_PICO:
            row[column] = MOST_PICO
    return row


_COLUMNS: Final = tuple((name, _column_name(name)) for name in FIGURES)
_NAMES: Final = tuple(column for _, column in _COLUMNS)
_VALUES: Final = attrgetter(*FIGURES)
_DOLLARS: Final = tuple(column for column in _NAMES if column.endswith("_pico"))
_BILLED: Final = tuple(column for column in _NAMES if column.endswith(("_billed", "boundary_tokens")))


def entry_of(row: Mapping[Any, Any], detail: bytes | None = None) -> Entry:
    """The entry of a row of `ENTRIES`, and of its row of `DETAILS`, where that is asked for."""
    values: dict[str, Any] = {}
    for name, column in _COLUMNS:
        value = row[column]
        if name.endswith("_usd"):
            value = usd(value)
        elif name == "at":
            value = moment_of(value)
        values[name] = value
    return Entry(**values, detail={} if detail is None else orjson.loads(detail))


def at_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of a moment with a zone, whole ones that have passed."""
    return (moment - _EPOCH) // _MS


def moment_of(ms: int) -> datetime:
    """`at_ms`, back: exactly, where a float of seconds would be off by a microsecond."""
    return _EPOCH + timedelta(milliseconds=ms)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)

Record = tuple[dict[str, Any], bytes]
"""An entry as it is written: its row of `ENTRIES`, and its detail as JSON."""


def record_of(entry: Entry) -> Record:
    """The entry, ready to be written."""
    try:
        detail = orjson.dumps(entry.detail, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # legal in JSON, and too much for orjson: a number beyond 64 bits, half a surrogate pair
        detail = json.dumps(entry.detail, default=str).encode()
    return row_of(entry), detail


def write(database: Database, records: Sequence[Record]) -> None:
    """Write the entries in one transaction. One whose receipt is there already is left as it is, so that writing again what
    may have been written is safe. Raises SQLAlchemy's errors."""
    if not records:
        return
    into_entries, into_details = _INSERTS["sqlite" if database.is_sqlite else "postgresql"]
    details = [{"receipt_id": row["receipt_id"], "at_ms": row["at_ms"], "detail": raw} for row, raw in records]
    with database.begin() as connection:
        connection.execute(into_entries, [row for row, _ in records])
        connection.execute(into_details, details)


# made once: it takes longer than to write ten rows
_INSERTS: Final = {
    name: tuple(insert(table).on_conflict_do_nothing() for table in (ENTRIES, DETAILS))
    for name, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}

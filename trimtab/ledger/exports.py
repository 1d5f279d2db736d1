"""Exports: what providers say was used and billed, read from the files that they give out.

OpenAI's usage and costs (the API's JSON and the console's CSV), Anthropic's usage and cost reports (likewise), and any
other CSV whose columns are named one by one. All are rows of named cells; what a cell is called is a table below.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from trimtab.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Used:
    """What one row says: a day in UTC, a model ("" where the export does not tell them apart), counts and dollars. None is
    what it does not say. `input_tokens` counts everything read, cache reads and writes included."""

    day: str
    model: str
    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """A file's rows. `provider` is "openai" or "anthropic" where the file shows whose it is, else ""."""

    rows: tuple[Used, ...]
    provider: str


COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "day": ("start_time_iso", "starting_at", "usage_date_utc", "start_time", "date", "day", "timestamp", "created"),
    "model": ("model", "model_version", "line_item", "model_name"),
    "requests": ("num_model_requests", "requests", "request_count", "n_requests"),
    "input_tokens": ("input_tokens", "prompt_tokens"),
    "uncached_tokens": ("uncached_input_tokens", "usage_input_tokens_no_cache"),
    "output_tokens": ("output_tokens", "usage_output_tokens", "completion_tokens"),
    "cache_read_tokens": (
        *("input_cached_tokens", "cache_read_input_tokens", "usage_input_tokens_cache_read"),
        *("cache_read_tokens", "cached_tokens"),
    ),
    "usd": ("amount_value", "cost_usd", "usd", "cost", "amount"),
}
"""What a figure may be called; the first name that a row has counts."""

WRITES: Final = (
    *("usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h"),
    *("cache_creation_5m_input_tokens", "cache_creation_1h_input_tokens"),
    *("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
    *("cache_creation_input_tokens", "cache_write_tokens", "input_cache_write_tokens"),
)
"""Cache writes come in several columns, which are added up."""

_OWN: Final = {
    "openai": ("num_model_requests", "input_cached_tokens", "amount_value", "line_item"),
    "anthropic": ("usage_date_utc", "starting_at", "uncached_input_tokens"),
}
_DATED: Final = re.compile(r"(-\d{4}-\d{2}-\d{2}|-\d{8}|@\d{8})$")


def read_export(text: str, columns: Mapping[str, str] | None = None) -> Export:
    """The rows of an export. `columns` says for a CSV of another kind what its columns are called, by the names of
    `COLUMNS` ("day", "model", "usd", ...) and "cache_write_tokens"; they go before the usual ones.

    Raises BadRequest that says what the file lacks.

    >>> read_export("date,model,requests,cost\\n2026-11-24,gpt-5-mini,3,0.25\\n").rows[0].usd
    Decimal('0.25')
    """
    rows = list(_rows_of_json(text) if text.lstrip()[:1] in ("{", "[") else _rows_of_csv(text))
    if not rows:
        raise BadRequest(None, "the export has no rows: ask for a span in which something was used")
    own = columns or {}
    names = {name for row in rows for name in row}
    for name, column in own.items():
        if name not in (*COLUMNS, "cache_write_tokens"):
            raise BadRequest("--column", f"{name} is none of {', '.join((*COLUMNS, 'cache_write_tokens'))}")
        if column not in names:
            raise BadRequest("--column", f"the export has no column {column!r}; it has {', '.join(sorted(names))}")
    if not any(each in names for each in (own.get("day", ""), *COLUMNS["day"])):
        raise BadRequest("--column", f"no column holds the day: say day=NAME, one of {', '.join(sorted(names))}")
    provider = next((name for name, marks in _OWN.items() if any(mark in names for mark in marks)), "")
    used = tuple(each for number, row in enumerate(rows, start=1) if (each := _used(row, own, number)) is not None)
    return Export(used, provider)


def model_name(text: str) -> str:
    """A model's name as both sides write it: without its maker, its date, and what a line item says of it.

    >>> model_name("gpt-5-mini-2025-08-07, input"), model_name("anthropic/Claude-Haiku-4-5-20251001")
    ('gpt-5-mini', 'claude-haiku-4-5')
    """
    name = text.split(",")[0].strip().lower().rpartition("/")[2]
    return _DATED.sub("", name)


def _rows_of_json(text: str) -> Iterator[dict[str, Any]]:
    try:
        # amounts as they are written: a float would turn 0.1 into something else
        value = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise BadRequest(None, "the export begins like JSON and is none") from None
    pages = value if isinstance(value, list) else [value]
    for page in pages:
        data = page.get("data") if isinstance(page, Mapping) else None
        for bucket in data if isinstance(data, list) else [page]:
            if not isinstance(bucket, Mapping):
                raise BadRequest(None, 'the export is not the answer of a usage API: {"data": [{"results": [...]}]}')
            results = bucket.get("results")
            outer = {name: each for name, each in bucket.items() if name != "results"}
            for result in results if isinstance(results, list) else [{}]:
                if isinstance(result, Mapping):
                    yield _flat({**outer, **result})


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "amount" and isinstance(value, Mapping):  # OpenAI's, in dollars
            flat["amount_value"] = value.get("value")
        elif name == "amount" and "starting_at" in row:  # Anthropic's, in cents
            flat["cost_usd"] = _number(value, "amount") / 100
        elif isinstance(value, Mapping):
            flat.update(value)
        else:
            flat[name] = value
    return flat


def _rows_of_csv(text: str) -> Iterator[dict[str, Any]]:
    head = text.lstrip("\ufeff").split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    for row in csv.DictReader(io.StringIO(text.lstrip("\ufeff")), delimiter=delimiter):
        yield {(name or "").strip(): (value or "").strip() for name, value in row.items() if isinstance(value, str)}


def _used(row: Mapping[str, Any], own: Mapping[str, str], number: int) -> Used | None:
    """None for a row of a day on which nothing was used: such rows have a day and nothing else."""

    def cell(name: str) -> Any:
        names = (own[name],) if name in own else COLUMNS[name]
        return next((row[each] for each in names if row.get(each) not in (None, "")), None)

    def count(name: str) -> int | None:
        value = cell(name)
        return None if value is None else int(_number(value, f"row {number}: {name}"))

    usd = cell("usd")
    read, written = count("cache_read_tokens"), _writes(row, own, number)
    inputs = count("input_tokens")
    if inputs is None and (uncached := count("uncached_tokens")) is not None:
        inputs = uncached + (read or 0) + (written or 0)
    figures = (count("requests"), inputs, count("output_tokens"), read, written)
    if usd is None and not any(each is not None for each in figures):
        return None
    amount = None if usd is None else _number(usd, f"row {number}: usd")
    return Used(_day(cell("day"), number), model_name(str(cell("model") or "")), *figures, amount)


def _writes(row: Mapping[str, Any], own: Mapping[str, str], number: int) -> int | None:
    names = (own["cache_write_tokens"],) if "cache_write_tokens" in own else WRITES
    found: Sequence[Any] = [row[name] for name in names if row.get(name) not in (None, "")]
    return sum(int(_number(each, f"row {number}: cache writes")) for each in found) if found else None


def _number(value: Any, where: str) -> Decimal:
    try:
        number = Decimal(str(value).replace("$", "").replace(",", "").strip())
    except InvalidOperation:
        number = Decimal("nan")
    if isinstance(value, bool) or not number.is_finite():
        raise BadRequest(where, f"is no number: {str(value)[:40]!r}")
    return number


def _day(value: Any, number: int) -> str:
    text = str(value).strip()
    try:
        if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
            return f"{datetime.fromtimestamp(float(text), UTC):%Y-%m-%d}"
        moment = datetime.fromisoformat(text)
        return f"{(moment if moment.tzinfo is None else moment.astimezone(UTC)):%Y-%m-%d}"
    except ValueError:
        raise BadRequest(f"row {number}: day", f"is no date: {text[:40]!r}; write it like 2026-11-24") from None

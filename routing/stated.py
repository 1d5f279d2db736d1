"""Stated: what a user wrote in a TOML table, taken out of it field by field.

Every refusal is a ValueError that names the file, the entry, the field and what it may be. Knows nothing of prices.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class Stated:
    """One table of a file. `where` names both, as in "prices.toml: overlay[2] 'spot'".

    Raises ValueError at once for a value that is no table, or for a field that is not one of `known`.
    """

    __slots__ = ("_table", "where")

    def __init__(self, table: object, where: str, known: Iterable[str]) -> None:
        self.where = where
        if not isinstance(table, Mapping):
            raise ValueError(f"{where}: must be a table")
        names = tuple(known)
        for name in table:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
                raise ValueError(f"{where}: {name!r} is no field here; {hint}")
        self._table: Mapping[str, Any] = table

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def get(self, name: str) -> Any:
        return self._table.get(name)

    def refuse(self, name: str, wanted: str) -> NoReturn:
        """Say that the field `name` must be `wanted`. What stands there is repeated only where it is a plain value."""
        value = self._table.get(name)
        found = f", not {value!r}" if isinstance(value, (str, int, float, date)) and len(repr(value)) < 100 else ""
        raise ValueError(f"{self.where}: {name} must be {wanted}{found}" if name in self._table else self._lacks(name))

    def need(self, *names: str) -> None:
        """Each of `names` is there."""
        for name in names:
            if name not in self._table:
                raise ValueError(self._lacks(name))

    def one_of(self, *names: str) -> str:
        """The one of `names` that is there, of which there must be exactly one."""
        given = [name for name in names if name in self._table]
        if len(given) != 1:
            found = f"has {' and '.join(given)}" if given else "has none"
            raise ValueError(f"{self.where}: must have exactly one of {', '.join(names)}, and {found}")
        return given[0]

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not empty."""
        value = self._table.get(name, default)
        if not isinstance(value, str) or not value.strip():
            self.refuse(name, "a text that is not empty")
        return value

    def texts(self, name: str, default: Sequence[str] = (), allowed: Iterable[str] | None = None) -> tuple[str, ...]:
        """A list of one or more texts, each of them one of `allowed` where that is given."""
        value = self._table.get(name, default)
        good = isinstance(value, (list, tuple)) and all(isinstance(each, str) and each for each in value)
        if not good or (name in self._table and not value):
            self.refuse(name, "a list of one or more texts")
        if allowed is not None and (wrong := [each for each in value if each not in (choices := tuple(allowed))]):
            raise ValueError(f"{self.where}: {name} may hold {', '.join(choices)}, not {wrong[0]!r}")
        return tuple(value)

    def amount(self, name: str, *, above_zero: bool = False, default: Decimal | None = None) -> Decimal:
        """An exact number of 0 or more. By way of str: Decimal(0.1) is 0.1000000000000000055..., and the file said 0.1."""
        value = self._table.get(name, default)
        try:
            number = Decimal("NaN") if isinstance(value, bool) or value is None else Decimal(str(value))
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0 or (above_zero and not number):
            self.refuse(name, "a number above 0" if above_zero else "a number of 0 or more")
        return number

    def whole(self, name: str, least: int) -> int:
        """A whole number of `least` or more."""
        value = self._table.get(name)
        if type(value) is not int or value < least:
            self.refuse(name, f"a whole number of {least} or more")
        return value

    def zone(self) -> tzinfo:
        """The field `zone`: a name of the time zone database, such as "Europe/Vienna"; UTC where there is none."""
        name = self._table.get("zone", "UTC")
        if name == "UTC":
            return UTC
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            self.refuse("zone", 'the name of a time zone, such as "UTC" or "Asia/Shanghai"')

    def moment(self, name: str, zone: tzinfo) -> datetime | None:
        """A date (its first instant) or a time on a date, in `zone` where it states none of its own; None if absent."""
        value = self._table.get(name)
        if value is None:
            return None
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=zone)
        if not isinstance(value, date):
            self.refuse(name, "a date such as 2026-08-23, without quotes")
        return datetime.combine(value, time(0), zone)

    def _lacks(self, name: str) -> str:
        return f"{self.where}: {name} is missing"


SCOPE_FIELDS = ("name", "provider", "models", "processing", "from", "until", "zone")


@dataclass(frozen=True, slots=True)
class Scope:
    """What an entry speaks of: a provider's models and service classes, from one moment until before another.

    `models` are patterns ("deepseek-*"), case ignored. `processing` empty means every class.
    """

    provider: str
    models: tuple[str, ...]
    processing: tuple[str, ...]
    begins: datetime | None
    ends: datetime | None
    zone: tzinfo

    @staticmethod
    def of(stated: Stated, processing: tuple[str, ...] = ()) -> Scope:
        """The scope fields of an entry; `processing` is what counts where it names no class. Raises ValueError."""
        stated.need("name", "provider", "models")
        zone = stated.zone()
        begins, ends = stated.moment("from", zone), stated.moment("until", zone)
        if begins is not None and ends is not None and ends <= begins:
            stated.refuse("until", "later than `from`")
        return Scope(
            provider=stated.text("provider"),
            models=stated.texts("models"),
            processing=stated.texts("processing", processing),
            begins=begins,
            ends=ends,
            zone=zone,
        )

    def sells(self, model: str) -> bool:
        lowered = model.lower()
        return any(fnmatchcase(lowered, pattern.lower()) for pattern in self.models)

    def holds(self, at: datetime) -> bool:
        return (self.begins is None or at >= self.begins) and (self.ends is None or at < self.ends)

    def covers(self, sellers: tuple[str, ...], model: str, service: str, at: datetime) -> bool:
        """Whether it speaks of `model` at `at`. `sellers` are the names that the seller goes by."""
        return (
            self.provider in sellers
            and (not self.processing or service in self.processing)
            and self.holds(at)
            and self.sells(model)
        )

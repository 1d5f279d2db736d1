"""Shown: figures as people read them. Pure; the exact figure always goes beside it, in a `<data value>`.

A minus is U+2212, which is as wide as a plus and is read aloud as one.
"""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

MINUS: Final = "−"
UNKNOWN: Final = "–"


def dollars(amount_usd: Decimal | None, digits: int | None = None) -> str:
    """With so many decimals, for columns; else cents from $1 on, four decimals below, and more where nothing would be left.

    >>> dollars(Decimal("-0.4217")), dollars(Decimal("1234.5")), dollars(Decimal("0.0000031"))
    ('−$0.4217', '$1,234.50', '$0.0000031')
    """
    if amount_usd is None:
        return UNKNOWN
    size = abs(amount_usd)
    if size == 0 and digits is None:
        return "$0"
    if digits is None:
        digits = 2 if size >= 1 else max(4, 1 - size.adjusted())
    rounded = size.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN)
    return f"{MINUS if amount_usd < 0 else ''}${rounded:,f}"


def digits(most_usd: Decimal) -> int:
    """How many decimals a column takes whose largest amount this is.

    >>> digits(Decimal(250)), digits(Decimal("0.6")), digits(Decimal("0.0021"))
    (2, 4, 6)
    """
    return 2 if most_usd >= 10 else 4 if most_usd >= Decimal("0.1") else 6


def count(number: int | None) -> str:
    """
    >>> count(-12345)
    '−12,345'
    """
    return UNKNOWN if number is None else f"{number:,}".replace("-", MINUS)


def tokens(number: int | None) -> str:
    """As `count`; in millions from ten of them on.

    >>> tokens(20_372_516), tokens(9_999_999)
    ('20.37 M', '9,999,999')
    """
    if number is None or abs(number) < 10_000_000:
        return count(number)
    unit, size = ("M", 1e6) if abs(number) < 1e10 else ("B", 1e9)
    return f"{number / size:,.2f} {unit}".replace("-", MINUS)


def share(part: float | Decimal | None, whole: float | Decimal = 1) -> str:
    """With a space before the sign that no line breaks at.

    >>> share(1, 3), share(0, 0)
    ('33.3\\xa0%', '–')
    """
    if part is None or not whole:
        return UNKNOWN
    return f"{100 * float(part) / float(whole):.1f}\u00a0%".replace("-", MINUS)


def coverage(estimate: float | None) -> str:
    """Two decimals, never rounded up to a promise of everything.

    >>> coverage(0.9968), coverage(1.0)
    ('0.99', '1.00')
    """
    return UNKNOWN if estimate is None else f"{int(estimate * 100 + 1e-9) / 100:.2f}"


def span(ms: float | None) -> str:
    """
    >>> span(0.42), span(850.4), span(12_345), span(7_320_000)
    ('0.4 ms', '850 ms', '12.3 s', '2.0 h')
    """
    if ms is None:
        return UNKNOWN
    if ms < 1_000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms / 60_000:.0f} min" if ms < 7_200_000 else f"{ms / 3_600_000:.1f} h"


def moment(at: datetime) -> str:
    """
    >>> moment(datetime(2026, 11, 4, 9, 5, 7))
    '4 Nov, 09:05:07'
    """
    return f"{at.day} {at:%b, %H:%M:%S}"


def hour(at: datetime) -> str:
    return f"{at.day} {at:%b, %H:%M}"


def day(at: datetime) -> str:
    return f"{at.day} {at:%b %Y}"


def one_line(text: str, most: int = 120) -> str:
    """A text of the caller's as one line that is not too long."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"

"""Wording: amounts and counts as reports print them. Rounded for people only: JSON has them exact."""

from __future__ import annotations

from decimal import Decimal


def printable(text: str, most_chars: int = 2_000) -> str:
    """A recorded text as a terminal or a page may show it: on one line, without control characters or half pairs.

    >>> printable("a\\x1b[31mb\\ud800")
    'a [31mb?'
    """
    whole = text[:most_chars].encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else " " for letter in whole)


def dollars(amount_usd: Decimal) -> str:
    """To the cent; what is less than ten cents to a hundredth of a cent.

    >>> dollars(Decimal("1234.567")), dollars(Decimal("0.01234")), dollars(Decimal("-2")), dollars(Decimal(0))
    ('$1,234.57', '$0.0123', '-$2.00', '$0')
    """
    sign, size = ("-" if amount_usd < 0 else ""), abs(amount_usd)
    if not size:
        return "$0"
    if size < Decimal("0.00005"):
        return f"{sign}<$0.0001"
    return f"{sign}${size:,.4f}" if size < Decimal("0.1") else f"{sign}${size:,.2f}"


def counted(number: int, noun: str, verb: str = "") -> str:
    """A number with its noun, and with a verb in the form that fits.

    >>> counted(1, "request", "hold"), counted(1_200, "request", "hold"), counted(2, "tool", "be")
    ('1 request holds', '1,200 requests hold', '2 tools are')
    """
    one = number == 1
    forms = {"": "", "be": " is" if one else " are"}
    return f"{number:,} {noun}{'' if one else 's'}" + forms.get(verb, f" {verb}{'s' if one else ''}")

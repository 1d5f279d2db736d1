"""Counts: what other people's recorders say was billed, made one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routing.offers import Usage


def count(table: Mapping[str, Any], *names: str) -> int | None:
    """The first of `names` that is a whole number of 0 or more."""
    for name in names:
        value = table.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and value >= 0:
            return value
    return None


def usage(
    input_tokens: int | None, output_tokens: int | None, read_tokens: int = 0, write_tokens: int = 0
) -> Usage | None:
    """`input_tokens` counts the cached ones too. None where a count is missing or they contradict each other."""
    if input_tokens is None or output_tokens is None or read_tokens + write_tokens > input_tokens:
        return None
    return Usage(input_tokens, output_tokens, read_tokens, write_tokens)

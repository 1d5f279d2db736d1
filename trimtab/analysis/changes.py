"""Changes: what a finding would make of one request's bill, and what the bill is after several of them. Pure.

Each change says what it does in tokens, so that several can be applied to one bill in turn: a text that two findings would
take out is taken out once, and what is cheaper in a batch is not also counted at its full price.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from routing.offers import Usage


@dataclass(frozen=True, slots=True)
class Removal:
    """`tokens` fewer in the span `start:end` (characters) of part number `part`, which stands behind `position` tokens."""

    part: int
    start: int
    end: int
    tokens: int
    position: int

    def overlaps(self, other: Removal) -> bool:
        return self.part == other.part and self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of request number `request`.

    `removed` goes; `at_most_tokens` of input are left; of a stable prefix of `cached_tokens` (in `prefix_parts`, and kept
    by the cache from `minimum_tokens` on) all is read from the cache, or written into it where `writes`; of it
    `read_today_tokens` are read already, as far as anybody knows, and are no gain. `model` and `processing` are what it is
    bought as.
    """

    request: int
    removed: tuple[Removal, ...] = ()
    at_most_tokens: int | None = None
    cached_tokens: int = 0
    read_today_tokens: int = 0
    writes: bool = False
    minimum_tokens: int = 0
    prefix_parts: frozenset[int] = frozenset()
    model: str | None = None
    processing: str | None = None


@dataclass(frozen=True, slots=True)
class Bought:
    """A request as it is billed."""

    model: str
    processing: str
    usage: Usage


def applied(bought: Bought, changes: Sequence[Change]) -> Bought:
    """The bill after `changes`, all of one request, in their order."""
    usage = bought.usage
    removed = _disjoint(removal for change in changes for removal in change.removed)
    cached = min(
        sum(each.tokens for each in removed if each.position < usage.cache_read_tokens), usage.cache_read_tokens
    )
    fresh = sum(each.tokens for each in removed if each.position >= usage.cache_read_tokens)
    read, write = usage.cache_read_tokens - cached, usage.cache_write_tokens
    total = max(read, usage.input_tokens - cached - fresh)
    write = min(write, total - read)
    for change in changes:
        if change.at_most_tokens is not None and total > change.at_most_tokens:
            total = change.at_most_tokens
            read = min(read, total)
            write = min(write, total - read)
    for change in changes:
        prefix = change.cached_tokens - sum(each.tokens for each in removed if each.part in change.prefix_parts)
        prefix = min(prefix, total)
        if change.cached_tokens and prefix >= change.minimum_tokens:
            if change.writes:
                write = max(write, min(prefix - read, total - read))
            else:
                # what is read now was written before, where it was: a prefix that never came again was written each time
                more = max(0, prefix - max(read, change.read_today_tokens))
                write = max(0, write - more)
                read += more
                write = min(write, total - read)
    usage = Usage(total, usage.output_tokens, read, max(0, write))
    last = replace(bought, usage=usage)
    for change in changes:
        last = replace(last, model=change.model or last.model, processing=change.processing or last.processing)
    return last


def _disjoint(removals: Iterable[Removal]) -> list[Removal]:
    """Those that take out what none before them did."""
    taken: dict[int, list[Removal]] = {}
    for removal in removals:
        own = taken.setdefault(removal.part, [])
        if not any(removal.overlaps(other) for other in own):
            own.append(removal)
    return [removal for own in taken.values() for removal in own]

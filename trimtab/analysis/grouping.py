"""Grouping: requests that one piece of an application makes, told by what their beginnings share. Pure.

A beginning is cut into clauses (tools whole, sentences and lines of the system prompt). Requests of one model whose
beginnings share most of their text are of one group, wherever the rest of it stands or differs.
"""

from __future__ import annotations

import json
import re
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from trimtab.analysis.anatomy import Anatomy, Part
from trimtab.analysis.recorded import Recorded

_CLAUSE_END: Final = re.compile(r"(?<=[.!?;])\s+|\s*\n\s*")
_ENOUGH_CHARS: Final = 400  # of a beginning that can tell requests apart; with less the first user message is asked too
_SHARED: Final = 0.6
_CANDIDATES: Final = 3
_MOST_ASKED: Final = 200  # groups that hold one clause: what more of them say is boilerplate, and tells nothing
_FEWEST: Final = 3  # fewer are no group of their own, and join those with the same short beginning, or without any


@dataclass(frozen=True, slots=True)
class Clause:
    """A line or a sentence of part number `part`, with the white space behind it: together they are the part. `key` is equal
    for what says the same (white space and the order of JSON keys aside)."""

    key: str = field(repr=False)
    text: str = field(repr=False)
    part: int


@dataclass(frozen=True, slots=True)
class Group:
    """Requests, by number in order of time, that begin alike."""

    model: str
    requests: tuple[int, ...]


@lru_cache(maxsize=50_000)
def _clauses_of(text: str) -> tuple[str, ...]:
    ends = [*(match.end() for match in _CLAUSE_END.finditer(text)), len(text)]
    return tuple(text[start:end] for start, end in pairwise([0, *ends]) if start < end)


@lru_cache(maxsize=10_000)
def _tool_key(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def clauses(parts: Sequence[Part], numbers: Sequence[int]) -> tuple[Clause, ...]:
    """The clauses of the parts with these numbers, in order."""
    found: list[Clause] = []
    for number in numbers:
        part = parts[number]
        if part.role == "tool schema":
            found.append(Clause(_tool_key(part.text), part.text, number))
        else:
            found += [Clause(text.strip(), text, number) for text in _clauses_of(part.text)]
    return tuple(found)


def beginning(anatomy: Anatomy) -> tuple[int, ...]:
    """The numbers of the parts that stand before the conversation: tools and the system prompt."""
    return tuple(n for n, part in enumerate(anatomy.parts) if part.role in ("tool schema", "system"))


def opening(anatomy: Anatomy) -> tuple[int, ...]:
    """`beginning`, and the first message of the user."""
    first = next((part.turn for part in anatomy.parts if part.role == "user"), None)
    return tuple(
        n
        for n, part in enumerate(anatomy.parts)
        if part.role in ("tool schema", "system") or (part.role == "user" and part.turn == first)
    )


def grouped(requests: Sequence[Recorded], anatomies: Sequence[Anatomy]) -> tuple[Group, ...]:
    """Every request in one group, the largest first."""
    drafts: list[_Draft] = []
    exact: dict[tuple[str, tuple[str, ...]], int] = {}
    holding: dict[tuple[str, str], list[int]] = {}
    for i, (request, anatomy) in enumerate(zip(requests, anatomies, strict=True)):
        kind, keys = f"{request.model}\n{request.api.name if request.api else ''}", _telling(anatomy)
        at = exact.get((kind, keys))
        if at is None:
            at = _like(kind, keys, drafts, holding)
        if at is None:
            at = len(drafts)
            drafts.append(_Draft(kind, Tally(keys), []))
            for key in set(keys):
                holding.setdefault((kind, key), []).append(at)
        exact[kind, keys] = at
        drafts[at].requests.append(i)
    merged: dict[tuple[str, ...], list[int]] = {}
    for at, draft in enumerate(drafts):
        parts = anatomies[draft.requests[0]]
        alike = (f"group {at}",) if len(draft.requests) >= _FEWEST else _keys(parts, beginning(parts))
        merged.setdefault((draft.kind, *alike), []).extend(draft.requests)
    ranked = sorted(merged.values(), key=lambda members: (-len(members), members[0]))
    return tuple(Group(requests[members[0]].model, tuple(sorted(members))) for members in ranked)


class _Draft(NamedTuple):
    """A group in the making: its model and API, the clauses of its first request, and its requests."""

    kind: str
    keys: Tally[str]
    requests: list[int]


def _keys(anatomy: Anatomy, numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(clause.key for clause in clauses(anatomy.parts, numbers))


def _telling(anatomy: Anatomy) -> tuple[str, ...]:
    """The clauses that tell what sends a request."""
    keys = _keys(anatomy, beginning(anatomy))
    return keys if sum(map(len, keys)) >= _ENOUGH_CHARS else _keys(anatomy, opening(anatomy))


def _like(
    kind: str, keys: Sequence[str], drafts: Sequence[_Draft], holding: Mapping[tuple[str, str], Sequence[int]]
) -> int | None:
    """The group whose first beginning shares most with this one; None where none shares enough."""
    votes: Tally[int] = Tally()
    own = Tally(keys)
    for key in own:
        for at in holding.get((kind, key), ())[:_MOST_ASKED]:
            votes[at] += len(key)
    for at, _ in votes.most_common(_CANDIDATES):
        other = drafts[at].keys
        if _chars(own & other) >= _SHARED * max(_chars(own), _chars(other)):
            return at
    return None


def _chars(keys: Tally[str]) -> int:
    return sum(len(key) * count for key, count in keys.items())

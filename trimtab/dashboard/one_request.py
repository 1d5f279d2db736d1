"""One request: what the ledger holds of it, and of the texts that were cut what is still kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from routing.offers import plain
from trimtab.dashboard import charts
from trimtab.dashboard.charts import Chart
from trimtab.ledger.entries import Entry

MOST_CHARACTERS: Final = 60_000
"""Of one text; what is beyond is not shown."""

OPEN_TEXTS: Final = 3

Find = Callable[[str], Mapping[str, Any] | None]
"""The original under a digest, as `Contexts.find` gives it; None where it is gone."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a text that was kept or dropped."""

    text: str
    kept: bool


@dataclass(frozen=True, slots=True)
class CutText:
    """A context of which something was dropped. `pieces` are () where its text is no longer kept; `rest` counts the
    characters that are not shown. `open`: whether it is shown without being asked for."""

    name: str
    title: str
    digest: str
    tokens_before: int
    tokens_after: int
    pieces: tuple[Piece, ...] = ()
    rest: int = 0
    open: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to buy that the plan looked at."""

    provider: str
    model: str
    processing: str
    budget_tokens: int
    input_tokens: int
    cost_usd: Decimal
    total_usd: Decimal
    coverage: float
    why: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class OneRequest:
    """What its page shows. `considered` counts all the plan's candidates, of which the cheapest are listed; `stages` are
    (name, milliseconds) in the order in which they ran."""

    entry: Entry
    texts: tuple[CutText, ...]
    curve: Chart | None
    candidates: tuple[Candidate, ...]
    considered: int
    refused: tuple[Mapping[str, Any], ...]
    attempts: tuple[Mapping[str, Any], ...]
    stages: tuple[tuple[str, float], ...]
    metadata: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    receipt: Mapping[str, Any]

    @property
    def gone(self) -> bool:
        """Whether a text that was cut is no longer kept."""
        return any(not each.pieces for each in self.texts)


def one_request(entry: Entry, find: Find) -> OneRequest:
    """`find` looks for an original of the entry's own tenant."""
    detail = entry.detail
    plan: Mapping[str, Any] = detail.get("plan") or {}
    runners_up: Sequence[Mapping[str, Any]] = plan.get("runners_up") or ()
    candidates = ([_candidate(plan["chosen"], True)] if plan.get("chosen") else []) + [
        _candidate(c) for c in runners_up
    ]
    points = detail.get("curve") or ()
    return OneRequest(
        entry,
        _opened([_text(each, find(each["digest"])) for each in detail.get("cut") or ()]),
        charts.curve(points, _chosen(plan)) if points else None,
        tuple(candidates),
        int(plan.get("considered", len(candidates))),
        tuple(plan.get("refused") or ()),
        tuple(detail.get("attempts") or ()),
        tuple((detail.get("stage_ms") or {}).items()),
        tuple((detail.get("metadata") or {}).items()),
        tuple(detail.get("notes") or ()),
        receipt_of(entry),
    )


def _chosen(plan: Mapping[str, Any]) -> tuple[int, float] | None:
    chosen = plan.get("chosen")
    return None if chosen is None else (int(chosen["budget_tokens"]), float(chosen["coverage_estimate"]))


def _candidate(told: Mapping[str, Any], chosen: bool = False) -> Candidate:
    cost_usd = Decimal(told["expected_cost_usd"])
    extra = (Decimal(told.get(name, 0)) for name in ("failure_usd", "wrong_answer_usd", "carry_usd"))
    return Candidate(
        told["provider"],
        told["model"],
        told["processing"],
        told["budget_tokens"],
        told["input_tokens"],
        cost_usd,
        cost_usd + sum(extra),
        told["coverage_estimate"],
        told.get("why", ""),
        chosen,
    )


def _text(cut: Mapping[str, Any], original: Mapping[str, Any] | None) -> CutText:
    told = CutText(cut["id"], "", cut["digest"], cut["tokens_before"], cut["tokens_after"])
    if original is None:
        return told
    text = str(original["text"])
    # The same text may have been cut otherwise since; what was kept here is in the ledger.
    spans = cut.get("kept_spans", original["spans"])
    pieces = pieces_of(text[:MOST_CHARACTERS], spans)
    title, rest = str(original.get("title") or ""), max(0, len(text) - MOST_CHARACTERS)
    return CutText(told.name, title, told.digest, told.tokens_before, told.tokens_after, pieces, rest)


def _opened(texts: Sequence[CutText]) -> tuple[CutText, ...]:
    """With the first few of which something was kept open, or the first, if nothing was."""
    shown = [at for at, each in enumerate(texts) if each.tokens_after][:OPEN_TEXTS] or [0]
    return tuple(replace(each, open=at in shown) for at, each in enumerate(texts))


def pieces_of(text: str, spans: Sequence[Sequence[int]]) -> tuple[Piece, ...]:
    """The text in runs, those within `spans` (pairs of characters, ascending) being kept.

    >>> [piece.text for piece in pieces_of("a b c", [(0, 1), (4, 5)]) if not piece.kept]
    [' b ']
    """
    ends = [0, *(min(at, len(text)) for span in spans for at in span), len(text)]
    runs = ((text[start:end], number % 2 == 1) for number, (start, end) in enumerate(pairwise(ends)))
    return tuple(Piece(run, kept) for run, kept in runs if run)


def receipt_of(entry: Entry) -> dict[str, Any]:
    """The entry as plain data: dollars as decimal strings. The caller's credential is no part of it, and its digest (the
    tenant) is left out."""
    said: dict[str, Any] = {}
    for each in fields(entry):
        value = getattr(entry, each.name)
        if isinstance(value, Decimal):
            value = plain(value)
        elif isinstance(value, datetime):
            value = value.isoformat(timespec="milliseconds")
        if each.name not in ("tenant", "detail"):
            said[each.name] = value
    return said | {name: value for name, value in entry.detail.items() if name != "body"}

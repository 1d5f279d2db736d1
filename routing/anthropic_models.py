"""Anthropic models: what a Claude model takes, by its generation, as rows.

Read off Anthropic's documentation ("Thinking", "Effort", "Mid-conversation system messages", "API versioning") and, for
5.5, OpenRouter's migration guide, in November 2026; not tried against the live API. A newer model than the last row
counts as the strictest: what it may refuse is refused here, where another offer can still be tried, and not there,
with a 400 that ends the request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Traits:
    """`thinking` says how it is asked for: by a token budget or by an effort. `off` is its type that stops it, None if
    it cannot be stopped. `one_sampling`: temperature or top_p, not both. `structured`: answers and calls can be held to
    a schema. `system_turns`: a system message may stand in the middle. `official`: it is one of Anthropic's own.
    """

    sampling: bool = True
    one_sampling: bool = False
    thinking: Literal["none", "budget", "adaptive"] = "budget"
    off: str | None = "disabled"
    thinks_unasked: bool = False
    efforts: tuple[str, ...] = ()
    prefill: bool = True
    forced_tools: bool = True
    structured: bool = True
    system_turns: bool = False
    official: bool = True


_ALL_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_OTHER: Final = Traits(structured=False, official=False)
"""A model that is no Claude, behind a server that speaks this API."""
_OLD: Final = Traits(thinking="none", structured=False)
_4_6: Final = Traits(one_sampling=True, thinking="adaptive", efforts=("low", "medium", "high", "max"), prefill=False)
_4_7: Final = replace(_4_6, sampling=False, efforts=_ALL_EFFORTS)
_5: Final = replace(_4_7, thinks_unasked=True, system_turns=True)
_5_5: Final = replace(_5, forced_tools=False, off=None)

_ROWS: Final[tuple[tuple[tuple[int, int], Traits], ...]] = (
    ((3, 7), _OLD),
    ((4, 1), Traits(structured=False)),
    ((4, 5), Traits(structured=False, one_sampling=True)),
    ((4, 6), Traits(one_sampling=True)),
    ((4, 7), _4_6),
    ((4, 8), _4_7),
    ((5, 0), replace(_4_7, system_turns=True)),
    ((5, 5), _5),
)
"""(the first version that is too new for the row, the row)."""

_STOPPABLE: Final = {"sonnet": "between_tools", "haiku": "disabled"}
"""How the models of 5.5 that can stop thinking are told to. Fable, Mythos and Opus 5.5 always think."""

_NAME: Final = re.compile(r"claude-(?P<family>[a-z]+)(?:-(?P<major>[0-9])(?:[-.](?P<minor>[0-9])(?![0-9]))?)?(?![0-9])")
_OLD_NAME: Final = re.compile(r"claude-(?:instant|v?[123])(?![0-9])(?:[-.](?P<minor>[0-9])(?![0-9]))?")


def traits_of(model: str) -> Traits:
    """The row of a model's name, wherever "claude-" stands in it (a cloud may have put its own words before).

    >>> traits_of("claude-haiku-4-5-20251001").thinking, traits_of("claude-opus-5-5").off
    ('budget', None)
    """
    if old := _OLD_NAME.search(model):
        return Traits(structured=False) if old["minor"] == "7" else _OLD
    found = _NAME.search(model)
    if found is None:
        return _OTHER
    family = found["family"]
    if found["major"] is None or family in ("fable", "mythos"):
        return _5_5
    version = int(found["major"]), int(found["minor"] or 0)
    row = next((traits for bound, traits in _ROWS if version < bound), _5_5)
    if version == (5, 5) and family in _STOPPABLE:
        return replace(row, off=_STOPPABLE[family])
    return row

"""What a compressor looks like to the harness: a row that says how to get it, and one method that cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from compressor import Source

Span = tuple[int, int]


class Skipped(Exception):
    """Why a peer cannot run here, as one sentence for the table."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What is sent of context number `context`. `spans`: the slices of it that `text` is made of, where the peer says."""

    context: int
    text: str
    spans: tuple[Span, ...] | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """All that is sent, in the order of sending. A context that is not in it was dropped.

    `beside` is what stands between contexts (notes on what was left out, say): it holds no evidence and costs tokens.
    """

    sent: tuple[Sent, ...]
    beside: tuple[str, ...] = ()


class Arm(Protocol):
    """A compressor, ready to run."""

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        """What is kept of `contexts` for `query`. The limit as a count and as a share: a peer takes what it can."""
        ...

    def forget(self) -> None:
        """Drop whatever an earlier call computed, so that the next one is as slow as the first."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of the comparison.

    `budget`: "told" takes a limit in tokens, and exceeding it counts as keeping nothing; "own" decides for itself, and
    its achieved ratio is reported beside it; "none" is a row of reference that has no ratio. `markers` is what it
    writes into a gap. `remembers`: a second call may use what the first computed; otherwise it is timed as it would
    run, from nothing. `open(seed, folder)` raises Skipped, or ModuleNotFoundError where `install` was not run.
    """

    name: str
    what: str
    open: Callable[[int, Path], Arm]
    distribution: str = ""
    install: str = ""
    budget: Literal["told", "own", "none"] = "told"
    markers: tuple[str, ...] = ()
    remembers: bool = False


class Stateless:
    """An arm that computes everything anew at every call."""

    def forget(self) -> None:
        """Nothing was kept."""

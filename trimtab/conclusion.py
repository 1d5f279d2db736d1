"""Conclusion: a request that is over, for whoever keeps count of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from routing.receipt import Receipt
from trimtab.caller import Caller
from trimtab.prepared import Prepared


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How one request ended. `receipt` is its last: with what was billed and every attempt, as far as they are known.

    `status` is the HTTP status that the caller was told, 499 where nobody was left to tell. `stream` says whether the answer
    was one; it may have broken off under a status of 200, and the last attempt's outcome says so.
    """

    caller: Caller
    prepared: Prepared
    receipt: Receipt
    status: int
    stream: bool = False


Listener = Callable[[Conclusion], None]
"""Is told of every request that is over. Called on the event loop: it must not block, and what it raises costs no answer."""

"""The schedule: what becomes of a delivery after an attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SCHEDULE_S: Final = (0.0, 5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0)
"""The wait before each attempt, from the end of the last: the specification's own, as far as it goes in a day or so."""
MAX_RETRY_AFTER_S: Final = 24 * 3_600.0
JITTER: Final = 0.2

State = Literal["pending", "delivered", "failed", "refused", "disabled"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended. `status` is the receiver's; None where there is no answer, and `detail` then says why.

    `refused`: the address may not be called. `retry_after_s`: what the receiver asks us to wait.
    """

    status: int | None
    detail: str = ""
    refused: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state from now on; `wait_s` is how long until the next attempt, where one is pending.

    `gone`: nothing more is to be sent to this address for this tenant.
    """

    state: State
    wait_s: float = 0.0
    gone: bool = False


def after(attempt: Attempt, attempts: int, chance: float) -> Verdict:
    """What becomes of a delivery whose latest attempt was number `attempts`, from 1. `chance` is from [0, 1).

    >>> after(Attempt(503), 1, 0.5), after(Attempt(204), 2, 0.5).state, after(Attempt(500), 8, 0.5).state
    (Verdict(state='pending', wait_s=5.0, gone=False), 'delivered', 'failed')
    """
    if attempt.refused:
        return Verdict("refused")
    if attempt.status is not None and 200 <= attempt.status < 300:
        return Verdict("delivered")
    if attempt.status == 410:
        return Verdict("disabled", gone=True)
    if attempts >= len(SCHEDULE_S):
        return Verdict("failed")
    wait_s = SCHEDULE_S[attempts] * (1 - JITTER + 2 * JITTER * chance)
    return Verdict("pending", max(wait_s, min(attempt.retry_after_s or 0.0, MAX_RETRY_AFTER_S)))

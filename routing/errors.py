"""What can go wrong in routing, as one tree.

RoutingError
├── UnknownModel           no provider here sells that model, or nothing says what it costs
├── NoOffer                offers exist, and every one breaks a constraint (says which)
├── UnsupportedParameter   the request asks for what this provider cannot do; nothing was sent to it
└── ProvidersFailed        every attempt failed before the first byte; carries the attempts
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routing.attempts import Attempt


class RoutingError(Exception):
    """The root: `except RoutingError` catches all that this package raises on purpose."""


class UnknownModel(RoutingError):
    """No configured provider serves `model`, or no price is known for it. An unknown price is never guessed."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(reason)
        self.model = model


class NoOffer(RoutingError):
    """Every offer breaks a hard constraint. `reasons` holds one line for each."""

    def __init__(self, message: str, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


class UnsupportedParameter(RoutingError):
    """A provider that is spoken to in its own tongue cannot honour `param` of a chat completion as it was asked for.

    Raised before anything is sent, since the alternative is to drop it silently. `param` is the path in the caller's
    body ("messages[2].content[0].image_url"), `reason` a clause of ours that quotes no value of the caller's.
    """

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(f"{param}: {reason}")
        self.param = param
        self.reason = reason


class ProvidersFailed(RoutingError):
    """Every attempt failed and nothing was sent to the caller yet.

    `status` and `body` are the last provider's own answer when there was one (so that the caller sees it unchanged),
    else 502 or 504 and None. Without any attempt it is 429: every provider has asked us to wait, for `wait_ms` at least.
    """

    def __init__(
        self,
        message: str,
        attempts: tuple[Attempt, ...],
        status: int,
        body: bytes | None,
        wait_ms: float | None = None,
    ) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.status = status
        self.body = body
        self.wait_ms = attempts[-1].retry_after_ms if attempts else wait_ms

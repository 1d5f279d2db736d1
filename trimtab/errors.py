"""What callers are told when something is wrong, and the one place where every error gets its HTTP status.

TrimtabError
└── BadRequest     the caller's request cannot be served as it is: names the field, the reason and the fix
└── BadSettings    the configuration cannot be used: names the entry and the fix
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.payload import BadPayload
from routing.errors import NoOffer, ProvidersFailed, RoutingError, UnknownModel


class TrimtabError(Exception):
    """The root of this package's errors."""


class BadRequest(TrimtabError, ValueError):
    """`param` is the field's path in the caller's body ("trimtab.ratio"), `code` a word for programs."""

    def __init__(self, param: str | None, reason: str, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(f"{param}: {reason}" if param else reason)
        self.param = param
        self.code = code
        self.status = status


class BadSettings(TrimtabError, ValueError):
    """The message names the file's entry and what it should be."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as HTTP tells it. `body` is OpenAI's shape unless `raw` holds a provider's own answer, passed on as it came."""

    status: int
    message: str
    kind: str
    param: str | None
    code: str | None
    raw: bytes | None = None

    @property
    def body(self) -> dict[str, object]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def problem_of(error: Exception) -> Problem | None:
    """The answer to `error`; None for one that is a defect of ours and no answer to a request."""
    match error:
        case BadRequest():
            return Problem(error.status, str(error), "invalid_request_error", error.param, error.code)
        case BadPayload():
            return Problem(400, str(error), "invalid_request_error", error.param, "invalid_value")
        case UnknownModel():
            return Problem(404, str(error), "invalid_request_error", "model", "model_not_found")
        case NoOffer():
            return Problem(422, str(error), "invalid_request_error", "trimtab", "no_offer")
        case ProvidersFailed():
            kind = "rate_limit_error" if error.status == 429 else "upstream_error"
            return Problem(error.status, str(error), kind, None, "providers_failed", error.body)
        case RoutingError():  # a provider that is configured and cannot be called: a missing key, a wire not spoken
            return Problem(503, str(error), "configuration_error", None, "provider_unavailable")
        case TimeoutError():
            return Problem(504, str(error), "timeout_error", "trimtab.max_latency_ms", "max_latency_exceeded")
        case _:
            return None

"""What callers are told when something is wrong, and the one place where every error gets its HTTP status.

TrimtabError
├── BadRequest     the caller's request cannot be served as it is: names the field, the reason and the fix
├── BadSettings    the configuration cannot be used: names the entry and the fix
└── Overloaded     this server has as much to do as it may have: says when to come back
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from compressor.payload import BadPayload
from routing.errors import NoOffer, ProvidersFailed, RoutingError, UnknownModel, UnsupportedParameter
from routing.streams import Garbage, parse_object


class TrimtabError(Exception):
    """The root of this package's errors."""


class BadRequest(TrimtabError, ValueError):
    """`param` is the field's path in the caller's body ("trimtab.ratio"), `code` a word for programs, `kind` the error's
    `type` as OpenAI calls it; `headers` go with the answer."""

    def __init__(
        self,
        param: str | None,
        reason: str,
        code: str = "invalid_value",
        status: int = 400,
        *,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{param}: {reason}" if param else reason)
        self.param = param
        self.code = code
        self.status = status
        self.kind = kind
        self.headers = headers or {}


class BadSettings(TrimtabError, ValueError):
    """The message names the file's entry and what it should be."""


class Overloaded(TrimtabError):
    """`wait_s`: when there may be room, by our estimate."""

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(f"trimtab is busy: {reason}; come back when retry-after says")
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as HTTP tells it. `raw`, where there is one, is a provider's own JSON object, to be passed on as it came
    instead of `body`, which is in OpenAI's shape, with `error` in it."""

    status: int
    message: str
    kind: str
    param: str | None
    code: str | None
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> dict[str, object]:
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    @property
    def body(self) -> dict[str, object]:
        return {"error": self.error}


def problem_of(error: Exception) -> Problem | None:
    """The answer to `error`; None for one that is a defect of ours and no answer to a request."""
    match error:
        case BadRequest():
            return Problem(error.status, str(error), error.kind, error.param, error.code, headers=error.headers)
        case Overloaded():
            # whole seconds, and no more than clients wait for by themselves
            headers = {"retry-after": str(min(60, max(1, math.ceil(error.wait_s))))}
            return Problem(503, str(error), "overloaded_error", None, "overloaded", None, headers)
        case BadPayload():
            return Problem(400, str(error), "invalid_request_error", error.param, "invalid_value")
        case UnknownModel():
            return Problem(404, str(error), "invalid_request_error", "model", "model_not_found")
        case NoOffer():
            return Problem(422, str(error), "invalid_request_error", "trimtab", "no_offer")
        case UnsupportedParameter():
            return Problem(400, str(error), "invalid_request_error", error.param, "unsupported_parameter")
        case ProvidersFailed():
            return _providers_failed(error)
        case RoutingError():  # a provider that is configured and cannot be called: a missing key, a wire not spoken
            return Problem(503, str(error), "configuration_error", None, "provider_unavailable")
        case TimeoutError():
            return Problem(504, _TOO_LATE, "timeout_error", "trimtab.max_latency_ms", "max_latency_exceeded")
        case RecursionError():  # json's own limit when the body is written again, and a little lower than orjson's
            return Problem(400, _TOO_DEEP, "invalid_request_error", None, "invalid_json")
        case _:
            return None


_TOO_LATE: Final = "trimtab.max_latency_ms: passed before the answer began; raise it, or name faster candidates"
_TOO_DEEP: Final = "the body is nested too deeply; send it with fewer levels"
_ABOUT_US: Final = (401, 402, 403, 404)
"""Statuses in which a provider speaks of the key, the account or the model that were configured here."""


def _providers_failed(error: ProvidersFailed) -> Problem:
    """The last provider's own answer where it is meant for the caller, else ours.

    Not passed on: what a provider says of our key and account. It is no business of a caller, who sent another key or
    none; such messages quote parts of the key; and a client that hears 401 would ask its user for a new one.
    """
    headers = {} if error.wait_ms is None else {"retry-after": str(math.ceil(error.wait_ms / 1000))}
    kind = "rate_limit_error" if error.status == 429 else "upstream_error"
    if error.status in _ABOUT_US:
        return Problem(502, str(error), kind, None, "providers_failed", None, headers)
    raw = error.body if error.body is not None and _is_object(error.body) else None
    return Problem(error.status, str(error), kind, None, "providers_failed", raw, headers)


def _is_object(content: bytes) -> bool:
    try:
        parse_object(content)
    except Garbage:
        return False
    return True

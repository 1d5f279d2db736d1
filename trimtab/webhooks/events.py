"""Events: what a webhook tells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

INLINE_BYTES: Final = 16_384
"""A result up to this size goes along. The specification asks for payloads below about 20 kB."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to `subject`, the id of a job or a batch: "deferred.completed", "batch.expired".

    It happens once: an event of the same type and subject is the same event, and has the same id for its tenant.
    """

    type: str
    subject: str
    at: datetime
    data: Mapping[str, Any] = field(repr=False)

    def id_for(self, tenant: str) -> str:
        """The webhook-id. No caller can choose it, and it has no full stop in it, which divides what is signed."""
        digest = hashlib.sha256()
        for part in (tenant, self.type, self.subject):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return f"msg_{digest.hexdigest()[:32]}"

    def body(self) -> bytes:
        """The payload: these bytes are stored, signed and sent, and never written anew."""
        moment = self.at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return orjson.dumps({"type": self.type, "timestamp": moment, "data": dict(self.data)})


def result_event(
    type: str, subject: str, at: datetime, about: Mapping[str, Any], path: str, result: bytes | None = None
) -> Event:
    """An event about something that has a result to be had with a GET of `path` on this server.

    `about` is what is said of it in any case (its status, counts, cost). `result` is its JSON: up to INLINE_BYTES of it
    stand in `data.result`; `data.result_url` says in any case where it is.
    """
    data = {"id": subject, **about, "result_url": path}
    if result is not None and len(result) <= INLINE_BYTES:
        with suppress(orjson.JSONDecodeError):  # what is no JSON is had from its path alone
            data["result"] = orjson.loads(result)
    return Event(type, subject, at, data)

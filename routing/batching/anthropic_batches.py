"""Anthropic's Message Batches: one object of requests goes up, one file of results comes down.

Written against the types of anthropic 2 (`types/messages/message_batch*.py`) and its guide "Batch processing". A batch has
no field for a name of ours, so the key stands before each `custom_id`, where only the results show it again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final

from routing.anthropic_answer import fault
from routing.anthropic_request import SAMPLING_VERSION
from routing.batching.exchange import Exchange, Shape, spooled
from routing.batching.seam import Arrived, BatchFailed, BatchLimits, BatchState, BatchUnclear, Intent, Prepared
from routing.batching.values import count_of, id_of, when_of

LIMITS: Final = BatchLimits(requests=100_000, content_bytes=256_000_000, window_s=86_400.0, kept_s=29 * 86_400.0)
_PATH: Final = "/v1/messages/batches"
_JOINT: Final = "_"
_VERSION: Final = {"anthropic-version": SAMPLING_VERSION}
_STATUSES: Final[Mapping[str, Any]] = {"in_progress": "working", "canceling": "cancelling", "ended": "ended"}
_COUNTS: Final = ("processing", "succeeded", "errored", "canceled", "expired")
_SKEW: Final = timedelta(minutes=5)


class AnthropicBatches:
    """See `seam.BatchAdapter`."""

    def __init__(self, exchange: Exchange) -> None:
        self.limits = LIMITS
        self._exchange = exchange

    async def submit(self, lines: Iterable[Prepared], key: str) -> str:
        def row(line: Prepared) -> bytes:
            return f'{{"custom_id":"{key}{_JOINT}{line.custom_id}","params":'.encode() + line.content + b"}"

        shape = Shape(row, before=b'{"requests":[', between=b",", after=b"]}")
        upload, first = await spooled(lines, key, LIMITS, shape)
        headers = _VERSION | dict(first.headers)
        return _id(await self._exchange.ask("POST", _PATH, upload=upload, headers=headers, creates=True))

    async def find(self, intent: Intent) -> str | None:
        """Told for certain by the results only. So one of the same size and time that is still at work is BatchUnclear."""
        unclear = False
        after: dict[str, str] = {}
        while True:
            page = await self._exchange.ask("GET", _PATH, query={"limit": "100", **after}, headers=_VERSION)
            batches = [batch for batch in page.get("data") or () if isinstance(batch, Mapping)]
            for batch in batches:
                made_at = when_of(batch.get("created_at"))
                if made_at is not None and made_at < intent.at - _SKEW:
                    return self._none(unclear)  # the newest come first
                batch_id = _id(batch)
                if (
                    batch_id in intent.known
                    or sum(count_of(_counts(batch), name) for name in _COUNTS) != intent.requests
                ):
                    continue
                if batch.get("processing_status") != "ended":
                    unclear = True
                elif await self._is_of(batch_id, intent.key):
                    return batch_id
            if not batches or not page.get("has_more"):
                return self._none(unclear)
            after = {"after_id": _id(batches[-1])}

    def _none(self, unclear: bool) -> str | None:
        if unclear:
            name = self._exchange.provider.name
            raise BatchUnclear(f"provider {name!r} is at work on a batch that may be the one looked for")
        return None

    async def _is_of(self, batch_id: str, key: str) -> bool:
        async with aclosing(self._exchange.rows(f"{_PATH}/{id_of(batch_id)}/results", _VERSION)) as rows:
            async for row in rows:
                return str(row.get("custom_id")).startswith(key + _JOINT)
        return False

    async def poll(self, batch_id: str) -> BatchState:
        batch = await self._exchange.ask("GET", f"{_PATH}/{id_of(batch_id)}", headers=_VERSION)
        status = _STATUSES.get(str(batch.get("processing_status")))
        if status is None:
            raise self._exchange.broken("a batch of an unknown status")
        counts = _counts(batch)
        return BatchState(
            status,
            total=sum(count_of(counts, name) for name in _COUNTS),
            succeeded=count_of(counts, "succeeded"),
            failed=sum(count_of(counts, name) for name in ("errored", "canceled", "expired")),
            expires_at=when_of(batch.get("expires_at")),
        )

    async def collect(self, batch_id: str) -> AsyncGenerator[Arrived, None]:
        # Not by `results_url`: an address that an answer names does not get our key.
        async for row in self._exchange.rows(f"{_PATH}/{id_of(batch_id)}/results", _VERSION):
            _, joint, custom_id = str(row.get("custom_id")).partition(_JOINT)
            result = row.get("result")
            if joint and isinstance(result, Mapping):
                yield self._arrived(custom_id, result)

    def _arrived(self, custom_id: str, result: Mapping[str, Any]) -> Arrived:
        kind = result.get("type")
        if kind == "succeeded":
            return Arrived(custom_id, "answered", 200, json.dumps(result.get("message")).encode())
        if kind == "expired" or kind == "canceled":
            return Arrived(custom_id, kind)
        error = result.get("error")
        error = error if isinstance(error, Mapping) else {}
        content = self._exchange.hidden(json.dumps(error).encode())
        return Arrived(custom_id, "answered", fault(None, error).status, content)

    async def cancel(self, batch_id: str) -> None:
        try:
            await self._exchange.ask("POST", f"{_PATH}/{id_of(batch_id)}/cancel", headers=_VERSION)
        except BatchFailed as failed:
            if failed.outcome != "caller_error" or not (await self.poll(batch_id)).ended:
                raise


def _counts(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    counts = batch.get("request_counts")
    return counts if isinstance(counts, Mapping) else {}


def _id(made: Mapping[str, Any]) -> str:
    return id_of(made.get("id"))

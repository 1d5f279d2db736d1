"""Gemini's Batch API: the requests stand in the call that makes the batch, the answers in the batch itself.

Written against google-genai 1 (`batches.py`) and "Batch API" in Google's reference. Our key is the batch's `displayName`.
Not by its files, which take more than 20 MB: those are uploaded to an address that an answer names, and what is gained is
larger batches at the same price.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, Final

from routing.batching.exchange import Exchange, Shape, spooled
from routing.batching.seam import Arrived, BatchFailed, BatchLimits, BatchState, Intent, Prepared
from routing.batching.values import count_of, id_of, word_of

# The requests are bounded by their bytes. Their number is ours, since all answers come back in one piece.
LIMITS: Final = BatchLimits(requests=2_000, content_bytes=20_000_000, window_s=86_400.0, kept_s=2 * 86_400.0)
_ROOT: Final = "/v1beta"
_STATUSES: Final[Mapping[str, Any]] = {
    "PENDING": "working",
    "RUNNING": "working",
    "QUEUED": "working",
    "PAUSED": "working",
    "UPDATING": "working",
    "CANCELLING": "cancelling",
    "SUCCEEDED": "ended",
    "PARTIALLY_SUCCEEDED": "ended",
    "CANCELLED": "ended",
    "EXPIRED": "ended",
    "FAILED": "refused",
}
_CODES: Final[Mapping[int, tuple[int, str]]] = {
    1: (499, "CANCELLED"),
    3: (400, "INVALID_ARGUMENT"),
    4: (504, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
    16: (401, "UNAUTHENTICATED"),
}
"""What the codes of google.rpc.Code are over HTTP (googleapis, `google/rpc/code.proto`)."""


class GeminiBatches:
    """See `seam.BatchAdapter`."""

    def __init__(self, exchange: Exchange) -> None:
        self.limits = LIMITS
        self._exchange = exchange

    async def submit(self, lines: Iterable[Prepared], key: str) -> str:
        shape = Shape(
            _row,
            before=f'{{"batch":{{"displayName":"{key}","inputConfig":{{"requests":{{"requests":['.encode(),
            between=b",",
            after=b"]}}}}",
        )
        upload, first = await spooled(lines, key, LIMITS, shape)
        path = first.path.removesuffix(":generateContent") + ":batchGenerateContent"
        return self._id(
            await self._exchange.ask("POST", path, upload=upload, headers=dict(first.headers), creates=True)
        )

    async def find(self, intent: Intent) -> str | None:
        page_token: dict[str, str] = {}
        while True:
            # Few a page: a batch that has ended is listed with all its answers.
            page = await self._exchange.ask("GET", f"{_ROOT}/batches", query={"pageSize": "10", **page_token})
            for batch in page.get("operations") or ():
                if isinstance(batch, Mapping) and _metadata(batch).get("displayName") == intent.key:
                    return self._id(batch)
            token = page.get("nextPageToken")
            if not isinstance(token, str) or not token:
                return None
            page_token = {"pageToken": token}

    async def poll(self, batch_id: str) -> BatchState:
        batch = await self._read(batch_id)
        metadata = _metadata(batch)
        word = str(metadata.get("state")).removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
        status = _STATUSES.get(word)
        if status is None:
            raise self._exchange.broken("a batch of an unknown status")
        stats = metadata.get("batchStats")
        stats = stats if isinstance(stats, Mapping) else {}
        error = batch.get("error")
        code = error.get("code") if isinstance(error, Mapping) else None
        return BatchState(
            status,
            total=count_of(stats, "requestCount"),
            succeeded=count_of(stats, "successfulRequestCount"),
            failed=count_of(stats, "failedRequestCount"),
            detail=(_CODES.get(code, (0, ""))[1] if isinstance(code, int) else "") if status == "refused" else "",
        )

    async def collect(self, batch_id: str) -> AsyncGenerator[Arrived, None]:
        batch = await self._read(batch_id)
        expired = word_of(_metadata(batch).get("state")).endswith("EXPIRED")
        for row in _responses(batch):
            metadata = row.get("metadata")
            custom_id = metadata.get("key") if isinstance(metadata, Mapping) else None
            if isinstance(custom_id, str):
                yield self._arrived(custom_id, row, expired)

    def _arrived(self, custom_id: str, row: Mapping[str, Any], expired: bool) -> Arrived:
        if isinstance(response := row.get("response"), Mapping):
            return Arrived(custom_id, "answered", 200, json.dumps(response).encode())
        error = row.get("error")
        error = dict(error) if isinstance(error, Mapping) else {}
        code = error.get("code")
        status, word = _CODES.get(code, (500, "UNKNOWN")) if isinstance(code, int) else (500, "UNKNOWN")
        if word == "CANCELLED" or (expired and word == "DEADLINE_EXCEEDED"):
            return Arrived(custom_id, "canceled" if word == "CANCELLED" else "expired")
        said = json.dumps({"error": {**error, "code": status, "status": word}})
        return Arrived(custom_id, "answered", status, self._exchange.hidden(said.encode()))

    async def cancel(self, batch_id: str) -> None:
        try:
            await self._exchange.ask("POST", f"{_ROOT}/{_named(batch_id)}:cancel")
        except BatchFailed as failed:
            if failed.outcome != "caller_error" or not (await self.poll(batch_id)).ended:
                raise

    async def _read(self, batch_id: str) -> Mapping[str, Any]:
        return await self._exchange.ask("GET", f"{_ROOT}/{_named(batch_id)}")

    def _id(self, made: Mapping[str, Any]) -> str:
        name = made.get("name")
        if not isinstance(name, str) or not name.startswith("batches/"):
            raise self._exchange.broken("an answer without a name")
        return name


def _named(batch_id: str) -> str:
    return f"batches/{id_of(batch_id.removeprefix('batches/'))}"


def _row(line: Prepared) -> bytes:
    return b'{"request":' + line.content + f',"metadata":{{"key":"{line.custom_id}"}}}}'.encode()


def _metadata(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = batch.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _responses(batch: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Where the reference has them (`response`) or where google-genai reads them (`metadata.output`)."""
    for place in (batch.get("response"), _metadata(batch).get("output")):
        outer = place.get("inlinedResponses") if isinstance(place, Mapping) else None
        rows = outer.get("inlinedResponses") if isinstance(outer, Mapping) else outer
        if isinstance(rows, list):
            return [row for row in rows if isinstance(row, Mapping)]
    return ()

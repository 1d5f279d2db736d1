"""OpenAI's Batch API: a file of requests goes up, a batch is made of it, two files come down.

Written against the types of openai 2 (`types/batch.py`) and its guide "Batch API". Our key is kept in the batch's
`metadata`. A line that was not run is in the error file with an error and no response.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from routing.batching.exchange import Exchange, Shape, spooled, upload_of
from routing.batching.seam import Arrived, BatchFailed, BatchLimits, BatchState, Intent, Prepared
from routing.batching.values import count_of, id_of, word_of

LIMITS: Final = BatchLimits(requests=50_000, content_bytes=200_000_000, window_s=86_400.0, kept_s=30 * 86_400.0)
_KEY: Final = "trimtab_key"
_STATUSES: Final[Mapping[str, Any]] = {
    "validating": "working",
    "in_progress": "working",
    "finalizing": "working",
    "cancelling": "cancelling",
    "failed": "refused",
    "completed": "ended",
    "expired": "ended",
    "cancelled": "ended",
}
_FATES: Final[Mapping[str, Any]] = {"batch_expired": "expired", "batch_cancelled": "canceled"}
_LATE: Final = timedelta(hours=1)
"""How far the clocks may be apart when batches are looked through, newest first."""


class OpenAIBatches:
    """See `seam.BatchAdapter`."""

    def __init__(self, exchange: Exchange) -> None:
        self.limits = LIMITS
        self._exchange = exchange

    async def submit(self, lines: Iterable[Prepared], key: str) -> str:
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="trimtab-{key}.jsonl"\r\n'
            "content-type: application/jsonl\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        shape = Shape(_row, before=head.encode(), after=tail.encode())
        upload, first = await spooled(lines, key, LIMITS, shape, f"multipart/form-data; boundary={boundary}")
        file = await self._exchange.ask("POST", "/files", upload=upload, headers=dict(first.headers))
        asked = {
            "input_file_id": _id(file),
            "endpoint": f"/v1{first.path}",
            "completion_window": "24h",
            "metadata": {_KEY: key},
        }
        return _id(await self._exchange.ask("POST", "/batches", upload=upload_of(asked), creates=True))

    async def find(self, intent: Intent) -> str | None:
        after: dict[str, str] = {}
        while True:
            page = await self._exchange.ask("GET", "/batches", query={"limit": "100", **after})
            batches = [batch for batch in page.get("data") or () if isinstance(batch, Mapping)]
            for batch in batches:
                metadata = batch.get("metadata")
                if isinstance(metadata, Mapping) and metadata.get(_KEY) == intent.key:
                    return _id(batch)
            made = [_when(batch.get("created_at")) for batch in batches]
            if not batches or not page.get("has_more") or any(at and at < intent.at - _LATE for at in made):
                return None
            after = {"after": _id(batches[-1])}

    async def poll(self, batch_id: str) -> BatchState:
        batch = await self._exchange.ask("GET", f"/batches/{id_of(batch_id)}")
        status = _STATUSES.get(str(batch.get("status")))
        if status is None:
            raise self._exchange.broken("a batch of an unknown status")
        counts = batch.get("request_counts")
        counts = counts if isinstance(counts, Mapping) else {}
        return BatchState(
            status,
            total=count_of(counts, "total"),
            succeeded=count_of(counts, "completed"),
            failed=count_of(counts, "failed"),
            expires_at=_when(batch.get("expires_at")),
            detail=_complaint(batch) if status == "refused" else "",
        )

    async def collect(self, batch_id: str) -> AsyncGenerator[Arrived, None]:
        batch = await self._exchange.ask("GET", f"/batches/{id_of(batch_id)}")
        for name in ("output_file_id", "error_file_id"):
            if (file_id := batch.get(name)) is None:
                continue
            async for row in self._exchange.rows(f"/files/{id_of(file_id)}/content"):
                custom_id = row.get("custom_id")
                if isinstance(custom_id, str):
                    yield self._arrived(custom_id, row)

    def _arrived(self, custom_id: str, row: Mapping[str, Any]) -> Arrived:
        response, error = row.get("response"), row.get("error")
        if isinstance(response, Mapping) and isinstance(response.get("status_code"), int):
            content = json.dumps(response.get("body")).encode()
            status = response["status_code"]
            return Arrived(custom_id, "answered", status, content if status < 300 else self._exchange.hidden(content))
        error = error if isinstance(error, Mapping) else {}
        if (fate := _FATES.get(str(error.get("code")))) is not None:
            return Arrived(custom_id, fate)
        return Arrived(custom_id, "answered", 500, self._exchange.hidden(json.dumps({"error": error}).encode()))

    async def cancel(self, batch_id: str) -> None:
        try:
            await self._exchange.ask("POST", f"/batches/{id_of(batch_id)}/cancel")
        except BatchFailed as failed:
            # One that has ended is refused with a 400 or 409.
            if failed.outcome != "caller_error" or not (await self.poll(batch_id)).ended:
                raise


def _row(line: Prepared) -> bytes:
    head = json.dumps({"custom_id": line.custom_id, "method": "POST", "url": f"/v1{line.path}"})
    return head[:-1].encode() + b', "body": ' + line.content + b"}\n"


def _when(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) and not isinstance(seconds, bool) else None


def _complaint(batch: Mapping[str, Any]) -> str:
    """The codes of what was wrong with the file; messages quote what was in it."""
    errors = batch.get("errors")
    rows = errors.get("data") if isinstance(errors, Mapping) else None
    codes = {word_of(row.get("code")) for row in rows or () if isinstance(row, Mapping)} - {""}
    return ", ".join(sorted(codes)) or "the provider does not say why"


def _id(made: Mapping[str, Any]) -> str:
    return id_of(made.get("id"))

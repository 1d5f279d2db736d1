"""Exchanges: the HTTP under the batch APIs. One provider's key and address, JSON objects, files that stream in and out.

The one place where a batch API's failures become BatchFailed. Nothing of an address, a key or a body is in one.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, Final

import anyio.to_thread
import httpx

from routing.batching.seam import KEY, BatchFailed, BatchLimits, Prepared
from routing.calls import FAILURES, Call, explain
from routing.connections import Shared
from routing.judgement import judge
from routing.streams import Garbage, parse_object
from routing.wires import WIRES, Wire, headers_for, read_key, retry_after_ms
from routing.worded import address_of

if TYPE_CHECKING:
    from routing.catalog import Provider

MAX_ANSWER_BYTES: Final = 256 * 2**20
"""Of an answer or a line that is held in memory as a whole."""

_IN_MEMORY_BYTES: Final = 4 * 2**20
_PART_BYTES: Final = 256 * 2**10
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 120.0
_IDLE_S: Final = 60.0
_UPLOAD_S: Final = 900.0
_NOT_SENT: Final = (httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ConnectError)


@dataclass(frozen=True, slots=True)
class Upload:
    """What is sent: a file of `size_bytes`, at its beginning, that is read once."""

    file: IO[bytes]
    size_bytes: int
    content_type: str = "application/json"

    async def parts(self) -> AsyncIterator[bytes]:
        # Read here and not in a thread: the file was written a moment ago, and the system holds it in memory.
        while part := self.file.read(_PART_BYTES):
            yield part


def upload_of(content: Mapping[str, Any]) -> Upload:
    """A small JSON object."""
    packed = json.dumps(content).encode()
    file = tempfile.SpooledTemporaryFile(max_size=len(packed) + 1)  # noqa: SIM115 (closed by whoever sends it)
    file.write(packed)
    file.seek(0)
    return Upload(file, len(packed))


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file of lines is made: what stands before, between and after the rows, and the row of a line."""

    row: Callable[[Prepared], bytes]
    before: bytes = b""
    between: bytes = b""
    after: bytes = b""


async def spooled(
    lines: Iterable[Prepared], key: str, limits: BatchLimits, shape: Shape, content_type: str = "application/json"
) -> tuple[Upload, Prepared]:
    """The lines in one file, and the first of them.

    On disk where they are many, so that a batch of 200 MB takes no memory. Raises ValueError, and closes the file, for a
    bad key, lines of several groups, an id twice, no line, or more than the limits allow.
    """
    if not KEY.fullmatch(key):
        raise ValueError(f"the key of a batch must be 1 to 24 letters and digits, not {key!r}")
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 (closed by whoever sends it)
    try:
        first = await anyio.to_thread.run_sync(_write, file, lines, limits, shape)
        size_bytes = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Upload(file, size_bytes, content_type), first


def _write(file: IO[bytes], lines: Iterable[Prepared], limits: BatchLimits, shape: Shape) -> Prepared:
    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        raise ValueError("a batch needs a line")
    seen: set[str] = set()
    file.write(shape.before)
    for line in chain((first,), rest):
        if line.group != first.group:
            raise ValueError(f"the lines {first.custom_id!r} and {line.custom_id!r} are of two groups")
        if line.custom_id in seen:
            raise ValueError(f"the line {line.custom_id!r} is there twice")
        if seen:
            file.write(shape.between)
        seen.add(line.custom_id)
        file.write(shape.row(line))
        if len(seen) > limits.requests or file.tell() + len(shape.after) > limits.content_bytes:
            most = f"{limits.requests:,} lines and {limits.content_bytes:,} bytes"
            raise ValueError(f"a batch of provider {first.provider!r} may hold {most}")
    file.write(shape.after)
    return first


class Exchange:
    """Asks one provider. `environ` holds its key, which is read anew for every call."""

    def __init__(self, provider: Provider, client: httpx.AsyncClient, environ: Mapping[str, str]) -> None:
        self.provider = provider
        self._lender = Shared(client)
        self._environ = environ
        self._wire: Wire = WIRES[provider.kind]
        self._slots = asyncio.Semaphore(8)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        upload: Upload | None = None,
        headers: Mapping[str, str] | None = None,
        creates: bool = False,
    ) -> Mapping[str, Any]:
        """The JSON object that it answers. `upload` is closed. Raises BatchFailed, `unsure` for a call that `creates`
        and may have done so."""
        call: Call | None = None
        try:
            request = self._request(method, path, query, upload, headers)
            call = Call(self._lender, request, self._slots, _CONNECT_S)
            async with asyncio.timeout(_ANSWER_S if upload is None else _UPLOAD_S):
                response = await call.head()
                content = bytearray()
                while (part := await call.read()) is not None:
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        raise Garbage(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
            if not response.is_success:
                raise self._refused(response, bytes(content), creates)
            return parse_object(bytes(content)) if content else {}
        except FAILURES as error:
            raise self._failed(error, creates and not isinstance(error, _NOT_SENT)) from None
        finally:
            if call is not None:
                call.cancel()
            if upload is not None:
                upload.file.close()

    async def rows(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """The JSON objects of a file with one a line, as they arrive; what is none is left out. Raises BatchFailed."""
        call = Call(self._lender, self._request("GET", path, None, None, headers), self._slots, _CONNECT_S)
        try:
            async with asyncio.timeout(_ANSWER_S):
                response = await call.head()
            if not response.is_success:
                raise self._refused(response, await call.read(_IDLE_S) or b"", creates=False)
            held = bytearray()
            while (part := await call.read(_IDLE_S)) is not None:
                held += part
                if b"\n" in part:  # asked of the part alone, so that a long line is not searched again and again
                    *whole, last = bytes(held).split(b"\n")
                    held = bytearray(last)
                    for line in whole:
                        if (row := _object(line)) is not None:
                            yield row
                if len(held) > MAX_ANSWER_BYTES:
                    raise Garbage(f"a line of more than {MAX_ANSWER_BYTES:,} bytes")
            if (row := _object(bytes(held))) is not None:
                yield row
        except FAILURES as error:
            raise self._failed(error, unsure=False) from None
        finally:
            call.cancel()

    def hidden(self, content: bytes) -> bytes:
        """An error's content without our key: some servers quote what they were sent."""
        key = read_key(self.provider, self._environ)
        return content if key is None else content.replace(key.encode(), b"[key]")

    def broken(self, what: str) -> BatchFailed:
        """For an answer that is JSON and not what the API promises."""
        return BatchFailed(f"provider {self.provider.name!r}: {what}", "bad_response")

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        upload: Upload | None,
        extra: Mapping[str, str] | None,
    ) -> httpx.Request:
        key = read_key(self.provider, self._environ)
        headers = headers_for(self._wire, key, {}, "") | dict(extra or {})
        del headers["idempotency-key"]  # none of the three takes one here: what came to be is looked for instead
        if upload is None:
            del headers["content-type"]
        else:
            headers |= {"content-type": upload.content_type, "content-length": str(upload.size_bytes)}
        limits = {"connect": _CONNECT_S, "pool": None, "read": None, "write": _IDLE_S}
        return httpx.Request(
            method,
            address_of(self.provider, path, tuple((query or {}).items())),
            headers=headers,
            content=None if upload is None else upload.parts(),
            extensions={"timeout": limits},
        )

    def _refused(self, response: httpx.Response, content: bytes, creates: bool) -> BatchFailed:
        judged = judge(response.status_code, content, self._wire)
        waits_ms = retry_after_ms(response.headers, time.time())
        return BatchFailed(
            f"the batch API of provider {self.provider.name!r} refused: {judged.detail}",
            judged.outcome,
            response.status_code,
            judged.retry_after_ms if waits_ms is None else waits_ms,
            unsure=creates and response.status_code >= 500,
        )

    def _failed(self, error: Exception, unsure: bool) -> BatchFailed:
        outcome, detail = explain(error)
        return BatchFailed(f"the batch API of provider {self.provider.name!r} failed: {detail}", outcome, unsure=unsure)


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        return parse_object(line) if line.strip() else None
    except Garbage:
        return None

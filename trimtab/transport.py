"""The transport: for everything built on httpx, or on httpx2, which the official OpenAI and Anthropic clients use.

A request that carries context is trimmed on its way; everything else, and every answer, passes as it is.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Final

import anyio.to_thread
import httpx

from trimtab.bills import Bill
from trimtab.pipeline import Trimtab
from trimtab.trimming import TrimmedContent, default_trimtab, is_chat, trim_content

RECEIPT: Final = "trimtab"
"""The key of `response.extensions` under which the receipt stands."""


class TrimtabTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Sends with `transport` (by default one of httpx's own), and trims what goes to `/chat/completions` or `/messages`.

    For `httpx.Client`, `httpx.AsyncClient` and their namesakes of httpx2. A `trimtab` object in the body holds options,
    and does not reach the provider. The receipt is `response.extensions["trimtab"]`, a `Receipt`: with what was billed
    once the answer has been read to its end. Where trimming fails, the original request is sent and the receipt says so.

    The answer is asked for uncompressed, because its bill is read from the bytes that pass.

    Sending raises BadRequest, BadPayload or NoOffer where the `trimtab` object asks for what cannot be had.

    >>> answering = httpx.MockTransport(lambda request: httpx.Response(200, json={"sent": len(request.content)}))
    >>> with httpx.Client(transport=TrimtabTransport(answering)) as client:
    ...     body = {"model": "m", "messages": [{"role": "user", "content": "How large may an upload be?"}]}
    ...     body["trimtab"] = {"contexts": ["An upload may be 5 GB.", "Data is encrypted."], "budget_tokens": 9}
    ...     response = client.post("http://127.0.0.1/v1/chat/completions", json=body)
    >>> response.extensions["trimtab"].tokens_after <= 9
    True
    """

    def __init__(self, transport: Any = None, trimtab: Trimtab | None = None) -> None:
        self.inner = transport
        self._trimtab = trimtab

    def handle_request(self, request: Any) -> Any:
        if not _concerns_us(request):
            return self._sync.handle_request(request)
        content = request.read()
        trimmed = self._trimmer(request, content)()
        if trimmed is None:
            return self._sync.handle_request(request)
        began = time.perf_counter()
        with trimmed.request.sending(began):
            response = self._sync.handle_request(_rewritten(request, trimmed))
        return _watched(response, trimmed, began)

    async def handle_async_request(self, request: Any) -> Any:
        if not _concerns_us(request):
            return await self._async.handle_async_request(request)
        content = await request.aread()
        trimmed = await anyio.to_thread.run_sync(self._trimmer(request, content))
        if trimmed is None:
            return await self._async.handle_async_request(request)
        began = time.perf_counter()
        with trimmed.request.sending(began):
            response = await self._async.handle_async_request(_rewritten(request, trimmed))
        return _watched(response, trimmed, began)

    def close(self) -> None:
        if self.inner is not None:
            self.inner.close()

    async def aclose(self) -> None:
        if self.inner is not None:
            await self.inner.aclose()

    def __enter__(self) -> TrimtabTransport:
        self._sync.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._sync.__exit__(kind, error, traceback)

    async def __aenter__(self) -> TrimtabTransport:
        await self._async.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._async.__aexit__(kind, error, traceback)

    @property
    def _sync(self) -> Any:
        if self.inner is None:
            self.inner = httpx.HTTPTransport()
        return self.inner

    @property
    def _async(self) -> Any:
        if self.inner is None:
            self.inner = httpx.AsyncHTTPTransport()
        return self.inner

    def _trimmer(self, request: Any, content: bytes) -> Callable[[], TrimmedContent | None]:
        return lambda: trim_content(self._trimtab or default_trimtab(), request.url.path, content, request.url.host)


def _concerns_us(request: Any) -> bool:
    # before the body is read: an upload that is streamed stays one
    return is_chat(request.method, request.url.path, request.headers.get("content-type", ""))


def _rewritten(request: Any, trimmed: TrimmedContent) -> Any:
    headers = [pair for pair in request.headers.raw if pair[0].lower() not in _REPLACED]
    return type(request)(
        request.method,
        request.url,
        headers=[*headers, (b"Accept-Encoding", b"identity")],
        content=trimmed.content,
        extensions=request.extensions,
    )


_REPLACED: Final = (b"content-length", b"transfer-encoding", b"accept-encoding")


def _watched(response: Any, trimmed: TrimmedContent, began_s: float) -> Any:
    """The response, whose bytes are read alongside as they pass."""
    response.extensions[RECEIPT] = trimmed.request.receipt
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    packed = response.headers.get("content-encoding", "identity").lower() != "identity"
    stream = kind == "text/event-stream"
    bill = None if packed else Bill(trimmed.surface, stream=stream)

    def finish() -> None:
        usage = None if bill is None else bill.usage
        status = response.status_code
        response.extensions[RECEIPT] = trimmed.request.over(usage, began_s, status=status, stream=stream)

    if response.is_closed:  # it came whole, as from httpx's MockTransport: its stream will not be read
        if bill is not None:
            bill.feed(response.content)
        finish()
    else:
        library = type(response).__module__.partition(".")[0]
        response.stream = _stream_class(library)(response.stream, bill, finish)
    return response


class _Passing:
    """A stream of bytes that shows each to `bill`, and tells `finish` once that it is over."""

    def __init__(self, stream: Any, bill: Bill | None, finish: Callable[[], None]) -> None:
        self._stream = stream
        self._bill = bill
        self._finish = finish
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._show(chunk)
            yield chunk
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._show(chunk)
            yield chunk
        self._end()

    def close(self) -> None:
        self._end()
        self._stream.close()

    async def aclose(self) -> None:
        self._end()
        await self._stream.aclose()

    def _show(self, chunk: bytes) -> None:
        if self._bill is not None:
            self._bill.feed(chunk)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._finish()


@functools.cache
def _stream_class(library: str) -> Callable[..., Any]:
    """httpx and httpx2 are one interface under two names, and each checks that a stream is of its own class."""
    module = sys.modules[library]
    return type("Passing", (_Passing, module.SyncByteStream, module.AsyncByteStream), {})

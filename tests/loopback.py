"""A provider on loopback: a real HTTP server in a thread that speaks OpenAI's chat completions and fails on command.

    with LoopbackProvider(script=[status(500), ok("Paris.")]) as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="any")
        ...
        assert provider.requests[0].json["model"] == "m"

The steps of `script` answer the requests in their order; after the last one every request is answered by `ok()`. Without
a fault, answers are a pure function of the request (same request, same bytes), streaming or not as the request says,
with a usage chunk when `stream_options.include_usage` is set. `GET /v1/models` lists one model and uses up no step.

It speaks another wire where it is given another `Tongue` (those of `tests.loopback_tongues`), with the same faults.

Standard library only: sockets and asyncio, so that a fault is on the wire exactly what its name says.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

CREATED = 1_790_000_000
"""The `created` of every answer: a constant, so that two answers to one request are the same bytes."""

Fault = Literal["reset", "reset_mid_header", "hang", "hang_after_headers", "drip", "cut", "stall", "garbage"]


@dataclass(frozen=True, slots=True)
class Step:
    """How one request is answered. Made by the functions below rather than by hand.

    `text` None echoes the prompt. `thinking` and `finish` (the reason, in the wire's own word) are for wires that have
    them. `after_events` is where a stream's fault comes (0: before the first event). A `body`
    is sent as it is, whatever was asked. `delay_s` passes before the answer begins, `gap_s` between two events.
    """

    text: str | None = "Hello from loopback."
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    thinking: str = ""
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str | None = None
    fault: Fault | None = None
    after_events: int = 0
    delay_s: float = 0.0
    gap_s: float = 0.0


def ok(
    text: str | None = "Hello from loopback.",
    *,
    usage: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    delay_s: float = 0.0,
    gap_s: float = 0.0,
) -> Step:
    """A complete answer. `usage` replaces the counted one (words of the prompt, words of the answer)."""
    return Step(text=text, usage=usage, headers=tuple((headers or {}).items()), delay_s=delay_s, gap_s=gap_s)


def echo() -> Step:
    """A complete answer whose text is the text of all messages, one a line; an image is shown as [image]."""
    return Step(text=None)


def calls_tool(name: str, arguments: Mapping[str, Any], *, call_id: str = "call_1") -> Step:
    """A complete answer that calls one tool; a stream splits the arguments over several events."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return Step(text=None, tool_calls=({"id": call_id, "type": "function", "function": function},))


def raw(body: bytes, *, content_type: str = "text/event-stream", status: int = 200) -> Step:
    """These bytes, in one piece, whatever was asked."""
    return Step(body=body, content_type=content_type, status=status)


def status(code: int, message: str = "scripted failure", *, error_type: str = "server_error") -> Step:
    """An error in OpenAI's shape."""
    return Step(status=code, body=_error(message, error_type, None))


def rate_limited(retry_after: str | None = None) -> Step:
    """429, with a Retry-After header (seconds or an HTTP date) or without."""
    headers = () if retry_after is None else (("retry-after", retry_after),)
    body = _error("Rate limit reached", "requests", "rate_limit_exceeded")
    return Step(status=429, headers=headers, body=body)


def bad_request(message: str = "messages is required", *, code: int = 400) -> Step:
    return Step(status=code, body=_error(message, "invalid_request_error", "invalid_value"))


def redirect(to: str) -> Step:
    return Step(status=307, headers=(("location", to),), body=b"")


def garbage(*, after_events: int = 0) -> Step:
    """Broken JSON where JSON belongs: the body, or a stream's event number `after_events`."""
    return Step(fault="garbage", after_events=after_events)


def html() -> Step:
    """A 200 that is a web page: what a captive portal or a wrong address answers."""
    return Step(body=b"<!doctype html><title>Welcome</title>", content_type="text/html; charset=utf-8")


def huge(size_bytes: int) -> Step:
    """A complete answer with a text of `size_bytes`."""
    return Step(text="x" * size_bytes)


def reset() -> Step:
    """The connection is reset (RST) once the request has been read."""
    return Step(fault="reset")


def reset_mid_header() -> Step:
    """The same in the middle of the answer's headers."""
    return Step(fault="reset_mid_header")


def hang() -> Step:
    """The request is read, and nothing ever comes back."""
    return Step(fault="hang")


def hang_after_headers() -> Step:
    """The headers come back, and no content ever does."""
    return Step(fault="hang_after_headers")


def drip(gap_s: float = 1.0) -> Step:
    """The right content, a byte each `gap_s`."""
    return Step(fault="drip", gap_s=gap_s)


def cut(after_events: int = 2) -> Step:
    """A stream whose connection closes after that many events, in the middle of the next one."""
    return Step(fault="cut", after_events=after_events)


def stall(after_events: int = 2) -> Step:
    """A stream that falls silent after that many events and stays open."""
    return Step(fault="stall", after_events=after_events)


@dataclass(frozen=True, slots=True)
class Request:
    """What the server received; header names in lower case. `hung_up` is set when the client goes before the end."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    hung_up: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Tongue:
    """A wire as a server speaks it.

    `serves` says whether a path is its endpoint. `complaint` is the status and body with which the real server refuses a
    request, None for one that it takes. `events` is None where the request asks for a whole answer.
    """

    kind: str
    root: str
    serves: Callable[[str], bool]
    complaint: Callable[[Request], tuple[int, bytes] | None]
    whole: Callable[[Request, Step], bytes]
    events: Callable[[Request, Step], list[bytes] | None]


class _Reset(Exception):
    """Drop the connection, with an RST."""


class _Closed(Exception):
    """Drop the connection in the ordinary way."""


class LoopbackProvider:
    """The server, as a context manager; see the module's text. `listen=False` gives an address that refuses."""

    def __init__(self, script: Sequence[Step] = (), *, listen: bool = True, tongue: Tongue | None = None) -> None:
        self.requests: list[Request] = []
        self.tongue = tongue or OPENAI
        self._script = list(script)
        self._open: set[asyncio.Task[None]] = set()
        # Bound here in both cases: an address that is bound and not listened on refuses, and no one else can take it.
        # IPPROTO_TCP is stated because asyncio switches Nagle's algorithm off only where it is: 40 ms an answer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}{self.tongue.root}"
        self._loop = asyncio.new_event_loop() if listen else None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LoopbackProvider:
        if self._loop is not None:
            started = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._loop, started), name="loopback", daemon=True)
            self._thread.start()
            started.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._socket.close()

    def then(self, *steps: Step) -> None:
        """Add to the script."""
        self._script.extend(steps)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def wait_for_connections(self, count: int, timeout_s: float = 5.0) -> bool:
        """Whether as few as `count` connections are open within that time."""
        until = time.monotonic() + timeout_s
        while self.open_connections > count and time.monotonic() < until:
            time.sleep(0.005)
        return self.open_connections <= count

    def _run(self, loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(asyncio.start_server(self._connected, sock=self._socket))
        loop.call_soon(started.set)
        loop.run_forever()
        server.close()
        for task in self._open:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            ahead = b""
            while (request := await _read_request(reader, ahead)) is not None:
                self.requests.append(request)
                ahead = await self._serve(request, reader, writer)
        except _Reset:
            linger = struct.pack("ii", 1, 0)  # on, for zero seconds: close() sends RST instead of FIN
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        except (_Closed, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over: both are how a connection ends here
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answer, and watch for a client that hangs up meanwhile. Gives what was read of the next request by that."""
        ahead = asyncio.ensure_future(reader.read(1))
        answer = asyncio.ensure_future(self._answer(request, writer))
        try:
            await asyncio.wait((ahead, answer), return_when=asyncio.FIRST_COMPLETED)
            if ahead.done() and not ahead.result() and not answer.done():
                raise ConnectionResetError
            await answer
            return ahead.result() if ahead.done() else b""
        except ConnectionError:
            request.hung_up.set()
            raise
        finally:
            for task in (ahead, answer):
                task.cancel()
            await asyncio.gather(ahead, answer, return_exceptions=True)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path.endswith("/models") and request.method == "GET":
            models = {"object": "list", "data": [{"id": "loopback", "object": "model", "owned_by": "loopback"}]}
            return await _send(writer, 200, "application/json", json.dumps(models).encode())
        if not self.tongue.serves(request.path) or request.method != "POST":
            body = _error(f"no {request.method} {request.path} here", "invalid_request_error", None)
            return await _send(writer, 404, "application/json", body)
        if refused := self.tongue.complaint(request):
            return await _send(writer, refused[0], "application/json", refused[1])
        step = self._script.pop(0) if self._script else ok()
        await asyncio.sleep(step.delay_s)
        if step.fault in ("reset", "reset_mid_header"):
            if step.fault == "reset_mid_header":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
                await writer.drain()
            raise _Reset
        if step.fault == "hang":
            await asyncio.Event().wait()
        if step.body is not None:
            return await _send(writer, step.status, step.content_type or "application/json", step.body, step.headers)
        events = self.tongue.events(request, step)
        if events is None:
            return await _send_whole(writer, self.tongue.whole(request, step), step)
        return await _send_events(writer, events, step)


async def _read_request(reader: asyncio.StreamReader, ahead: bytes) -> Request | None:
    try:
        head = ahead + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


def _head(code: int, content_type: str, length: str, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {code} Scripted", f"content-type: {content_type}", length, "x-request-id: req_loopback"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


async def _send(
    writer: asyncio.StreamWriter, code: int, content_type: str, body: bytes, headers: Sequence[tuple[str, str]] = ()
) -> None:
    writer.write(_head(code, content_type, f"content-length: {len(body)}", headers) + body)
    await writer.drain()


async def _send_whole(writer: asyncio.StreamWriter, body: bytes, step: Step) -> None:
    if step.fault == "garbage":
        return await _send(writer, 200, "application/json", body[: len(body) // 2])
    if step.fault is None:
        return await _send(writer, 200, "application/json", body, step.headers)
    writer.write(_head(200, "application/json", f"content-length: {len(body)}", step.headers))
    await writer.drain()
    if step.fault == "cut":
        writer.write(body[: len(body) // 2])
        await writer.drain()
        raise _Closed
    if step.fault == "drip":
        return await _drip(writer, body, step.gap_s)
    await asyncio.Event().wait()
    return None


async def _drip(writer: asyncio.StreamWriter, content: bytes, gap_s: float) -> None:
    for position in range(len(content)):
        writer.write(content[position : position + 1])
        await writer.drain()
        await asyncio.sleep(gap_s)


async def _send_events(writer: asyncio.StreamWriter, events: Sequence[bytes], step: Step) -> None:
    writer.write(_head(200, "text/event-stream; charset=utf-8", "transfer-encoding: chunked", step.headers))
    await writer.drain()
    if step.fault == "hang_after_headers":
        await asyncio.Event().wait()
    for number, event in enumerate(events):
        if step.fault in ("cut", "stall", "garbage") and number == step.after_events:
            if step.fault == "stall":
                await asyncio.Event().wait()
            half = event[: len(event) // 2]
            writer.write(_chunk(half if step.fault == "cut" else half + b"\n\n"))
            await writer.drain()
            if step.fault == "cut":
                raise _Closed
            continue
        if step.fault == "drip":
            await _drip(writer, _chunk(event), step.gap_s)
            continue
        if number and step.gap_s:
            await asyncio.sleep(step.gap_s)
        writer.write(_chunk(event))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def whole_answer(asked: Mapping[str, Any], step: Step) -> bytes:
    """The body of a chat completion for this request."""
    text, tool_calls = _content(asked, step)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if tool_calls:
        message["tool_calls"] = tool_calls
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool_calls else "stop", "logprobs": None}
    answer = {**_frame(asked, "chat.completion"), "choices": [choice], "usage": _usage(asked, step)}
    return json.dumps(answer).encode()


def stream_events(asked: Mapping[str, Any], step: Step) -> list[bytes]:
    """The same as server-sent events: role, content word by word, finish reason, usage if asked for, [DONE]."""
    text, tool_calls = _content(asked, step)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if text is not None else None}]
    deltas += [{"content": part} for part in parts_of(text or "")]
    for index, call in enumerate(tool_calls):
        function = call["function"]
        deltas.append({"tool_calls": [{"index": index, **call, "function": {**function, "arguments": ""}}]})
        parts = parts_of(function["arguments"])
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in parts]
    frame = _frame(asked, "chat.completion.chunk")
    chunks = [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    finish = "tool_calls" if tool_calls else "stop"
    chunks.append({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**frame, "choices": [], "usage": _usage(asked, step)})
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def prompt_text(asked: Mapping[str, Any]) -> str:
    """The text of every message, one a line; an image part becomes [image]."""
    lines = []
    for message in asked.get("messages", ()):
        content = message.get("content") or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        lines.append(" ".join(part["text"] if part["type"] == "text" else "[image]" for part in parts))
    return "\n".join(lines)


def _content(asked: Mapping[str, Any], step: Step) -> tuple[str | None, list[Any]]:
    if step.tool_calls:
        return None, list(step.tool_calls)
    return prompt_text(asked) if step.text is None else step.text, []


def _frame(asked: Mapping[str, Any], kind: str) -> dict[str, Any]:
    name = hashlib.sha256(prompt_text(asked).encode(errors="replace")).hexdigest()[:12]
    return {"id": f"chatcmpl-{name}", "object": kind, "created": CREATED, "model": asked.get("model")}


def _usage(asked: Mapping[str, Any], step: Step) -> Mapping[str, Any]:
    if step.usage is not None:
        return step.usage
    text, tool_calls = _content(asked, step)
    prompt_tokens = len(prompt_text(asked).split())
    completion_tokens = len((text or json.dumps(tool_calls)).split())
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def parts_of(text: str) -> list[str]:
    """At most 50 pieces that join to `text`, so that a huge one is few events."""
    size = max(6, -(-len(text) // 50))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _error(message: str, error_type: str, code: str | None) -> bytes:
    return json.dumps({"error": {"message": message, "type": error_type, "param": None, "code": code}}).encode()


OPENAI = Tongue(
    kind="openai",
    root="/v1",
    serves=lambda path: path.endswith("/chat/completions"),
    complaint=lambda _: None,
    whole=lambda request, step: whole_answer(request.json, step),
    events=lambda request, step: stream_events(request.json, step) if request.json.get("stream") else None,
)

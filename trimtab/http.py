"""HTTP: how a body is read and checked, and how answers and errors are written. Every group of endpoints stands on it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import anyio.to_thread
import orjson
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from routing.tongues import CHAT as CHAT_TONGUE
from routing.tongues import Tongue, error_bytes
from trimtab.errors import BadRequest, Problem, problem_of

Result = TypeVar("Result")

CLIENT_GONE: Final = 499
"""nginx's status for a client that hung up: nobody reads it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `operation` is added to what the OpenAPI document says of it; a page is not `listed` there."""

    method: str
    path: str
    endpoint: Callable[..., Awaitable[Response]]
    summary: str
    operation: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = True


class Endpoints(Protocol):
    """A group of endpoints, and what must run while they are served."""

    def routes(self) -> tuple[Route, ...]: ...

    def serving(self) -> AbstractAsyncContextManager[None]: ...


Grow = Callable[[int], None]
"""Is told how many more bytes of a body are about to be held, and raises where there is no room."""


async def read_object(request: Request, max_bytes: int, grow: Grow = lambda _: None) -> dict[str, Any]:
    """The body as a JSON object. Raises BadRequest for another content type, more than `max_bytes`, bad UTF-8, and anything
    that is no object."""
    _check_content_type(request)
    body = _parsed(await read_bytes(request, max_bytes, grow))
    if not isinstance(body, dict):
        raise BadRequest(None, "the body must be a JSON object", "invalid_json")
    return body


async def read_bytes(request: Request, max_bytes: int, grow: Grow = lambda _: None) -> bytearray:
    """The body as it came. Raises BadRequest, and reads no further, where it is larger than `max_bytes`."""
    reason = f"the body is larger than {max_bytes:,} bytes; send less, or raise max_body_bytes in the settings"
    too_large = BadRequest(None, reason, "request_too_large", status=413)
    said = int(request.headers.get("content-length") or 0)
    if said > max_bytes:
        raise too_large  # before a byte of it is read
    grow(said)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > max_bytes:
            raise too_large
        if len(content) > said:  # one that did not say how long it would be
            grow(len(content) - said)
            said = len(content)
    return content


def _check_content_type(request: Request) -> None:
    """A body must say that it is JSON. A web page can make its visitor's browser send anything else to this address
    without asking (CORS, "simple requests"), and spend the provider's money with it."""
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != "application/json" and not (said.startswith("application/") and said.endswith("+json")):
        reason = f"the content type is {said[:100]!r}" if said else "the request has no content type"
        raise BadRequest(None, f"{reason}; send content-type: application/json", "unsupported_media_type", status=415)


def _parsed(content: bytearray) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            content.decode("utf-8")  # only now, since it copies the body
        except UnicodeDecodeError as bad:
            reason = f"the body is not UTF-8 (byte {bad.start:,}); encode it so"
            raise BadRequest(None, reason, "invalid_encoding") from None
        reason = f"the body is not JSON: {error.msg} (at character {error.pos:,}); correct it there"
        raise BadRequest(None, reason, "invalid_json") from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives. Cancels it, and raises ClientDisconnect, when the client hangs up first.

    An ASGI server does not cancel an endpoint whose client has gone: the provider would go on, and be paid, for nobody.
    """
    # In the endpoint's own task, cancelled as asyncio.timeout does it: a task for the work, and waiting for both, costs a
    # small request three more turns of the loop.
    asking, left, over = asyncio.current_task(), False, False
    assert asking is not None

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if not over:
            left = asking.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if left and asking.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        over = True
        watching.cancel()


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run CPU work beside the event loop. The one place where it crosses."""
    return await anyio.to_thread.run_sync(work)


async def answered(answer: Callable[[], Awaitable[Response]], tongue: Tongue = CHAT_TONGUE) -> Response:
    """The answer, or the error that callers are told; a defect of ours is left to the server's log."""
    try:
        return await answer()
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    except Exception as error:
        problem = _UNKEPT if _cannot_keep(error) else problem_of(error)
        if problem is None:
            raise
        return problem_response(problem, tongue)


_UNKEPT: Final = Problem(
    503,
    "what this server keeps on disk or in its database cannot be reached now, so nothing was accepted; send it again later",
    "server_error",
    None,
    "database_unavailable",
    None,
    {"retry-after": "5"},
)


def _cannot_keep(error: Exception) -> bool:
    """Whether a database is away, or a disk is full: no defect of ours, and no answer that a caller could use but later."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, (OperationalError, InterfaceError, PoolTimeout))


def problem_response(problem: Problem, tongue: Tongue = CHAT_TONGUE) -> Response:
    content = problem.raw
    if content is None:
        content = error_bytes(tongue, problem.status, problem.error)
    return Response(content, problem.status, problem.headers, media_type="application/json")


def json_response(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")

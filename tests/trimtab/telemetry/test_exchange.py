"""The middleware: it passes everything on, and tells of each request once, however it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from trimtab import Trimtab
from trimtab.errors import BadSettings
from trimtab.telemetry import request_ids
from trimtab.telemetry.exchange import Exchange, Observed

App = Callable[[Any, Any, Any], Awaitable[None]]
SCOPE = {"type": "http", "method": "POST", "path": "/v1/x", "headers": [(b"host", b"h"), (b"traceparent", b"t")]}


def told_of(app: App, scope: dict[str, Any] | None = None) -> tuple[list[Exchange], list[Any], BaseException | None]:
    """What the watchers were told, what was sent, and what was raised."""
    told: list[Exchange] = []
    sent: list[Any] = []
    observed = Observed(app, (told.append, lambda _: None))

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario() -> BaseException | None:
        try:
            await observed(dict(scope or SCOPE), None, send)  # type: ignore[arg-type]
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the test looks at it)
            return error
        return None

    raised = asyncio.run(scenario())
    assert observed.in_flight == 0
    return told, sent, raised


def test_a_stream_has_its_first_byte_before_its_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"two"})

    (told,), sent, raised = told_of(app)
    assert raised is None
    assert [each.get("body") for each in sent] == [None, b"", b"one", b"two"]
    assert told.status == 200
    assert told.first_byte_s is not None
    assert 0.02 <= told.first_byte_s < told.seconds
    assert told.seconds - told.first_byte_s >= 0.015


def test_a_caller_who_left_before_an_answer_is_told_of_as_such() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    (told,), sent, raised = told_of(app)
    assert isinstance(raised, asyncio.CancelledError)
    assert (told.status, told.first_byte_s, told.defect, sent) == (499, None, "", [])


def test_a_defect_is_named_and_goes_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        raise KeyError("secret")

    (told,), _, raised = told_of(app)
    assert isinstance(raised, KeyError)
    assert (told.status, told.defect) == (500, "KeyError")


def test_what_is_no_http_request_passes_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, request_ids.current()))

    told, _, _ = told_of(app, {"type": "lifespan"})
    assert (told, seen) == ([], [({"type": "lifespan"}, "")])


def test_a_callers_trace_goes_no_further() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["headers"], request_ids.current()))

    (told,), _, _ = told_of(app)
    assert seen == [([(b"host", b"h")], told.request_id)]


def test_pass_trace_is_true_or_false() -> None:
    assert Trimtab(pass_trace=True).settings.pass_trace is True
    with pytest.raises(BadSettings, match="pass_trace must be true or false"):
        Trimtab(pass_trace="yes")

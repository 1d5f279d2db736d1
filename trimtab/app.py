"""The HTTP app: OpenAI's wire with a `trimtab` object in the body, and our own endpoints beside it.

Thin: bytes are read and checked here, the pipeline decides, the router forwards. CPU work crosses into a thread at one
place, `_in_thread`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio.to_thread
import orjson
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from routing.forwarding import Reply, Router
from routing.receipt import Receipt
from trimtab import api_docs
from trimtab.errors import BadRequest, Problem, problem_of
from trimtab.options import CompressIn, checked
from trimtab.pipeline import Prepared, Trimtab

Result = TypeVar("Result")


def create_app(trimtab: Trimtab) -> FastAPI:
    """The ASGI app over one `Trimtab`. The encoder loads in the background; `/readyz` says when it is there."""
    edge = Edge(trimtab)
    app = FastAPI(title="trimtab", version=api_docs.VERSION, summary=api_docs.SUMMARY, lifespan=edge.lifespan)
    for path, method, endpoint, summary in (
        ("/v1/compress", "POST", edge.compress, "Trim contexts to a budget"),
        ("/v1/plan", "POST", edge.plan, "What a chat completion would cost, and what else was considered (dry run)"),
        ("/v1/chat/completions", "POST", edge.chat_completions, "Answer a chat completion (OpenAI's wire)"),
        ("/v1/models", "GET", edge.models, "The models that the configured providers serve"),
        ("/healthz", "GET", edge.healthz, "The process is up"),
        ("/readyz", "GET", edge.readyz, "The encoder is loaded, and requests will not wait for it"),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            summary=summary,
            response_model=None,
            openapi_extra=api_docs.BODIES.get(path),
        )
    app.add_exception_handler(HTTPException, _http_error)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign] # FastAPI's documented way to extend the schema
    return app


class Edge:
    """The endpoints, over one pipeline and one set of connections."""

    def __init__(self, trimtab: Trimtab) -> None:
        self._trimtab = trimtab
        self._router: Router | None = None
        self._ready = False

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with self._trimtab.router() as self._router, anyio.create_task_group() as background:
            background.start_soon(self._warm_up)
            yield
            background.cancel_scope.cancel()

    async def _warm_up(self) -> None:
        await anyio.to_thread.run_sync(self._trimtab.warm_up, abandon_on_cancel=True)
        self._ready = True

    async def compress(self, request: Request) -> Response:
        async def answer() -> Response:
            asked = checked(CompressIn, await self._body(request), None)
            result = await _in_thread(lambda: self._trimtab.compress_request(asked))
            return _json(result)

        return await _answered(answer)

    async def plan(self, request: Request) -> Response:
        async def answer() -> Response:
            body = await self._body(request)
            return _json((await _in_thread(lambda: self._trimtab.plan(body))).to_dict())

        return await _answered(answer)

    async def chat_completions(self, request: Request) -> Response:
        async def answer() -> Response:
            body = await self._body(request)
            if not isinstance(body.get("stream") or False, bool):
                raise BadRequest("stream", "must be true or false")
            if not self._trimtab.catalog.providers:
                reason = "no provider is configured: add a [[providers]] table and start with --config (see the README)"
                raise BadRequest(None, reason, "no_provider", status=503)
            prepared = await _in_thread(lambda: self._trimtab.prepare(body))
            stream = bool(body.get("stream"))
            reply = await self._trimtab.forward(prepared, self._live_router(), stream=stream, headers=request.headers)
            if reply.chunks is not None:
                return self._streamed(body, prepared, reply)
            receipt = self._trimtab.settle(prepared, reply)
            return _relayed(reply, receipt)

        return await _answered(answer)

    async def models(self) -> Response:
        listed = [
            {
                "id": each.model,
                "object": "model",
                "created": 0,
                "owned_by": each.providers[0],
                "providers": each.providers,
            }
            for each in self._trimtab.catalog.models()
        ]
        return _json({"object": "list", "data": listed})

    async def healthz(self) -> Response:
        return _json({"status": "ok"})

    async def readyz(self) -> Response:
        return _json({"status": "ready" if self._ready else "loading"}, 200 if self._ready else 503)

    def _streamed(self, body: Mapping[str, Any], prepared: Prepared, reply: Reply) -> Response:
        """The provider's events as they come, and our receipt before the end mark: as a chunk without choices where the
        caller knows such chunks (it sent a `trimtab` object, or asked for usage), else as a comment, which every client
        skips; `chunk.choices[0]` on an empty list is how applications break."""
        options = body.get("stream_options")
        as_chunk = "trimtab" in body or (isinstance(options, Mapping) and bool(options.get("include_usage")))

        async def events() -> AsyncIterator[bytes]:
            assert reply.chunks is not None
            sent = False
            async for chunk in reply.chunks:
                end = -1 if sent else _end_mark(chunk)
                if end >= 0:
                    sent = True
                    yield chunk[:end] + self._receipt_event(prepared, reply, as_chunk) + chunk[end:]
                else:
                    yield chunk
            if not sent:
                yield self._receipt_event(prepared, reply, as_chunk)

        headers = {**reply.headers, **_receipt_headers(prepared.receipt, reply), "cache-control": "no-cache"}
        # closed in every case: a client that hangs up must not leave the provider writing
        return StreamingResponse(
            _closing(events(), reply), reply.status, headers, background=BackgroundTask(reply.aclose)
        )

    def _receipt_event(self, prepared: Prepared, reply: Reply, as_chunk: bool) -> bytes:
        receipt = self._trimtab.settle(prepared, reply).to_dict()
        if not as_chunk:
            return b": trimtab " + orjson.dumps(receipt) + b"\n\n"
        chunk = {"id": receipt["id"], "object": "chat.completion.chunk", "created": 0, "model": receipt["model"]}
        return b"data: " + orjson.dumps({**chunk, "choices": [], "trimtab": receipt}) + b"\n\n"

    def _live_router(self) -> Router:
        if self._router is None:
            raise RuntimeError("the app's lifespan has not started: serve it with an ASGI server")
        return self._router

    async def _body(self, request: Request) -> dict[str, Any]:
        """The body as a JSON object. Raises BadRequest for too many bytes, bad UTF-8, and anything that is no object."""
        limit = self._trimtab.settings.max_body_bytes
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > limit:
                reason = f"the body is larger than {limit:,} bytes; send less, or raise max_body_bytes in the settings"
                raise BadRequest(None, reason, "request_too_large", status=413)
        try:
            content.decode("utf-8")
            body = orjson.loads(content)
        except UnicodeDecodeError as error:
            raise BadRequest(None, f"the body is not UTF-8 (byte {error.start:,})", "invalid_encoding") from None
        except orjson.JSONDecodeError as error:
            raise BadRequest(None, f"the body is not JSON: {error.msg} (at {error.pos:,})", "invalid_json") from None
        if not isinstance(body, dict):
            raise BadRequest(None, "the body must be a JSON object", "invalid_json")
        return body


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run CPU work beside the event loop. The one place where it crosses."""
    return await anyio.to_thread.run_sync(work)


async def _answered(answer: Callable[[], Any]) -> Response:
    """The answer, or the error that callers are told; a defect of ours is left to the server's log."""
    try:
        response: Response = await answer()
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        return _problem(problem)
    return response


def _problem(problem: Problem) -> Response:
    if problem.raw is not None:
        return Response(problem.raw, problem.status, media_type="application/json")
    return _json(problem.body, problem.status)


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(
        {"error": {"message": str(error.detail), "type": "invalid_request_error", "param": None, "code": None}},
        error.status_code,
    )


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _relayed(reply: Reply, receipt: Receipt) -> Response:
    """The provider's body byte for byte, with `"trimtab": receipt` spliced in before its last brace."""
    content = reply.body or b""
    at = content.rstrip().rfind(b"}")
    if at > 0 and 200 <= reply.status < 300:
        comma = b"" if content[:at].rstrip().endswith(b"{") else b","
        content = content[:at] + comma + b'"trimtab":' + orjson.dumps(receipt.to_dict()) + content[at:]
    return Response(content, reply.status, {**reply.headers, **_receipt_headers(receipt, reply)})


def _receipt_headers(receipt: Receipt, reply: Reply) -> dict[str, str]:
    """The receipt's few figures that are known when the headers go out; unset ones are left out."""
    figures = {
        "receipt-id": receipt.id,
        "provider": reply.offer.provider,
        "model": reply.offer.model,
        "attempts": len(reply.attempts),
        "tokens-before": receipt.tokens_before,
        "tokens-after": receipt.tokens_after,
        "expected-cost-usd": receipt.to_dict()["expected_cost_usd"],
        "coverage-estimate": None if receipt.coverage_estimate is None else f"{receipt.coverage_estimate:.4f}",
    }
    return {f"x-trimtab-{name}": str(value) for name, value in figures.items() if value is not None}


def _end_mark(chunk: bytes) -> int:
    """Where the event `data: [DONE]` begins in these whole events; -1 if it is not among them."""
    for mark in (b"data: [DONE]", b"data:[DONE]"):
        at = chunk.rfind(mark)
        if at == 0 or (at > 0 and chunk[at - 1 : at] in (b"\n", b"\r")):
            return at
    return -1


async def _closing(events: AsyncIterator[bytes], reply: Reply) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield event
    finally:
        await reply.aclose()


def _openapi(app: FastAPI) -> dict[str, Any]:
    if not app.openapi_schema:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schema.setdefault("components", {}).setdefault("schemas", {}).update(api_docs.SCHEMAS)
        app.openapi_schema = schema
    return app.openapi_schema

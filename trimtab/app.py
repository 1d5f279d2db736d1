"""The HTTP app: the surfaces, each with a `trimtab` object in the body, and our own endpoints beside them.

Thin: bytes are read and checked here, the pipeline decides, the router forwards. CPU work crosses into a thread at one
place, `_in_thread`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import NoneType
from typing import Any, Final, TypeVar, cast

import anyio.to_thread
import orjson
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from routing.catalog import Listing
from routing.chat_answer import to_bytes
from routing.errors import ProvidersFailed
from routing.forwarding import Reply, Router
from routing.receipt import Receipt
from routing.tongues import CHAT as CHAT_TONGUE
from routing.tongues import Tongue, error_bytes
from trimtab import api_docs
from trimtab.citations import resolved_events, resolved_message
from trimtab.contexts import Contexts
from trimtab.counting import counting
from trimtab.errors import BadRequest, Problem, problem_of
from trimtab.idempotency import Replays
from trimtab.inspecting import inspected
from trimtab.options import CompressIn, checked
from trimtab.pipeline import Trimtab
from trimtab.prepared import Prepared
from trimtab.surfaces import COUNT_TOKENS, SURFACES, Surface

Result = TypeVar("Result")

logger = logging.getLogger("trimtab")

_CLIENT_GONE: Final = 499
"""nginx's status for a client that hung up: nobody reads it."""


def create_app(trimtab: Trimtab) -> FastAPI:
    """The ASGI app over one `Trimtab`. The encoder loads in the background; `/readyz` says when it is there."""
    edge = Edge(trimtab)
    # No pages of documentation: FastAPI's load their scripts from another host, and this server may have no network.
    pages: dict[str, Any] = {"docs_url": None, "redoc_url": None}
    app = FastAPI(title="trimtab", version=api_docs.VERSION, summary=api_docs.SUMMARY, lifespan=edge.lifespan, **pages)
    routes: tuple[tuple[str, str, Callable[..., Awaitable[Response]], str], ...] = (
        ("/v1/compress", "POST", edge.compress, "Trim contexts to a budget"),
        ("/v1/plan", "POST", edge.plan, "What a chat completion would cost, and what else was considered (dry run)"),
        ("/v1/inspect", "POST", edge.inspect, "What of a request is context, what is protected, and why"),
        ("/v1/contexts/{digest}", "GET", edge.context, "The original of a context that was cut"),
        *((each.path, "POST", edge.answering(each), each.summary) for each in SURFACES),
        (COUNT_TOKENS.path, "POST", edge.count_tokens, COUNT_TOKENS.summary),
        ("/v1/models", "GET", edge.models, "The models that the configured providers serve"),
        ("/v1/models/{model:path}", "GET", edge.model, "One of them"),
        ("/healthz", "GET", edge.healthz, "The process is up"),
        ("/readyz", "GET", edge.readyz, "The encoder is loaded, and requests will not wait for it"),
    )
    for path, method, endpoint, summary in routes:
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            name=summary,
            summary=summary,
            response_model=None,
            openapi_extra=api_docs.EXTRAS.get(path),
        )
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign] # FastAPI's documented way to extend the schema
    return app


class Edge:
    """The endpoints, over one pipeline and one set of connections."""

    def __init__(self, trimtab: Trimtab) -> None:
        self._trimtab = trimtab
        self._router: Router | None = None
        settings = trimtab.settings
        self._replays = Replays(settings.cache_dir / "answers")
        self._contexts = Contexts(settings.cache_dir / "contexts", settings.keep_contexts_hours)
        self._keeping: set[asyncio.Task[None]] = set()
        self._state = "loading"

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        with self._trimtab.running():
            async with self._serving():
                yield

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        async with self._trimtab.router() as self._router:
            # Not in a task group: an encoder that cannot be loaded must cost the trimming and not the server.
            warming = asyncio.create_task(anyio.to_thread.run_sync(self._trimtab.warm_up, abandon_on_cancel=True))
            warming.add_done_callback(self._warmed)
            yield
            warming.cancel()
            await self._replays.aclose()
            await asyncio.gather(*self._keeping, return_exceptions=True)
            self._contexts.close()

    def _warmed(self, warming: asyncio.Task[None]) -> None:
        if warming.cancelled():
            return
        defect = warming.exception()
        self._state = "ready" if defect is None else "failed"
        if defect is not None:
            logger.error("the encoder cannot be loaded (%s: %s); payloads go untrimmed", type(defect).__name__, defect)

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

    async def inspect(self, request: Request) -> Response:
        async def answer() -> Response:
            body, surface = await self._body(request), request.query_params.get("surface")
            return _json((await _in_thread(lambda: inspected(body, surface))).to_dict())

        return await _answered(answer)

    async def context(self, request: Request, digest: str) -> Response:
        found = await _in_thread(lambda: self._contexts.find(request.headers, digest))
        if found is None:
            reason = f"no context of yours is kept under the digest {digest[:64]!r}; a receipt's cut lists them"
            return _problem(Problem(404, reason, "invalid_request_error", "digest", "context_not_found"))
        return Response(to_bytes(found), media_type="application/json")

    def _keep(self, headers: Mapping[str, str], prepared: Prepared) -> asyncio.Task[None]:
        """Keep what was cut, beside the provider's work. To be awaited before the caller is told of it."""
        task = asyncio.create_task(_in_thread(lambda: self._contexts.keep(headers, prepared.originals)))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        return task

    def answering(self, surface: Surface) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of a surface."""

        async def endpoint(request: Request) -> Response:
            return await _answered(lambda: self._answer(request, surface), surface.tongue)

        return endpoint

    async def _answer(self, request: Request, surface: Surface) -> Response:
        body = await self._body(request)
        headers = request.headers
        made = self._replays.answer(headers, surface.path, body, lambda: self._made(headers, body, surface))
        return await _unless_gone(request, made)

    async def _made(
        self, headers: Mapping[str, str], body: Mapping[str, Any], surface: Surface
    ) -> tuple[Response, Reply | None]:
        if not isinstance(body.get("stream"), (bool, NoneType)):
            raise BadRequest("stream", "must be true or false")
        self._check_providers()
        prepared = await _in_thread(lambda: self._trimtab.prepare(body, api=surface.api))
        kept = self._keep(headers, prepared) if prepared.originals else None
        stream = bool(body.get("stream"))
        forwarded = self._trimtab.forward(
            prepared, self._live_router(), stream=stream, headers=headers, tongue=surface.tongue
        )
        try:
            reply = await forwarded
        except ProvidersFailed as error:
            return _failed(error, replace(prepared.receipt, attempts=error.attempts), surface.tongue), None
        if kept is not None:
            await asyncio.shield(kept)  # a client that hangs up must not take it along
        if reply.chunks is not None:
            return self._streamed(body, prepared, reply, surface), reply
        receipt = self._trimtab.settle(prepared, reply)
        self._trimtab.learn(prepared, reply)
        content = resolved_message(reply.body or b"", prepared.shown)
        return _relayed(reply, content, receipt, surface), reply

    async def count_tokens(self, request: Request) -> Response:
        async def answer() -> Response:
            body = await self._body(request)
            counted = await _in_thread(lambda: counting(self._trimtab, body))
            if not counted.offers:
                return _json({"input_tokens": counted.tokens})
            calls = self._live_router().forward(
                counted.body, counted.offers, False, request.headers, COUNT_TOKENS.tongue
            )
            reply = await _unless_gone(request, calls)
            return Response(reply.body, reply.status, dict(reply.headers))

        return await _answered(answer, COUNT_TOKENS.tongue)

    async def models(self) -> Response:
        listed = [_model(each) for each in self._trimtab.catalog.models()]
        ends = {"first_id": listed[0]["id"] if listed else None, "last_id": listed[-1]["id"] if listed else None}
        return _json({"object": "list", "data": listed, "has_more": False, **ends})

    async def model(self, model: str) -> Response:
        listing = next((each for each in self._trimtab.catalog.models() if each.model == model), None)
        if listing is None:
            reason = f"no configured provider lists the model {model[:100]!r}; GET /v1/models says which there are"
            return _problem(Problem(404, reason, "invalid_request_error", "model", "model_not_found"))
        return _json(_model(listing))

    async def healthz(self) -> Response:
        return _json({"status": "ok"})

    async def readyz(self) -> Response:
        return _json({"status": self._state}, 200 if self._state == "ready" else 503)

    def _streamed(self, body: Mapping[str, Any], prepared: Prepared, reply: Reply, surface: Surface) -> Response:
        """The provider's events as they come, and our receipt before the one that ends them."""

        async def events() -> AsyncIterator[bytes]:
            assert reply.chunks is not None
            held = b""
            async for part in reply.chunks:
                chunk = resolved_events(part, prepared.shown)
                end = 0 if held else surface.terminal(chunk)
                if end < 0:
                    yield chunk
                else:
                    if end > 0:
                        yield chunk[:end]
                    held += chunk[end:]
            # Only now is the attempt over, and known how it ended.
            receipt = self._trimtab.settle(prepared, reply).to_dict()
            self._trimtab.learn(prepared, reply)
            yield surface.receipt_event(receipt, body) + held

        headers = {
            **reply.headers,
            **_receipt_headers(self._trimtab.settle(prepared, reply)),
            "cache-control": "no-cache",
        }
        # closed in every case: a client that hangs up must not leave the provider writing
        return StreamingResponse(
            _closing(events(), reply), reply.status, headers, background=BackgroundTask(reply.aclose)
        )

    def _check_providers(self) -> None:
        if not self._trimtab.catalog.providers:
            reason = "no provider is configured: add a [[providers]] table and start with --config (see the README)"
            raise BadRequest(None, reason, "no_provider", status=503)

    def _live_router(self) -> Router:
        if self._router is None:
            raise RuntimeError("the app's lifespan has not started: serve it with an ASGI server")
        return self._router

    async def _body(self, request: Request) -> dict[str, Any]:
        """The body as a JSON object. Raises BadRequest for another content type, too many bytes, bad UTF-8, and anything
        that is no object."""
        _check_content_type(request)
        limit = self._trimtab.settings.max_body_bytes
        reason = f"the body is larger than {limit:,} bytes; send less, or raise max_body_bytes in the settings"
        too_large = BadRequest(None, reason, "request_too_large", status=413)
        if int(request.headers.get("content-length") or 0) > limit:
            raise too_large  # before a byte of it is read
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > limit:
                raise too_large
        body = _parsed(content)
        if not isinstance(body, dict):
            raise BadRequest(None, "the body must be a JSON object", "invalid_json")
        return body


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


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives. Cancels it, and raises ClientDisconnect, when the client hangs up first.

    An ASGI server does not cancel an endpoint whose client has gone: the provider would go on, and be paid, for nobody.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run CPU work beside the event loop. The one place where it crosses."""
    return await anyio.to_thread.run_sync(work)


async def _answered(answer: Callable[[], Awaitable[Response]], tongue: Tongue = CHAT_TONGUE) -> Response:
    """The answer, or the error that callers are told; a defect of ours is left to the server's log."""
    try:
        return await answer()
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        return _problem(problem, tongue)


def _problem(problem: Problem, tongue: Tongue = CHAT_TONGUE) -> Response:
    content = problem.raw
    if content is None:
        content = error_bytes(tongue, problem.status, problem.error)
    return Response(content, problem.status, problem.headers, media_type="application/json")


def _failed(error: ProvidersFailed, receipt: Receipt, tongue: Tongue) -> Response:
    """No provider answered: the last one's own error or ours, with the receipt, which lists every attempt."""
    response = _problem(cast(Problem, problem_of(error)), tongue)
    content = _with_receipt(bytes(response.body), receipt)
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(content, response.status_code, headers | _receipt_headers(receipt))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}; GET /openapi.json lists what there is"
    return _problem(Problem(error.status_code, message, "invalid_request_error", None, None, None, error.headers or {}))


def _defect(_: Request, error: Exception) -> Response:
    """For what is wrong here and not in the request. Says nothing of it: the server's log does."""
    message = f"trimtab failed ({type(error).__name__}), and its log says where; the request was not answered"
    return _problem(Problem(500, message, "server_error", None, "internal_error"))


def _model(listing: Listing) -> dict[str, Any]:
    """A model as both OpenAI's and Anthropic's clients read it. When it was made is not known here."""
    return {
        "id": listing.model,
        "object": "model",
        "created": 0,
        "owned_by": listing.providers[0],
        "providers": listing.providers,
        "type": "model",
        "display_name": listing.model,
        "created_at": "1970-01-01T00:00:00Z",
    }


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _relayed(reply: Reply, content: bytes, receipt: Receipt, surface: Surface) -> Response:
    """The provider's answer as it came, with the receipt in it unless it is an error."""
    if 200 <= reply.status < 300 and surface.receipt_in_body:
        content = _with_receipt(content, receipt)
    return Response(content, reply.status, {**reply.headers, **_receipt_headers(receipt)})


def _with_receipt(content: bytes, receipt: Receipt) -> bytes:
    """A JSON object's bytes as they are, with `"trimtab": receipt` spliced in before its last brace."""
    at = content.rstrip().rfind(b"}")
    comma = b"" if content[:at].rstrip().endswith(b"{") else b","
    return content[:at] + comma + b'"trimtab":' + orjson.dumps(receipt.to_dict()) + content[at:]


def _receipt_headers(receipt: Receipt) -> dict[str, str]:
    """The receipt's few figures that are known when the headers go out; unset ones are left out."""
    figures = {
        "receipt-id": receipt.id,
        "provider": receipt.provider,
        "model": receipt.model,
        "attempts": len(receipt.attempts),
        "tokens-before": receipt.tokens_before,
        "tokens-after": receipt.tokens_after,
        "expected-cost-usd": receipt.to_dict()["expected_cost_usd"],
        "coverage-estimate": None if receipt.coverage_estimate is None else f"{receipt.coverage_estimate:.4f}",
    }
    return {f"x-trimtab-{name}": str(value) for name, value in figures.items() if value is not None}


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

"""Answering: the surfaces. A request is prepared, forwarded and concluded, and its answer goes back with the receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from types import NoneType
from typing import Any, Final, cast

import orjson
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from routing.errors import ProvidersFailed
from routing.forwarding import Reply
from routing.offers import plain
from routing.receipt import Receipt
from routing.tongues import Tongue
from trimtab import api_docs
from trimtab.access.rules import Rules
from trimtab.answers.accounts import prepared_from
from trimtab.answers.cache import Found
from trimtab.answers.replay import streams, told
from trimtab.answers.serving import Buying, looked_up, missed
from trimtab.caller import Caller
from trimtab.citations import resolved_events, resolved_message
from trimtab.conclusion import Conclusion
from trimtab.contexts import Contexts
from trimtab.counting import counting
from trimtab.deferred.endpoints import Deferring
from trimtab.edge import Edge
from trimtab.errors import BadRequest, Problem, problem_of
from trimtab.http import CLIENT_GONE, Route, answered, in_thread, json_response, problem_response, unless_gone
from trimtab.idempotency import KEY_HEADER, SIZE_LIMIT_BYTES, Replays
from trimtab.prepared import Prepared
from trimtab.surfaces import COUNT_TOKENS, SURFACES, Surface, with_receipt

_UNCACHED: Final = {"cache-control": "no-cache"}


class Answering:
    """The endpoints of the surfaces. `contexts` keeps what was cut; `deferring` takes what had better wait."""

    def __init__(self, edge: Edge, contexts: Contexts, deferring: Deferring) -> None:
        self._edge = edge
        self._trimtab = edge.trimtab
        self._contexts = contexts
        self._deferring = deferring
        self._replays = Replays(self._trimtab.stores.one("answers", SIZE_LIMIT_BYTES))
        self._keeping: set[asyncio.Task[None]] = set()

    def routes(self) -> tuple[Route, ...]:
        rows = (*((each, self._answering(each)) for each in SURFACES), (COUNT_TOKENS, self._count_tokens))
        return tuple(
            Route("POST", surface.path, endpoint, surface.summary, api_docs.EXTRAS[surface.path])
            for surface, endpoint in rows
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        yield
        await self._replays.aclose()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    def _answering(self, surface: Surface) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await answered(lambda: self._answer(request, surface), surface.tongue)

        return endpoint

    async def _answer(self, request: Request, surface: Surface) -> Response:
        caller = await self._edge.caller(request)
        body, headers = await self._edge.body(request), request.headers
        made = self._replays.answer(
            caller, headers.get(KEY_HEADER), surface.path, body, lambda: self._made(caller, headers, body, surface)
        )
        return await unless_gone(request, made)

    async def _made(
        self, caller: Caller, headers: Mapping[str, str], body: Mapping[str, Any], surface: Surface
    ) -> tuple[Response, Reply | None]:
        if not isinstance(body.get("stream"), (bool, NoneType)):
            raise BadRequest("stream", "must be true or false")
        self._edge.check_providers()
        rules = await self._edge.rules(caller)
        if not self._trimtab.settings.auto.models(str(body.get("model"))):
            rules.check(str(body.get("model")))  # also before what was answered to others of the same team
        looked = await looked_up(self._trimtab.answers, caller, surface, body, headers)
        if isinstance(looked, Found):
            return await self._replayed(caller, body, surface, looked), None
        try:
            response, reply = await self._bought(caller, headers, body, surface, looked, rules)
        except BaseException:
            if looked is not None:
                looked.land()
            raise
        if looked is not None and not (reply is not None and isinstance(response, StreamingResponse)):
            looked.land()
        return response, reply

    async def _replayed(self, caller: Caller, body: Mapping[str, Any], surface: Surface, found: Found) -> Response:
        """An answer from the cache, whole or as a stream, with a receipt of its own."""
        prepared = await self._edge.worked(lambda: prepared_from(self._trimtab, surface, body, found))
        receipt, content = prepared.receipt, found.entry.answer
        stream = bool(body.get("stream")) and streams(surface.tongue.name)
        self._trimtab.concluded(Conclusion(caller, prepared, receipt, 200, stream))
        headers = {**_receipt_headers(receipt), "age": f"{found.age_s:.0f}"}
        if not stream:
            if surface.receipt_in_body:
                content = with_receipt(content, orjson.dumps(receipt.to_dict()))
            return Response(content, 200, headers, media_type="application/json")
        *events, last = told(surface.tongue.name, orjson.loads(content), body)
        parts = (*events, surface.receipt_event(receipt.to_dict(), body), last)
        return StreamingResponse(iter(parts), 200, headers | _UNCACHED, media_type="text/event-stream")

    async def _bought(
        self,
        caller: Caller,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        surface: Surface,
        buying: Buying | None,
        rules: Rules,
    ) -> tuple[Response, Reply | None]:
        if self._deferring.may_wait(body):
            considered = await self._deferring.consider(caller, headers, body, surface)
            if isinstance(considered, Response):
                return considered, None
            prepared = considered
        else:
            prepared = await self._edge.prepared(body, surface.api, rules)
        prepared = prepared if buying is None else missed(prepared)
        limits = await self._edge.gate.hold(caller, prepared)
        kept = self._keep(caller, prepared) if prepared.originals else None
        stream = bool(body.get("stream"))
        try:
            reply = await self._trimtab.forward(
                prepared, self._edge.router, stream=stream, headers=headers, tongue=surface.tongue
            )
        except ProvidersFailed as error:
            receipt = replace(prepared.receipt, attempts=error.attempts)
            response = _failed(error, receipt, surface.tongue)
            response.headers.update(limits)
            self._trimtab.concluded(Conclusion(caller, prepared, receipt, response.status_code, stream))
            return response, None
        except (asyncio.CancelledError, TimeoutError) as error:
            status = 504 if isinstance(error, TimeoutError) else CLIENT_GONE
            self._trimtab.concluded(Conclusion(caller, prepared, prepared.receipt, status, stream))
            raise
        except BaseException:  # nothing was sent
            self._edge.gate.settle(prepared.receipt.id, Decimal(0))
            raise
        if kept is not None:
            await asyncio.shield(kept)  # a client that hangs up must not take it along
        if reply.chunks is not None:
            return self._streamed(caller, body, prepared, reply, surface, buying, limits), reply
        receipt = self._trimtab.conclude(prepared, reply, caller)
        content = resolved_message(reply.body or b"", prepared.shown)
        if buying is not None:
            buying.feed(content)
            await buying.over(prepared, reply, receipt, stream=False)
        response = _relayed(reply, content, receipt, surface)
        response.headers.update(limits)
        return response, reply

    def _keep(self, caller: Caller, prepared: Prepared) -> asyncio.Task[None]:
        """Keep what was cut, beside the provider's work. To be awaited before the caller is told of it."""
        task = asyncio.create_task(in_thread(lambda: self._contexts.keep(caller, prepared.originals)))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        return task

    def _streamed(
        self,
        caller: Caller,
        body: Mapping[str, Any],
        prepared: Prepared,
        reply: Reply,
        surface: Surface,
        buying: Buying | None,
        limits: Mapping[str, str],
    ) -> Response:
        """The provider's events as they come, and our receipt before the one that ends them."""

        receipt: Receipt | None = None

        async def over() -> Receipt:
            """However it ended, also where the client hung up: the provider must not go on writing, and it has its bill."""
            nonlocal receipt
            await reply.aclose()
            if receipt is None:
                receipt = self._trimtab.conclude(prepared, reply, caller, stream=True)
            return receipt

        async def events() -> AsyncIterator[bytes]:
            assert reply.chunks is not None
            held = b""
            try:
                async for part in reply.chunks:
                    chunk = resolved_events(part, prepared.shown)
                    if buying is not None:
                        buying.feed(chunk)
                    end = 0 if held else surface.terminal(chunk)
                    if end < 0:
                        yield chunk
                    else:
                        if end > 0:
                            yield chunk[:end]
                        held += chunk[end:]
                # Only now is the attempt over, and known how it ended.
                yield surface.receipt_event((await over()).to_dict(), body) + held
            finally:
                ended = await over()
                if buying is not None and not (ended.attempts and ended.attempts[-1].outcome == "ok"):
                    buying.land()  # nothing will be kept, and others may wait for it

        async def after() -> None:
            ended = await over()
            if buying is not None:
                await buying.over(prepared, reply, ended, stream=True)

        head = {**reply.headers, **_receipt_headers(self._trimtab.settle(prepared, reply)), **limits, **_UNCACHED}
        return StreamingResponse(events(), reply.status, head, background=BackgroundTask(after))

    async def _count_tokens(self, request: Request) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            body = await self._edge.body(request)
            counted = await self._edge.worked(lambda: counting(self._trimtab, body, self._edge.gate.rules(caller)))
            if not counted.offers:
                return json_response({"input_tokens": counted.tokens})
            calls = self._edge.router.forward(counted.body, counted.offers, False, request.headers, COUNT_TOKENS.tongue)
            reply = await unless_gone(request, calls)
            return Response(reply.body, reply.status, dict(reply.headers))

        return await answered(answer, COUNT_TOKENS.tongue)


def _failed(error: ProvidersFailed, receipt: Receipt, tongue: Tongue) -> Response:
    """No provider answered: the last one's own error or ours, with the receipt, which lists every attempt."""
    response = problem_response(cast(Problem, problem_of(error)), tongue)
    content = with_receipt(bytes(response.body), orjson.dumps(receipt.to_dict()))
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(content, response.status_code, headers | _receipt_headers(receipt))


def _relayed(reply: Reply, content: bytes, receipt: Receipt, surface: Surface) -> Response:
    """The provider's answer as it came, with the receipt in it unless it is an error."""
    if 200 <= reply.status < 300 and surface.receipt_in_body:
        content = with_receipt(content, orjson.dumps(receipt.to_dict()))
    return Response(content, reply.status, {**reply.headers, **_receipt_headers(receipt)})


def _receipt_headers(receipt: Receipt) -> dict[str, str]:
    """The receipt's few figures that are known when the headers go out; unset ones are left out."""
    figures = {
        "receipt-id": receipt.id,
        "cache": receipt.cache,
        "provider": receipt.provider,
        "model": receipt.model,
        "attempts": len(receipt.attempts),
        "tokens-before": receipt.tokens_before,
        "tokens-after": receipt.tokens_after,
        "expected-cost-usd": None if receipt.expected_cost_usd is None else plain(receipt.expected_cost_usd),
        "coverage-estimate": None if receipt.coverage_estimate is None else f"{receipt.coverage_estimate:.4f}",
    }
    return {f"x-trimtab-{name}": str(value) for name, value in figures.items() if value is not None}

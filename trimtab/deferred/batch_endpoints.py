"""Batch endpoints: `/v1/files` and `/v1/batches`, as OpenAI's clients ask them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from trimtab.caller import Caller
from trimtab.deferred.batch_docs import operation
from trimtab.deferred.batch_order import read_order
from trimtab.deferred.batch_work import BatchWork
from trimtab.deferred.batches import Batch, Batches
from trimtab.deferred.files import MAX_BYTES, Files, no_such_file
from trimtab.deferred.jobs import Jobs
from trimtab.deferred.pages import Asked
from trimtab.deferred.uploads import receive
from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import Route, answered, in_thread, json_response
from trimtab.idempotency import KEY_HEADER, MAX_KEY_CHARACTERS
from trimtab.webhooks import Webhooks, result_event

Answer = Callable[[Request, Caller], Awaitable[Response]]

_FILES_LISTED: Final = (10_000, 10_000)
_BATCHES_LISTED: Final = (100, 20)
"""OpenAI's most and usual length of a page."""


class BatchEndpoints:
    """The group, and the work on batches while it is served. Batches end in events for `webhooks`."""

    def __init__(self, edge: Edge, jobs: Jobs, webhooks: Webhooks, clock: Callable[[], float] = time.time) -> None:
        settings = edge.trimtab.settings
        self._edge = edge
        self._webhooks = webhooks
        self._clock = clock
        self._jobs = jobs
        kept_s = settings.deferred_days * 86_400.0
        self._files = Files(jobs.database, settings.data_dir / "files", clock, kept_s)
        self._batches = Batches(jobs.database)
        self._batches.ended.append(self._ended)
        self._work = BatchWork(
            self._batches,
            self._files,
            jobs,
            settings.max_body_bytes,
            webhooks.check,
            lease_s=settings.deferred_lease_s,
            kept_s=kept_s,
            clock=clock,
        )

    def routes(self) -> tuple[Route, ...]:
        rows: tuple[tuple[str, str, Answer, str], ...] = (
            ("POST", "/v1/files", self._upload, "Upload the input of a batch"),
            ("GET", "/v1/files", self._list_files, "The files that are yours"),
            ("GET", "/v1/files/{file_id}", self._file, "What is known of a file"),
            ("GET", "/v1/files/{file_id}/content", self._content, "The bytes of a file"),
            ("DELETE", "/v1/files/{file_id}", self._delete_file, "Delete a file"),
            ("POST", "/v1/batches", self._create, "Have the requests of a file answered until a deadline"),
            ("GET", "/v1/batches", self._list, "The batches that are yours"),
            ("GET", "/v1/batches/{batch_id}", self._batch, "How far a batch is, and what it cost"),
            ("POST", "/v1/batches/{batch_id}/cancel", self._cancel, "Begin no more of a batch"),
        )
        return tuple(
            Route(method, path, self._asked(answer), summary, operation(method, path))
            for method, path, answer, summary in rows
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        for each in (self._jobs, self._files, self._batches):
            await in_thread(each.create)
        work = asyncio.create_task(self._work.run())
        try:
            yield
        finally:
            self._work.stop()
            await work

    def _asked(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            async def admitted() -> Response:
                return await answer(request, await self._edge.caller(request))

            return await answered(admitted)

        return endpoint

    # --- files -----------------------------------------------------------------------------------------------------------

    async def _upload(self, request: Request, caller: Caller) -> Response:
        with self._files.writing() as writing:
            upload = await receive(request, writing, MAX_BYTES)
            keep = partial(self._files.keep, writing, caller.tenant, upload.filename, upload.purpose, upload.lifetime_s)
            return json_response((await in_thread(keep)).to_dict())

    async def _list_files(self, request: Request, caller: Caller) -> Response:
        asked = Asked.of(request.query_params, *_FILES_LISTED)
        purpose = request.query_params.get("purpose")
        page = await in_thread(lambda: self._files.page(caller.tenant, asked, purpose))
        return json_response(page.to_dict(lambda each: each.to_dict()))

    async def _file(self, request: Request, caller: Caller) -> Response:
        found = await in_thread(lambda: self._files.find(caller.tenant, request.path_params["file_id"]))
        return json_response(found.to_dict())

    async def _content(self, request: Request, caller: Caller) -> Response:
        found = await in_thread(lambda: self._files.find(caller.tenant, request.path_params["file_id"]))
        path = self._files.path(found.id)
        try:
            stat = await in_thread(path.stat)
        except FileNotFoundError:  # deleted since, or on another host, whose folder is not ours
            raise no_such_file(found.id) from None
        kind = "application/octet-stream"
        return FileResponse(path, media_type=kind, filename=found.filename, stat_result=stat)

    async def _delete_file(self, request: Request, caller: Caller) -> Response:
        file_id = request.path_params["file_id"]
        await in_thread(lambda: self._files.delete(caller.tenant, file_id))
        return json_response({"id": file_id, "object": "file", "deleted": True})

    # --- batches ---------------------------------------------------------------------------------------------------------

    async def _create(self, request: Request, caller: Caller) -> Response:
        now, key = self._clock(), request.headers.get(KEY_HEADER)
        if key is not None and not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isprintable()):
            raise BadRequest("Idempotency-Key", f"must be a text of 1 to {MAX_KEY_CHARACTERS} characters")
        order, expires_at = read_order(await self._edge.body(request), now, self._webhooks.check)
        self._edge.check_providers()

        def accepted() -> Batch:
            self._check_input(caller, order.input_file_id)
            return self._batches.accept(caller, order, now, expires_at, key)

        batch = await in_thread(accepted)
        self._work.wake()
        return json_response(batch.to_dict())

    def _check_input(self, caller: Caller, file_id: str) -> None:
        try:
            found = self._files.find(caller.tenant, file_id)
        except BadRequest as error:
            raise BadRequest("input_file_id", str(error).partition(": ")[2], error.code) from None
        if found.purpose != "batch":
            raise BadRequest("input_file_id", f"is a file of purpose {found.purpose}; upload one of purpose batch")

    async def _list(self, request: Request, caller: Caller) -> Response:
        asked = Asked.of(request.query_params, *_BATCHES_LISTED)
        page = await in_thread(lambda: self._batches.page(caller.tenant, asked))
        return json_response(page.to_dict(lambda each: each.to_dict()))

    async def _batch(self, request: Request, caller: Caller) -> Response:
        found = await in_thread(lambda: self._batches.find(caller.tenant, request.path_params["batch_id"]))
        return json_response(found.to_dict())

    async def _cancel(self, request: Request, caller: Caller) -> Response:
        batch_id = request.path_params["batch_id"]
        found = await in_thread(lambda: self._batches.cancel(caller.tenant, batch_id, self._clock()))
        self._work.wake()
        return json_response(found.to_dict())

    def _ended(self, connection: sa.Connection, batch: Batch) -> None:
        """Puts the event of a batch that is over into the transaction that ends it."""
        assert batch.order.callback_url is not None
        now = self._clock()
        told: dict[str, Any] = batch.to_dict()
        about = {name: told[name] for name in _TOLD}
        event = result_event(
            f"batch.{batch.status}", batch.id, datetime.fromtimestamp(now, UTC), about, f"/v1/batches/{batch.id}"
        )
        self._webhooks.outbox.put(connection, batch.caller.tenant, batch.order.callback_url, event, now)


_TOLD: Final = ("status", "request_counts", "output_file_id", "error_file_id", "trimtab")

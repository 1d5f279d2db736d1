"""Idempotency: a request that is sent again under its `Idempotency-Key` gets the first answer, and is not billed twice.

As in the IETF's draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header-07) and Stripe's
API. A key belongs to the caller's credential and to the endpoint. The first request runs to its end even if its client
hangs up, since that is what a retry is for. One that comes meanwhile gets the same answer as it is made; one that comes
later gets it from disk, for a day. Only answers that came to their end are kept: after an error a retry tries anew.

What is kept outlives a restart, and is found by every worker that shares the store.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.responses import Response, StreamingResponse

from retrieval.store import Store
from routing.replies import Reply
from trimtab.caller import Caller, name_of
from trimtab.errors import BadRequest

KEY_HEADER: Final = "idempotency-key"
KEPT_S: Final = 24 * 3600.0
SIZE_LIMIT_BYTES: Final = 256 * 2**20
"""Of all answers on disk; the oldest go first."""
MAX_ANSWER_BYTES: Final = 16 * 2**20
"""A longer answer is not kept."""
WAIT_S: Final = 60.0
"""How long a second request waits for the first to begin its answer, before it is told to come back."""
LEASE_S: Final = 10.0
"""How long a worker that died keeps others from answering in its place."""
MAX_KEY_CHARACTERS: Final = 255

_POLL_S: Final = 0.1
_STALE: Final = ("content-length", "date", "retry-after", "server")
_REPLAYED: Final = {"x-trimtab-replayed": "true"}

Make = Callable[[], Awaitable[tuple[Response, Reply | None]]]
"""Answers a request, and gives the provider's reply if there is one: how that ended says whether the answer is kept."""


class Replays:
    """The answers that may be asked for again. One for a process and event loop.

    Of several workers that share `store`, the first to come holds a lease on the key, which it renews while it answers; the
    others wait for what it keeps. If it dies, another takes over once the lease has run out. `lifetime_s`, `wait_s`,
    `lease_s` and `max_answer_bytes` are there for tests. A store that is out of order costs replays, never an answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        lifetime_s: float = KEPT_S,
        wait_s: float = WAIT_S,
        lease_s: float = LEASE_S,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._store = store
        self._lifetime_s = lifetime_s
        self._wait_s = wait_s
        self._lease_s = lease_s
        self._max_answer_bytes = max_answer_bytes
        self._running: dict[bytes, _Recording] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, caller: Caller, key: str | None, path: str, body: Mapping[str, Any], make: Make) -> Response:
        """What `make` gives; or, under a key that this caller used before, what it gave then.

        Raises BadRequest: 422 for a key that came with another body, 409 where the first request has not begun to answer
        in time, 400 for a key that is none; and what `make` raises.
        """
        if key is None:
            return (await make())[0]
        name, fingerprint = _name(key, caller, path), _fingerprint(body)
        recording = self._running.get(name)
        replayed = recording is not None
        if recording is None:
            # Before anything is awaited, so that of two that come at once one is the first.
            recording = self._running[name] = _Recording(fingerprint)
            task = asyncio.create_task(self._run(name, recording, make))
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._ended, name, recording))
        if recording.fingerprint != fingerprint:
            raise _reused()
        return await self._told(recording, replayed)

    async def aclose(self) -> None:
        """End what is under way, and release the files."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._store.close()

    async def _told(self, recording: _Recording, replayed: bool) -> Response:
        try:
            # shielded, since the head is there for every request that waits
            head = await asyncio.wait_for(asyncio.shield(recording.head), self._wait_s if replayed else None)
        except TimeoutError:
            if recording.head.done():  # its own, not ours
                raise
            raise _conflict() from None
        headers = head.headers | (_REPLAYED if replayed or head.replayed else {})
        if head.streams:
            return StreamingResponse(recording.follow(), head.status, headers)
        return Response(await recording.whole(), head.status, headers)

    def _ended(self, name: bytes, recording: _Recording, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        del self._running[name]
        recording.end(ConnectionAbortedError("the server stops") if task.cancelled() else task.exception())

    async def _run(self, name: bytes, recording: _Recording, make: Make) -> None:
        kept = await self._leased(name)
        if kept is not None:
            recording.replay(kept)
            return
        renewing = asyncio.create_task(self._renew(name))
        try:
            await self._answered(name, recording, make)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await asyncio.to_thread(self._store.delete, [_lease(name)])

    async def _leased(self, name: bytes) -> _Kept | None:
        """What was kept; None once it is this worker's to answer. Raises BadRequest where another one answers for too long."""
        ends_s = asyncio.get_running_loop().time() + self._wait_s
        while True:
            mine = await asyncio.to_thread(self._store.add, _lease(name), b"1", self._lease_s)
            # Looked for after the lease is had: whoever held it before has kept what there is to keep.
            kept = _unpacked((await asyncio.to_thread(self._store.get, [name])).get(name))
            if mine and kept is not None:
                await asyncio.to_thread(self._store.delete, [_lease(name)])
            if mine or kept is not None:
                return kept
            if asyncio.get_running_loop().time() > ends_s:
                raise _conflict()
            await asyncio.sleep(_POLL_S)

    async def _renew(self, name: bytes) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            await asyncio.to_thread(self._store.set, {_lease(name): b"1"}, self._lease_s)

    async def _answered(self, name: bytes, recording: _Recording, make: Make) -> None:
        response, reply = await make()
        recording.begin(response)
        if isinstance(response, StreamingResponse):
            async for part in response.body_iterator:
                recording.add(part.encode() if isinstance(part, str) else bytes(part))
        else:
            recording.add(bytes(response.body))
        if response.background is not None:
            await response.background()
        complete = reply is not None and bool(reply.attempts) and reply.attempts[-1].outcome == "ok"
        complete = complete or response.headers.get("x-trimtab-cache") in ("hit", "near")  # whole when it was kept
        if complete and recording.size_bytes <= self._max_answer_bytes:
            # While it still counts as running: a retry finds it here until it can be found there.
            await asyncio.to_thread(self._store.set, {name: _packed(recording.kept())}, self._lifetime_s)


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    headers: dict[str, str]
    streams: bool
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    """A finished answer, as it lies on disk."""

    fingerprint: str
    status: int
    headers: dict[str, str]
    content: bytes


class _Recording:
    """An answer that is being made, for everybody who has asked for it."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.head: asyncio.Future[_Head] = asyncio.get_running_loop().create_future()
        self.head.add_done_callback(lambda head: head.cancelled() or head.exception())  # seen, if nobody is left to
        self.size_bytes = 0
        self._parts: list[bytes] = []
        self._over = False
        self._defect: BaseException | None = None
        self._news = asyncio.Event()

    def begin(self, response: Response) -> None:
        headers = {name: value for name, value in response.headers.items() if name not in _STALE}
        self.head.set_result(_Head(response.status_code, headers, isinstance(response, StreamingResponse)))

    def replay(self, kept: _Kept) -> None:
        if kept.fingerprint != self.fingerprint:
            raise _reused()
        self.head.set_result(_Head(kept.status, kept.headers, streams=False, replayed=True))
        self.add(kept.content)

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self.size_bytes += len(part)
        self._wake()

    def end(self, defect: BaseException | None) -> None:
        """It is over: whole, or with what everybody who still waits for it is told."""
        self._over = True
        self._defect = defect
        if defect is not None and not self.head.done():
            self.head.set_exception(defect)
        self._wake()

    def kept(self) -> _Kept:
        head = self.head.result()
        headers = {name: value for name, value in head.headers.items() if "ratelimit" not in name}
        return _Kept(self.fingerprint, head.status, headers, b"".join(self._parts))

    async def follow(self) -> AsyncIterator[bytes]:
        """Every part, those that are there and those that come. Raises what broke it off."""
        at = 0
        while True:
            news = self._news
            while at < len(self._parts):
                yield self._parts[at]
                at += 1
            if self._over:
                if self._defect is not None:
                    raise self._defect
                return
            await news.wait()

    async def whole(self) -> bytes:
        return b"".join([part async for part in self.follow()])

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _packed(kept: _Kept) -> bytes:
    head = {"fingerprint": kept.fingerprint, "status": kept.status, "headers": kept.headers}
    return orjson.dumps(head) + b"\n" + kept.content


def _unpacked(raw: bytes | None) -> _Kept | None:
    if raw is None:
        return None
    head, _, content = raw.partition(b"\n")
    return _Kept(**orjson.loads(head), content=content)


def _name(key: str, caller: Caller, path: str) -> bytes:
    if not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isprintable()):
        raise BadRequest("Idempotency-Key", f"must be a text of 1 to {MAX_KEY_CHARACTERS} characters, such as a UUID")
    return name_of(caller, path, key)


def _fingerprint(body: Mapping[str, Any]) -> str:
    """The same for two bodies that say the same, whatever the order of their fields."""
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _lease(name: bytes) -> bytes:
    return name + b"lease"


def _conflict() -> BadRequest:
    return BadRequest(
        "Idempotency-Key",
        "the first request with this key is still being answered; send it again later",
        "idempotency_conflict",
        status=409,
    )


def _reused() -> BadRequest:
    return BadRequest(
        "Idempotency-Key",
        "was used before with another body; send a new key with a new request",
        "idempotency_key_reused",
        status=422,
    )

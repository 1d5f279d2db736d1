"""The same request twice under one key: one answer, one call of the provider, whatever happened to the first client."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
from starlette.responses import Response

from retrieval.store import DiskStore
from routing.attempts import Attempt
from routing.replies import Reply
from tests.loopback import LoopbackProvider, Step, bad_request, cut, hang, ok, rate_limited, status
from tests.trimtab.asking import CALLERS_KEY, chat, provider, serving
from trimtab.caller import NOBODY
from trimtab.errors import BadRequest
from trimtab.idempotency import SIZE_LIMIT_BYTES, Replays

REPLAYED = "x-trimtab-replayed"


class One(NamedTuple):
    http: httpx.Client
    server: LoopbackProvider
    folder: Path

    def post(
        self, body: dict[str, Any], key: str | None = "k", path: str = "/v1/chat/completions", **headers: str
    ) -> httpx.Response:
        own = {} if key is None else {"Idempotency-Key": key}
        return self.http.post(path, json=body, headers=own | headers)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[One]:
    with LoopbackProvider() as server, serving(provider("p", server), cache_dir=str(tmp_path)) as http:
        yield One(http, server, tmp_path)


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(),
    "/v1/messages": chat(max_tokens=50),
    "/v1/responses": {"model": "m", "input": "Hi?"},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_a_retry_gets_the_first_answer_and_nobody_is_asked_again(one: One, path: str, stream: bool) -> None:
    body = {**BODIES[path], "stream": stream}
    one.server.then(ok("First."), ok("Second."))
    first, again = one.post(body, path=path), one.post(dict(reversed(body.items())), path=path)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert b"First." in first.content
    assert (first.headers.get(REPLAYED), again.headers[REPLAYED]) == (None, "true")
    for name in ("content-type", "x-trimtab-receipt-id", "x-trimtab-provider", "x-trimtab-expected-cost-usd"):
        assert first.headers[name] == again.headers[name]
    assert len(one.server.requests) == 1


def test_the_official_client_retries_by_itself_and_is_served_once(one: One) -> None:
    one.server.then(ok("First.", headers={"x-ratelimit-remaining-requests": "7"}))
    with openai.OpenAI(api_key="any", base_url=f"{one.http.base_url}/v1") as client:
        asked: dict[str, Any] = {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi?"}],
            "extra_headers": {"Idempotency-Key": "k"},
        }
        first = client.chat.completions.with_raw_response.create(**asked)
        again = client.chat.completions.with_raw_response.create(**asked)
        assert first.parse() == again.parse()
        assert again.headers["x-request-id"] == first.headers["x-request-id"]
        assert "x-ratelimit-remaining-requests" in first.headers
        assert "x-ratelimit-remaining-requests" not in again.headers  # what was left then says nothing of now
        told = [
            chunk.choices[0].delta.content
            for chunk in client.chat.completions.create(
                stream=True, **asked | {"extra_headers": {"Idempotency-Key": "s"}}
            )
            if chunk.choices
        ]
        assert "".join(each or "" for each in told) == "Hello from loopback."
    assert len(one.server.requests) == 2


def test_without_a_key_every_request_is_its_own(one: One) -> None:
    assert one.post(chat(), key=None).headers.get(REPLAYED) is None
    assert one.post(chat(), key=None).headers.get(REPLAYED) is None
    assert len(one.server.requests) == 2
    assert not (one.folder / "answers").exists()


def test_a_key_is_the_callers_own_and_the_endpoints(one: One) -> None:
    one.post(chat(), authorization=f"Bearer {CALLERS_KEY}")
    for other in ({"authorization": "Bearer other"}, {"x-api-key": CALLERS_KEY}, {}):
        assert REPLAYED not in one.post(chat(), **other).headers
    assert REPLAYED not in one.post(BODIES["/v1/messages"], path="/v1/messages").headers
    assert REPLAYED in one.post(chat(), authorization=f"Bearer {CALLERS_KEY}").headers
    kept = b"".join(file.read_bytes() for file in one.folder.rglob("*") if file.is_file())
    assert b"Hello from loopback" in kept
    assert CALLERS_KEY.encode() not in kept
    assert (one.folder / "answers").stat().st_mode & 0o077 == 0


def test_another_body_under_the_same_key_is_refused(one: One) -> None:
    one.post(chat())
    answer = one.post(chat("Something else?"))
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "idempotency_key_reused"
    message = one.post(chat("Else?", max_tokens=5), key="m", path="/v1/messages")
    assert message.status_code == 200
    assert one.post(chat("No?", max_tokens=5), key="m", path="/v1/messages").json()["type"] == "error"
    assert len(one.server.requests) == 2


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_none_is_refused(one: One, key: str) -> None:
    answer = one.post(chat(), key=key)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("steps", "body", "code"),
    [
        ((status(500),) * 5, chat(), 500),
        ((bad_request(),), chat(), 400),
        ((rate_limited("60"),), chat(), 429),
        ((cut(2),), chat(stream=True), 200),
    ],
)
def test_what_failed_is_tried_anew(one: One, steps: tuple[Step, ...], body: dict[str, Any], code: int) -> None:
    one.server.then(*steps)
    first = one.post(body)
    assert first.status_code == code
    if code == 429:
        return  # nobody is asked for a minute, replay or not
    again = one.post(body)
    assert (again.status_code, again.headers.get(REPLAYED)) == (200, None)
    assert b"cut_off" not in again.content
    assert REPLAYED in one.post(body).headers


def test_what_is_wrong_with_the_request_is_told_each_time(one: One) -> None:
    for _ in range(2):
        answer = one.post(chat(model="absent"))
        assert (answer.status_code, answer.headers.get(REPLAYED)) == (404, None)
    assert one.post(chat()).status_code == 200  # the key is free still


@pytest.mark.parametrize("stream", [False, True])
def test_two_at_once_share_one_call(one: One, stream: bool) -> None:
    one.server.then(ok("Slow.", delay_s=0.3, gap_s=0.02), ok("Never."))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: one.post(chat(stream=stream)), range(4)))
    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1
    assert sorted(each.headers.get(REPLAYED, "") for each in answers) == ["", "true", "true", "true"]
    assert len(one.server.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hung_up_finds_its_answer_when_it_comes_back(one: One, stream: bool) -> None:
    one.server.then(ok("Slow.", delay_s=0.5, gap_s=0.05), ok("Never."))
    with pytest.raises(httpx.TimeoutException):
        one.http.post("/v1/chat/completions", json=chat(stream=stream), headers={"Idempotency-Key": "k"}, timeout=0.2)
    again = one.post(chat(stream=stream))
    assert (again.status_code, again.headers[REPLAYED]) == (200, "true")
    assert b"Slow" in again.content
    assert len(one.server.requests) == 1


def test_a_client_that_hangs_up_in_the_middle_of_a_stream_finds_all_of_it(one: One) -> None:
    one.server.then(ok("A stream that takes its time.", gap_s=0.05), ok("Never."))
    with one.http.stream(
        "POST", "/v1/chat/completions", json=chat(stream=True), headers={"Idempotency-Key": "k"}
    ) as first:
        begun = next(first.iter_bytes())
    again = one.post(chat(stream=True))
    assert again.content.startswith(begun)
    assert b"[DONE]" in again.content
    assert again.headers[REPLAYED] == "true"
    assert len(one.server.requests) == 1


def test_an_answer_outlives_a_restart(tmp_path: Path) -> None:
    with LoopbackProvider([ok("First."), ok("Second.")]) as server:
        answers = []
        for _ in range(2):
            with serving(provider("p", server), cache_dir=str(tmp_path)) as http:
                answers.append(http.post("/v1/chat/completions", json=chat(), headers={"Idempotency-Key": "k"}))
        assert answers[0].content == answers[1].content
        assert answers[1].headers[REPLAYED] == "true"
        assert len(server.requests) == 1


def test_a_server_stops_while_somebody_waits(tmp_path: Path) -> None:
    with LoopbackProvider([hang()]) as server:
        with serving(provider("p", server), cache_dir=str(tmp_path)) as http:
            root = http.base_url

            def ask() -> None:
                with pytest.raises(httpx.HTTPError):
                    httpx.post(
                        f"{root}/v1/chat/completions", json=chat(), headers={"Idempotency-Key": "k"}, timeout=1
                    ).raise_for_status()

            asking = threading.Thread(target=ask)
            asking.start()
            while not server.requests:
                time.sleep(0.01)
        asking.join(timeout=5)
        assert not asking.is_alive()


# --- the store by itself ----------------------------------------------------------------------------------------------------


class Answers:
    """Makes numbered answers, each ending as `outcome` says."""

    def __init__(self, outcome: str = "ok", delay_s: float = 0.0, size_bytes: int = 1) -> None:
        self.made = 0
        self._outcome = outcome
        self._delay_s = delay_s
        self._size_bytes = size_bytes

    async def __call__(self) -> tuple[Response, Reply | None]:
        self.made += 1
        content = str(self.made) * self._size_bytes
        await asyncio.sleep(self._delay_s)
        attempt = Attempt("p", "m", "sync", 0.0, 1.0, 200, self._outcome, "")  # type: ignore[arg-type]
        return Response(content), _Ended(attempt)  # type: ignore[return-value]


class _Ended:
    def __init__(self, attempt: Attempt) -> None:
        self.attempts = (attempt,)


async def asked(replays: Replays, make: Answers, body: dict[str, Any] | None = None) -> bytes:
    return bytes((await replays.answer(NOBODY, "k", "/", body or {}, make)).body)


def test_an_answer_is_kept_for_its_lifetime(tmp_path: Path) -> None:
    async def go() -> None:
        replays, make = Replays(DiskStore(tmp_path, SIZE_LIMIT_BYTES), lifetime_s=0.3), Answers()
        assert await asked(replays, make) == await asked(replays, make) == b"1"
        await asyncio.sleep(0.35)
        assert await asked(replays, make) == b"2"
        await replays.aclose()

    asyncio.run(go())


def test_only_a_finished_answer_of_some_size_is_kept(tmp_path: Path) -> None:
    async def go() -> None:
        for make in (Answers("cut_off"), Answers("caller_error"), Answers(size_bytes=11)):
            replays = Replays(DiskStore(tmp_path, SIZE_LIMIT_BYTES), max_answer_bytes=10)
            assert [(await asked(replays, make))[:1] for _ in range(2)] == [b"1", b"2"]
            await replays.aclose()

    asyncio.run(go())


def test_whoever_comes_too_early_is_told_to_come_back(tmp_path: Path) -> None:
    async def go() -> None:
        replays, make = Replays(DiskStore(tmp_path, SIZE_LIMIT_BYTES), wait_s=0.05), Answers(delay_s=0.3)
        first = asyncio.create_task(asked(replays, make))
        await asyncio.sleep(0)
        with pytest.raises(BadRequest) as raised:
            await asked(replays, make)
        assert raised.value.status == 409
        with pytest.raises(BadRequest) as raised:
            await asked(replays, make, {"another": 1})
        assert raised.value.status == 422
        assert await first == await asked(replays, make) == b"1"
        await replays.aclose()

    asyncio.run(go())


def test_an_error_is_told_to_all_who_wait_and_is_not_kept(tmp_path: Path) -> None:
    async def go() -> None:
        calls = 0

        async def failing() -> tuple[Response, Reply | None]:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.05)
            raise BadRequest("model", "is missing")

        replays = Replays(DiskStore(tmp_path, SIZE_LIMIT_BYTES))
        done = await asyncio.gather(
            *(replays.answer(NOBODY, "k", "/", {}, failing) for _ in range(3)), return_exceptions=True
        )
        assert [str(each) for each in done] == ["model: is missing"] * 3
        assert calls == 1
        assert await asked(replays, Answers()) == b"1"
        await replays.aclose()

    asyncio.run(go())


@pytest.mark.parametrize("trouble", ["a file in its place", "a damaged entry", "a pickle"])
def test_a_disk_that_fails_costs_a_replay_and_no_answer(tmp_path: Path, trouble: str) -> None:
    folder = tmp_path / "answers"
    if trouble == "a file in its place":
        folder.write_bytes(b"no folder")

    async def go() -> None:
        make, replays = Answers(), Replays(DiskStore(folder, SIZE_LIMIT_BYTES))
        assert await asked(replays, make) == b"1"
        await replays.aclose()
        if folder.is_dir():
            with sqlite3.connect(folder / "cache.db") as database:
                change = "value = zeroblob(9)" if trouble == "a damaged entry" else "mode = 4"
                database.execute(f"UPDATE Cache SET {change}")
            database.close()
        assert await asked(Replays(DiskStore(folder, SIZE_LIMIT_BYTES)), make) == b"2"

    asyncio.run(go())

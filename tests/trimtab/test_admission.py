"""Admission: past capacity a request is refused at once with the time to come back, and what is small does not wait for what
is large."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import chat, provider, serving_of
from trimtab import Trimtab
from trimtab.admission import LARGE_BYTES, Admission, Lane, Limits
from trimtab.errors import Overloaded


def test_a_lane_works_on_as_many_as_it_may_and_in_the_order_that_they_came() -> None:
    async def run() -> tuple[list[int], int]:
        lane, order, most, now = Lane(2, 60.0), [], 0, 0

        async def one(number: int) -> None:
            nonlocal most, now
            async with lane.turn(10):
                order.append(number)
                now += 1
                most = max(most, now)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(one(number) for number in range(9)))
        assert lane.waiting == 0
        assert lane.expected_wait_s() == 0.0
        return order, most

    assert asyncio.run(run()) == (list(range(9)), 2)


def test_a_lane_refuses_what_would_wait_too_long_by_what_the_work_took() -> None:
    async def run() -> None:
        clock = iter(range(0, 1_000, 10))  # every piece of work takes ten seconds
        lane = Lane(1, 15.0, lambda: float(next(clock)))
        for _ in range(40):  # it learns that a thousand bytes take ten seconds
            async with lane.turn(1_000):
                pass
        async with lane.turn(1_000):
            assert lane.expected_wait_s() == pytest.approx(5, rel=0.01)
            waiting = asyncio.create_task(_turn(lane, 1_500))
            await asyncio.sleep(0)
            assert lane.waiting == 1
            with pytest.raises(Overloaded) as refused:
                await _turn(lane, 1)
            assert refused.value.wait_s == pytest.approx(20, rel=0.01)
        await waiting

    asyncio.run(run())


def test_who_gives_up_while_waiting_leaves_no_trace() -> None:
    async def run() -> None:
        lane = Lane(1, 60.0)
        async with lane.turn(5):
            waiting = asyncio.create_task(_turn(lane, 5))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert lane.waiting == 0
        await asyncio.wait_for(_turn(lane, 5), 5)

    asyncio.run(run())


def test_requests_and_bytes_are_given_back_however_a_request_ends() -> None:
    admission = Admission(Limits(requests=2, body_bytes=100, wait_s=9, large_at_once=1))
    figures = {name: read for name, _, read in admission.depths()}

    async def run() -> None:
        async def broken(*_: Any) -> None:
            admission.grow(60)
            assert figures["admitted_body_bytes"]() == 60
            raise ValueError("broken")

        async def first(*_: Any) -> None:
            admission.grow(90)
            await admission.around(second)({}, None, None)  # type: ignore[arg-type]

        async def second(*_: Any) -> None:
            with pytest.raises(Overloaded, match="max_bodies_bytes"):
                admission.grow(11)
            admission.grow(10)
            await admission.around(third)({}, None, None)  # type: ignore[arg-type]

        async def third(*_: Any) -> None:
            with pytest.raises(Overloaded, match="max_requests"):
                admission.grow(0)

        with pytest.raises(ValueError, match="broken"):
            await admission.around(broken)({}, None, None)  # type: ignore[arg-type]
        await admission.around(first)({}, None, None)  # type: ignore[arg-type]

    asyncio.run(run())
    assert all(read() == 0 for read in figures.values())


def test_one_body_that_is_alone_is_never_too_large() -> None:
    admission = Admission(Limits(requests=2, body_bytes=100, wait_s=9, large_at_once=1))

    async def alone(*_: Any) -> None:
        admission.grow(90)
        admission.grow(500)

    asyncio.run(admission.around(alone)({}, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/chat/completions", {"type": "overloaded_error", "code": "overloaded"}),
        ("/v1/messages", {"type": "api_error"}),
        ("/v1/compress", {"type": "overloaded_error", "code": "overloaded"}),
    ],
)
def test_past_capacity_a_server_says_when_to_come_back_in_the_surfaces_own_shape(
    path: str, error: dict[str, str]
) -> None:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("p", server)], max_requests=1)
        entered, leave = threading.Event(), threading.Event()
        prepare = trimtab.prepare

        def held(*args: Any, **more: Any) -> Any:
            entered.set()
            leave.wait(20)
            return prepare(*args, **more)

        trimtab.prepare = held  # type: ignore[method-assign]
        with serving_of(trimtab) as client:
            first = threading.Thread(target=lambda: client.post("/v1/chat/completions", json=chat(trimtab={})))
            first.start()
            try:
                assert entered.wait(20)
                body = {**chat(), "max_tokens": 9} if path != "/v1/compress" else {"query": "?", "contexts": ["x"]}
                refused = httpx.post(f"{client.base_url}{path}", json=body, timeout=20)
                assert client.get("/healthz").status_code == 200
                page = client.get("/metrics").text
            finally:
                leave.set()
                first.join()
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"].items() >= error.items()
            assert "trimtab_admitted_requests 1.0" in page
            assert client.post("/v1/chat/completions", json=chat()).status_code == 200


def test_the_small_do_not_wait_for_the_large() -> None:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("p", server)], ranking_processes=0)
        leave = threading.Event()
        prepare = trimtab.prepare

        def held(body: Any, *args: Any, **more: Any) -> Any:
            if len(str(body)) > LARGE_BYTES:
                leave.wait(20)
            return prepare(body, *args, **more)

        trimtab.prepare = held  # type: ignore[method-assign]
        with serving_of(trimtab) as client:
            large = chat("x " * LARGE_BYTES)
            threads = [
                threading.Thread(target=lambda: client.post("/v1/chat/completions", json=large)) for _ in range(12)
            ]
            for each in threads:
                each.start()
            try:
                until = time.monotonic() + 20
                while "trimtab_large_waiting 11.0" not in client.get("/metrics").text:
                    assert time.monotonic() < until
                assert client.post("/v1/chat/completions", json=chat()).status_code == 200
            finally:
                leave.set()
                for each in threads:
                    each.join()


async def _turn(lane: Lane, weight_bytes: int) -> None:
    async with lane.turn(weight_bytes):
        pass

"""Watching: every page is told of what is new, a slow one never more than once, and nobody looks while nobody watches."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Hashable

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from trimtab.dashboard.watching import MOST_COUNTED, REORDERED, Seen, Watch

EVERY_S = 0.01


class Ledger:
    """A ledger in memory, and how often it was asked."""

    def __init__(self, last: int = 5) -> None:
        self.numbers = list(range(1, last + 1))
        self.breaker: Hashable = "closed"
        self.looks = 0
        self.away = False

    def watch(self) -> Watch:
        return Watch(self._last, self._above, self._other, EVERY_S)

    async def _last(self) -> int:
        return max(self.numbers, default=0)

    async def _above(self, number: int) -> tuple[int, ...]:
        self.looks += 1
        if self.away:
            raise OperationalError("SELECT", {}, Exception("the server is gone"))
        return tuple(each for each in self.numbers if each > number)

    async def _other(self) -> Hashable:
        return self.breaker

    def add(self, many: int) -> None:
        last = max(self.numbers, default=0)
        self.numbers += range(last + 1, last + 1 + many)


async def opened(watch: Watch, after: int | None = None) -> AsyncIterator[bytes]:
    """A page's events, once it is watching."""
    stream = watch.events(after)
    assert (await anext(stream)).startswith(b"retry: ")
    return stream


async def looked(ledger: Ledger) -> None:
    """Until it was looked at, from beginning to end, after now."""
    looks = ledger.looks
    while ledger.looks < looks + 2:  # noqa: ASYNC110 (what is awaited is another's loop)
        await asyncio.sleep(EVERY_S)


async def told(stream: AsyncIterator[bytes]) -> int:
    event = await asyncio.wait_for(anext(stream), 20)
    head, _, data = event.decode().partition("\ndata: ")
    assert re.fullmatch(r"id: \d+\nevent: changed", head)
    requests: int = json.loads(data)["requests"]
    return requests


def test_every_page_is_told_of_new_requests() -> None:
    async def main() -> None:
        ledger = Ledger()
        watch = ledger.watch()
        pages = [await opened(watch) for _ in range(3)]
        ledger.add(2)
        assert [await told(page) for page in pages] == [2, 2, 2]
        watch.close()

    asyncio.run(main())


def test_what_came_between_a_page_and_its_events_is_told_once() -> None:
    async def main() -> None:
        ledger = Ledger(8)
        watch = ledger.watch()
        older = await opened(watch, 5)
        assert await told(older) == 3
        ledger.add(2)
        newer = await opened(watch, 8)
        assert (await told(newer), await told(older)) == (2, 2)
        ledger.add(1)
        assert (await told(newer), await told(older)) == (1, 1)
        watch.close()

    asyncio.run(main())


def test_a_page_that_knows_nothing_is_not_told_of_a_whole_ledger() -> None:
    async def main() -> None:
        ledger = Ledger(3 * MOST_COUNTED)
        watch = ledger.watch()
        page = await opened(watch, 0)
        assert await told(page) == MOST_COUNTED
        watch.close()

    asyncio.run(main())


def test_a_slow_page_is_told_once_of_all_that_came() -> None:
    async def main() -> None:
        ledger = Ledger()
        watch = ledger.watch()
        page = await opened(watch)
        for _ in range(20):
            ledger.add(3)
            await looked(ledger)
        assert await told(page) == 60
        ledger.add(1)
        assert await told(page) == 1
        watch.close()

    asyncio.run(main())


def test_a_breaker_that_opens_is_news_without_a_request() -> None:
    async def main() -> None:
        ledger = Ledger()
        watch = ledger.watch()
        page = await opened(watch)
        ledger.breaker = "open"
        assert await told(page) == 0
        watch.close()

    asyncio.run(main())


def test_nobody_looks_while_nobody_watches() -> None:
    async def main() -> None:
        ledger = Ledger()
        watch = ledger.watch()
        assert (watch.viewers, ledger.looks) == (0, 0)
        page = await opened(watch)
        assert watch.viewers == 1
        await page.aclose()  # type: ignore[attr-defined]
        assert watch.viewers == 0
        await asyncio.sleep(5 * EVERY_S)
        looks = ledger.looks
        await asyncio.sleep(5 * EVERY_S)
        assert ledger.looks == looks
        page = await opened(watch)
        ledger.add(1)
        assert await told(page) == 1
        watch.close()

    asyncio.run(main())


def test_the_end_of_the_server_ends_every_stream() -> None:
    async def main() -> None:
        ledger = Ledger()
        watch = ledger.watch()
        pages = [await opened(watch) for _ in range(2)]
        watch.close()
        for page in pages:
            rest = [event async for event in page]
            assert len(rest) <= 1
        assert [event async for event in watch.events()] == [b"retry: 2000\n\n"]

    asyncio.run(main())


def test_a_ledger_that_is_away_for_a_while_costs_no_watcher() -> None:
    async def main() -> None:
        ledger = Ledger()
        watch = ledger.watch()
        page = await opened(watch)
        ledger.away = True
        ledger.add(1)
        await looked(ledger)
        ledger.away = False
        assert await told(page) == 1
        watch.close()

    asyncio.run(main())


@given(st.lists(st.integers(1, 60), unique=True), st.data())
def test_lines_that_become_visible_out_of_order_are_each_counted_once(numbers: list[int], data: st.DataObject) -> None:
    """Another process's transaction may end after one that began later."""
    assert REORDERED >= 60
    seen, visible, counted = Seen(0), set[int](), 0
    seen.new(())
    left = list(numbers)
    while left:
        size = data.draw(st.integers(1, len(left)))
        visible |= set(left[:size])
        left = left[size:]
        counted += seen.new(tuple(sorted(each for each in visible if each > seen.after)))
    assert counted == len(numbers)


def test_numbers_far_back_are_not_looked_at_again() -> None:
    seen = Seen(10_000)
    assert seen.after == 10_000 - REORDERED
    assert seen.new(tuple(range(9_900, 10_001))) == 0
    assert seen.new(tuple(range(9_900, 10_004))) == 3
    assert seen.after == 10_003 - REORDERED

"""Stores: the same promises by the disk of a host and by a real Valkey."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.store import DiskStore, Store, Tiers
from trimtab.sharing.redis_server import RedisServer
from trimtab.sharing.redis_store import RedisStore

Another = Callable[[], Store]


@pytest.fixture(params=["disk", "redis", "tiers"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Another]:
    """Opens the same store once more, as another process would."""
    area, opened = uuid.uuid4().hex, list[Store]()

    def make() -> Store:
        if request.param == "disk":
            store: Store = DiskStore(tmp_path / "store", 2**30)
        else:
            store = RedisStore(RedisServer(request.getfixturevalue("valkey_url")), area)
            if request.param == "tiers":
                store = Tiers(DiskStore(tmp_path / f"near{len(opened)}", 2**30), store)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


def test_what_is_set_is_found_by_everybody(another: Another) -> None:
    store = another()
    entries = {f"{n}".encode(): bytes([n % 256]) * n for n in range(600)} | {b"\xff\0": b"", b"long": b"x" * 300_000}
    store.set(entries)
    assert store.get([*entries, b"none"]) == entries
    assert another().get([*entries, b"none"]) == entries
    store.set({b"1": b"other"})
    assert store.get([b"1"]) == {b"1": b"other"}
    assert store.get([]) == {}


def test_what_is_deleted_is_gone(another: Another) -> None:
    store = another()
    store.set({b"a": b"1", b"b": b"2"})
    store.delete([b"a", b"none"])
    store.delete([])
    assert store.get([b"a", b"b"]) == {b"b": b"2"}


def test_nothing_outlives_its_time(another: Another) -> None:
    store = another()
    store.set({b"brief": b"1"}, 0.2)
    store.set({b"long": b"1"}, 60)
    assert store.get([b"brief", b"long"]) == {b"brief": b"1", b"long": b"1"}
    time.sleep(0.3)
    assert store.get([b"brief", b"long"]) == {b"long": b"1"}
    assert store.add(b"brief", b"2", 60)


def test_of_many_who_add_one_succeeds(another: Another) -> None:
    stores = [another() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda store: store.add(b"lease", b"1", 60), stores))
    assert sum(won) == 1
    stores[0].delete([b"lease"])
    assert stores[1].add(b"lease", b"2", 60)


def test_a_damaged_value_in_redis_is_a_miss(valkey_url: str) -> None:
    server, area = RedisServer(valkey_url), uuid.uuid4().hex
    store = RedisStore(server, area)
    for damage in (b"", b"abc", b"\0\0\0\0other", b"no checksum at all"):
        store.set({b"a": b"value"})
        server.ask(lambda client, damage=damage: client.set(f"trimtab:{area}:61", damage))  # type: ignore[misc]
        assert store.get([b"a"]) == {}
    server.ask(lambda client: client.rpush(f"trimtab:{area}:62", "a list"))
    assert store.get([b"b"]) == {}
    store.close()


def test_everything_in_redis_has_a_lifetime(valkey_url: str) -> None:
    server, area = RedisServer(valkey_url), uuid.uuid4().hex
    store = RedisStore(server, area)
    store.set({b"a": b"value"})
    assert 0 < server.ask(lambda client: int(client.ttl(f"trimtab:{area}:61"))) <= 7 * 86_400  # type: ignore[arg-type]
    store.close()


def test_a_redis_that_is_not_there_costs_one_wait_and_no_answer() -> None:
    store = RedisStore(RedisServer("redis://127.0.0.1:9"), "nothing")
    began = time.perf_counter()
    for _ in range(200):
        assert store.get([b"a"]) == {}
        store.set({b"a": b"1"})
        store.delete([b"a"])
        assert store.add(b"a", b"1", 1)
    assert time.perf_counter() - began < 2.0  # 800 calls; a half second for each would be minutes
    store.close()


def test_what_the_far_tier_has_is_fetched_once(tmp_path: Path) -> None:
    near, far = DiskStore(tmp_path / "near", 2**30), DiskStore(tmp_path / "far", 2**30)
    far.set({b"a": b"1"})
    tiers = Tiers(near, far)
    assert tiers.get([b"a", b"b"]) == {b"a": b"1"}
    far.delete([b"a"])
    assert tiers.get([b"a"]) == {b"a": b"1"}
    tiers.close()

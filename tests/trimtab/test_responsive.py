"""A large payload is ranked beside the server and not in it: in processes that may die, and that end with the server."""

from __future__ import annotations

import os
import pickle
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from compressor import Ranker, Source
from retrieval import Passage
from retrieval.encoder import Vectors
from tests.loopback import LoopbackProvider
from tests.trimtab.asking import QUESTION, chat, provider, serving_of
from trimtab import Trimtab
from trimtab.ranking_pool import RankingPool, process_count, ranking_pool
from trimtab.settings import Settings

SOURCES = [
    Source(str(n), f"Bucket {n} holds {n} TB. It is in region {n % 7}. Uploads of {n} GB are too large.")
    for n in range(40)
]


class HashEncoder:
    """Vectors that hang on the text alone, at no cost: what is tested is where they are asked for."""

    identity = "hash"

    def encode(self, passages: list[Passage]) -> list[Vectors]:
        return [self._one(passage) for passage in passages]

    def _one(self, passage: Passage) -> Vectors:
        rows = [np.random.default_rng(len(passage.text) + 7 * s + e).standard_normal(16) for s, e in passage.spans]
        vectors = np.array(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def hashing() -> Ranker:
    return Ranker(HashEncoder())


def broken() -> Ranker:
    raise OSError("no encoder here")


@pytest.fixture
def pool() -> RankingPool:
    return RankingPool(hashing(), hashing, 1, large_characters=1_000, rest_s=0.0)


def test_a_pool_ranks_as_its_ranker_does_also_when_its_processes_are_killed(pool: RankingPool) -> None:
    try:
        wanted = hashing().rank(QUESTION, SOURCES)
        _ready(pool)
        (process,) = pool.processes
        made = pool.rank(QUESTION, SOURCES)
        assert "_curve" in vars(made)  # worked out there
        assert np.array_equal(made.scores, wanted.scores)
        assert made.cut(200) == wanted.cut(200)
        assert list(made.steps()) == list(wanted.steps())

        os.kill(process, signal.SIGKILL)
        made = pool.rank(QUESTION, SOURCES)
        assert np.array_equal(made.scores, wanted.scores)

        _ready(pool)
        assert pool.processes != (process,)
        assert "_curve" in vars(pool.rank(QUESTION, SOURCES))
    finally:
        pool.close()
    assert not pool.processes
    assert np.array_equal(pool.rank(QUESTION, SOURCES).scores, wanted.scores)


def test_what_is_small_starts_no_process(pool: RankingPool) -> None:
    pool.rank(QUESTION, SOURCES[:3])
    assert not pool.processes
    pool.close()


def test_processes_that_cannot_begin_cost_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    pool = RankingPool(hashing(), broken, 1, large_characters=1_000, rest_s=60.0)
    try:
        until = time.monotonic() + 60
        while "is gone" not in caplog.text:
            assert pool.rank(QUESTION, SOURCES).full_tokens > 0
            assert time.monotonic() < until
            time.sleep(0.05)
        pool.rank(QUESTION, SOURCES)
        assert not pool.processes  # it rests
    finally:
        pool.close()


def test_what_the_settings_say_travels_to_the_processes(tmp_path: Path) -> None:
    prices = {"input_mtok": "1", "output_mtok": "2"}
    table = {"name": "p", "kind": "openai", "base_url": "http://127.0.0.1:1/v1", "models": ["m"], "prices": prices}
    settings = Settings.of({"providers": [table], "cache_dir": str(tmp_path), "auto": {"candidates": ["m"]}})
    with ranking_pool(hashing(), settings) as pool:
        begin = pool._begin
        assert isinstance(begin, partial)
        assert pickle.loads(pickle.dumps(begin)).args[0].cache_dir == tmp_path
    assert process_count(replace(settings, ranking_processes=3)) == 3
    assert process_count(settings) >= 1


def test_a_server_ranks_a_large_payload_in_a_process_and_ends_it(tmp_path: Path) -> None:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("p", server)], cache_dir=tmp_path, ranking_processes=1)
        body = chat(trimtab={"contexts": [{"text": each.text * 8} for each in SOURCES], "ratio": 0.3})
        with serving_of(trimtab) as client:
            first = client.post("/v1/chat/completions", json=body)
            pool = trimtab.ranks
            assert isinstance(pool, RankingPool)
            _until_ready(pool)
            (process,) = pool.processes
            asked = trimtab.encoder.asked_passages
            second = client.post("/v1/chat/completions", json=body)
            assert trimtab.encoder.asked_passages > asked  # told by the process
        assert not _alive(process)
        kept = [each.json()["trimtab"]["tokens_after"] for each in (first, second)]
        assert kept[0] == kept[1] > 0
        assert server.requests[0].body == server.requests[1].body


def _ready(pool: RankingPool) -> None:
    pool.rank(QUESTION, SOURCES)
    _until_ready(pool)


def _until_ready(pool: RankingPool) -> None:
    until = time.monotonic() + 60
    while not pool.ready:
        assert time.monotonic() < until
        time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True

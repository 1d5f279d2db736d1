"""The lane is killed at any instant, again and again, and every line has one result that is billed once.

TRIMTAB_KILL_LINES=5000 TRIMTAB_KILLS=10 is the long version.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from routing.catalog import Catalog, Provider
from routing.offers import Usage, price
from tests.loopback import ok
from tests.loopback_batches import Batch, BatchProvider, Billed
from trimtab.caller import Caller
from trimtab.database import Database
from trimtab.deferred.jobs import COMPLETED, Jobs, NewJob, in_chunks

LINES = int(os.environ.get("TRIMTAB_KILL_LINES", "240"))
KILLS = int(os.environ.get("TRIMTAB_KILLS", "3"))
MODEL = "claude-haiku-5-5"
SEED = 7
PACE_S = 2.5 + LINES / 500
"""A process lives for up to so long."""
CALLER = Caller("tenant")


def body(number: int) -> bytes:
    text = "word " * (1 + number % 7) + str(number)
    return orjson.dumps({"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": text}]})


def accept(jobs: Jobs) -> None:
    now = time.time()
    new = (
        NewJob(CALLER, "/v1/messages", body(number), now + 1_200, batch_id="b", line=number, custom_id=f"line-{number}")
        for number in range(LINES)
    )
    for chunk in in_chunks(new):
        jobs.accept(chunk, now)


SERVE = f"""
from trimtab.cli import main
from trimtab.deferred import shipping

shipping.MOST_LINES, shipping.WORTH_LINES = {max(25, LINES // 10)}, 10  # many shipments, each at another point of its way
main()
"""


@contextmanager
def served(config: Path, log: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`trimtab serve`, from when its lane works until it is killed."""
    began = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-c", SERVE, "serve", "--config", str(config), "--port", "0"]
    with log.open("ab") as told, subprocess.Popen(command, stdout=told, stderr=told, env=environ) as process:
        try:
            while b"startup complete" not in log.read_bytes()[began:] and process.poll() is None:
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def cost_usd(billed: Billed, offers: dict[str, Any]) -> Decimal:
    return price(offers[billed.processing], Usage(billed.input_tokens, billed.output_tokens, billed.cached_tokens))


def test_every_line_has_one_result_that_is_billed_once(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    script = [Batch(delay_s=chance.uniform(0.0, 5.0 + LINES / 125), reversed=chance.random() < 0.5) for _ in range(200)]
    with BatchProvider("anthropic", script, script=[ok() for _ in range(10)]) as provider:
        config = tmp_path / "trimtab.toml"
        config.write_text(
            f'data_dir = "{tmp_path}"\ncache_dir = "{tmp_path / "cache"}"\ndeferred_lease_s = 1.0\n'
            f'[[providers]]\nname = "anthropic"\nkind = "anthropic"\nbase_url = "{provider.base_url}"\nbatches = true\n'
            f'models = ["{MODEL}"]\napi_key_env = "TRIMTAB_TEST_KEY"\n'
        )
        database = Database(f"sqlite:///{tmp_path / 'trimtab.sqlite'}")
        jobs = Jobs(database)
        jobs.create()
        accept(jobs)
        environ = {**os.environ, "TRIMTAB_TEST_KEY": "sk-any", "OMP_WAIT_POLICY": "PASSIVE"}
        log = tmp_path / "log"
        seen: list[int] = []
        for _ in range(KILLS):
            with served(config, log, environ):
                time.sleep(chance.uniform(0.0, PACE_S))
            seen.append(jobs.counts("b").open)
        with served(config, log, environ) as process:
            until = time.monotonic() + 60 + LINES / 20
            while jobs.counts("b").open and time.monotonic() < until and process.poll() is None:
                time.sleep(0.2)
        sys.stdout.write(f"open after each kill: {seen}; batches at the provider: {len(provider.held)}\n")
        check(jobs, provider, log)
        database.close()


def check(jobs: Jobs, provider: BatchProvider, log: Path) -> None:
    told = log.read_text()[-3000:]
    assert jobs.counts("b").completed == LINES, told
    receipts_usd = Decimal(0)
    for number, (job, content) in enumerate(jobs.of_batch("b")):
        assert (job.line, job.state, job.status) == (number, COMPLETED, 200)
        assert content is not None
        assert job.receipt is not None
        said = orjson.loads(content)["content"][0]["text"]
        if job.lane == "batch":
            assert said == orjson.loads(body(number))["messages"][0]["content"]
        receipts_usd += Decimal(orjson.loads(job.receipt)["billed_cost_usd"])
    seller = Provider("anthropic", "anthropic", provider.base_url, None, (MODEL,))
    offers = {each.processing: each for each in Catalog([seller]).offers([MODEL], datetime.now(UTC), ("sync", "batch"))}
    assert sum(cost_usd(each, offers) for each in provider.bill) == receipts_usd
    lines = Counter(each.custom_id for each in provider.bill if each.custom_id is not None)
    assert [name for name, times in lines.items() if times > 1] == []

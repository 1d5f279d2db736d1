"""The server is killed at any instant, again and again, and every line of a batch has one result that is billed once.

TRIMTAB_KILL_LINES=5000 TRIMTAB_KILLS=10 is the long version.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson

from routing.catalog import Catalog, Provider
from routing.offers import Usage, price
from tests.loopback_batches import Batch, BatchProvider, Billed

LINES = int(os.environ.get("TRIMTAB_KILL_LINES", "240"))
KILLS = int(os.environ.get("TRIMTAB_KILLS", "4"))
MODEL = "claude-haiku-5-5"
SEED = 7
PACE_S = 2.0 + LINES / 600
"""A process lives for up to so long after its start."""
HELD_BACK = 5
"""Each such batch of the provider's is not done before the last kill, so that every kill meets open lines."""

SERVE = f"""
from trimtab.cli import main
from trimtab.deferred import shipping

shipping.MOST_LINES, shipping.WORTH_LINES = {max(20, LINES // 12)}, 10  # many shipments, each at another point of its way
shipping.GATHER_S, shipping.POLL_S = (0.1, 0.2), (0.1, 0.5)
main()
"""


def line(number: int) -> bytes:
    text = "word " * (1 + number % 7) + str(number)
    asked = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
    return orjson.dumps({"custom_id": f"line-{number}", "method": "POST", "url": "/v1/messages", "body": asked})


@dataclass
class Server:
    """`trimtab serve`, which is started and killed."""

    folder: Path
    config: Path
    environ: Mapping[str, str]

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @contextmanager
    def running(self) -> Iterator[httpx.Client]:
        """From when it serves until it is killed."""
        began = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-c", SERVE, "serve", "--config", str(self.config), "--port", "0"]
        with self.log.open("ab") as told, subprocess.Popen(command, stdout=told, stderr=told, env=self.environ) as own:
            try:
                until = time.monotonic() + 60
                while not (at := re.search(rb"running on (http://[\d.:]+)", self.log.read_bytes()[began:])):
                    assert own.poll() is None, self.log.read_text()[-3000:]
                    assert time.monotonic() < until
                    time.sleep(0.02)
                with httpx.Client(base_url=at[1].decode(), timeout=30, trust_env=False) as client:
                    yield client
            finally:
                own.kill()


def test_every_line_has_one_result_that_is_billed_once(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    batches = [
        Batch(
            delay_s=600.0 if n % HELD_BACK == 2 else chance.uniform(0.0, KILLS * PACE_S), reversed=chance.random() < 0.5
        )
        for n in range(200)
    ]
    with BatchProvider("anthropic", batches) as provider:
        config = tmp_path / "trimtab.toml"
        config.write_text(
            f'data_dir = "{tmp_path}"\ncache_dir = "{tmp_path / "cache"}"\ndeferred_lease_s = 1.0\n'
            f'[[providers]]\nname = "anthropic"\nkind = "anthropic"\nbase_url = "{provider.base_url}"\nbatches = true\n'
            f'models = ["{MODEL}"]\napi_key_env = "TRIMTAB_TEST_KEY"\n'
        )
        environ = {**os.environ, "TRIMTAB_TEST_KEY": "sk-any", "OMP_WAIT_POLICY": "PASSIVE"}
        server = Server(tmp_path, config, environ)
        with server.running() as client:
            ordered = order(client)
            time.sleep(chance.uniform(0.0, 0.3))  # the first kill is while its lines are read
        open_then = [LINES]
        while len(open_then) < KILLS:
            with server.running() as client:
                batch = {}
                until = time.monotonic() + chance.uniform(0.0, PACE_S)
                while time.monotonic() < until or not batch:
                    batch = client.get(f"/v1/batches/{ordered['id']}").json()
                    time.sleep(0.05)
            assert batch["status"] in ("validating", "in_progress"), batch
            counts = batch["request_counts"]
            open_then.append(LINES - counts["completed"] - counts["failed"])
        release(provider)
        with server.running() as client:
            finish(client, ordered["id"], server.log, lambda batch: check(client, batch, provider))
        sys.stdout.write(f"open at each kill: {open_then}; batches at the provider: {len(provider.held)}\n")


def order(client: httpx.Client) -> dict[str, Any]:
    """A batch, ordered as one orders who does not know whether he was heard."""
    content = b"\n".join(line(number) for number in range(LINES))
    uploaded = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}).json()
    asked = {"input_file_id": uploaded["id"], "endpoint": "/v1/messages", "completion_window": "24h"}
    asked |= {"trimtab": {"deadline": "20m"}}
    made = [client.post("/v1/batches", json=asked, headers={"idempotency-key": "k"}).json() for _ in range(2)]
    assert made[0]["id"] == made[1]["id"], made
    return dict(made[0])


def release(provider: BatchProvider) -> None:
    """Whatever is held back is done by now."""
    for held in provider.held.values():
        held.script = replace(held.script, delay_s=min(held.script.delay_s, 1.0))
    provider.quicken()


def finish(client: httpx.Client, batch_id: str, log: Path, then: Callable[[Mapping[str, Any]], None]) -> None:
    until = time.monotonic() + 60 + LINES / 20
    while time.monotonic() < until:
        batch = client.get(f"/v1/batches/{batch_id}").json()
        if batch["status"] not in ("validating", "in_progress", "finalizing"):
            return then(batch)
        time.sleep(0.1)
    raise AssertionError((batch, log.read_text()[-3000:]))


def cost_usd(billed: Billed, offers: dict[str, Any]) -> Decimal:
    return price(offers[billed.processing], Usage(billed.input_tokens, billed.output_tokens, billed.cached_tokens))


def check(client: httpx.Client, batch: Mapping[str, Any], provider: BatchProvider) -> None:
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert batch["error_file_id"] is None
    lines = [orjson.loads(each) for each in client.get(f"/v1/files/{batch['output_file_id']}/content").iter_lines()]
    assert [each["custom_id"] for each in lines] == [f"line-{number}" for number in range(LINES)]
    receipts_usd = Decimal(0)
    for number, each in enumerate(lines):
        assert each["response"]["status_code"] == 200
        answer = each["response"]["body"]
        if answer["trimtab"]["processing"] == "batch":
            assert answer["content"][0]["text"] == orjson.loads(line(number))["body"]["messages"][0]["content"]
        receipts_usd += Decimal(answer["trimtab"]["billed_cost_usd"])
    seller = Provider("anthropic", "anthropic", provider.base_url, None, (MODEL,))
    offers = {each.processing: each for each in Catalog([seller]).offers([MODEL], datetime.now(UTC), ("sync", "batch"))}
    assert (
        sum(cost_usd(each, offers) for each in provider.bill) == receipts_usd == Decimal(batch["trimtab"]["billed_usd"])
    )
    billed = Counter(each.custom_id for each in provider.bill if each.custom_id is not None)
    assert [name for name, times in billed.items() if times > 1] == []
    assert len(provider.bill) == LINES

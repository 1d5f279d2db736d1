"""Every snippet of `examples/` runs as it stands, against a trimtab before a loopback provider."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.loopback import LoopbackProvider, ok
from tests.trimtab.asking import provider, serving

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAYLOAD = json.loads((ROOT / "examples" / "payload.json").read_text(encoding="utf-8"))
SAYS = {
    "openai_client.py": ("Fourteen days.", "tokens of context, by a", "billed $0.00"),
    "openai_streaming.py": ("Fourteen days.", " tokens, $0.00"),
    "python_compress.py": ("recovery window", "dropped"),
    "plain_httpx.py": ("chosen", "Fourteen days.", "x-trimtab-receipt-id"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[LoopbackProvider, httpx.Client]]:
    with LoopbackProvider() as fake, serving(provider("a", fake, PAYLOAD["model"])) as client:
        yield fake, client


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_runs(server: tuple[LoopbackProvider, httpx.Client], example: Path) -> None:
    fake, client = server
    fake.then(ok("Fourteen days."))
    environ = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "TRIMTAB_URL": f"{str(client.base_url).rstrip('/')}/v1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    ran = subprocess.run(
        [sys.executable, str(example)], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    for words in SAYS[example.name]:
        assert words in ran.stdout
    fake._script.clear()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 40


def test_the_payload_is_a_real_one() -> None:
    assert len(PAYLOAD["trimtab"]["contexts"]) >= 20
    assert all(each["id"] and each["title"] and each["text"] for each in PAYLOAD["trimtab"]["contexts"])

"""`trimtab serve --workers 2`: one address, several processes, one knowledge."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.loopback import LoopbackProvider, status
from tests.trimtab.asking import chat, provider


def eventually(found: Callable[[], object], within_s: float = 60.0) -> None:
    ends_s = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < ends_s
        time.sleep(0.1)


def listening(parent: int) -> set[int]:
    """The workers of the process `parent`."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = file.read_text().rpartition(") ")
            command = (file.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(rest.split()[1]) == parent and b"spawn_main" in command:
            found.add(int(file.parent.name))
    return found


def test_workers_share_what_they_learn_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with LoopbackProvider() as server:
        one = provider("p", server)
        config = tmp_path / "trimtab.toml"
        config.write_text(
            f'cache_dir = "{tmp_path}/cache"\ndata_dir = "{tmp_path}/data"\nmax_attempts = 1\n[[providers]]\nname = "p"\n'
            f'kind = "openai"\nbase_url = "{one["base_url"]}"\nmodels = ["m"]\nprices = {{input_mtok = 2, output_mtok = 10}}\n'
        )
        command = [sys.executable, "-c", "from trimtab.cli import main; main()", "serve", "--workers", "2"]
        with subprocess.Popen([*command, "-c", str(config), "--port", str(port)], stderr=subprocess.PIPE) as served:
            try:
                assert_served(f"http://127.0.0.1:{port}", served.pid, server)
            finally:
                served.send_signal(signal.SIGTERM)
                _, told = served.communicate(timeout=60)
    assert served.returncode == 0, told.decode()
    assert b"Traceback" not in told


def assert_served(url: str, parent: int, server: LoopbackProvider) -> None:
    def get(path: str) -> httpx.Response | None:
        try:
            return httpx.get(url + path, trust_env=False)  # a connection of its own: any worker may take it
        except httpx.TransportError:
            return None

    def ready() -> bool:
        got = get("/readyz")
        return got is not None and got.status_code == 200

    def post() -> int:
        return httpx.post(f"{url}/v1/chat/completions", json=chat(), trust_env=False, timeout=30).status_code

    eventually(lambda: ready() and ready() and len(listening(parent)) == 2)
    assert [post() for _ in range(4)] == [200] * 4
    before = listening(parent)
    os.kill(min(before), signal.SIGKILL)
    eventually(lambda: len(listening(parent) - before) == 1)
    eventually(ready)
    server.then(*[status(503)] * 5)
    assert all(post() >= 500 for _ in range(5))
    opened = b'trimtab_breaker_state{model="m",processing="sync",provider="p"} 2.0'

    def known_to_all() -> bool:
        told = [get("/metrics") for _ in range(8)]
        return all(each is not None and opened in each.content for each in told)

    eventually(known_to_all)

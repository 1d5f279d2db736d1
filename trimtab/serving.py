"""Serving: trimtab's HTTP app under uvicorn, until a signal comes or in a thread of this process."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from trimtab.app import create_app
from trimtab.pipeline import Trimtab


class Server(uvicorn.Server):
    """Tells the app that it is about to stop before it waits for answers under way, of which some end only when told."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.leave()  # type: ignore[union-attr] # what create_app made
        await super().shutdown(sockets)


def run(app: FastAPI, **options: Any) -> None:
    """Serve what `create_app` made until a signal comes. `options` are uvicorn's. Raises SystemExit where it cannot start."""
    server = Server(uvicorn.Config(app, **options))
    # What is loaded by now stays: looking for garbage in its 170,000 objects stopped every request for 90 ms now and then.
    gc.collect()
    gc.freeze()
    with suppress(KeyboardInterrupt):  # uvicorn has ended in good order, and raises it again
        server.run()
    if not server.started:
        raise SystemExit(3)  # uvicorn's own status for it, said in its log


def run_workers(make: Callable[[], FastAPI], workers: int, **options: Any) -> None:
    """Serve from several processes, over one socket, until a signal comes. `make` is called in each, and must be picklable.

    A process that dies is started anew; one that cannot start ends all. uvicorn's own supervisor does it.
    """
    # Not the five seconds of uvicorn: a process that loads an encoder holds the interpreter's lock for some of them.
    options = {**options, "workers": workers, "timeout_worker_healthcheck": 60}
    config = uvicorn.Config(partial(_in_worker, make), factory=True, **options)
    with config.bind_socket() as listener:
        Multiprocess(config, [listener]).run()


def _in_worker(make: Callable[[], FastAPI]) -> FastAPI:
    app = make()
    # As uvicorn has set it, before `make` set up the logs: the access log is ours.
    logging.getLogger("uvicorn.access").propagate = False
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # The supervisor makes its own servers, which know nothing of `leave`: it is called when they are told to stop.
        stop = signal.getsignal(number)

        def leave_and_stop(received: int, frame: FrameType | None, stop: Any = stop) -> None:
            loop.call_soon_threadsafe(app.state.leave)
            if callable(stop):
                stop(received, frame)

        signal.signal(number, leave_and_stop)
    return app


@contextmanager
def served(trimtab: Trimtab) -> Iterator[str]:
    """The app on a free loopback port, by its root URL. Raises RuntimeError if it does not start."""
    # IPPROTO_TCP is stated because asyncio switches Nagle's algorithm off only where it is: 40 ms an answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(uvicorn.Config(create_app(trimtab), log_level="warning"))
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

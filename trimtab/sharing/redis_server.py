"""A Redis that several workers and hosts share: short waits, and a circuit of its own, so that a dead one costs a request
nothing. Any server of that protocol will do (Valkey); only what Redis 5 knows is asked of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from trimtab.errors import BadSettings
from trimtab.sharing.log import Unreachable

WAIT_S: Final = 0.5
"""For a connection, and for an answer."""
REST_S: Final = 1.0
"""After trouble nothing is asked for so long; then one call at a time tries again."""

_Answer = TypeVar("_Answer")


class RedisServer:
    """One for a process; safe to share between threads. Blocking. Connects at the first use. Raises BadSettings for a URL
    that is none, without a word of it: it may hold a password.

    `wait_s` must exceed what a blocking command waits.
    """

    def __init__(self, url: str, wait_s: float = WAIT_S, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._client = redis.Redis.from_url(
                url,
                protocol=2,  # 3 begins with a command that Redis 5 does not have
                socket_timeout=wait_s,
                socket_connect_timeout=wait_s,
                # once more for a connection that lay idle while the server was started anew; not for one that is slow
                retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            )
        except ValueError:
            raise BadSettings(
                "redis_url: must be written like redis://host:6379/0 or rediss://:password@host"
            ) from None
        self._clock = clock
        self._lock = threading.Lock()
        self._rests_until_s = float("-inf")
        self._troubled = False

    def ask(self, command: Callable[[redis.Redis], _Answer]) -> _Answer:
        """What `command` gives. Raises Unreachable, at once while the circuit is open."""
        with self._lock:
            now_s = self._clock()
            if now_s < self._rests_until_s:
                raise Unreachable("Redis was out of reach a moment ago")
            if self._troubled:
                self._rests_until_s = now_s + REST_S  # this one finds out, and the others do not wait for it
        try:
            answer = command(self._client)
        except (redis.RedisError, OSError) as error:
            with self._lock:
                self._troubled, self._rests_until_s = True, self._clock() + REST_S
            raise Unreachable(f"Redis: {type(error).__name__}") from None
        if self._troubled:
            with self._lock:
                self._troubled, self._rests_until_s = False, float("-inf")
        return answer

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

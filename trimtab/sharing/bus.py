"""The bus: each worker tells the others what it has learned, and hears what they have.

Events are told, not state: every worker applies the same pure functions to them. What a worker tells is numbered, so that
it may be told twice and is heard once. A worker that is cut off goes on by its own knowledge; when it is back it tells again
what it told lately (the server may have lost it) and hears what it missed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from trimtab.sharing.log import KEPT_S, Log, Unreachable

logger = logging.getLogger("trimtab")

Event = Mapping[str, Any]
Hear = Callable[[Event, float], None]
"""Is told of an event of another worker, and how many seconds ago it was."""

MOST_REMEMBERED: Final = 10_000
"""Events of our own, to be told again, and those that could not be told yet; beyond, the oldest go."""
WAIT_S: Final = 0.5

_LINGER_S: Final = 0.05  # for more to tell in one message
_AT_ONCE: Final = 200
_CATCH_UP_S: Final = 5.0
_MOST_ORIGINS: Final = 1_000


class Bus:
    """One for a process, called `origin`. `publish` never blocks; `hear` is called in a thread of the bus, after `start`.

    Ages are told by the clock on the wall, since no other is shared: hosts must agree on the time within a second or so.
    An event is never older than the log keeps it nor younger than now, whatever a clock says.
    """

    def __init__(self, log: Log, origin: str, hear: Hear, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._origin = origin
        self._hear = hear
        self._clock = clock
        self._changed = threading.Condition()
        self._recent: deque[dict[str, Any]] = deque(maxlen=MOST_REMEMBERED)
        self._last = 0  # the number of the last event of ours
        self._told = 0  # the number of the last that was told
        self._heard: OrderedDict[str, int] = OrderedDict()
        self._position = ""
        self._stopping = threading.Event()
        self._cut_off = False
        self._threads = tuple(
            threading.Thread(target=work, name=f"trimtab bus: {name}", daemon=True)
            for name, work in (("tell", self._tell), ("listen", self._listen))
        )

    def start(self) -> None:
        """Hear what the others told lately, as far as that takes no more than some seconds, and go on hearing."""
        ends_s = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < ends_s and self._read(0.0):
            pass
        for thread in self._threads:
            thread.start()

    def publish(self, event: Event) -> None:
        """Tell the others. JSON values only, and nothing of a prompt."""
        with self._changed:
            self._last += 1
            self._recent.append({**event, "at": self._clock()})
            self._changed.notify()

    def close(self) -> None:
        """Tell what is left, where that takes no longer than a moment."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=4 * WAIT_S)
        self._log.close()

    def _tell(self) -> None:
        while True:
            with self._changed:
                while self._told >= self._last and not self._stopping.is_set():
                    self._changed.wait()
                if self._told >= self._last:
                    return
            self._stopping.wait(_LINGER_S)
            with self._changed:
                told, dropped = self._told, self._last - len(self._recent)
                first = max(told, dropped) + 1
                events = list(islice(self._recent, first - dropped - 1, first - dropped - 1 + _AT_ONCE))
            try:
                self._log.append(orjson.dumps({"from": self._origin, "first": first, "events": events}))
            except Unreachable as error:
                self._note_trouble(error)
                if self._stopping.wait(WAIT_S):
                    return
                continue
            with self._changed:
                if self._told == told:  # else the other thread has found that all has to be told again
                    self._told = first + len(events) - 1
            self._note_success()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            if not self._read(WAIT_S) and self._cut_off:
                self._stopping.wait(WAIT_S)

    def _read(self, wait_s: float) -> bool:
        """Hear what there is. Whether there was something."""
        try:
            messages, self._position = self._log.read(self._position, wait_s)
        except Unreachable as error:
            self._note_trouble(error)
            return False
        self._note_success()
        for message in messages:
            self._take(message)
        return bool(messages)

    def _take(self, message: bytes) -> None:
        try:
            told = orjson.loads(message)
            origin, first, events = str(told["from"]), int(told["first"]), list(told["events"])
        except (ValueError, KeyError, TypeError):
            logger.warning("a message of another worker cannot be read; is it of another version?")
            return
        if origin == self._origin:
            return
        heard = self._heard.pop(origin, 0)
        self._heard[origin] = max(heard, first + len(events) - 1)
        if len(self._heard) > _MOST_ORIGINS:
            self._heard.popitem(last=False)
        for event in events[max(0, heard + 1 - first) :]:
            try:
                self._hear(event, min(max(0.0, self._clock() - float(event["at"])), KEPT_S))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning("an event of another worker cannot be understood (%s)", type(error).__name__)

    def _note_trouble(self, error: Unreachable) -> None:
        if not self._cut_off:
            self._cut_off = True
            logger.warning("cut off from the other workers (%s); serving goes on by what is known here", error)

    def _note_success(self) -> None:
        if self._cut_off:
            self._cut_off = False
            logger.info("the other workers are in reach again")
            with self._changed:
                self._told = self._last - len(self._recent)
                self._changed.notify()

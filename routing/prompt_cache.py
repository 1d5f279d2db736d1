"""Prompt caches: which prefix of a request a provider has read lately, and how often prefixes come back.

Providers bill a prefix that they have read before at a fraction of its price, for some minutes. A request is known here
as a chain of links, one for each message: a digest of everything up to its end, and the tokens up to there. No text.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from routing.costs import NOTHING_CARRIED, Carried
from routing.standing import Called

MAX_LINKS: Final = 200_000
"""Held in all, the oldest dropped first: about 40 MB."""

_HALF_LIFE_S: Final = 300.0
"""Of a sighting: about the life of a prompt cache."""

_MOST_TIMES: Final = 20.0
"""A prefix that came a thousand times in five minutes is not expected a thousand times more: rates fall."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How a provider caches prefixes of a model.

    `minimum_tokens` is the shortest that it keeps (0: it has no cache), `lifetime_s` how long after the latest use, and
    `marked` says that it keeps only what `cache_control` marks, and bills the writing.
    """

    minimum_tokens: int = 0
    lifetime_s: float = 300.0
    marked: bool = False


# Each maker's own documentation, October 2026. A model that no row knows gets its maker's last row, the most cautious.
_RULES: Final = (
    # platform.claude.com, "Prompt caching": the minimum rises with the generation, and an older one has less.
    (
        "anthropic",
        r"claude-(opus-4-[01]|opus-4(-2|$)|sonnet-[34]|3-[57]-sonnet|3-opus)",
        CacheRules(1_024, marked=True),
    ),
    ("anthropic", r"claude-3(-5)?-haiku", CacheRules(2_048, marked=True)),
    ("anthropic", r"", CacheRules(4_096, marked=True)),
    # ai.google.dev, "Context caching": implicit caching.
    ("gemini", r"gemini-2\.5", CacheRules(2_048)),
    ("gemini", r"", CacheRules(4_096)),
    # api-docs.deepseek.com, "Context Caching": on disk, in units of 64 tokens, for hours.
    ("openai", r"deepseek", CacheRules(64, lifetime_s=3_600.0)),
    # platform.openai.com, "Prompt caching": from 1,024 tokens, five to ten minutes of rest.
    ("openai", r"", CacheRules(1_024)),
)


def rules_of(kind: str, model: str) -> CacheRules:
    """How a provider of that wire caches prefixes of that model.

    >>> rules_of("anthropic", "claude-haiku-5-5").minimum_tokens, rules_of("openai", "deepseek-chat").minimum_tokens
    (4096, 64)
    """
    rows = (rules for of, pattern, rules in _RULES if of == kind and re.search(pattern, model))
    return next(rows, CacheRules())


class Link(NamedTuple):
    """A request up to the end of one message: the digest of all of it, and its tokens."""

    digest: bytes
    tokens: int


class Expected(NamedTuple):
    """What later requests repeat of one, and the number of the link that it ends with."""

    carried: Carried
    link: int


class PromptCaches:
    """What was sent where, and when; what came, and what came after it. Safe to share between threads.

    `now_s` is any clock that does not go back.
    """

    def __init__(self, max_links: int = MAX_LINKS) -> None:
        self._max_links = max_links
        self._lock = threading.Lock()
        self._sent: OrderedDict[tuple[Called, bytes], float] = OrderedDict()
        self._seen: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # sightings (fading) and when
        self._ends: OrderedDict[bytes, _Rate] = OrderedDict()  # whole requests that nothing has followed yet
        # Two to begin with: single questions are the common case, and of two that went on one is taken to go on again.
        self._begun, self._continued = _Rate(requests=2), _Rate(requests=2, followed=1)

    def warm_tokens(self, where: Called, chain: Sequence[Link], rules: CacheRules, now_s: float) -> int:
        """The tokens of the longest prefix of `chain` that the cache there is expected to hold; 0 for none."""
        with self._lock:
            for link in reversed(chain):
                at_s = self._sent.get((where, link.digest))
                if at_s is not None and now_s - at_s < rules.lifetime_s:
                    return link.tokens if link.tokens >= rules.minimum_tokens > 0 else 0
        return 0

    def sent(self, where: Called, chain: Sequence[Link], now_s: float) -> None:
        """A request went there and was answered: its prefixes are warm from now."""
        with self._lock:
            for link in chain:
                _put(self._sent, (where, link.digest), now_s, self._max_links)

    def expected(self, chain: Sequence[Link], now_s: float, *, context_apart: bool = False) -> Expected:
        """What later requests are expected to repeat of this one. Notes nothing: whoever only asks sends nothing.

        Either all of it, as a conversation goes on (as often as others did), or the beginning that others share with it
        (as often as they did in the last minutes): whichever weighs more. `context_apart` says that the context stands in
        a message that is not repeated, before the last one.
        """
        if not chain:
            return Expected(NOTHING_CARRIED, 0)
        with self._lock:
            own = self._followed(chain) is not None  # the same conversation, which is no second sighting
            share = (self._continued if own else self._begun).share
            sightings = [self._sightings(link, now_s) for link in chain[:-1]]
        last = len(chain) - 2 if context_apart else len(chain) - 1
        whole = Carried(chain[last].tokens if last >= 0 else 0, not context_apart, share)
        shared = (
            Expected(Carried(link.tokens, times=min(max(0.0, count - own), _MOST_TIMES)), at)
            for at, (link, count) in enumerate(zip(chain, sightings, strict=False))
        )
        return max(
            (Expected(whole, max(last, 0)), *shared), key=lambda each: each.carried.prefix_tokens * each.carried.times
        )

    def came(self, chain: Sequence[Link], now_s: float) -> None:
        """Note a request that is sent."""
        if not chain:
            return
        with self._lock:
            followed = self._followed(chain)
            if followed is not None:
                self._ends.pop(chain[followed].digest).followed += 1
            rate = self._begun if followed is None else self._continued
            rate.requests += 1
            _put(self._ends, chain[-1].digest, rate, self._max_links)
            for at, link in enumerate(chain):
                again = followed is not None and at <= followed
                _put(self._seen, link.digest, (self._sightings(link, now_s) + (not again), now_s), self._max_links)

    def _followed(self, chain: Sequence[Link]) -> int | None:
        """The link that a request ended with which this one goes on; None where it begins."""
        return next((at for at in range(len(chain) - 2, -1, -1) if chain[at].digest in self._ends), None)

    def _sightings(self, link: Link, now_s: float) -> float:
        """How often the prefix came in about the last minutes: a sighting counts half after so long."""
        count, at_s = self._seen.get(link.digest, (0.0, now_s))
        return float(count * 0.5 ** ((now_s - at_s) / _HALF_LIFE_S))


@dataclass(slots=True)
class _Rate:
    """Of one sort of request (a first one, or one that went on): how many came, and how many something followed."""

    requests: int
    followed: int = 0

    @property
    def share(self) -> float:
        return self.followed / self.requests


Key = TypeVar("Key")
Value = TypeVar("Value")


def _put(table: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)

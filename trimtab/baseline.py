"""Baseline: what the caller's own model would have read of a conversation, and held in its cache, had nothing been cut.

Savings are reckoned against it. A cut can break a prefix that would have been warm untrimmed, and a turn that was cut once
is sent so again: both are known only to whoever remembers what the turns were. Digests and counts, in memory; no text.

A prefix is known message by message: that two messages begin alike is not seen.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from compressor.payload import APART
from routing.prompt_cache import CacheRules, Link
from routing.standing import Called
from trimtab.cache_marks import last_mark
from trimtab.contexts import Original, digest_of
from trimtab.request import Request
from trimtab.telling import Tell, links_of, nobody, plain_links

MAX_LINKS: Final = 200_000
"""Held in all, the oldest dropped first."""


class Untouched(NamedTuple):
    """A request as it came. `chain` has all its tokens, `earlier_cut_tokens` of which were cut from turns that are sent
    as they were sent before; `cacheable` is how many of its links a cache may hold."""

    chain: tuple[Link, ...] = ()
    earlier_cut_tokens: int = 0
    cacheable: int = 0


NOT_KNOWN: Final = Untouched()


class Baselines:
    """What came, for which model, and when. Safe to share between threads. `now_s` is any clock that does not go back."""

    def __init__(self, max_links: int = MAX_LINKS) -> None:
        self._max_links = max_links
        self._lock = threading.Lock()
        self._came: OrderedDict[tuple[Called, bytes], tuple[int, float]] = OrderedDict()  # tokens, and when
        self.tell: Tell = nobody

    def untouched(
        self,
        own: Called,
        request: Request,
        body: Mapping[str, Any],
        sent: Sequence[Link],
        originals: Sequence[Original],
        rules: CacheRules,
    ) -> Untouched:
        """The request as it came, from `body`, as it is `sent`, and what was cut. `own` is the caller's own model."""
        cut, digest = _cuts(request, originals)
        with self._lock:
            known = self._came.get((own, request.digests[request.settled_turns]))
        earlier = 0
        if request.settled_turns and known is not None:
            earlier = max(0, known[0] - sent[request.sent_turn(body, request.settled_turns - 1) + 1].tokens)
        beside = request.payload.beside if request.context_apart else len(request.digests)
        links = []
        added = earlier
        for turn, asked in enumerate(request.digests, start=-1):
            if turn == beside:  # the contexts' own message goes before this one
                added += cut.get(APART, 0)
                before = hashlib.sha256(request.digests[turn] + digest).digest()
                links.append(Link(before, sent[request.sent_turn(body, turn)].tokens + added))
            added += cut.get(turn, 0)
            own_digest = hashlib.sha256(asked + digest).digest() if turn >= beside else asked
            links.append(Link(own_digest, sent[request.sent_turn(body, turn) + 1].tokens + added))
        return Untouched(tuple(links), earlier, _cacheable(request, rules, beside, len(links)))

    def warm_tokens(self, own: Called, untouched: Untouched, rules: CacheRules, now_s: float) -> int:
        """The tokens of the longest prefix that the caller's own model would hold; 0 for none."""
        with self._lock:
            for link in reversed(untouched.chain[: untouched.cacheable]):
                tokens, at_s = self._came.get((own, link.digest), (0, float("-inf")))
                if now_s - at_s < rules.lifetime_s:
                    return tokens if tokens >= rules.minimum_tokens > 0 else 0
        return 0

    def came(self, own: Called, untouched: Untouched, now_s: float) -> None:
        """Note a request that was answered."""
        self._note(own, untouched.chain, now_s)
        self.tell("baseline", {"offer": own, "chain": plain_links(untouched.chain)})

    def heard(self, event: Mapping[str, Any], age_s: float) -> None:
        """What another process told `age_s` ago."""
        provider, model, processing = event["offer"]
        self._note((provider, model, processing), links_of(event["chain"]), time.monotonic() - age_s)

    def _note(self, own: Called, chain: Sequence[Link], now_s: float) -> None:
        with self._lock:
            for link in chain:
                self._came[own, link.digest] = (link.tokens, now_s)
                self._came.move_to_end((own, link.digest))
            while len(self._came) > self._max_links:
                self._came.popitem(last=False)

    def forget(self) -> None:
        """Drop all of it."""
        with self._lock:
            self._came.clear()


def _cuts(request: Request, originals: Sequence[Original]) -> tuple[dict[int, int], bytes]:
    """The tokens that were cut, by turn, and a digest of the contexts that stand beside the conversation."""
    cut: dict[int, int] = {}
    cuts = {id(original.source): original.cut for original in originals}  # two sources may have the same text
    digest = hashlib.sha256()
    for source, place in zip(request.payload.sources, request.payload.places, strict=True):
        found = cuts.get(id(source))
        if place is None:
            digest.update((digest_of(source.text) if found is None else found.digest).encode())
        if found is not None:
            turn = APART if place is None else place.turn
            cut[turn] = cut.get(turn, 0) + found.tokens_before - found.tokens_after
    return cut, digest.digest()


def _cacheable(request: Request, rules: CacheRules, beside: int, links: int) -> int:
    """A cache that keeps only what is marked would hold what the caller marked itself."""
    if not rules.marked:
        return links
    mark = last_mark(request.api, request.asked)
    return 0 if mark is None else mark + 2 + (mark >= beside)

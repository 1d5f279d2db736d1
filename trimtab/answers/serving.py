"""Serving: what stands between a request and the provider: an answer from the cache, or one that is bought and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from routing.forwarding import Router
from routing.receipt import Receipt
from routing.replies import Reply
from trimtab.answers.accounts import entry_for, prepared_from
from trimtab.answers.cache import Answers, Found, Looking
from trimtab.answers.entry import MAX_BYTES
from trimtab.answers.policy import is_wanted
from trimtab.caller import NOBODY, Caller
from trimtab.completion import Completion, answer_of
from trimtab.conclusion import Conclusion
from trimtab.prepared import Prepared
from trimtab.surfaces import CHAT, Surface

if TYPE_CHECKING:
    from trimtab.pipeline import Trimtab


class Buying:
    """An answer that the cache did not have, on its way to be kept: `feed` it, then `over`; `land` it however it ends."""

    def __init__(self, answers: Answers, looking: Looking, surface: Surface) -> None:
        self._answers = answers
        self._looking = looking
        self._surface = surface
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def feed(self, part: bytes) -> None:
        """Of the answer as the caller gets it, without our receipt."""
        self._size_bytes += len(part)
        if self._size_bytes <= 4 * MAX_BYTES:  # a stream says the same in several times the bytes
            self._parts.append(part)

    async def over(self, prepared: Prepared, reply: Reply, receipt: Receipt, *, stream: bool) -> None:
        """The answer has come to its end: it is kept, where it is whole and well."""
        try:
            if self._size_bytes <= 4 * MAX_BYTES:
                await asyncio.to_thread(self._keep, prepared, reply, receipt, stream)
        finally:
            self.land()

    def land(self) -> None:
        self._answers.land(self._looking)

    def _keep(self, prepared: Prepared, reply: Reply, receipt: Receipt, stream: bool) -> None:
        content = b"".join(self._parts)
        entry = entry_for(self._looking, self._surface, prepared, reply, receipt, content, stream)
        if entry is not None:
            self._answers.keep(self._looking, entry)


async def looked_up(
    answers: Answers, caller: Caller, surface: Surface, body: Mapping[str, Any], headers: Mapping[str, str]
) -> Found | Buying | None:
    """The answer that the cache has; else what keeps the one that is bought, to be landed whatever comes of it; None where
    the cache is not to be used. Raises BadRequest."""
    if not is_wanted(answers.settings, body):
        return None
    looking = await asyncio.to_thread(answers.looking, caller, surface, body, headers)
    if looking is None:
        return None
    return await answers.found(looking) or Buying(answers, looking, surface)


def missed(prepared: Prepared) -> Prepared:
    """The request with the word on its receipt that the cache did not have its answer."""
    return replace(prepared, receipt=replace(prepared.receipt, cache="miss"))


async def completed(trimtab: Trimtab, body: Mapping[str, Any], router: Router) -> Completion:
    """A chat completion of the process's own, from the cache or bought. Raises as `Trimtab.acomplete`.

    No request waits for the same one here: each call of `complete` has an event loop of its own.
    """
    answers = trimtab.answers
    wanted = is_wanted(answers.settings, body)
    looking = await asyncio.to_thread(answers.looking, NOBODY, CHAT, body, {}) if wanted else None
    found = None if looking is None else await asyncio.to_thread(answers.find, looking)
    if found is not None:
        prepared = await asyncio.to_thread(prepared_from, trimtab, CHAT, body, found)
        trimtab.concluded(Conclusion(NOBODY, prepared, prepared.receipt, 200))
        return Completion(200, orjson.loads(found.entry.answer), prepared.receipt)
    prepared = await asyncio.to_thread(trimtab.prepare, body)
    prepared = prepared if looking is None else missed(prepared)
    reply = await trimtab.forward(prepared, router, stream=False)
    receipt = trimtab.conclude(prepared, reply)
    if looking is not None:
        buying = Buying(answers, looking, CHAT)
        buying.feed(reply.body or b"")
        await buying.over(prepared, reply, receipt, stream=False)
    return Completion(reply.status, answer_of(reply), receipt)

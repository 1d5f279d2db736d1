"""Rounds: a request asked again until the model has seen what it wanted to see of what was cut.

Each round is a chat completion, whatever the caller speaks: the round's own tongue makes one of the caller's body, adds what
was said so far, and offers the tool. The answer to the last one is told in the caller's tongue.

A turn that calls our tool and the caller's goes on with ours alone: the model makes its other calls when it has read what it
asked for, perhaps better ones. So the caller never sees a call of ours, no call of its own goes without a result, and
nothing has to be remembered between two requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import anyio.to_thread

from routing.chat_answer import to_bytes, to_event
from routing.conversion import wants_usage
from routing.errors import ProvidersFailed, RoutingError
from routing.offers import Offer, Usage, price
from routing.receipt import Expansion, Receipt, billed, settled
from routing.replies import Reply
from routing.standing import called
from routing.streams import Garbage, error_event, parse_object
from routing.tongues import CHAT, Tongue, error_bytes, retelling
from routing.tongues.chunks import first_choice, table
from trimtab.expansion import MAX_ROUNDS, NAME, TOOL, TOOL_TOKENS, Expander
from trimtab.heard import Heard, calls_in, is_ours
from trimtab.prepared import Prepared

Ask = Callable[[Tongue, bool], Awaitable[Reply]]
"""Sends the request in this tongue, for a stream or not. Raises RoutingError."""

_HANDED_BACK: Final = ("content", "reasoning_content", "reasoning_details")
"""What of an answer goes back to the model beside its calls: some providers must see their own reasoning again."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One request, the same for every round. `body` is the caller's, in `tongue`."""

    body: Mapping[str, Any]
    tongue: Tongue
    expander: Expander
    ask: Ask


async def expanded(asking: Asking, stream: bool) -> Reply:
    """The answer after as many rounds as it takes, whole or as a stream, in the caller's tongue.

    Raises what the first round raises; and ProvidersFailed, with every attempt, for a later one of a whole answer.
    """
    rounds = _Rounds(asking, stream)
    first = await rounds.go()
    if first.chunks is not None:
        return Expanded(rounds, first, None, _streamed(rounds))
    rounds.stream = False  # an error, or a provider that answers whole whatever it is asked
    return await _whole(rounds)


class Expanded(Reply):
    """A reply that took several rounds: `attempts` and `usage` are those of all, offer and headers the last one's."""

    __slots__ = ("_expanded_chunks", "_rounds")

    def __init__(self, rounds: _Rounds, last: Reply, body: bytes | None, chunks: AsyncIterator[bytes] | None) -> None:
        self.status, self.headers, self.body = last.status, last.headers, body
        self._rounds = rounds
        self._expanded_chunks = chunks

    @property
    def offer(self) -> Offer:  # type: ignore[override] # a stream's last round is not known when it begins
        return self._rounds.replies[-1].offer

    @property
    def rounds(self) -> tuple[Reply, ...]:
        return tuple(self._rounds.replies)

    @property
    def chunks(self) -> AsyncIterator[bytes] | None:
        return self._expanded_chunks

    @property
    def attempts(self) -> Any:
        return (*(attempt for reply in self.rounds for attempt in reply.attempts), *self._rounds.failed_attempts)

    @property
    def usage(self) -> Usage | None:
        usages = [reply.usage for reply in self.rounds]
        known = [usage for usage in usages if usage is not None]
        if len(known) < len(usages):
            return None
        names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        return Usage(*(sum(getattr(usage, name) for usage in known) for name in names))

    @property
    def reasoning_tokens(self) -> int:
        return sum(reply.reasoning_tokens for reply in self.rounds)

    async def aclose(self) -> None:
        for reply in self.rounds:
            await reply.aclose()

    def settled(self, prepared: Prepared, usual_share: float) -> Receipt:
        """The receipt with every round's bill (`usual_share` as in `routing.receipt`). Untouched, the request would have been
        asked once: what the first round read, without our tool, and what the last one wrote."""
        first, last, total = self.rounds[0], self.rounds[-1], self.usage
        spent_ms = sum(attempt.latency_ms for attempt in self.attempts)
        once = None
        if total is not None and first.usage is not None and last.usage is not None:
            cached_tokens = first.usage.cache_read_tokens + first.usage.cache_write_tokens
            read = max(cached_tokens, first.usage.input_tokens - TOOL_TOKENS)
            once = replace(first.usage, input_tokens=read, output_tokens=last.usage.output_tokens)
        stages = (("provider", spent_ms),)
        told = settled(
            prepared.receipt,
            answered=self.offer,
            baseline=prepared.baseline,
            usage=once,
            attempts=self.attempts,
            stage_ms=stages,
            marked=called(first.offer) in prepared.marked,
            usual_share=usual_share,
        )
        told = replace(told, expansions=tuple(self._rounds.expansions))
        if total is None:
            return told
        return replace(
            billed(told, total),
            billed_cost_usd=sum(
                (price(each.offer, each.usage) for each in self.rounds if each.usage is not None), start=Decimal(0)
            ),
        )


class _Rounds:
    """What was asked and said so far."""

    def __init__(self, asking: Asking, stream: bool) -> None:
        self.asking = asking
        self.stream = stream
        self.replies: list[Reply] = []
        self.expansions: list[Expansion] = []
        self.failed_attempts: tuple[Any, ...] = ()
        self._said: list[Mapping[str, Any]] = []

    @property
    def last(self) -> bool:
        """Whether the round that is under way is one in which the tool is not offered any more."""
        return len(self.replies) > MAX_ROUNDS

    async def go(self) -> Reply:
        """Ask for one more round. Raises RoutingError."""
        try:
            reply = await self.asking.ask(self._tongue(), self.stream)
        except ProvidersFailed as error:
            self.failed_attempts = error.attempts
            attempts = (*(each for reply in self.replies for each in reply.attempts), *error.attempts)
            body = _error_told(self.asking.tongue, error.status, error.body)
            raise ProvidersFailed(str(error), attempts, error.status, body, error.wait_ms) from None
        self.replies.append(reply)
        return reply

    def _tongue(self) -> Tongue:
        headers = self.asking.tongue.headers
        # No provider speaks it itself, so every one is asked by way of `to_chat`, and answers with a chat completion.
        return Tongue(NAME, self._to_chat, _as_it_is, teller=None, error=CHAT.error, headers=headers)

    def _to_chat(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        chat = dict(self.asking.tongue.to_chat(body))
        chat["messages"] = [*chat["messages"], *self._said]
        own = chat.get("tools") or []
        if len(self.replies) < MAX_ROUNDS:
            chat["tools"] = [*own, TOOL]
        elif not own:
            # Still declared, since there are calls of it above; and not to be called again.
            chat |= {"tools": [TOOL], "tool_choice": "none"}
        if self.stream:
            options = chat.get("stream_options")
            chat["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
        return chat

    async def answer(self, said: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> None:
        """Answer the model's calls of our tool. `said` is its message."""
        number = len(self.replies)
        named = [{**call, "id": call.get("id") or f"call_{number}_{at}"} for at, call in enumerate(calls)]
        handed = {name: said[name] for name in _HANDED_BACK if said.get(name)}
        self._said.append({"role": "assistant", "content": None, **handed, "tool_calls": named})
        for call in named:
            arguments = table(call, "function").get("arguments")
            arguments = arguments if isinstance(arguments, str) else ""
            text, expansion = await anyio.to_thread.run_sync(self.asking.expander.answer, arguments, number)
            self._said.append({"role": "tool", "tool_call_id": call["id"], "content": text})
            self.expansions.append(expansion)


def _as_it_is(answer: Mapping[str, Any], _: Mapping[str, Any]) -> Mapping[str, Any]:
    return answer


# --- whole answers ------------------------------------------------------------------------------------------------------


async def _whole(rounds: _Rounds) -> Reply:
    texts: list[str] = []
    while True:
        reply = rounds.replies[-1]
        try:
            answer = parse_object(reply.body or b"")
            said = table(first_choice(answer), "message")
        except Garbage:
            return _told(rounds, reply)  # an error of the provider's, or nothing that holds a call
        ours = [call for call in calls_in(said) if is_ours(call)]
        if not 200 <= reply.status < 300 or not ours or rounds.last:
            return _told(rounds, reply, _finished(rounds, answer, texts))
        if isinstance(text := said.get("content"), str) and text.strip():
            texts.append(text)
        await rounds.answer(said, ours)
        try:
            await rounds.go()
        except RoutingError:
            await reply.aclose()
            raise


def _finished(rounds: _Rounds, answer: Mapping[str, Any], texts: Sequence[str]) -> Mapping[str, Any]:
    """The last answer, with what was said in earlier rounds before it, what they took added, and no call of ours."""
    if len(rounds.replies) == 1:
        return answer
    choice = first_choice(answer)
    said = dict(table(choice, "message"))
    if isinstance(said.get("content"), str) or not calls_in(said):
        texts = [*texts, said.get("content") or ""]
    if any(texts):
        said["content"] = "\n\n".join(text for text in texts if text)
    reason = choice.get("finish_reason")
    if any(map(is_ours, calls_in(said))):
        said["tool_calls"] = [call for call in calls_in(said) if not is_ours(call)]
        if not said["tool_calls"]:
            del said["tool_calls"]
            said["content"], reason = said.get("content") or "", "stop"
    usage = _sum([parse_object(reply.body or b"{}").get("usage") for reply in rounds.replies])
    return {**answer, "choices": [{**choice, "message": said, "finish_reason": reason}], "usage": usage}


def _told(rounds: _Rounds, reply: Reply, answer: Mapping[str, Any] | None = None) -> Reply:
    """The reply in the caller's tongue; `answer` None stands for what it holds."""
    tongue, content = rounds.asking.tongue, reply.body or b""
    if not 200 <= reply.status < 300:
        content = _error_told(tongue, reply.status, content) or b""
    elif answer is not None and (tongue is not CHAT or len(rounds.replies) > 1):
        content = to_bytes(tongue.from_chat(answer, rounds.asking.body))
    return Expanded(rounds, reply, content, None)


def _error_told(tongue: Tongue, status: int, content: bytes | None) -> bytes | None:
    """An error body of OpenAI's in the caller's tongue; as it is where it holds no error object."""
    if tongue is CHAT or content is None:
        return content
    try:
        error = parse_object(content).get("error")
    except Garbage:
        return content
    return error_bytes(tongue, status, error) if isinstance(error, Mapping) else content


def _sum(usages: Sequence[Any]) -> Any:
    """Usages added up, field by field; what is no number is the last one's."""
    tables = [usage for usage in usages if isinstance(usage, Mapping)]
    if not tables:
        return usages[-1] if usages else None
    names = dict.fromkeys(name for each in tables for name in each)
    return {name: _added([each[name] for each in tables if name in each]) for name in names}


def _added(values: Sequence[Any]) -> Any:
    if any(isinstance(value, Mapping) for value in values):
        return _sum(values)
    counts = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return sum(counts) if counts else values[-1]


# --- streams ------------------------------------------------------------------------------------------------------------


async def _streamed(rounds: _Rounds) -> AsyncIterator[bytes]:
    """The rounds as one stream, in the caller's tongue."""
    telling = retelling(rounds.asking.tongue, rounds.asking.body)
    async for content in _chunks(rounds):
        if told := content if telling is None else telling.feed(content):
            yield told
    if telling is not None and (told := telling.end()):
        yield told


async def _chunks(rounds: _Rounds) -> AsyncIterator[bytes]:
    """The rounds as one stream of chat chunks."""
    first: Mapping[str, Any] = {}
    usages: list[Any] = []
    spoke = False
    while True:
        heard = Heard(first, after_words=spoke)
        chunks = rounds.replies[-1].chunks
        if chunks is None:
            yield error_event("The provider did not go on with its stream.", "expansion_failed")
            return
        async for part in chunks:
            if ready := heard.feed(part):
                yield ready
        if ready := heard.end():
            yield ready
        if heard.broken:
            return
        usages.append(heard.usage)
        first, spoke = heard.first, spoke or heard.spoke
        if not heard.ours or rounds.last:
            break
        await rounds.answer(heard.said(), heard.ours)
        try:
            await rounds.go()
        except RoutingError:
            yield error_event("No provider went on with the answer.", "expansion_failed")
            return
    yield heard.ending()
    if usages[-1] is not None and (rounds.asking.tongue is not CHAT or wants_usage(rounds.asking.body)):
        yield to_event({**heard.frame, "choices": [], "usage": _sum(usages)})
    yield b"data: [DONE]\n\n"

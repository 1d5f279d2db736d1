"""Request: what a caller asks, understood and counted, before anything is decided.

The settled turns of a conversation stand in it as they were sent before; the rest is the caller's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from compressor import Kept
from compressor.payload import APART, Payload
from compressor.prompts import Api
from compressor.tokens import count_each
from routing.offers import Offer
from routing.policy import Admitted
from routing.prompt_cache import Link
from trimtab.conversations import Digests, chain
from trimtab.options import Options

EXPECTED_OUTPUT_TOKENS: Final = 512  # where the caller sets no maximum and nothing is known of the model's answers
MESSAGE_TOKENS: Final = 4  # what a chat template adds to a message (OpenAI cookbook, "How to count tokens")
IMAGE_TOKENS: Final = 1_100  # a high-detail image at OpenAI's usual tile count; its true size is not known here

TurnTokens = Mapping[int, int]
"""Tokens by the number of the message: -1 for what stands before the conversation, APART for contexts beside it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and who may be asked. `digests` are those of the caller's own turns, and `settled_turns` of them are
    sent as they were before. `fixed_tokens` counts what may not be cut."""

    asked: Mapping[str, Any]
    model: str
    encoding: str
    options: Options
    payload: Payload
    admitted: Admitted
    digests: Digests
    settled_turns: int
    fixed_tokens: TurnTokens

    @property
    def offers(self) -> tuple[Offer, ...]:
        return self.admitted.offers

    @property
    def api(self) -> Api:
        return self.payload.api

    @property
    def context_apart(self) -> bool:
        """Whether the contexts came beside the conversation, and are written into a message of their own."""
        return None in self.payload.places

    @property
    def answers(self) -> int:
        """How many answers are asked for (OpenAI's `n`)."""
        return max(1, _count(self.asked.get("n")))

    def chain(self) -> tuple[Link, ...]:
        """The request as it came, turn by turn, with the tokens that may not be cut."""
        return links(self.digests, self.fixed_tokens)

    def known_chain(self) -> tuple[Link, ...]:
        """The request as it will be sent, as far as no cut can change it: up to the first message that holds a source, and
        to where contexts are written."""
        first = min((place.turn for place in self.payload.places if place is not None), default=self.payload.turns)
        if self.context_apart:
            first = min(first, self.payload.beside)
        same = self.payload.body is self.asked  # as in a first turn: a long body is not digested twice
        digests = self.digests if same else chain(self.api, self.payload.body)
        return links(digests, self.fixed_tokens)[: first + 1]

    def sent_chain(self, body: Mapping[str, Any], kept: Sequence[Kept]) -> tuple[Link, ...]:
        """The request as it is sent: `body`, with what is `kept` of each source."""
        tokens = dict(self.fixed_tokens)
        counts = count_each([each.text for each in kept], self.encoding)
        for place, count in zip(self.payload.places, counts, strict=True):
            turn = APART if place is None else place.turn
            tokens[turn] = tokens.get(turn, 0) + count
        beside = {self.payload.beside: tokens.pop(APART, 0)}
        if self._writes_contexts(body):
            tokens = beside | {self.sent_turn(body, turn): count for turn, count in tokens.items()}
        return links(chain(self.api, body), tokens)

    def sent_turn(self, body: Mapping[str, Any], turn: int) -> int:
        """The number that the caller's message `turn` has in `body`, as it is sent."""
        return turn + 1 if self._writes_contexts(body) and turn >= self.payload.beside else turn

    def _writes_contexts(self, body: Mapping[str, Any]) -> bool:
        """Whether contexts stand in a message of their own in `body`: where none of them is kept, there is none."""
        turns = body.get(self.api.turns)
        return isinstance(turns, list) and len(turns) > self.payload.turns


def links(digests: Digests, tokens: TurnTokens) -> tuple[Link, ...]:
    """A link for what stands before the conversation and for each turn, with the tokens up to its end."""
    counts = (tokens.get(turn, 0) for turn in range(-1, len(digests) - 1))
    return tuple(Link(*pair) for pair in zip(digests, itertools.accumulate(counts), strict=True))


def fixed_tokens(payload: Payload, encoding: str) -> dict[int, int]:
    """Tokens of what may not be cut, by message; what a chat template and images add is counted too."""
    texts = list(payload.fixed_texts_by_turn())
    counts = count_each([text for _, text in texts], encoding)
    tokens = dict.fromkeys(range(-1, payload.turns), MESSAGE_TOKENS) | {-1: IMAGE_TOKENS * payload.images}
    for (turn, _), count in zip(texts, counts, strict=True):
        tokens[turn] = tokens.get(turn, 0) + count
    return tokens


def cap(full_tokens: int, ratio: float | None, budget_tokens: int | None) -> int | None:
    """The most context tokens that may be kept; None for no limit."""
    return math.floor(ratio * full_tokens) if ratio is not None else budget_tokens


def max_output_tokens(body: Mapping[str, Any], answers: int) -> int | None:
    """The caller's own maximum, for all `answers` together; None where there is none."""
    limits = (_count(body.get(name)) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
    return next((limit * answers for limit in limits if limit), None)


def _count(value: object) -> int:
    """A positive whole number, or 0 for anything else: what the provider makes of it is the provider's to say."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

"""Surfaces: what callers may send and where, as a table of frozen rows.

A row joins where an API's texts stand (`compressor`) to how it is spoken (`routing`); neither knows of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from compressor import prompts
from routing import tongues


@dataclass(frozen=True, slots=True)
class Surface:
    """One row.

    `receipt_in_body`: a whole answer has room for a `trimtab` object. `receipt_event(receipt, body)` is how a stream
    tells it: as a comment, which every client skips, unless the caller knows better.
    """

    path: str
    summary: str
    schema: str
    api: prompts.Api
    tongue: tongues.Tongue
    receipt_in_body: bool = True
    receipt_event: Callable[[Mapping[str, Any], Mapping[str, Any]], bytes] = lambda receipt, _: _comment(receipt)

    def terminal(self, chunk: bytes) -> int:
        """Where, in these whole events, the one begins that ends the stream; -1 if it is not among them."""
        for mark in self.tongue.terminal:
            at = chunk.rfind(mark)
            if at == 0 or (at > 0 and chunk[at - 1 : at] in (b"\n", b"\r")):
                return at
        return -1


def _comment(receipt: Mapping[str, Any]) -> bytes:
    return b": trimtab " + orjson.dumps(receipt) + b"\n\n"


def _chat_event(receipt: Mapping[str, Any], body: Mapping[str, Any]) -> bytes:
    """A chunk without choices where the caller knows such chunks (it sent a `trimtab` object, or asked for usage), else
    a comment; `chunk.choices[0]` on an empty list is how applications break."""
    options = body.get("stream_options")
    if "trimtab" not in body and not (isinstance(options, Mapping) and bool(options.get("include_usage"))):
        return _comment(receipt)
    chunk = {"id": receipt["id"], "object": "chat.completion.chunk", "created": 0, "model": receipt["model"]}
    return b"data: " + orjson.dumps({**chunk, "choices": [], "trimtab": receipt}) + b"\n\n"


CHAT: Final = Surface(
    "/v1/chat/completions",
    "Answer a chat completion (OpenAI's wire)",
    "ChatCompletionRequest",
    prompts.CHAT,
    tongues.CHAT,
    receipt_event=_chat_event,
)
MESSAGES: Final = Surface(
    "/v1/messages",
    "Answer a message (Anthropic's wire)",
    "MessageRequest",
    prompts.MESSAGES,
    tongues.MESSAGES,
)
RESPONSES: Final = Surface(
    "/v1/responses",
    "Answer a response (OpenAI's wire), without a memory of earlier ones",
    "ResponseRequest",
    prompts.RESPONSES,
    tongues.RESPONSES,
)
EMBEDDINGS: Final = Surface(
    "/v1/embeddings",
    "Embeddings of texts (OpenAI's wire); nothing is trimmed",
    "EmbeddingRequest",
    prompts.EMBEDDINGS,
    tongues.EMBEDDINGS,
    receipt_in_body=False,
)
COUNT_TOKENS: Final = Surface(
    "/v1/messages/count_tokens",
    "How many tokens a message has before it is trimmed (Anthropic's wire)",
    "CountTokensRequest",
    prompts.MESSAGES,
    tongues.COUNT_TOKENS,
    receipt_in_body=False,
)

SURFACES: Final = (CHAT, MESSAGES, RESPONSES, EMBEDDINGS)
"""Those that are prepared, forwarded and settled; tokens are only counted."""


def tongue_of(api: prompts.Api) -> tongues.Tongue:
    """How the API is spoken whose texts `api` finds."""
    return next(each.tongue for each in SURFACES if each.api is api)

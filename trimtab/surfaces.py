"""Surfaces: what callers may send and where, as a table of frozen rows.

A row joins where an API's texts stand (`compressor`) to how it is spoken (`routing`); neither knows of the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from compressor import prompts
from routing import tongues
from trimtab.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Surface:
    """One row.

    `receipt_in_body`: a whole answer has room for a `trimtab` object. `receipt_event(receipt, body)` is how a stream
    tells it: as a comment, which every client skips, unless the caller knows better. `last_words` is what comes before
    the event that ends a stream and must stay behind the receipt.
    """

    path: str
    summary: str
    schema: str
    api: prompts.Api
    tongue: tongues.Tongue
    receipt_in_body: bool = True
    receipt_event: Callable[[Mapping[str, Any], Mapping[str, Any]], bytes] = lambda receipt, _: _comment(receipt)
    last_words: re.Pattern[bytes] | None = None

    def terminal(self, chunk: bytes) -> int:
        """Where, in these whole events, the one begins that ends the stream, or the last words before it; -1 if none of
        them is there."""
        if self.last_words is not None and (found := self.last_words.search(chunk)):
            return found.start()
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


_USAGE: Final = re.compile(rb'^data: ?\{(?=[^\r\n]*"choices": ?\[\])(?=[^\r\n]*"usage": ?\{)', re.MULTILINE)
"""The chunk that tells a chat completion's usage. OpenAI's client takes the usage of the last chunk, whatever that is."""

CHAT: Final = Surface(
    "/v1/chat/completions",
    "Answer a chat completion (OpenAI's wire)",
    "ChatCompletionRequest",
    prompts.CHAT,
    tongues.CHAT,
    receipt_event=_chat_event,
    last_words=_USAGE,
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


def with_receipt(content: bytes, receipt: bytes) -> bytes:
    """A JSON object's bytes as they are, with `"trimtab": receipt` spliced in before its last brace.

    >>> with_receipt(b'{"id": 1.0}', b'{}')
    b'{"id": 1.0,"trimtab":{}}'
    """
    at = content.rstrip().rfind(b"}")
    comma = b"" if content[:at].rstrip().endswith(b"{") else b","
    return content[:at] + comma + b'"trimtab":' + receipt + content[at:]


def surface_of(body: Mapping[str, Any], name: str | None = None) -> Surface:
    """The surface that a body is a request of: the one called `name` ("chat", "messages", "responses", "embeddings"), else
    the one whose shape it has. A conversation that both OpenAI and Anthropic could be asked counts as a chat.

    Raises BadRequest for a name that is none, and for a body of no surface.

    >>> surface_of({"messages": [{"role": "user", "content": "Hi."}], "system": "Be brief."}) is MESSAGES
    True
    """
    if name is not None:
        named = next((each for each in SURFACES if each.tongue.name == name), None)
        if named is None:
            names = ", ".join(each.tongue.name for each in SURFACES)
            raise BadRequest("surface", f"is one of {names}, not {name[:40]!r}")
        return named
    if "messages" in body:
        return MESSAGES if _is_anthropics(body) else CHAT
    if "input" in body:
        # An array of texts is no conversation, and a text alone may be either.
        given = body["input"]
        embeds = isinstance(given, list) and bool(given) and not any(isinstance(each, Mapping) for each in given)
        return EMBEDDINGS if embeds else RESPONSES
    raise BadRequest(None, "the body has neither messages nor input: send a request of a surface", "invalid_json")


_ANTHROPICS: Final = ("tool_use", "tool_result", "document", "search_result", "thinking")


def _is_anthropics(body: Mapping[str, Any]) -> bool:
    """Whether a conversation says what only Anthropic's clients say."""
    if any(name in body for name in ("system", "thinking", "stop_sequences", "cache_control", "output_config")):
        return True
    tools = body.get("tools")
    if any(isinstance(tool, Mapping) and "input_schema" in tool for tool in (tools if isinstance(tools, list) else ())):
        return True
    messages = body["messages"] if isinstance(body["messages"], list) else []
    contents = [each.get("content") for each in messages if isinstance(each, Mapping)]
    blocks = [block for each in contents if isinstance(each, list) for block in each if isinstance(block, Mapping)]
    return any(block.get("type") in _ANTHROPICS for block in blocks)


def tongue_of(api: prompts.Api) -> tongues.Tongue:
    """How the API is spoken whose texts `api` finds."""
    return next(each.tongue for each in SURFACES if each.api is api)

"""Inspection: what of a payload is context, what is protected, and why.

Pure, and a second reading of what `payload.parse` found: it decides nothing. `RECOGNISED` and `PROTECTED` are the whole of
what there is to be found, as docs/payloads.md prints them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from compressor import stuff_prompts
from compressor.payload import GIVEN, Payload, Place
from compressor.prompts import DOCUMENT, FILE_SEARCH_RESULT, SEARCH_RESULT, Path, Text
from compressor.recognition import FORMS, LONG_OUTPUT, LONG_TEXT_CHARS, Block, Form
from compressor.tokens import DEFAULT_ENCODING, count_each


@dataclass(frozen=True, slots=True)
class Row:
    """`name` is what spans say; `where` it is looked for, and how it is `written`."""

    name: str
    where: str
    written: str


def _where(form: Form) -> str:
    return "user and tool messages" if form.in_tools else "user messages"


RECOGNISED: Final = (
    Row(GIVEN, "beside the messages", "the chunks that you give; nothing is looked for in the messages then"),
    *(Row(form.name, _where(form), form.written) for form in FORMS),
    Row(
        LONG_OUTPUT, "tool messages", f"none of the above, and {LONG_TEXT_CHARS:,} characters or more: the whole output"
    ),
    Row(DOCUMENT, "user and tool messages", "Anthropic's `document`: a text, or a list of them; a PDF is protected"),
    Row(SEARCH_RESULT, "user and tool messages", "Anthropic's `search_result`"),
    Row(FILE_SEARCH_RESULT, "`file_search_call` items", "OpenAI's `results`: each one's `text`"),
    Row(stuff_prompts.FORM, "system and developer messages", stuff_prompts.WRITTEN),
)

_CACHED: Final = "cached prefix"
_GIVEN_APART: Final = "contexts are given"
_SYSTEM: Final = "system message"
_ASSISTANT: Final = "assistant message"
_OWN_WORDS: Final = "the user's words"
_OUTPUT: Final = "short tool output"
_BETWEEN: Final = "beside a context"
_FIELDS: Final = "every other field"

PROTECTED: Final = (
    Row(_SYSTEM, "system and developer messages, `system`, `instructions`", "all but the stuff prompts above"),
    Row(_ASSISTANT, "assistant messages", "what the model said"),
    Row(_OWN_WORDS, "user messages", "what is in no context"),
    Row(_OUTPUT, "tool messages", f"fewer than {LONG_TEXT_CHARS:,} characters in which nothing is recognised"),
    Row(_BETWEEN, "tool and system messages", "the words before, between and after contexts"),
    Row(_CACHED, "everywhere", "all up to the last `cache_control` or `prompt_cache_breakpoint` of yours"),
    Row(_GIVEN_APART, "messages", f"all of them, where `{GIVEN}` is there"),
    Row(
        _FIELDS, "everywhere", "tools, tool calls, titles, images, files, output formats, and fields that nobody knows"
    ),
)
_REASONS: Final = {row.name: row.written for row in PROTECTED}


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start:end` of the text at `path` ("messages.0.content"; "" for fields that are no text of their own,
    counted together). `turn` is the message's number, -1 for what stands before the conversation, None for what stands
    beside it. `form` is what it was recognised as, "" for what is protected; `reason` a row's name and its words."""

    path: str
    turn: int | None
    role: str
    start: int
    end: int
    tokens: int
    trimmable: bool
    form: str
    title: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a request of `api`. `query_from` is where the question was read, "" where there is none;
    `cached_until` the path of the last text that a provider is asked to cache, None where it is not asked."""

    api: str
    query: str
    query_from: str
    cached_until: str | None
    spans: tuple[Span, ...]

    @property
    def trimmable_tokens(self) -> int:
        return sum(span.tokens for span in self.spans if span.trimmable)

    @property
    def protected_tokens(self) -> int:
        return sum(span.tokens for span in self.spans if not span.trimmable)

    def to_dict(self) -> dict[str, Any]:
        totals = {"trimmable_tokens": self.trimmable_tokens, "protected_tokens": self.protected_tokens}
        return {**asdict(self), **totals, "spans": [asdict(span) for span in self.spans]}


def inspect(payload: Payload, encoding: str = DEFAULT_ENCODING) -> Inspection:
    """Every text of the payload, in order, as spans; white space between two of them is left out."""
    pieces = [*_given(payload), *_pieces(payload)]
    counts = count_each([text for _, text in pieces], encoding)
    spans: list[Span] = []
    for (span, _), tokens in zip(pieces, counts, strict=True):
        before = spans[-1] if spans else None
        if (
            before is not None
            and not span.path
            and (before.path, before.turn, before.reason) == ("", span.turn, span.reason)
        ):
            spans[-1] = _with_tokens(before, before.tokens + tokens)
        else:
            spans.append(_with_tokens(span, tokens))
    cached = payload.cached_texts
    paths = [text.path for text in payload.texts[:cached] if text.path]
    until = None if not cached else _dotted(paths[-1]) if paths else ""
    return Inspection(payload.api.name, payload.query, payload.query_from, until, tuple(spans))


def _with_tokens(span: Span, tokens: int) -> Span:
    return Span(**{**asdict(span), "tokens": tokens})


def _given(payload: Payload) -> Iterator[tuple[Span, str]]:
    for number, (source, place) in enumerate(zip(payload.sources, payload.places, strict=True)):
        if place is None:
            block = Block(0, len(source.text), 0, len(source.text), source.title, GIVEN)
            yield _span(f"{GIVEN}.{number}", None, "context", block), source.text


def _pieces(payload: Payload) -> Iterator[tuple[Span, str]]:
    places: dict[Path, list[Place]] = {}
    for place in payload.places:
        if place is not None:
            places.setdefault(place.path, []).append(place)
    for number, text in enumerate(payload.texts):
        role = _role(payload, text)
        position = 0
        for place in places.get(text.path, ()) if text.path else ():
            block = place.block
            yield from _protected(payload, number, role, position, block.outer_start, inside=True)
            yield _span(_dotted(text.path), text.turn, role, block), text.text[block.start : block.end]
            position = block.outer_end
        yield from _protected(payload, number, role, position, len(text.text), inside=position > 0)


def _protected(
    payload: Payload, number: int, role: str, start: int, end: int, *, inside: bool
) -> Iterator[tuple[Span, str]]:
    text = payload.texts[number]
    words = text.text[start:end]
    if words.strip():
        reason = _explained(_why_kept(payload, number, inside=inside))
        if not text.path:
            start = end = 0
        yield Span(_dotted(text.path), text.turn, role, start, end, 0, False, "", text.title, reason), words


def _why_kept(payload: Payload, number: int, *, inside: bool) -> str:
    text = payload.texts[number]
    if not text.path:
        return _FIELDS
    if text.role == "fixed":
        return _ASSISTANT
    if number < payload.cached_texts:
        return _CACHED
    if inside and text.role != "user":
        return _BETWEEN
    if text.role == "system":
        return _SYSTEM
    if text.role == "user":
        return _OWN_WORDS
    return _GIVEN_APART if None in payload.places else _OUTPUT


def _span(path: str, turn: int | None, role: str, block: Block) -> Span:
    reason = f"recognised as {block.form}"
    return Span(path, turn, role, block.start, block.end, 0, True, block.form, block.title, reason)


def _explained(name: str) -> str:
    return f"{name}: {_REASONS[name]}"


def _role(payload: Payload, text: Text) -> str:
    """The message's role in the caller's own word, where it has one; else what the text is searched as."""
    if text.role == "tool":
        return "tool"
    turns = payload.body.get(payload.api.turns)
    message = turns[text.turn] if text.turn >= 0 and isinstance(turns, list) else {}
    role = message.get("role") or message.get("type") if isinstance(message, Mapping) else None
    return role if isinstance(role, str) else "request" if text.role == "fixed" else text.role


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))

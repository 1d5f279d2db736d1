"""Payload: a request as trimtab sees it, the texts that may be cut told from everything that may not.

Parsing finds the sources; `rebuilt` puts kept texts back. All else, unknown fields included, passes through as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Final

from compressor.calls import latest_calls
from compressor.citations import Shown
from compressor.prompts import CHAT, Api, Path, Text, documents
from compressor.prompts import BadPayload as BadPayload
from compressor.ranking import Kept
from compressor.recognition import Block, find_blocks, outside
from compressor.segments import Source
from compressor.stuff_prompts import stuffed

OPTIONS = "trimtab"
GIVEN: Final = f"{OPTIONS}.contexts"

APART: Final = -2
"""The turn of what stands beside the conversation."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source stands: the path of its text in the body, the number of its message, and the block in the text.

    `held`: the text is all context, and what holds it goes when nothing of it is kept.
    """

    path: Path
    turn: int
    block: Block
    held: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """A parsed request. `places[i]` is where `sources[i]` came from; None for contexts given beside the messages.

    `query_from` is the path of what the question was read from, "" where there is none. The first `cached_texts` of the
    `texts` are to be cached by the provider, and stay.
    """

    query: str
    sources: tuple[Source, ...]
    places: tuple[Place | None, ...]
    body: Mapping[str, Any]
    api: Api = CHAT
    texts: tuple[Text, ...] = ()
    query_from: str = ""
    cached_texts: int = 0

    @property
    def turns(self) -> int:
        """How many messages the conversation has."""
        turns = self.body.get(self.api.turns)
        return len(turns) if isinstance(turns, list) else 1

    @property
    def images(self) -> int:
        """How many images the conversation holds."""
        found, stack = 0, [self.body.get(self.api.turns)]
        while stack:
            item = stack.pop()
            if isinstance(item, Mapping):
                found += item.get("type") in _IMAGES
                stack.extend(item.values())
            elif isinstance(item, list):
                stack.extend(item)
        return found

    def rebuilt(self, kept: Sequence[Kept]) -> dict[str, Any]:
        """The body to forward: each source replaced by what is kept of it, our own options taken out.

        Contexts given beside the messages are written before the last user message, in a message of their own, so that
        every message of the caller stays as it was.
        """
        edits: dict[Path, list[tuple[Place, str]]] = {}
        beside: list[tuple[Source, str]] = []
        for source, place, keep in zip(self.sources, self.places, kept, strict=True):
            if place is None:
                beside.append((source, keep.text))
            else:
                edits.setdefault(place.path, []).append((place, keep.text))
        body = {name: value for name, value in self.body.items() if name != OPTIONS}
        if edits:
            body = _replaced(body, _tree({path: _edits(each) for path, each in edits.items()}), self.api)
        if written := written_contexts(beside):
            turns = body.get(self.api.turns)
            turns = list(turns) if isinstance(turns, list) else [{"role": "user", "content": turns}]
            turns.insert(self.beside, {"role": "user", "content": written})
            body[self.api.turns] = turns
        return body

    @property
    def beside(self) -> int:
        """Before which message contexts are written: the last one of the user's, and never between a call and its result."""
        answers = {text.turn for text in self.texts if text.role == "tool"}
        return max(
            (text.turn for text in self.texts if text.role == "user" and text.turn not in answers), default=self.turns
        )

    @property
    def cited(self) -> bool:
        """Whether the answer will point into contexts, so that none of their blocks may go."""
        return any(text.cited for text in self.texts)

    def shown(self, kept: Sequence[Kept]) -> dict[int, Shown]:
        """The documents that are to be cited and were cut, by the number that citations call them by."""
        if not self.cited:
            return {}
        numbers = {(*path, "source", "data"): number for number, path in enumerate(documents(self.body))}
        cut = zip(self.sources, self.places, kept, strict=True)
        return {
            numbers[place.path]: Shown.of(source.text, keep, len(_margins(source.text)[0]))
            for source, place, keep in cut
            if place is not None and place.path in numbers and keep.text not in ("", source.text)
        }

    def fixed_texts(self) -> Iterator[str]:
        """Every text that is sent whatever is cut, as an upper bound: protected words, tools, and the tags around contexts."""
        return (text for _, text in self.fixed_texts_by_turn())

    def fixed_texts_by_turn(self) -> Iterator[tuple[int, str]]:
        """`fixed_texts`, each with the number of its message: -1 before the conversation, APART for contexts beside it."""
        blocks: dict[Path, list[Block]] = {}
        for source, place in zip(self.sources, self.places, strict=True):
            if place is None:
                yield APART, _written(source, "")
            else:
                inner = replace(place.block, outer_start=place.block.start, outer_end=place.block.end)
                blocks.setdefault(place.path, []).append(inner)
        for text in self.texts:
            own = tuple(blocks.get(text.path, ())) if text.path else ()
            yield from ((text.turn, words) for words in outside(text.text, own))


_IMAGES: Final = ("image_url", "image", "input_image")


def parse(
    api: Api, body: Mapping[str, Any], contexts: Sequence[Source] = (), query: str | None = None, settled_turns: int = 0
) -> Payload:
    """A request's body, with what its `trimtab` object said: `contexts` and `query`.

    Without `contexts`, they are looked for in what users and tools say (`recognition`) and in the frameworks' own system
    messages (`stuff_prompts`), after the last mark of a prefix that is to be cached, and not in the first `settled_turns`
    messages, which were sent before. Without `query`, it is what the last user message says outside its context, and what
    the tools were last asked since. Raises BadPayload where the conversation is not what the API promises.
    """
    texts = tuple(api.texts(body))
    found: list[tuple[Source, Place | None]] = [(source, None) for source in contexts]
    cached = max((number for number, text in enumerate(texts, 1) if text.ends_prefix), default=0)
    if not contexts:
        cited = any(text.cited for text in texts)
        # What stands before the conversation is in no turn that was sent.
        for text in (each for each in texts[cached:] if each.turn >= settled_turns or each.turn < 0):
            found += _found(text, cited)
    places = tuple(place for _, place in found)
    query_from = f"{OPTIONS}.query" if query is not None else ""
    if query is None:
        query, turn = _question(texts, places)
        query_from = f"{api.turns}.{turn}" if turn is not None else ""
        if calls := latest_calls(api, body, -1 if turn is None else turn):
            query = f"{query}\n{calls}".strip()
    return Payload(query, tuple(source for source, _ in found), places, body, api, texts, query_from, cached)


def parse_chat(body: Mapping[str, Any], contexts: Sequence[Source] = (), query: str | None = None) -> Payload:
    """`parse` of a chat completion."""
    return parse(CHAT, body, contexts, query)


def _found(text: Text, cited: bool) -> Iterator[tuple[Source, Place]]:
    """`cited`: something in the body is, and citations count blocks: none may go."""
    if text.role == "fixed" or not text.path:
        return
    if text.role == "context":
        whole_text = Block(0, len(text.text), 0, len(text.text), text.title, text.form)
        blocks: tuple[Block, ...] = (whole_text,) if text.text.strip() else ()
    elif text.role == "system":
        blocks = stuffed(text.text)
    else:
        blocks = find_blocks(text.text, whole=text.role == "tool")
    for block in blocks:
        name = ".".join(map(str, text.path)) + f":{block.start}"
        source = Source(name, text.text[block.start : block.end], block.title)
        yield source, Place(text.path, text.turn, block, held=text.role == "context" and not cited)


def written_contexts(contexts: Sequence[tuple[Source, str]]) -> str:
    """Kept contexts as one text, each in a `<document>` tag with its title; those of which nothing is kept are left out."""
    documents = [_written(source, text) for source, text in contexts if text]
    return "\n".join(("<context>", *documents, "</context>")) if documents else ""


def _written(source: Source, text: str) -> str:
    title = f' title="{escape(source.title)}"' if source.title else ""
    return f"<document{title}>\n{text}\n</document>"


def _edits(edits: Sequence[tuple[Place, str]]) -> _Edit:
    return _Edit(tuple((place.block, kept) for place, kept in edits), edits[0][0].held)


@dataclass(frozen=True, slots=True)
class _Edit:
    """What becomes of one text."""

    blocks: tuple[tuple[Block, str], ...]
    held: bool


def _tree(edits: Mapping[Path, _Edit]) -> dict[str | int, Any]:
    """The edits by the steps of their paths."""
    tree: dict[str | int, Any] = {}
    for path, edit in edits.items():
        at = tree
        for step in path[:-1]:
            at = at.setdefault(step, {})
        at[path[-1]] = edit
    return tree


_GONE: Final = object()
"""What a context becomes of which nothing is kept; its block goes with it, up to the message or result that holds it."""


def _replaced(value: Any, tree: Any, api: Api) -> Any:
    if isinstance(tree, _Edit):
        if tree.held and not any(kept.strip() for _, kept in tree.blocks):
            return _GONE
        text = _edited(value, tree.blocks)
        return text if text.strip() else api.blank or text
    if isinstance(value, list):
        items = [_replaced(item, tree[at], api) if at in tree else item for at, item in enumerate(value)]
        items = [item for item in items if item is not _GONE]
        return items or _GONE
    fields = {name: _replaced(each, tree[name], api) if name in tree else each for name, each in value.items()}
    gone = [name for name, each in fields.items() if each is _GONE]
    if not gone:
        return fields
    left = _LEFT.get(str(value.get("type", "message")))
    return _GONE if left is None else fields | dict.fromkeys(gone, left)


_LEFT: Final[Mapping[str, Any]] = {
    "message": "…",
    "tool_result": "…",
    "function_call_output": "…",
    "file_search_call": [],
}
"""What stays behind in a message, or in an item that answers another, of whose contexts nothing is kept."""


def _edited(text: str, edits: Sequence[tuple[Block, str]]) -> str:
    out: list[str] = []
    position = 0
    for block, kept in edits:
        original = text[block.start : block.end]
        if kept == original:
            out.append(text[position : block.end])
            position = block.end
        elif kept:
            before, after = _margins(original)
            out.append(text[position : block.start] + before + kept + after)
            position = block.end
        else:
            out.append(text[position : block.outer_start])
            position = block.outer_end
    return "".join((*out, text[position:]))


def _margins(text: str) -> tuple[str, str]:
    """The white space at both ends, which keeps a block apart from its tags and from its neighbours."""
    return text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]


_QUESTION_LABEL = re.compile(
    r"(?:.*\n)?[ \t]*(?:\*\*)?(?:question|query|user question|user query|q)(?:\*\*)?[ \t]*[:：](?:\*\*)?", re.I | re.S
)
_ANSWER_LABEL = re.compile(r"\n[ \t]*(?:helpful )?answer[ \t]*[:：]?\s*$", re.I)


def _question(texts: Sequence[Text], places: Sequence[Place | None]) -> tuple[str, int | None]:
    """What the last user message asks, and the number of that message; None where there is no question."""
    turn = max((text.turn for text in texts if text.role == "user"), default=None)
    if turn is None:
        return "", None
    blocks: dict[Path, list[Block]] = {}
    for place in places:
        if place is not None and place.turn == turn:
            blocks.setdefault(place.path, []).append(place.block)
    asked = [text for text in texts if text.turn == turn and text.role == "user"]
    words = [w for text in asked for w in outside(text.text, tuple(blocks.get(text.path, ())))]
    said = _ANSWER_LABEL.sub("", "\n".join(w.strip() for w in words if w.strip()))
    labelled = _QUESTION_LABEL.match(said)
    asks = said[labelled.end() :].strip() if labelled and said[labelled.end() :].strip() else said
    return asks, turn if asks else None

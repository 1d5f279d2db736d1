"""Where, inside a message, the retrieved context stands: blocks that may be cut, told from words that may not.

Each way in which RAG stacks write their context is a row in `FORMS`, tried in order; the first that finds anything
speaks for the text. A block has an outer span (its tags, number or heading included; removed when nothing of it is
kept) and an inner one (the text that is ranked). All that is in no block is protected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LONG_TEXT_CHARS = 1600  # about 400 tokens: below it, text without marks of a context is taken for the user's own words
MAX_QUESTION_CHARS = 800


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of context in a text: characters `start:end` are ranked, `outer_start:outer_end` go when none is kept."""

    start: int
    end: int
    outer_start: int
    outer_end: int
    title: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """A way of writing context into a message. `name` is what users read in docs and receipts."""

    name: str
    find: Callable[[str], list[Block]]


def find_blocks(text: str, *, whole: bool = False) -> tuple[Block, ...]:
    """The blocks of context in `text`, in order and disjoint; none for a short text or one without context.

    `whole`: the text is a tool's output, all of it context where no form is recognised.
    """
    for form in FORMS:
        if blocks := form.find(text):
            return tuple(blocks)
    if whole and len(text) >= LONG_TEXT_CHARS:
        return (Block(0, len(text), 0, len(text)),)
    return ()


# --- tags: <document>, <context>, <source> ... -------------------------------------------------------------------------

_TAG_NAMES = "document|documents|doc|docs|context|passage|chunk|source|search_result|snippet|excerpt|retrieved_context"
_CONTENT_NAMES = "document_content|document_contents|content|page_content|text|body"
_TITLE_NAMES = "title|source|name|url|metadata"
_TAG = re.compile(rf"<(?P<close>/?)(?P<name>{_TAG_NAMES})\b(?P<attributes>[^<>]*)>", re.IGNORECASE)
_CONTENT = re.compile(rf"<({_CONTENT_NAMES})\b[^<>]*>", re.IGNORECASE)
_INNER_TITLE = re.compile(rf"\s*<({_TITLE_NAMES})\b[^<>]*>([^<]{{0,300}})</\1>", re.IGNORECASE)
_TITLE_ATTRIBUTE = re.compile(r"""\b(?:title|source|name|id|url)\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)


def _tagged(text: str) -> list[Block]:
    """The innermost of nested tags. An opening tag without its closing one is text."""
    blocks: list[Block] = []
    open_tags: list[tuple[str, re.Match[str], bool]] = []  # name, tag, whether a block stands inside it
    for tag in _TAG.finditer(text):
        name = tag["name"].lower()
        if not tag["close"]:
            if not tag["attributes"].rstrip().endswith("/"):
                open_tags.append((name, tag, False))
            continue
        depth = next((d for d in range(len(open_tags) - 1, -1, -1) if open_tags[d][0] == name), None)
        if depth is None:
            continue
        _, opening, has_block = open_tags[depth]
        del open_tags[depth:]
        if not has_block:
            blocks.append(_tagged_block(text, opening, tag))
        open_tags[:] = [(n, t, True) for n, t, _ in open_tags]
    return sorted((b for b in blocks if text[b.start : b.end].strip()), key=lambda block: block.start)


def _tagged_block(text: str, opening: re.Match[str], closing: re.Match[str]) -> Block:
    start, end = opening.end(), closing.start()
    attribute = _TITLE_ATTRIBUTE.search(opening["attributes"])
    title = next((g for g in attribute.groups() if g), "") if attribute else ""
    while inner := _INNER_TITLE.match(text, start, end):
        title = inner[2].strip() or title
        start = inner.end()
    if content := _CONTENT.search(text, start, end):
        close_at = text.rfind(f"</{content[1]}>", content.end(), end)
        if close_at >= 0 and not text[start : content.start()].strip():
            start, end = content.end(), close_at
    return Block(start, end, opening.start(), closing.end(), title)


# --- numbered: "Document [3](Title: ...) ...", "[3] ...", "Source 3: ..." -------------------------------------------------

_NUMBERED = re.compile(
    r"""^[ \t]*(?:
        (?:document|doc|passage|source|context|chunk|result|excerpt|snippet|article)\s*
            (?:\[(?P<n1>\d{1,4})\]|\#?(?P<n2>\d{1,4})(?=\s*[:.)(\]-]))
      | \[(?P<n3>\d{1,4})\]
    )[ \t]*(?:\(\s*title:\s*(?P<title>[^\n]{0,300}?)\))?[ \t]*[:.)-]?[ \t]*""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


def _numbered(text: str) -> list[Block]:
    """Two or more blocks whose numbers ascend from 0 or 1. The last ends where the question begins."""
    heads: list[re.Match[str]] = []
    for head in _NUMBERED.finditer(text):
        number = int(head["n1"] or head["n2"] or head["n3"])
        if number == (len(heads) and _number(heads[0]) + len(heads)) or (not heads and number in (0, 1)):
            heads.append(head)
    if len(heads) < 2:
        return []
    ends = [head.start() for head in heads[1:]] + [_end_of_context(text, heads[-1].end())]
    return [
        Block(head.end(), end, head.start(), end, (head["title"] or "").strip())
        for head, end in zip(heads, ends, strict=True)
        if text[head.end() : end].strip()
    ]


def _number(head: re.Match[str]) -> int:
    return int(head["n1"] or head["n2"] or head["n3"])


# --- Markdown headings ---------------------------------------------------------------------------------------------------

_HEADING = re.compile(r"^\#{1,6}[ \t]+(?P<title>[^\n]+?)[ \t#]*$", re.MULTILINE)
_INSTRUCTION_HEADING = re.compile(
    r"(instructions?|rules?|task|question|query|answer|output|format|role|guidelines?)\b", re.IGNORECASE
)


def _headed(text: str) -> list[Block]:
    """Sections under two or more headings of a long text, but for those whose heading speaks to the model."""
    heads = list(_HEADING.finditer(text))
    if len(text) < LONG_TEXT_CHARS or len(heads) < 2:
        return []
    ends = [head.start() for head in heads[1:]] + [_end_of_context(text, heads[-1].end())]
    return [
        Block(head.end(), end, head.start(), end, head["title"].strip())
        for head, end in zip(heads, ends, strict=True)
        if not _INSTRUCTION_HEADING.match(head["title"]) and text[head.end() : end].strip()
    ]


# --- a long text with a question at its end or its beginning ----------------------------------------------------------------

_QUESTION_MARK = re.compile(
    r"^[ \t]*(?:\*\*)?(?:question|query|user question|user query|q|task|request)(?:\*\*)?[ \t]*[:：]", re.I | re.M
)
_CONTEXT_MARK = re.compile(
    r"^[^\n]{0,200}\b(?:context(?: information)?|documents?|passages?|sources?|text|transcript|excerpts?)\b[^\n]{0,80}:[ \t-]*$",
    re.I | re.M,
)
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n")


def _long(text: str) -> list[Block]:
    """One block: from the end of the introduction to the beginning of the question. None where no question is set apart."""
    if len(text) < LONG_TEXT_CHARS:
        return []
    end = _end_of_context(text, 0)
    introduction = _CONTEXT_MARK.search(text, 0, min(end, LONG_TEXT_CHARS))
    start = introduction.end() if introduction else 0
    if end == len(text):
        first = _PARAGRAPH_END.search(text, start)
        if first is None or introduction is not None or first.start() > MAX_QUESTION_CHARS:
            return []
        start = first.end()
    return [Block(start, end, start, end)] if end - start >= LONG_TEXT_CHARS // 2 else []


def _end_of_context(text: str, after: int) -> int:
    """Where the question at the end begins: at its mark, else at a short last paragraph; len(text) if there is none."""
    marks = [mark.start() for mark in _QUESTION_MARK.finditer(text, after)]
    if marks:
        return marks[-1]
    breaks = [gap.end() for gap in _PARAGRAPH_END.finditer(text.rstrip(), after)]
    if breaks and len(text) - breaks[-1] <= MAX_QUESTION_CHARS and "?" in text[breaks[-1] :]:
        return breaks[-1]
    return len(text)


FORMS = (
    Form("tags", _tagged),
    Form("numbered documents", _numbered),
    Form("Markdown headings", _headed),
    Form("long text before a question", _long),
)


def outside(text: str, blocks: tuple[Block, ...]) -> Iterator[str]:
    """What is in no block's outer span: the protected words, in order."""
    position = 0
    for block in blocks:
        yield text[position : block.outer_start]
        position = block.outer_end
    yield text[position:]

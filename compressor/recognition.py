"""Where, inside a message, the retrieved context stands: blocks that may be cut, told from words that may not.

Each way in which RAG stacks write their context is a row in `FORMS`, tried in order; the first that finds anything
speaks for the text. A block has an outer span (its tags, number or heading included; removed when nothing of it is
kept) and an inner one (the text that is ranked). All that is in no block is protected.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

LONG_TEXT_CHARS = 1600  # about 400 tokens: below it, text without marks of a context is taken for the user's own words
MAX_QUESTION_CHARS = 800


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of context in a text: characters `start:end` are ranked, `outer_start:outer_end` go when none is kept.
    `form` is the name of the form that it was recognised by."""

    start: int
    end: int
    outer_start: int
    outer_end: int
    title: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """A way of writing context into a message. `name` and `written`, how it looks, are what users read.

    `beside_question`: a user's text is taken so only where a question stands outside the blocks; else the text may be what
    the user has to say. `in_tools`: whether a tool's output is looked at for it.
    """

    name: str
    find: Callable[[str], list[Block]]
    written: str
    beside_question: bool = False
    in_tools: bool = True


def find_blocks(text: str, *, whole: bool = False) -> tuple[Block, ...]:
    """The blocks of context in `text`, in order and disjoint; none for a text without context.

    `whole`: the text is a tool's output: if it is long, all of it is context where no form is recognised. Where it is not
    certain which words are the user's own, they are taken for the user's: too little context costs tokens, a lost
    instruction costs the answer. Reading takes time in proportion to the text, whatever it is.
    """
    for form in FORMS:
        if form.in_tools or not whole:
            blocks = tuple(block for block in form.find(text) if text[block.start : block.end].strip())
            asks = whole or not form.beside_question or any(_ASKING.search(words) for words in outside(text, blocks))
            if blocks and asks:
                return tuple(replace(block, form=form.name) for block in blocks)
    if whole and len(text.strip()) >= LONG_TEXT_CHARS:
        return (Block(0, len(text), 0, len(text), form=LONG_OUTPUT),)
    return ()


# --- tags: <document>, <context>, <source> ... -------------------------------------------------------------------------

_ITEM_NAMES = ("document", "doc", "passage", "chunk", "item", "search_result", "snippet", "excerpt")
_TAG_NAMES = "|".join((*_ITEM_NAMES, "documents", "docs", "context", "retrieved_context", "source"))
_CONTENT_NAMES = "document_content|document_contents|content|page_content|text|body"
_TITLE_NAMES = ("title", "name", "source", "url", "metadata", "id")  # the first that is there is the title
_TAG = re.compile(rf"<(?P<close>/?)(?P<name>{_TAG_NAMES})\b(?P<attributes>[^<>]*)>", re.IGNORECASE)
_CONTENT = re.compile(rf"<({_CONTENT_NAMES})\b[^<>]*>", re.IGNORECASE)
_INNER_TITLE = re.compile(rf"\s*<({'|'.join(_TITLE_NAMES)})\b[^<>]*>([^<]{{0,300}})</\1>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rf"""\b({"|".join(_TITLE_NAMES)})\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)


def _tagged(text: str) -> list[Block]:
    """The innermost of nested tags. An opening tag without its closing one is text."""
    blocks: list[Block] = []
    open_tags: list[tuple[str, re.Match[str]]] = []
    open_names: Counter[str] = Counter()
    for tag in _TAG.finditer(text):
        name = tag["name"].lower()
        if not tag["close"]:
            if not tag["attributes"].rstrip().endswith("/"):
                open_tags.append((name, tag))
                open_names[name] += 1
            continue
        while open_names[name]:
            opened, opening = open_tags.pop()
            open_names[opened] -= 1
            if opened == name:
                names_its_document = name == "source" and open_tags and open_tags[-1][0] in _ITEM_NAMES
                holds_a_block = blocks and blocks[-1].outer_start > opening.start()
                if not names_its_document and not holds_a_block:
                    blocks.append(_tagged_block(text, opening, tag))
                break
    return blocks


def _tagged_block(text: str, opening: re.Match[str], closing: re.Match[str]) -> Block:
    start, end = opening.end(), closing.start()
    titles = {a[1].lower(): (a[2] or a[3] or "").strip() for a in _ATTRIBUTE.finditer(opening["attributes"])}
    while inner := _INNER_TITLE.match(text, start, end):
        titles[inner[1].lower()] = inner[2].strip()
        start = inner.end()
    if content := _CONTENT.search(text, start, end):
        close_at = text.rfind(f"</{content[1]}>", content.end(), end)
        if close_at >= 0 and not text[start : content.start()].strip():
            start, end = content.end(), close_at
    title = next((titles[name] for name in _TITLE_NAMES if titles.get(name)), "")
    return Block(start, end, opening.start(), closing.end(), title)


# --- numbered: "Document [3](Title: ...) ...", "[3] ...", "Source 3: ..." -------------------------------------------------

_NUMBERED = re.compile(
    r"""^[ \t]*(?:
        (?:document|doc|passage|source|context|chunk|result|excerpt|snippet|article)\s*
            (?:\[(?P<n1>\d{1,4})\]|\#?(?P<n2>\d{1,4})(?=\s*[:.)(\]-]))
      | \[(?P<n3>\d{1,4})\]
    )[ \t]*(?:\(\s*title:\s*(?P<title>(?:[^\n()]|\([^\n()]*\)){0,300})\))?[ \t]*[:.)-]?[ \t]*""",
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
    ]


def _number(head: re.Match[str]) -> int:
    return int(head["n1"] or head["n2"] or head["n3"])


# --- Markdown headings ---------------------------------------------------------------------------------------------------

_HEADING = re.compile(r"^\#{1,6}[ \t]+(?P<title>[^\n]+)$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_INSTRUCTION_HEADING = re.compile(
    r"(?:(?:the|my|your|user|user's|final|current)\s+)*"
    r"(?:instructions?|rules?|task|question|query|request|answer|output|format|role|guidelines?)\b",
    re.IGNORECASE,
)


def _headed(text: str) -> list[Block]:
    """Sections under two or more headings of a long text, but for those whose heading speaks to the model."""
    if len(text) < LONG_TEXT_CHARS:
        return []
    fences = [fence.start() for fence in _FENCE.finditer(text)]  # "# ..." in code is a comment
    heads = [head for head in _HEADING.finditer(text) if bisect.bisect(fences, head.start()) % 2 == 0]
    if len(heads) < 2:
        return []
    ends = [head.start() for head in heads[1:]] + [_end_of_context(text, heads[-1].end())]
    return [
        Block(head.end(), end, head.start(), end, head["title"].strip(" \t#"))
        for head, end in zip(heads, ends, strict=True)
        if not _INSTRUCTION_HEADING.match(head["title"])
    ]


# --- "Question: ... Context: ... Answer:" -----------------------------------------------------------------------------------

_CONTEXT_LABEL = re.compile(
    r"^[ \t]*(?:\*\*)?(?:retrieved )?(?:context|documents|passages|sources|excerpts)(?:\*\*)?[ \t]*[:：](?:\*\*)?",
    re.I | re.M,
)
_ANSWER_LABEL = re.compile(r"^[ \t]*(?:\*\*)?(?:[\w]+ )?answer(?:\*\*)?[ \t]*[:：](?:\*\*)?\s*\Z", re.I | re.M)


def _labelled(text: str) -> list[Block]:
    """One block: what a long text says after "Context:", up to the question or the place for the answer."""
    label = _CONTEXT_LABEL.search(text)
    if len(text) < LONG_TEXT_CHARS or label is None:
        return []
    answer = _ANSWER_LABEL.search(text, max(label.end(), len(text) - MAX_QUESTION_CHARS))
    asked_after = _QUESTION_MARK.search(text, label.end())
    end = answer.start() if answer and not asked_after else _end_of_context(text, label.end())
    return [Block(label.end(), end, label.end(), end)]


# --- a long text with a question at its end or its beginning ----------------------------------------------------------------

_QUESTION_MARK = re.compile(
    r"^[ \t]*(?:\*\*)?(?:question|query|user question|user query|q|task|request)(?:\*\*)?[ \t]*[:：]", re.I | re.M
)
_ASKING = re.compile(
    rf"[?？؟]|^\#{{1,6}}[ \t]+(?:[\w']+[ \t]+)?(?:question|query|request|task)\b|{_QUESTION_MARK.pattern}", re.I | re.M
)
_RULE_LINE = r"^[ \t]*[-=_*~]{5,}[ \t]*$"
_CONTEXT_MARK = re.compile(
    r"^[^\n]{0,200}\b(?:context(?: information)?|documents?|passages?|sources?|text|transcript|excerpts?)\b[^\n]{0,80}:[ \t-]*$|"
    + _RULE_LINE,
    re.I | re.M,
)
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n|" + _RULE_LINE, re.M)
_TO_THE_MODEL = re.compile(
    r"\b(?:context|question|query|answer|documents?|passages?|excerpts?)\b.{0,400}?"
    r"\b(?:context|question|query|answer|documents?|passages?|excerpts?|below|following|given|only)\b",
    re.I | re.S,
)


def _long(text: str) -> list[Block]:
    """One block: from the end of the introduction to the beginning of the question. None where no question is set apart."""
    if len(text) < LONG_TEXT_CHARS:
        return []
    end = _end_of_context(text, 0)
    introduction = _CONTEXT_MARK.search(text, 0, min(end, LONG_TEXT_CHARS))
    first = _PARAGRAPH_END.search(text, 0, min(end, MAX_QUESTION_CHARS))
    if _ASKING.search(text, end):
        spoken = first if first and _TO_THE_MODEL.search(text, 0, first.start()) else None
        start = max((mark.end() for mark in (introduction, spoken) if mark), default=0)
    elif first and not introduction and _ASKING.search(text, 0, first.start()):
        start = first.end()
    else:
        return []
    return [Block(start, end, start, end)] if end - start >= LONG_TEXT_CHARS // 2 else []


def _end_of_context(text: str, after: int) -> int:
    """Where the user's own words at the end begin: at the mark of a question, with words to the model just before it; else
    at the first short paragraph that asks, with all that follows; else at the last paragraph if it is short."""
    marks = [mark.start() for mark in _QUESTION_MARK.finditer(text, after)]
    end = marks[-1] if marks else len(text.rstrip())
    gaps = [*_PARAGRAPH_END.finditer(text, max(after, end - MAX_QUESTION_CHARS), end)]
    stops = [*(gap.start() for gap in gaps[1:]), end]
    paragraphs = [(gap.start(), text[gap.end() : stop]) for gap, stop in zip(gaps, stops, strict=False)]
    if marks:
        for start, words in reversed(paragraphs):
            if words.strip() and not _TO_THE_MODEL.search(words):
                break
            end = start
        return end
    asking = [start for start, words in paragraphs if "?" in words or "？" in words or "؟" in words]
    return (asking or [start for start, _ in paragraphs[-1:]] or [len(text)])[0]


FORMS = (
    Form(
        "tags",
        _tagged,
        "`<document>`, `<context>`, `<source>`, `<passage>`, `<chunk>`, `<search_result>`, ...: the innermost tags' text; "
        "a `title`, `source` or `name` (attribute or inner tag) is its title",
    ),
    Form(
        "numbered documents",
        _numbered,
        "two or more of `Document [3](Title: ...) ...`, `[3] ...`, `Source 3: ...`, numbered from 0 or 1",
    ),
    Form(
        "Markdown headings",
        _headed,
        f"two or more headings in a text over {LONG_TEXT_CHARS:,} characters: each section, but for those under headings "
        'such as "Instructions" or "Question"',
        beside_question=True,
    ),
    Form(
        "labelled context",
        _labelled,
        f"a label such as `Context:` beside a question, in a text over {LONG_TEXT_CHARS:,} characters: the text under the "
        "label, up to the label that follows",
        beside_question=True,
        in_tools=False,
    ),
    Form(
        "long text before a question",
        _long,
        f"a text over {LONG_TEXT_CHARS:,} characters beside a question that is set apart: the text, up to the question",
        in_tools=False,
    ),
)
LONG_OUTPUT: Final = "long tool output"


def outside(text: str, blocks: tuple[Block, ...]) -> Iterator[str]:
    """What is in no block's outer span: the protected words, in order."""
    position = 0
    for block in blocks:
        yield text[position : block.outer_start]
        position = block.outer_end
    yield text[position:]

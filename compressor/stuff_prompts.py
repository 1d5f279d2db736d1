"""Stuff prompts: the retrieval frameworks' own templates that put the context into the system message.

A system message is protected, because what it says binds the model. These templates are known to the word, so that where
the context begins is known too. Nothing else is looked for: not tags, not headings, and no template that was reworded.

Where a template ends with its context, applications add instructions below it; what stands in the last lines is protected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from compressor.recognition import Block

LAST_CHARS: Final = 300
"""How many characters at the end of a message, back to the start of a line, are taken for instructions."""


@dataclass(frozen=True, slots=True)
class Template:
    """A row. The context stands between `head`, which begins the message, and `tail`; without a `tail`, at the end.

    Both are the framework's words; how its white space is broken is not told apart.
    """

    name: str
    head: str
    tail: str = ""


_ASSISTANT: Final = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question."
)
_RULE: Final = "-" * 20
TEMPLATES: Final = (
    Template(
        "LangChain, question answering",
        "Use the following pieces of context to answer the user's question. If you don't know the answer, just say that you "
        "don't know, don't try to make up an answer. ----------------",
    ),
    Template(
        "LangChain, retrieval chain",
        f"{_ASSISTANT} If you don't know the answer, say that you don't know. Use three sentences maximum and keep the answer "
        "concise.",
    ),
    Template(
        "LangChain, rag-prompt",
        f"{_ASSISTANT} If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
        "answer concise.",
    ),
    Template(
        "LangChain, retrieval-qa-chat",
        "Answer any use questions based solely on the context below: <context>",
        "</context>",
    ),
    Template("LangChain, agent", "You are a helpful assistant. Use the following context in your response:"),
    Template("LlamaIndex, context chat", f"Use the context information below to assist the user. {_RULE}", _RULE),
    Template("LlamaIndex, context_str", f"Context information is below. {_RULE}", _RULE),
    Template(
        "LlamaIndex, condense plus context",
        "The following is a friendly conversation between a user and an AI assistant. The assistant is talkative and provides "
        "lots of specific details from its context. If the assistant does not know the answer to a question, it truthfully "
        "says it does not know. Here are the relevant documents for the context:",
        "Instruction: Based on the above documents, provide a detailed answer for the user question below.",
    ),
)

FORM: Final = "stuff prompt"
WRITTEN: Final = (
    "the templates of "
    + " and ".join(dict.fromkeys(each.name.partition(",")[0] for each in TEMPLATES))
    + f" that put the context into the system message, to the word; the last lines, up to {LAST_CHARS} characters, stay "
    "where a template ends with its context"
)


def stuffed(text: str) -> tuple[Block, ...]:
    """The context in a system message that is one of TEMPLATES, as one block; empty for every other message."""
    for template, head, tail in _PATTERNS:
        opening = head.match(text)
        if opening is None:
            continue
        start = opening.end()
        if template.tail:
            closing = tail.search(text, start)  # the first: what follows may be the application's own
            end = closing.start() if closing else start
        else:
            line = text.find("\n", max(start, len(text) - LAST_CHARS))
            end = len(text) if line < 0 else line
        if text[start:end].strip():
            return (Block(start, end, start, end, form=FORM),)
    return ()


def _worded(words: str) -> re.Pattern[str]:
    return re.compile(r"\s*" + r"\s+".join(map(re.escape, words.split())))


_PATTERNS: Final = tuple((each, _worded(each.head), _worded(each.tail)) for each in TEMPLATES)

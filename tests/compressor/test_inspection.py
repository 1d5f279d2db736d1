"""An inspection says of every word what becomes of it; and what the docs publish is what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor import Source
from compressor.inspection import PROTECTED, RECOGNISED, Inspection, Row, inspect
from compressor.payload import parse
from compressor.prompts import CHAT, MESSAGES, RESPONSES, Api
from compressor.ranking import whole
from compressor.stuff_prompts import LAST_CHARS, TEMPLATES, stuffed
from compressor.tokens import count_tokens
from tests.compressor.test_prompts import (
    ASKS,
    CALL,
    MARK,
    document,
    found,
    listed,
    messages,
    responses,
    result,
    searched,
)
from tests.compressor.test_recognition import ANTHROPIC_DOCS, DOC, LONG

QUESTION = "How large may an upload be?"
STUFF = (
    "Use the following pieces of context to answer the user's question. \nIf you don't know the answer, just say that you "
    "don't know, don't try to make up an answer.\n----------------\n"
)
DOCS = Path(__file__).parents[2] / "docs" / "payloads.md"


def chat(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": role, "content": content} for role, content in turns], **more}


def seen(api: Api, body: dict[str, Any], contexts: tuple[Source, ...] = (), query: str | None = None) -> Inspection:
    return inspect(parse(api, body, contexts, query))


def forms(found: Inspection) -> list[tuple[str, str]]:
    return [(span.path, span.form) for span in found.spans if span.trimmable]


def why(found: Inspection, path: str) -> list[str]:
    return [span.reason.partition(":")[0] for span in found.spans if span.path == path and not span.trimmable]


CASES: dict[str, tuple[Api, dict[str, Any]]] = {
    "tags": (CHAT, chat(("user", ANTHROPIC_DOCS))),
    "numbered documents": (CHAT, chat(("user", f"[1] {DOC}\n[2] {DOC}\n\n{QUESTION}"))),
    "Markdown headings": (CHAT, chat(("user", f"# A\n{LONG}\n# B\n{DOC}\n\n{QUESTION}"))),
    "labelled context": (CHAT, chat(("user", f"Question: {QUESTION}\nContext: {LONG}\nAnswer:"))),
    "long text before a question": (CHAT, chat(("user", f"{LONG}\n\n{QUESTION}"))),
    "long tool output": (CHAT, chat(("user", QUESTION), ("tool", LONG))),
    "document block": (MESSAGES, messages([document(DOC), listed(DOC, DOC), ASKS])),
    "search result": (MESSAGES, messages([found(DOC), ASKS])),
    "file search result": (RESPONSES, responses([searched(DOC), {"role": "user", "content": QUESTION}])),
    "stuff prompt": (CHAT, chat(("system", STUFF + LONG), ("user", QUESTION))),
}


def test_every_form_is_met_under_its_name() -> None:
    assert {row.name for row in RECOGNISED} == {*CASES, "trimtab.contexts"}
    for name, (api, body) in CASES.items():
        assert {form for _, form in forms(seen(api, body))} == {name}
    given = seen(CHAT, chat(("user", QUESTION)), (Source("a", DOC, "Limits"), Source("b", LONG)))
    assert forms(given) == [("trimtab.contexts.0", "trimtab.contexts"), ("trimtab.contexts.1", "trimtab.contexts")]
    assert given.spans[0].title == "Limits"
    assert given.spans[0].turn is None


def test_every_reason_is_met_under_its_name() -> None:
    cached = messages([{"type": "text", "text": LONG, **MARK}, ASKS])
    reasons = {
        span.reason.partition(":")[0]
        for found in (
            seen(CHAT, chat(("system", "Be brief."), ("user", f"<doc>{DOC}</doc>\n{QUESTION}"), ("assistant", "Yes."))),
            seen(CHAT, chat(("user", QUESTION), ("tool", DOC), ("tool", f"Here: <doc>{DOC}</doc>"))),
            seen(MESSAGES, cached),
            seen(CHAT, chat(("user", QUESTION), ("tool", LONG)), (Source("a", DOC),)),
            seen(MESSAGES, messages(QUESTION, [CALL], [result(DOC)])),
        )
        for span in found.spans
        if not span.trimmable
    }
    assert reasons == {row.name for row in PROTECTED}


def test_what_protects_goes_before_what_is_recognised() -> None:
    found = seen(MESSAGES, messages([document(LONG, **MARK), document(DOC), ASKS], system=STUFF + LONG))
    assert forms(found) == [("messages.0.content.1.source.data", "document block")]
    assert found.cached_until == "messages.0.content.0.source.data"
    assert why(found, "messages.0.content.0.source.data") == ["cached prefix"]
    assert why(found, "system") == ["cached prefix"]


def test_the_question_and_where_it_was_read() -> None:
    body = chat(("user", f"<doc>{LONG}</doc>\n{QUESTION}"), ("assistant", "5 GB."), ("user", "And a name?"))
    assert (seen(CHAT, body).query, seen(CHAT, body).query_from) == ("And a name?", "messages.2")
    asked = seen(CHAT, body, query="limits")
    assert (asked.query, asked.query_from) == ("limits", "trimtab.query")
    silent = seen(CHAT, chat(("user", f"<doc>{LONG}</doc>")))
    assert (silent.query, silent.query_from) == ("", "")
    assert seen(RESPONSES, responses(QUESTION)).query_from == "input.0"


def test_tokens_are_those_of_the_words() -> None:
    found = seen(CHAT, chat(("user", f"<doc>{LONG}</doc>\n\n{QUESTION}")))
    assert [(span.tokens, span.start, span.end) for span in found.spans if span.path] == [
        (count_tokens(LONG), 5, 5 + len(LONG)),
        (count_tokens(f"\n\n{QUESTION}"), 11 + len(LONG), 13 + len(LONG) + len(QUESTION)),
    ]
    assert found.to_dict()["trimmable_tokens"] == count_tokens(LONG)


# --- stuff prompts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda each: each.name)
def test_each_template_by_its_words(template: Any) -> None:
    text = f"\n{template.head}\n\n{LONG}\n\n{template.tail} As I said.\nBe brief."
    (block,) = stuffed(text)
    assert text[: block.start].strip() == template.head
    context = text[block.start : block.end].strip()
    assert LONG.startswith(context)
    assert len(context) > len(LONG) - LAST_CHARS
    assert text[block.end :].strip().endswith(f"{template.tail} As I said.\nBe brief.".strip())
    assert stuffed(text.replace(" the ", " The ").replace("is", "was").replace("Use", "Read")) == ()
    assert stuffed("Hello. " + text) == ()


def test_langchains_and_llama_indexs_own_templates() -> None:
    """As the installed libraries write them, so that a template that changes is found out."""
    prompts = pytest.importorskip("langchain_classic.chains.question_answering.stuff_prompt")
    context = pytest.importorskip("llama_index.core.chat_engine.context")
    condense = pytest.importorskip("llama_index.core.chat_engine.condense_plus_context")
    for written in (
        prompts.system_template.format(context=LONG),
        context.DEFAULT_CONTEXT_TEMPLATE.format(context_str=LONG) + "You are terse.",
        condense.DEFAULT_CONTEXT_PROMPT_TEMPLATE.format(context_str=LONG) + "You are terse.",
    ):
        (block,) = stuffed(written)
        assert LONG.startswith(written[block.start : block.end].strip())
        assert written[block.end :].endswith("terse.") or written.endswith(LONG)


@pytest.mark.parametrize(
    "text",
    ["", "Be brief.", LONG, f"<doc>{LONG}</doc>", f"Use this context:\n\n{LONG}", STUFF, f"# A\n{LONG}\n# B\n{LONG}"],
)
def test_every_other_system_message_is_protected(text: str) -> None:
    assert stuffed(text) == ()
    for api, body in (
        (CHAT, chat(("system", text), ("user", QUESTION))),
        (CHAT, chat(("developer", [{"type": "text", "text": text}]), ("user", QUESTION))),
        (MESSAGES, messages(QUESTION, system=text)),
        (RESPONSES, responses(QUESTION, instructions=text)),
    ):
        assert parse(api, body).sources == ()


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (CHAT, chat(("developer", [{"type": "text", "text": STUFF + LONG}]), ("user", QUESTION))),
        (MESSAGES, messages(QUESTION, system=STUFF + LONG)),
        (
            MESSAGES,
            messages(QUESTION, system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": STUFF + LONG}]),
        ),
        (RESPONSES, responses(QUESTION, instructions=STUFF + LONG)),
        (RESPONSES, responses([{"role": "system", "content": STUFF + LONG}, {"role": "user", "content": QUESTION}])),
    ],
)
def test_a_stuff_prompt_is_found_wherever_instructions_stand(api: Api, body: dict[str, Any]) -> None:
    payload = parse(api, body)
    (source,) = payload.sources
    assert LONG.startswith(source.text.strip())
    assert payload.rebuilt(whole(payload.sources)) == body


# --- anything ---------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [DOC, LONG, QUESTION, ANTHROPIC_DOCS, STUFF + LONG, f"[1] {DOC}\n[2] {DOC}\n\n?", "", " \n", "\ud800"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), WORDS), min_size=1, max_size=5))
def test_every_word_is_accounted_for(turns: list[tuple[str, str]]) -> None:
    found = seen(CHAT, chat(*turns))
    for number, (_, text) in enumerate(turns):
        spans = [span for span in found.spans if span.path == f"messages.{number}.content"]
        position, left = 0, ""
        for span in spans:
            assert position <= span.start < span.end <= len(text)
            left += text[position : span.start]
            position = span.end
        left += text[position:]
        # what no span speaks of is white space, and the tags, numbers and headings of contexts
        assert re.sub(r"<[^<>]*>[^<>]*</source>|<[^<>]*>|\[\d+\]|\s", "", left) == ""


# --- the docs ---------------------------------------------------------------------------------------------------------


def printed(row: Row) -> str:
    return f"| {row.name} | {row.where} | {row.written} |"


def test_the_published_table_is_the_codes() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert rows == [printed(row) for row in (*RECOGNISED, *PROTECTED)]
    assert re.findall(r"^- (L\w+, .*)$", text, re.M) == [each.name for each in TEMPLATES]

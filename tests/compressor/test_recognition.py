"""Every way in which RAG stacks write their context, as they write it; and what is not context, left alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.recognition import FORMS, LONG_TEXT_CHARS, Block, find_blocks, outside

DOC = "Uploads may be 5 GB. A bucket holds 100 TB, and objects in it are kept for 30 days after they were deleted."
LONG = "\n\n".join(f"{n}. {DOC}" for n in range(16))


def inner(text: str, *, whole: bool = False) -> list[str]:
    return [text[block.start : block.end].strip() for block in checked(text, whole=whole)]


def titles(text: str) -> list[str]:
    return [block.title for block in checked(text)]


def own_words(text: str) -> str:
    return "".join(outside(text, checked(text)))


def checked(text: str, *, whole: bool = False) -> tuple[Block, ...]:
    """The blocks, of which the contract holds: in range, sorted, disjoint, not blank, the inner in the outer."""
    blocks = find_blocks(text, whole=whole)
    position = 0
    for block in blocks:
        assert position <= block.outer_start <= block.start < block.end <= block.outer_end <= len(text)
        assert text[block.start : block.end].strip()
        position = block.outer_end
    protected = list(outside(text, blocks))
    assert len(protected) == len(blocks) + 1
    rebuilt = protected[0]
    for block, words in zip(blocks, protected[1:], strict=True):
        rebuilt += text[block.outer_start : block.outer_end] + words
    assert rebuilt == text
    return blocks


# --- tags ------------------------------------------------------------------------------------------------------------------

ANTHROPIC_DOCS = """<documents>
  <document index="1">
    <source>annual_report_2023.pdf</source>
    <document_content>
      Revenue grew by 12 %.
    </document_content>
  </document>
  <document index="2">
    <source>competitor_analysis_q2.xlsx</source>
    <document_content>
      Two rivals cut prices.
    </document_content>
  </document>
</documents>

Analyze the annual report and competitor analysis. Recommend Q3 focus areas."""

ANTHROPIC_SEARCH = """<search_results>
<item index="1">
<source>
https://example.com/limits
</source>
<page_content>
Uploads may be 5 GB.
</page_content>
</item>
<item index="2">
<source>https://example.com/keys</source>
<page_content>
Keys are rotated.
</page_content>
</item>
</search_results>
How large may an upload be?"""


def test_documents_as_anthropics_docs_write_them() -> None:
    assert inner(ANTHROPIC_DOCS) == ["Revenue grew by 12 %.", "Two rivals cut prices."]
    assert titles(ANTHROPIC_DOCS) == ["annual_report_2023.pdf", "competitor_analysis_q2.xlsx"]
    first = checked(ANTHROPIC_DOCS)[0]
    outer = ANTHROPIC_DOCS[first.outer_start : first.outer_end]
    assert outer.startswith('<document index="1">')
    assert outer.endswith("</document>")


def test_search_results_as_anthropics_docs_write_them() -> None:
    assert inner(ANTHROPIC_SEARCH) == ["Uploads may be 5 GB.", "Keys are rotated."]
    assert titles(ANTHROPIC_SEARCH) == ["https://example.com/limits", "https://example.com/keys"]
    assert own_words(ANTHROPIC_SEARCH).endswith("\nHow large may an upload be?")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("<document>A text.</document>", ""),
        ('<document title="Limits">A text.</document>', "Limits"),
        ("<document title='Limits'>A text.</document>", "Limits"),
        ('<document id="3" title="Limits" source="x.pdf">A text.</document>', "Limits"),
        ('<doc id="3">A text.</doc>', "3"),
        ('<document index="1"><source>x.pdf</source>A text.</document>', "x.pdf"),
        ("<document><title>Limits</title><url>https://example.com</url><text>A text.</text></document>", "Limits"),
        ("<document><url>https://example.com</url><title>Limits</title><body>A text.</body></document>", "Limits"),
        ('<document id="7"><source>x.pdf</source>\n<content>\nA text.\n</content></document>', "x.pdf"),
        ("<DOCUMENT><Title>Limits</Title>A text.</DOCUMENT>", "Limits"),
        ("<context>A text.</context>", ""),
        ('<chunk source="a/b.md">A text.</chunk>', "a/b.md"),
        ("<source>A text.</source>", ""),
        ('<search_result title="Limits">A text.</search_result>', "Limits"),
        ("<passage>A text.</passage>", ""),
        ("<retrieved_context>A text.</retrieved_context>", ""),
    ],
)
def test_tags_and_their_titles(text: str, title: str) -> None:
    text = f"Hello.\n{text}\nWhat is it?"
    assert inner(text) == ["A text."]
    assert titles(text) == [title]
    assert own_words(text) == "Hello.\n\nWhat is it?"


def test_sources_that_are_the_documents() -> None:
    text = "<documents><source>One text.</source><source>Another text.</source></documents>"
    assert inner(text) == ["One text.", "Another text."]


def test_the_innermost_of_nested_tags() -> None:
    text = (
        "<context><document>One.</document> and <document><chunk>Two.</chunk><chunk>Three.</chunk></document></context>"
    )
    assert inner(text) == ["One.", "Two.", "Three."]


@pytest.mark.parametrize(
    "text",
    [
        "What does <document> mean in XML?",
        "Is it </doc> or <context/> or <doc>?",
        "</document> closes what <document> opens",
        "<document></document><document>  \n </document>",
        "<documentary>No.</documentary>",
        "a < document > b",
    ],
)
def test_words_about_tags_are_words(text: str) -> None:
    assert checked(text) == ()


def test_an_unclosed_tag_hides_nothing_after_it() -> None:
    assert inner("<document>lost <document>One.</document> <context>Two.</context>") == ["One.", "Two."]
    assert inner("<context><document>One.</context>") == ["<document>One."]


# --- numbered ----------------------------------------------------------------------------------------------------------------


def test_numbered_documents_as_lost_in_the_middle_writes_them() -> None:
    intro = "Write a high-quality answer for the given question using only the provided search results.\n\n"
    documents = [f"Document [{n}](Title: Title {n} (disambiguation)) Text {n}. {DOC}" for n in range(1, 21)]
    text = intro + "\n".join(documents) + "\n\nQuestion: how large may an upload be\nAnswer:"
    assert inner(text) == [f"Text {n}. {DOC}" for n in range(1, 21)]
    assert titles(text) == [f"Title {n} (disambiguation)" for n in range(1, 21)]
    assert own_words(text) == intro + "\n\nQuestion: how large may an upload be\nAnswer:"


@pytest.mark.parametrize(
    "head",
    ["[{}] ", "[{}]: ", "Document {}: ", "Source {}. ", "Passage {}) ", "DOC #{}: ", "Context [{}] ", "chunk {} - "],
)
@pytest.mark.parametrize("first", [0, 1])
def test_ways_to_number(head: str, first: int) -> None:
    text = "".join(f"{head.format(first + n)}Text {n}.\n" for n in range(3)) + "\nWhich text is the second?"
    assert inner(text) == ["Text 0.", "Text 1.", "Text 2."]
    assert own_words(text).strip() == "Which text is the second?"


@pytest.mark.parametrize(
    "ending",
    [
        "How large may an upload be?",
        "List every limit with its value.",
        "How large may an upload be?\n\nAnswer in one sentence.",
        "上传的上限是多少？",
        "请总结这些文件。",
        "ما هو الحد الأقصى للتحميل؟",
        "Question: how large may an upload be",
        "**Query:** how large",
        "Given the context above, answer the question.\nQuestion: how large?\n\nBe brief.",
    ],
)
def test_the_users_own_words_after_the_documents_are_protected(ending: str) -> None:
    for blank in ("\n\n", "\n \n", "\n\n\n"):
        text = f"Use these.\n\n[1] {DOC}\n[2] {DOC}\n\nA second paragraph of it.{blank}{ending}\n"
        assert own_words(text).endswith(ending + "\n")
        assert inner(text)[0] == DOC
        assert inner(text)[1].startswith(DOC)


@pytest.mark.parametrize(
    "text", ["[1] only one\n\nWhat?", "[2] two\n[3] three", "[1] one\n[3] three", "as [1] and [2] say, x"]
)
def test_numbers_that_are_no_list_of_documents(text: str) -> None:
    assert checked(text) == ()


# --- headings ----------------------------------------------------------------------------------------------------------------


def test_sections_under_headings() -> None:
    text = f"# Limits\n{LONG}\n\n## Keys ##\nKeys are rotated.\n\n# Empty\n\n## Question\nHow large may an upload be?"
    assert titles(text) == ["Limits", "Keys"]
    assert inner(text)[1] == "Keys are rotated."
    assert own_words(text) == "# Empty\n\n## Question\nHow large may an upload be?"


@pytest.mark.parametrize(
    "heading", ["Instructions", "Rules", "Your task", "Output format", "The question", "User query", "Role"]
)
def test_a_section_that_speaks_to_the_model_is_protected(heading: str) -> None:
    text = f"# Limits\n{LONG}\n\n# {heading}\nNever say more than you know.\n\n# Keys\nKeys are rotated.\n\nHow large may it be?"
    assert titles(text) == ["Limits", "Keys"]
    assert "Never say more than you know." in own_words(text)


def test_headings_without_a_question_may_be_what_the_user_has_to_say() -> None:
    text = f"# Requirements\n{LONG}\n\n# Constraints\nNo libraries.\n\nWrite it in Rust."
    assert checked(text) == ()
    assert len(find_blocks(text, whole=True)) == 2  # a tool has no question to ask


def test_a_comment_in_code_is_no_heading() -> None:
    text = f"# Install\n{LONG}\n\n```sh\n# first\nmake install\n# then\nmake test\n```\n\n# Use\nRun it.\n\nHow do I install it?"
    assert titles(text) == ["Install", "Use"]
    assert inner(text)[0].endswith("```")


# --- long text beside a question ------------------------------------------------------------------------------------------------


def test_langchains_stuff_prompt() -> None:
    head = (
        "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say that "
        "you don't know, don't try to make up an answer.\n\n"
    )
    tail = "\n\nQuestion: How large may an upload be?\nHelpful Answer:"
    text = head + LONG + tail
    assert inner(text) == [LONG]
    assert own_words(text) == head + tail


def test_llamaindexs_text_qa_prompt() -> None:
    head = "Context information is below.\n---------------------\n"
    tail = (
        "\n---------------------\nGiven the context information and not prior knowledge, answer the query.\n"
        "Query: How large may an upload be?\nAnswer: "
    )
    text = head + LONG + tail
    assert inner(text) == [LONG]
    assert own_words(text).replace("\n", "") == (head + tail).replace("\n", "")


def test_langchains_rag_prompt_from_the_hub() -> None:
    head = (
        "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
        "question. If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
        "answer concise.\n"
    )
    text = f"{head}Question: How large may an upload be? \nContext: {LONG} \nAnswer:"
    assert inner(text) == [LONG]
    assert own_words(text) == head + "Question: How large may an upload be? \nContext:Answer:"


@pytest.mark.parametrize("label", ["Context:", "**Context:**", "Retrieved context:", "SOURCES:", "Documents："])
def test_context_after_a_label(label: str) -> None:
    text = f"Be brief.\n{label} {LONG}\n\nQuestion: How large?\n\nAnswer:"
    assert inner(text) == [LONG]
    assert own_words(text) == f"Be brief.\n{label}\n\nQuestion: How large?\n\nAnswer:"
    assert inner(f"How large?\n{label}\n{LONG}\n\nBe brief.") == [LONG]


@pytest.mark.parametrize("question", ["How large may an upload be?", "上限是多少？"])
def test_a_question_before_or_after_a_long_text(question: str) -> None:
    assert inner(f"{question}\n\n{LONG}")[0].startswith("0. Uploads")
    assert question in own_words(f"{question}\n\n{LONG}")
    assert inner(f"{LONG}\n\n{question}") == [LONG]
    assert inner(f"Here is the transcript:\n{LONG}\n\n{question}") == [LONG]
    assert own_words(f"Here is the transcript:\n{LONG}\n\n{question}").strip().startswith("Here is the transcript:")


@pytest.mark.parametrize(
    "text",
    ["", "  \n", DOC, f"{DOC}\n\nHow large?", "Summarise this text:\n\n" + LONG, "Do as I say.\n\n" + LONG, "x" * 3000],
)
def test_texts_without_context(text: str) -> None:
    assert checked(text) == ()


def test_a_tools_long_output_is_context_whole() -> None:
    assert inner(LONG, whole=True) == [LONG]
    assert inner(DOC, whole=True) == []
    assert inner("x" * LONG_TEXT_CHARS, whole=True) == ["x" * LONG_TEXT_CHARS]
    assert inner(ANTHROPIC_DOCS, whole=True) == inner(ANTHROPIC_DOCS)
    question_first = f"Is it so?\n\n{LONG}"
    assert inner(question_first, whole=True) == [question_first]


# --- anything -----------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "<document>", "</document>", '<document title="x">', "<doc/>", "<source>", "</source>", "<context>", "</context>",
        "<title>t</title>", "<document_content>", "</document_content>", "<content>", "</content>", "<", ">", "\n", "\n\n",
        "[1] ", "[2] ", "\n[1]", "\n[2] ", "\nDocument [0](Title: a) ", "\nDocument [1](Title: b", "# H\n", "\n## Question\n",
        "\n```\n", "-----\n", "\n-----\n",
        "Question: ", "\nQuery:", "context:\n", "\nContext: ", "\nAnswer:", "?", "？", " ", "a word", DOC, LONG, "\ud800", "\0",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join), st.booleans())
def test_blocks_of_any_text(text: str, whole: bool) -> None:
    checked(text, whole=whole)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec=None), max_size=300), st.booleans())
def test_blocks_of_any_characters(text: str, whole: bool) -> None:
    checked(text, whole=whole)


MEGABYTE = 1_000_000
HOSTILE = {
    "openers": "<document>",
    "closers": "</document>",
    "attributes": '<document title="',
    "half tags": "<document ",
    "angle brackets": "<",
    "titles": "<document><title>",
    "numbers": "\n[1] ",
    "numbers with titles": "\n[1](title: ",
    "heads": "\nDocument ",
    "headings": "\n# h ",
    "hashes": "# ",
    "blank lines": "\n \t",
    "blanks": " ",
    "newlines": "\n",
    "fences": "\n```",
    "rules": "\n-----",
    "questions": "\nQuestion: ",
    "asterisks": "\n**",
    "contexts": "context ",
    "labels": "\nContext: ",
    "answers": "\nanswer:",
    "question marks": "?\n\n",
    "quotes": "<doc title='",
    "lines of context": "\ncontext: given the answer",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_marks_takes_linear_time(name: str) -> None:
    text = HOSTILE[name] * (MEGABYTE // len(HOSTILE[name])) + "x\n\nWhat?"
    assert seconds(text) < 5  # quadratic would be hours
    for part in (text[-9000:], text[:9000]):
        checked(part, whole=True)
        checked(part)


NESTED = (
    "<document>" * 45_000 + "</document>" * 45_000,
    "<doc>" * 90_000 + "</source>" * 50_000,
    "<document><source>" * 25_000 + "x</source>" * 50_000,
    "<context>" + "<document>a</document>" * 40_000,
    "<document>" * 45_000 + "a</document><chunk>b</chunk>" * 18_000,
    "# " * 400_000 + "x\n" + "# h\n" * 2 + "?",
)


@pytest.mark.parametrize("number", range(len(NESTED)))
def test_a_megabyte_of_nested_marks_takes_linear_time(number: int) -> None:
    assert seconds(NESTED[number]) < 5


def seconds(text: str) -> float:
    """CPU time of this thread: other programs on the machine do not count."""
    began = time.thread_time()
    find_blocks(text)
    return time.thread_time() - began


def test_every_form_was_met_here() -> None:
    samples = {
        "tags": ANTHROPIC_DOCS,
        "numbered documents": f"[1] {DOC}\n[2] {DOC}\n\nWhat?",
        "Markdown headings": f"# A\n{LONG}\n# B\n{DOC}\n\nWhat?",
        "labelled context": f"Question: What?\nContext: {LONG}\nAnswer:",
        "long text before a question": f"{LONG}\n\nWhat?",
    }
    assert {form.name for form in FORMS} == set(samples)
    for form in FORMS:
        assert form.find(samples[form.name])

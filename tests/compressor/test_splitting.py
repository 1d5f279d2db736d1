"""Splitting: what holds for every text, and that no kind of text is broken by any cut of it.

Cuts are made by `Ranking.cut` with random scores, so that what is tested is what is sent.
"""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.splitting import KINDS, MAX_PIECE_CHARS, Piece, split
from tests.compressor.made import COUNTED, ranked

RATIOS = (0.15, 0.4, 0.7, 0.9)


def texts_of(text: str) -> list[str]:
    return [text[p.start : p.end] for p in split(text)]


def kinds_of(text: str) -> set[str]:
    return {p.kind for p in split(text)}


def cuts_of(text: str, seed: int = 0) -> list[str]:
    """What is left of `text` at each of RATIOS, within budget."""
    ranking = ranked([text], seed=seed)
    kept = []
    for ratio in RATIOS:
        budget = int(ratio * ranking.full_tokens)
        trimmed = ranking.cut(budget)
        assert trimmed.tokens_after <= budget
        kept.append(trimmed.contexts[0].text)
    return [text for text in kept if text]


def assert_sound(text: str) -> list[Piece]:
    """Spans in order, disjoint, stripped and not empty; only white space and JSON's commas are in none; skeletons closed."""
    pieces = split(text)
    position = 0
    for number, piece in enumerate(pieces):
        between, inside = text[position : piece.start], text[piece.start : piece.end]
        assert position <= piece.start < piece.end
        assert inside == inside.strip()
        assert not between.replace("," if piece.kind.startswith("json") else "", "").strip()
        assert piece.skeleton == tuple(sorted(set(piece.skeleton) - {number}))
        needed = {*piece.skeleton, number}
        assert all(needed.issuperset(pieces[s].skeleton) for s in piece.skeleton), (
            "what a skeleton needs, its users name"
        )
        position = piece.end
    assert not text[position:].strip()
    return pieces


# --- every text --------------------------------------------------------------------------------------------------------

LINES = (
    "# Heading", "Plain words here. And more of them!", "- item one", "  - deeper item:", "1. first", "The colors are:", "",
    "| a | b |", "|---|---|", "| 1 | 2 |", "a\tb\tc", "x,1,2", "y,3,4", '{"k": [1, 2]}', "[", "{", "}", '"', "```python", "```",
    "def f(x):", "    return x", "    if x:", "else:", "class A {", "  foo();", "@decorator", "'''", '"""', "/*", "*/",
    "2024-01-31 12:00:01 INFO started", "    at a.b.C(D.java:1)", "Traceback (most recent call last):", "ValueError: no",
    "diff --git a/x b/x", "--- a/x", "+++ b/x", "@@ -1,2 +1,2 @@", "+added", "-removed", " context",
    "<div>", "<p>Text <b>bold</b>.</p>", "</div>", "<table>", "<tr><td>1</td></tr>", "</table>", "<!--", "<script>",
    "Alice: hello", "Bob: bye", "user: hi", "我们去。好！", "x" * 700, "word " * 200, "\u2028", "\x0b", "\r",
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=25), st.sampled_from(("\n", "\r\n", "\n\n", " ")))
def test_any_mixture_of_lines_is_covered(lines: list[str], end: str) -> None:
    assert_sound(end.join(lines))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_covered(text: str) -> None:
    assert_sound(re.sub("[\ud800-\udfff]", "", text))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=25), st.integers(0, 99))
def test_a_cut_says_nothing_that_the_text_did_not(lines: list[str], seed: int) -> None:
    text = "\n".join(lines)
    words = re.findall(r"\w+", text)
    for kept in cuts_of(text, seed):
        said = re.findall(r"\w+", COUNTED.sub("…", kept))
        assert said == _subsequence(said, words)


def _subsequence(part: list[str], whole: list[str]) -> list[str]:
    """As much of `part`, from its beginning, as stands in `whole` in that order."""
    rest = iter(whole)
    found = []
    for word in part:
        if word not in rest:
            break
        found.append(word)
    return found


def test_kinds_are_told_apart_in_one_text() -> None:
    text = (
        "# Report\n\nSome words. And more.\n\n```sql\nSELECT 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        '{"k": "v"}\n\n2024-01-31 12:00:01 INFO up\n2024-01-31 12:00:02 INFO down\n\n<div>\n<p>Hi</p>\n</div>\n\n'
        "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n\n"
        "user: hi\nassistant: hello\nuser: bye\n\nThe end."
    )
    assert kinds_of(text) == {"prose", "fence", "table", "json", "log", "html", "diff", "chat"}
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_what_stands_after_a_gap_begins_on_its_own_line_when_its_kind_differs() -> None:
    rows = "".join(f"| {n} | {n * n} |\n" for n in range(30))
    text = f"| n | square |\n|---|---|\n{rows}\nWords after the table. More of them. " + "Filler sentence here. " * 20
    for kept in cuts_of(text):
        assert not re.search(r"\|[^\n]*[A-Za-z]{5} ", kept.replace("| n | square |", ""))


def test_a_heading_and_what_follows_it_have_lines_of_their_own() -> None:
    sections = [
        f"# Section {n}\n\nWords of section {n}. More of them here. And more.\n\n- an item\n- another"
        for n in range(12)
    ]
    for seed in range(10):
        for kept in cuts_of("\n\n".join(sections), seed):
            assert not re.search(r"[^\n](?:#|- an)|# Section \d+ …", kept)


def test_json_after_prose_begins_on_a_line_of_its_own() -> None:
    ranking = ranked(['One here. Two here.\n{"a": [1]}'], [3.0, 0.0, 2.0])
    assert ranking.cut(ranking.full_tokens - 1).contexts[0].text == 'One here.\n…\n{"a": [1]}'


ADVERSARIES = (
    "{", "[", "|", '"', "\n", " ", "a", "“", "(", "<", "`", "'", "#", "中", "{\n", "[\n", "[1,\n", '{"a":\n', "a|b\n\n", "|--|\n",
    "----\n", "a,b\n", "<div>\n", "<a '", "<!--\n", "```\n", "- a:\n", "def f():\n    a\n", "if x:\n  a\nelif y:\n",
    "class A {\n", "} else {\n a\n", '"""\n', "/*\n", "--- a\n", "ERROR: x\n\n", "Bob: a\n", "<tr>\n", "a. ", 'a "b. ', "x;\n",
    "“a ", "elif x:\n  a\n",
)  # fmt: skip


@pytest.mark.parametrize("unit", ADVERSARIES)
def test_time_grows_with_length_and_no_faster(unit: str) -> None:
    def seconds(chars: int) -> float:
        text = unit * (chars // len(unit))
        begun = time.process_time()
        split(text)
        return time.process_time() - begun

    small, large = min(seconds(10_000), seconds(10_000)), seconds(80_000)
    assert large < max(1.0, 40 * small)  # eight times the text; 64 times the work where it is quadratic


def test_a_piece_is_a_value() -> None:
    assert Piece(0, 1, "prose") == Piece(0, 1, "prose", (), None, None)


# --- prose -------------------------------------------------------------------------------------------------------------

ATOMS = (
    "https://example.com/a/b?c=d.e&f=1#g", "jane.doe+x@mail.example.org", "3.14159 km", "1,234,567.89", "$4.5 million",
    "12 kg", "v2.0.1-rc.3", "user_id", "getHTTPResponse()", "10.0.0.1", "2024-05-06", "U.S.", "Dr. Smith", "et al.", "e.g. this",
    '"Stop. Go home! Now."', "“Wait. Really?”", "«Oui. Non.»", "`it ran. Then not`",
    "<i title='One. Two! Three'>", "No. 5", "C:\\dir\\file.txt", "a/b/c.py:12", "«x»",
)  # fmt: skip
WORDS = (
    "the",
    "report",
    "shows",
    "that",
    "value",
    "of",
    "which",
    "and",
    "because",
    "grew",
    "slowly",
    "near",
    "with",
    "often",
)


@st.composite
def sentences_with_atoms(draw: st.DrawFn) -> tuple[str, list[str]]:
    atoms = draw(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=30))
    parts = []
    for atom in atoms:
        words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
        parts.append(
            f"The {' '.join(words)} {atom} {draw(st.sampled_from(WORDS))}{draw(st.sampled_from(('. ', ', ', '! ', ' ')))}"
        )
    return "".join(parts), atoms


@settings(max_examples=400, deadline=None)
@given(sentences_with_atoms())
def test_names_numbers_addresses_and_quotations_are_never_split(case: tuple[str, list[str]]) -> None:
    text, atoms = case
    pieces = assert_sound(text)
    position = 0
    for atom in atoms:
        position = text.index(atom, position)
        assert any(p.start <= position and position + len(atom) <= p.end for p in pieces), atom
        position += len(atom)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith left. He came back.", ["Dr. Smith left.", "He came back."]),
        ("私は学生です。彼も学生です。はい！", ["私は学生です。", "彼も学生です。", "はい！"]),
        ("你好。我很好！你呢？", ["你好。", "我很好！", "你呢？"]),
        ("Г. Иванов пришёл. См. стр. 5. Он ушёл.", ["Г. Иванов пришёл.", "См. стр. 5.", "Он ушёл."]),
        ("यह एक वाक्य है। दूसरा वाक्य।", ["यह एक वाक्य है।", "दूसरा वाक्य।"]),
        ("هذا سؤال؟ نعم هو كذلك.", ["هذا سؤال؟", "نعم هو كذلك."]),
        (
            "Das ist nicht der Ort und es ist kalt. Am 3. Mai kam Hr. Meier mit dem Zug. Ende.",
            ["Das ist nicht der Ort und es ist kalt.", "Am 3. Mai kam Hr. Meier mit dem Zug.", "Ende."],
        ),
        (
            "El Sr. Gómez y la Sra. Díaz llegaron por la tarde. Se fueron.",
            ["El Sr. Gómez y la Sra. Díaz llegaron por la tarde.", "Se fueron."],
        ),
        ("He said “Go home. Now.” Then he left.", ["He said “Go home. Now.”", "Then he left."]),
    ],
)  # fmt: skip
def test_sentences_in_many_languages(text: str, sentences: list[str]) -> None:
    assert texts_of(text) == sentences


def test_a_long_sentence_is_cut_at_clauses() -> None:
    text = ", ".join(f"the clause number {n} says little" for n in range(100)) + "."
    pieces = texts_of(text)
    assert len(pieces) > 3
    assert all(len(piece) <= MAX_PIECE_CHARS for piece in pieces)
    assert all(piece.endswith(",") for piece in pieces[:-1])


def test_lines_wrapped_at_a_margin_are_one_paragraph() -> None:
    text = "This sentence was wrapped by somebody's editor at a right\nmargin that is not ours. The next one\nwas too."
    assert texts_of(text)[0].endswith("that is not ours.")


def test_a_lead_in_is_the_skeleton_of_its_list_and_of_nothing_after() -> None:
    text = "Words first. The colors are:\n\n- red\n- blue:\n  - navy\n- green\n\nWords after."
    pieces = split(text)
    needs = {text[p.start : p.end]: [text[pieces[s].start : pieces[s].end] for s in p.skeleton] for p in pieces}
    assert needs["- red"] == needs["- green"] == ["The colors are:"]
    assert needs["- navy"] == ["The colors are:", "- blue:"]
    assert needs["Words first."] == needs["Words after."] == []


def test_a_heading_is_a_piece_of_its_own() -> None:
    assert texts_of("# Title\nText. More.\n\nOther title\n-----------\nText.") == [
        "# Title", "Text.", "More.", "Other title\n-----------", "Text.",
    ]  # fmt: skip


def test_a_list_number_is_no_sentence() -> None:
    assert texts_of("1. Red apples. Sweet.\n2. Blue plums.") == ["1. Red apples.", "Sweet.", "2. Blue plums."]

"""What can go at no loss: second copies and needless white space, and nothing that could carry a fact."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor import Ranking, Source
from compressor.lossless import savings, without
from compressor.segments import segmented
from compressor.tokens import DEFAULT_ENCODING, count_tokens
from tests.compressor.made import TEXTS, ranked, shares, texts

LONG = "The upload limit for every account in the European region is five gigabytes per file and per day."
OTHER = "Keys are rotated every ninety days, or sooner where an owner of the project has asked for it."
THIRD = "Nobody at the provider can read what customers store, not even when a court has ordered it."


def titled(*texts: tuple[str, str], scores: Sequence[float] | None = None) -> Ranking:
    sources = tuple(Source(str(n), text, title) for n, (title, text) in enumerate(texts))
    segments = segmented(sources)
    rng = np.random.default_rng(0)
    values = rng.normal(size=len(segments)) if scores is None else np.asarray(scores, np.float64)
    return Ranking(sources, segments, values, shares(rng, len(segments)))


def copies_of(*texts: str) -> list[set[str]]:
    """The texts that are taken to say the same, a set for each group."""
    sources = tuple(Source(str(n), text) for n, text in enumerate(texts))
    segments = segmented(sources)
    found = savings(sources, segments, DEFAULT_ENCODING)
    groups = (*found.copies, *found.twins)
    return [{sources[(s := segments[i]).source].text[s.start : s.end] for i in group} for group in groups]


# --- copies ------------------------------------------------------------------------------------------------------------


def test_one_copy_is_evidence_enough() -> None:
    ranking = titled(("", f"{LONG} {OTHER}"), ("", f"{THIRD} {LONG}"), scores=[2.0, 0, 1, 3])
    first, second = ranking.cut(ranking.lean_tokens).contexts
    assert (first.text, second.text) == (OTHER, f"{THIRD} {LONG}")  # the better copy stays
    assert ranking.cut(ranking.lean_tokens).coverage_estimate == 1
    assert ranking.coverage(ranking.lean_tokens) == 1 > ranking.coverage(ranking.lean_tokens - 1)
    assert ranking.budget_for(1.0) == ranking.lean_tokens < ranking.full_tokens
    only = ranking.cut(count_tokens(LONG) + 1)
    assert [kept.text for kept in only.contexts] == ["", LONG]
    assert only.coverage_estimate == pytest.approx(ranking.probabilities[[0, 3]].sum())


def test_a_second_chunk_of_the_same_text_is_left_out_whole() -> None:
    table = "| plan | limit |\n|---|---|\n| free | 1 GB |\n| team | 5 GB |"
    ranking = ranked([table, LONG, table], seed=3)
    trimmed = ranking.cut(ranking.full_tokens - 1)
    assert [kept.text for kept in trimmed.contexts] == [table, LONG, ""]
    assert trimmed.coverage_estimate == 1
    assert trimmed.lossless_tokens == trimmed.tokens_before - trimmed.tokens_after == count_tokens(table)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "The limit for every account is also 5 GB a day and per file.",
            "Limit for every account is 5 GB a day and per file",
        ),
        (LONG, LONG.replace(" ", "  ")),
        (LONG, f"“{LONG}”"),
    ],
)
def test_articles_fillers_and_marks_make_no_difference(one: str, other: str) -> None:
    assert len(copies_of(f"{one}\n\n{OTHER}", f"{THIRD}\n\n{other}")) == 1


FACTS = (
    "5",
    "$5",
    "-5",
    "1.5",
    "15",
    "not",
    "never",
    "before",
    "after",
    "US",
    "us",
    "Ann Lee",
    "increase",
    "decrease",
    "may",
    "?",
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FACTS), st.sampled_from(FACTS), st.integers(1, 14))
def test_whatever_could_carry_a_fact_makes_a_difference(one: str, other: str, place: int) -> None:
    def with_word(word: str) -> str:
        words = LONG.split()
        return " ".join([*words[:place], word, *words[place:]])

    same = copies_of(f"{with_word(one)} {OTHER}", f"{THIRD} {with_word(other)}")
    assert len(same) == (one == other)


def test_the_same_words_of_two_documents_are_two_statements() -> None:
    leave = "Every employee has a right to twenty days of paid leave in each calendar year."
    germany, france = ("Germany", f"{leave} {OTHER}"), ("France", f"{THIRD} {leave}")
    assert not titled(germany, france)._savings.twins
    assert titled(germany, ("Germany", f"{THIRD} {leave}"))._savings.twins


def test_boilerplate_is_kept_once_whatever_the_document() -> None:
    texts = [
        (f"Page {n}", f"Home › Docs › Guide\n\nText number {n} says its own.\n\n© 2026 Example Ltd.") for n in range(4)
    ]
    ranking = titled(*texts)
    kept = "".join(k.text for k in ranking.cut(ranking.lean_tokens).contexts)
    assert kept.count("Home › Docs") == kept.count("© 2026") == 1
    assert all(f"Text number {n} says its own." in kept for n in range(4))


def test_a_field_a_row_and_a_member_belong_to_their_record() -> None:
    assert not copies_of(*(f"Status: closed by the customer\n\nTicket {n} is about {n}." for n in range(5)))
    assert not copies_of("name,count,total\n" + "a long name of a thing,5,6\n" * 8 + "b,6,7")
    rows = [{"status": "a long status of more than ten tokens, to be sure of it", "n": n // 2} for n in range(9)]
    assert not copies_of(json.dumps(rows))
    code = "def f():\n" + "    the_counter_of_calls.increment(by=1, reason='a long argument')\n\n\n" * 30
    assert not copies_of(code)


def test_short_answers_are_no_copies() -> None:
    assert not copies_of("Was it raised? Yes, it was.", "Was it lowered? Yes, it was.", "Was it sold? No. Yes, it was.")


# --- white space -------------------------------------------------------------------------------------------------------


def lean(text: str) -> str:
    ranking = ranked([text])
    assert ranking.cut(ranking.full_tokens).contexts[0].text == text
    (kept,) = ranking.cut(ranking.lean_tokens).contexts
    assert "".join(text[a:b] for a, b in kept.spans) == kept.text
    assert kept.text.split() == text.split()
    return kept.text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("One here.   \n\n\n\n \n\nTwo here.\t\nThree.", "One here.\n\nTwo here.\nThree."),
        ("A line that breaks here  \nand goes on, as Markdown has it.  \n\nEnd.", None),
        ("| a    | b |\n|------|---|\n| 1    | 2      |\n|      | 3      |", "| a | b |\n|------|---|\n| 1 | 2 |\n| | 3 |"),
        ("<ul>\n      <li>One</li>\n      <li>Two</li>\n</ul>", "<ul>\n<li>One</li>\n<li>Two</li>\n</ul>"),
        ("<p>a</p>\n<pre>\n   <b>x</b>   \n\n\n\n y</pre>", None),
        ("def f():\n    return '''a   \n\n\n\n   b'''\n\n\n\ndef g():\n    pass   \n", None),
        ("```\na   \n\n\n\n  b\n```", None),
        ("a\tb\tc\n1\t\t\n2\t3\t\n4\t5\t6", None),
        ("@@ -1,3 +1,3 @@\n \n-a   \n+b   \n c", None),
    ],
)  # fmt: skip
def test_white_space_goes_where_no_reader_needs_it(text: str, left: str | None) -> None:
    if left is None:
        kept = lean(text)
        assert kept == text or kept == text.replace("it.  \n", "it.\n")
        return
    sources = (Source("0", text),)
    segments = segmented(sources)
    (blanks,) = savings(sources, segments, DEFAULT_ENCODING).blanks
    assert "".join(text[a:b] for a, b in without((0, len(text)), blanks)) == left


def test_json_is_written_without_its_indentation() -> None:
    value = {"a  b": ["x \n y", {"c ": [1, 2.5, None]}], "text": '  "quoted, : [" ' * 20}
    assert lean(json.dumps(value, indent=4)) == json.dumps(value, indent=0)
    lines = "\n".join(json.dumps({"n": n, "text": "a b " * 60}) for n in range(3))
    assert lean(lines.replace('": ', '":\t  ')) == lines.replace('": ', '":\t')
    assert lean(lines) == lines


def test_json_in_a_fence_stays_as_it_is() -> None:
    text = "```json\n" + json.dumps({f"k{n}": "v" * 50 for n in range(20)}, indent=4) + "\n```"
    assert lean(text) == text


# --- always ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 99))
def test_a_lean_payload_lacks_nothing_but_copies_and_white_space(texts: list[str], seed: int) -> None:
    doubled = [*texts, *texts[:2]]
    ranking = ranked(doubled, seed=seed)
    assert ranking.lean_tokens <= ranking.full_tokens
    trimmed = ranking.cut(ranking.lean_tokens)
    assert trimmed.tokens_after == ranking.lean_tokens
    assert trimmed.coverage_estimate == ranking.coverage(ranking.lean_tokens) == 1
    squeezed = ["".join(kept.text.split()) for kept in trimmed.contexts]
    if ranking.lean_tokens < ranking.full_tokens:
        for number, text in enumerate(texts):
            assert squeezed[number] == "".join(text.split()) or doubled.count(text) > 1 or "…" in squeezed[number]


def test_what_was_lossless_and_what_was_cut_is_told_apart() -> None:
    text = json.dumps([{"id": n, "text": f"value {n}"} for n in range(50)], indent=2)
    ranking = ranked([text, *TEXTS])
    small, full = ranking.cut(100), ranking.cut(ranking.full_tokens)
    assert small.lossless_tokens == ranking.full_tokens - ranking.lean_tokens > 100
    assert small.tokens_before - small.lossless_tokens > small.tokens_after
    assert (full.lossless_tokens, full.tokens_after) == (0, ranking.full_tokens)


def test_the_curve_rises_to_one_without_the_copies() -> None:
    rng = random.Random(0)
    base = [
        f"Fact number {n} is that {rng.random():.6f} is the value of the constant of that number." for n in range(12)
    ]
    ranking = ranked([" ".join(base[:8]), " ".join(base[4:]), " ".join(base[:8])], seed=2)
    curve = [ranking.coverage(budget) for budget in range(ranking.full_tokens + 1)]
    assert curve == sorted(curve)
    assert curve.index(1.0) == ranking.lean_tokens < 0.6 * ranking.full_tokens
    for budget in range(0, ranking.full_tokens, 17):
        trimmed = ranking.cut(budget)
        kept = " ".join(k.text for k in trimmed.contexts)
        assert all(
            kept.count(fact) <= 2 for fact in base
        )  # three times in the payload, once of these in a copy of it all
        assert all(kept.count(fact) == 1 for fact in base) or budget < ranking.lean_tokens
        held = sum(
            ranking.probabilities[i]
            for i, s in enumerate(ranking.segments)
            if ranking.sources[s.source].text[s.start : s.end] in kept
        )
        assert trimmed.coverage_estimate == pytest.approx(held)

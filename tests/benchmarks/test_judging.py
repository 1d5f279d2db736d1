"""The judge against planted compressors: good ones pass, and each way of cheating is caught and keeps nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.judging import NOT_VERBATIM, OVER_BUDGET, REORDERED, judge
from benchmarks.peers import Cut, Sent
from benchmarks.questions import Evidence, Question
from compressor import Source
from compressor.tokens import count_tokens

FIRST = "The pump starts at noon. It stops at six. A valve closes after it."
SECOND = "Pressure is 4.5 bar. The alarm sounds at 6.0 bar."
QUESTION = Question(
    "q",
    "When does the pump stop, and at which pressure does the alarm sound?",
    (Source("a", FIRST), Source("b", SECOND)),
    (Evidence(0, "It stops at six."), Evidence(1, "The alarm sounds\nat 6.0 bar.")),
    ("at six", "6.0 bar"),
)
BUDGET = 1000


def whole(*texts: tuple[int, str]) -> Cut:
    return Cut(tuple(Sent(n, text) for n, text in texts))


def test_the_full_context_keeps_everything() -> None:
    judged = judge(QUESTION, whole((0, FIRST), (1, SECOND)), BUDGET)
    assert (judged.coverage, judged.complete, judged.answered, judged.violations) == (1.0, True, True, ())
    assert judged.tokens == judged.full_tokens == count_tokens(FIRST) + count_tokens(SECOND)


def test_evidence_is_found_across_line_breaks_and_counted_by_span() -> None:
    judged = judge(QUESTION, whole((1, "The alarm sounds at 6.0 bar.")), BUDGET)
    assert judged.coverage == 0.5
    assert judged.complete is False


def test_evidence_in_another_text_is_not_kept() -> None:
    question = Question("q", "?", (Source("a", FIRST), Source("b", FIRST)), (Evidence(0, "It stops at six."),), ())
    assert judge(question, whole((1, FIRST)), BUDGET).coverage == 0.0


def test_a_compressor_that_drops_the_evidence_scores_nothing_and_breaks_no_rule() -> None:
    judged = judge(QUESTION, whole((0, "The pump starts at noon.")), BUDGET)
    assert (judged.coverage, judged.answered, judged.violations) == (0.0, False, ())


def test_one_token_over_the_budget_keeps_nothing() -> None:
    tokens = count_tokens(FIRST) + count_tokens(SECOND)
    cut = whole((0, FIRST), (1, SECOND))
    assert judge(QUESTION, cut, tokens).violations == ()
    judged = judge(QUESTION, cut, tokens - 1)
    assert (judged.coverage, judged.answered, judged.violations) == (0.0, False, (OVER_BUDGET,))
    assert judged.forgiven == 1.0


def test_notes_between_texts_count_against_the_budget() -> None:
    cut = Cut((Sent(0, FIRST),), ("[26 passages were left out]",))
    assert judge(QUESTION, cut, count_tokens(FIRST)).violations == (OVER_BUDGET,)


def test_a_peer_without_a_budget_is_not_held_to_one() -> None:
    assert judge(QUESTION, whole((0, FIRST)), None).violations == ()


@pytest.mark.parametrize(
    ("cut", "violation"),
    [
        (whole((1, SECOND), (0, FIRST)), REORDERED),
        (whole((0, "The pump starts at noon."), (0, "It stops at six.")), REORDERED),
        (whole((0, "It stops at six. The pump starts at noon.")), REORDERED),
        (whole((0, "The pump begins at noon.")), NOT_VERBATIM),
        (whole((0, "It stops at six. It stops at six.")), NOT_VERBATIM),
        (whole((1, "Pressure is 45 bar.")), NOT_VERBATIM),
        (whole((0, "It st")), NOT_VERBATIM),
        (whole((2, "It stops at six.")), NOT_VERBATIM),
        (Cut((Sent(0, "It stops at six.", ((24, 41),)),)), NOT_VERBATIM),
        (Cut((Sent(0, "It stops at six. Surely.", ((25, 41),)),)), NOT_VERBATIM),
        (Cut((Sent(0, "It stops at six. The pump starts at noon.", ((25, 41), (0, 24))),)), REORDERED),
        (Cut((Sent(0, "It stops at six.", ((25, 410),)),)), NOT_VERBATIM),
    ],
)
def test_reordered_and_reworded_text_keeps_nothing(cut: Cut, violation: str) -> None:
    judged = judge(QUESTION, cut, BUDGET)
    assert violation in judged.violations
    assert judged.coverage == 0.0


def test_slices_with_markers_between_them_are_verbatim() -> None:
    cut = Cut((Sent(0, "The pump starts at noon. … A valve closes after it.", ((0, 24), (42, 66))),))
    assert judge(QUESTION, cut, BUDGET, (" … ",)).violations == ()
    assert judge(QUESTION, cut, BUDGET, ()).violations == (NOT_VERBATIM,)


def test_unanswerable_and_derived_questions_have_no_score() -> None:
    unanswerable = Question("q", "?", QUESTION.contexts, (), ())
    judged = judge(unanswerable, whole((0, FIRST)), BUDGET)
    assert (judged.coverage, judged.complete, judged.answered) == (None, None, None)
    derived = Question("q", "?", QUESTION.contexts, QUESTION.evidence, ("ten hours",), derived=True)
    assert judge(derived, whole((0, FIRST)), BUDGET).answered is None


def test_all_answers_are_needed_where_the_question_says_so() -> None:
    both = Question("q", "?", QUESTION.contexts, QUESTION.evidence, ("at six", "6.0 bar"), all_answers=True)
    assert judge(both, whole((0, FIRST)), BUDGET).answered is False
    assert judge(both, whole((0, FIRST), (1, SECOND)), BUDGET).answered is True


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_choice_of_words_in_order_is_verbatim(kept: list[bool]) -> None:
    words = [word for word, keep in zip(FIRST.split(), kept, strict=False) if keep]
    assert judge(QUESTION, whole((0, " ".join(words))), BUDGET).violations == ()

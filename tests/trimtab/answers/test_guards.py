"""The guards: what may be worded otherwise, and what must never be taken for the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.answers.guards import difference

SAME = [
    ("What's the upload limit?", "Could you tell me what the upload limit is?"),
    ("What is the capital of France?", "what's France's capital"),
    ("How do I reset my password?", "Hello! Please tell me how to reset my password, thanks."),
    ("How do I reset my password?", "What are the steps to reset my password?"),
    ("In 2024, what was the revenue?", "What was the revenue in 2024?"),
    ("How much does a Tesla cost?", "What is the price of a Tesla?"),
    ("What is the fee for 1,000 dollars?", "what is the fee for 1000 dollars"),
    ("Who was Emma written by?", "Who is the author of Emma?"),
]
DIFFERENT = [
    ("How do I enable 2FA?", "How do I disable 2FA?"),
    ("President of Pakistan", "President of India"),
    ("Who beat Ann?", "Who did Ann beat?"),
    ("How big is a cup of coffee?", "How big is a coffee cup?"),
    ("What is matter?", "What is the matter?"),
    ("Do few people smoke?", "Do a few people smoke?"),
    ("Can this hurt us?", "Can this hurt US?"),
    ("What is C?", "What is C++?"),
    ("What is 7 - 5?", "What is 7 + 5?"),
    ("What is -5 + 3?", "What is 5 + 3?"),
    ('Translate "I agree"', 'Translate "I agree."'),
    ("What does `x = 1` do?", "What does `X = 1` do?"),
    ("Is it safe?", "Is it safe, not deadly?"),
    ("Who is the CEO?", "Who was the CEO?"),
    ("What is $5 in euros?", "What is €5 in euros?"),
    ("How should I stop?", "How do I stop?"),
    ("What is 10^2?", "What is 10 2?"),
    ("How do I say thanks?", "How do I say please?"),
    ("How do I say thanks?", "How do I say"),
    ("Tell me a joke", "a joke"),
    ("Do you know French?", "French?"),
    ("What does hello world print?", "What does world print?"),
    ("hello world", "world"),
    ("What does BEGIN do here?", "What does START do here?"),
    ("What is (a + b) * c?", "What is a + (b * c)?"),
    ("What is 5!", "What is 5"),
    ("How does int? differ from long?", "How does int differ from long?"),
    ("what is .net used for", "what is net used for"),
    ("How do you process my data?", "How do I process my data?"),
    ("How could he lie to us?", "How does he lie to us?"),
    ("What do birds eat here?", "What birds eat here?"),
    ("Is that dog safe?", "Is the dog safe?"),
    ("What is max in Python?", "What is maximum in Python?"),
    ("?", "!"),
    ("你好吗", "你不好吗"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_question_in_other_words(one: str, other: str) -> None:
    assert difference(one, other) is None
    assert difference(other, one) is None


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_two_questions_in_nearly_the_same_words(one: str, other: str) -> None:
    assert difference(one, other) is not None
    assert difference(other, one) is not None


NAMES = st.sampled_from(("Ann", "Bo", "Carla", "Vienna", "Osaka", "Fennick", "VX40", "O'Neil", "D-Wave", "π", "x_1"))
FRAMES = (
    "Did {a} beat {b}?",
    "How do I get from {a} to {b}?",
    "what is the distance from {a} to {b}",
    "Could you tell me how much {a} owes {b}?",
    "What is {a}'s debt to {b}?",
    "In {a}, who wrote about {b}?",
    "How do {a} and {b}'s rules differ?",
)
QUESTIONS = (
    "How large may one upload be?",
    "What is the capital of France?",
    "please tell me who founded Fennick",
    "What are the steps to reset my password?",
    "Is aspirin safe",
    "How much does the VX40 cost?",
    "In 2024, what was the revenue?",
)


@given(st.sampled_from(FRAMES), NAMES, NAMES)
def test_two_names_that_change_places_make_another_question(frame: str, a: str, b: str) -> None:
    one, other = frame.format(a=a, b=b), frame.format(a=b, b=a)
    assert (difference(one, other) is None) == (a == b)


@given(st.from_regex(r"[1-9][0-9]{0,8}(\.[0-9]{1,3})?", fullmatch=True), st.data())
def test_another_digit_makes_another_question(number: str, data: st.DataObject) -> None:
    places = [at for at, letter in enumerate(number) if letter != "."]
    at = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from([each for each in "123456789" if each != number[at]]))
    changed = number[:at] + digit + number[at + 1 :]
    frame = data.draw(
        st.sampled_from(("What is {} in feet?", "Is {} MB enough?", "tell me what {}% of it is", "Version {}?"))
    )
    assert difference(frame.format(number), frame.format(changed)) is not None


@given(st.sampled_from(QUESTIONS), st.sampled_from(("not", "never", "no", "without", "hardly")), st.data())
def test_a_negation_anywhere_makes_another_question(question: str, negation: str, data: st.DataObject) -> None:
    words = question.split()
    at = data.draw(st.integers(0, len(words)))
    negated = " ".join([*words[:at], negation, *words[at:]])
    assert difference(question, negated) is not None


@given(st.text(max_size=60), st.text(max_size=60))
def test_it_says_the_same_both_ways_and_never_breaks(one: str, other: str) -> None:
    assert (difference(one, other) is None) == (difference(other, one) is None)


@given(st.sampled_from(QUESTIONS))
def test_manners_and_punctuation_ask_for_nothing(question: str) -> None:
    assert difference(question, f"Hi, {question.rstrip('?')}, please") is None

"""The pairs of the suite `answers`: how many, how they are split, and that the guards tell all of them apart."""

from __future__ import annotations

from benchmarks.answers import OF_ONE_PAYLOAD, PAIRS_A_TEMPLATE, interval, of_one_payload, pairs
from benchmarks.questions import selfwritten
from trimtab.answers.guards import difference


def test_there_are_enough_pairs_to_show_one_in_a_thousand_and_no_split_has_the_others() -> None:
    dev, held_out = pairs("dev", PAIRS_A_TEMPLATE, 1), pairs("held_out", PAIRS_A_TEMPLATE, 1)
    assert not set(dev) & set(held_out)
    assert len(dev) + len(held_out) > 1_500
    assert interval(0, sum(not pair.same for pair in held_out))[1] < 0.001
    assert sum(pair.same for pair in held_out) > 500
    assert not any("{" in pair.one + pair.other for pair in (*dev, *held_out))
    assert all(pair.one != pair.other for pair in (*dev, *held_out))


def test_no_question_is_given_the_answer_to_another() -> None:
    judged = (*pairs("dev", PAIRS_A_TEMPLATE, 1), *pairs("held_out", PAIRS_A_TEMPLATE, 1))
    own = of_one_payload([selfwritten()])
    assert len(own) > 1_000
    assert {pair.kind for pair in own} == {OF_ONE_PAYLOAD}
    wrong = [pair for pair in (*judged, *own) if not pair.same and difference(pair.one, pair.other) is None]
    assert wrong == []
    same = [pair for pair in judged if pair.same]
    assert sum(difference(pair.one, pair.other) is None for pair in same) > len(same) / 2


def test_the_interval_of_none_is_the_rule_of_three() -> None:
    assert interval(0, 1_000) == (0.0, 0.003)
    low, high = interval(50, 100)
    assert (round(low, 3), round(high, 3)) == (0.404, 0.596)

"""The adversarial suite: its payloads hold what they say, its verdicts are right, and it runs to the end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.adversarial import CASES, PEERS, RATIOS, Case, filler, run
from benchmarks.peers import Cut, Peer, Sent, Stateless
from benchmarks.questions import fold
from benchmarks.sections import silent
from compressor import Source
from compressor.tokens import count_each

LONG_TOKENS = 3_000


class Everything(Stateless):
    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        return Cut(tuple(Sent(n, context.text) for n, context in enumerate(contexts)))


class Nothing(Stateless):
    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        return Cut(())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_holds_its_evidence_and_is_always_the_same(case: Case) -> None:
    question = case.build(random.Random("1"), LONG_TOKENS)
    assert question == case.build(random.Random("1"), LONG_TOKENS)
    assert question != case.build(random.Random("2"), LONG_TOKENS)
    assert question.evidence
    for span in question.evidence:
        holding = [n for n, context in enumerate(question.contexts) if fold(span.text) in fold(context.text)]
        assert holding == [span.context]
    assert sum(count_each([context.text for context in question.contexts])) > 2_000


def test_the_long_case_is_as_long_as_it_was_asked_for_and_ends_in_its_evidence() -> None:
    question = CASES[0].build(random.Random("1"), LONG_TOKENS)
    (text,) = [context.text for context in question.contexts]
    assert text.endswith(question.evidence[0].text)
    assert LONG_TOKENS < count_each([text])[0] < 1.2 * LONG_TOKENS


def test_the_filler_hardly_repeats() -> None:
    dice = random.Random("1")
    sentences = [filler(dice) for _ in range(3000)]
    assert len(set(sentences)) > 2990


def test_verdicts() -> None:
    told = Peer("trimtab", "keeps all, within no budget", lambda *_: Everything(), budget="told")
    none = Peer("bm25-sentences", "keeps nothing", lambda *_: Nothing())
    section = run((told, none), LONG_TOKENS, 1, Path(), silent)
    (table,) = section.tables
    assert table.headers == ("case", *(f"{name} {ratio:.2f}" for name in PEERS for ratio in RATIOS))
    assert [row[0] for row in table.rows] == [case.name for case in CASES]
    for row in table.rows:
        assert row[1:] == ("over budget",) * 3 + ("lost",) * 3
    assert len(section.records) == len(CASES) * len(PEERS) * len(RATIOS)


def test_a_peer_that_is_not_asked_does_not_run() -> None:
    def unused(seed: int, folder: Path) -> Nothing:
        raise AssertionError

    assert not run((Peer("other", "", unused),), LONG_TOKENS, 1, Path(), silent).records

"""The evidence suite end to end on small data, with planted compressors beside real arms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.evidence import measure, oracle_cut
from benchmarks.evidence_report import evidence_section
from benchmarks.judging import judge
from benchmarks.peers import PEERS, Arm, Cut, Peer, Sent, Skipped, Stateless
from benchmarks.questions import selfwritten
from benchmarks.sections import timeless
from compressor import Source

DATA = selfwritten().sample(6, 3)
NO_MODEL = tuple(peer for peer in PEERS if peer.name in ("bm25-sentences", "head", "random"))
RATIOS = (0.1, 0.25)


class Planted(Stateless):
    def __init__(self, cut: Callable[[Sequence[Source], int], Cut]) -> None:
        self._cut = cut

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        return self._cut(contexts, budget_tokens)


def everything(contexts: Sequence[Source], budget_tokens: int) -> Cut:
    return Cut(tuple(Sent(n, context.text) for n, context in enumerate(contexts)))


def backwards(contexts: Sequence[Source], budget_tokens: int) -> Cut:
    return Cut(tuple(reversed(everything(contexts, budget_tokens).sent)))


def rewritten(contexts: Sequence[Source], budget_tokens: int) -> Cut:
    return Cut(tuple(Sent(n, context.text + " Really.") for n, context in enumerate(contexts)))


def dropping(contexts: Sequence[Source], budget_tokens: int) -> Cut:
    return Cut(())


def planted(name: str, cut: Callable[[Sequence[Source], int], Cut], budget: str = "own") -> Peer:
    return Peer(name, name, lambda *_: Planted(cut), budget="told" if budget == "told" else "own")


def missing(seed: int, folder: Path) -> Arm:
    raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")


def skipped(seed: int, folder: Path) -> Arm:
    raise Skipped("its weights are not on this machine")


@pytest.mark.parametrize(
    ("peer", "violations"),
    [
        (planted("exceeds", everything, "told"), ("over budget",)),
        (planted("reorders", backwards), ("reordered",)),
        (planted("rewrites", rewritten), ("not verbatim",)),
        (planted("drops", dropping, "told"), ()),
    ],
    ids=lambda value: value.name if isinstance(value, Peer) else "",
)
def test_a_bad_compressor_is_caught_and_keeps_nothing(peer: Peer, violations: tuple[str, ...], tmp_path: Path) -> None:
    results = measure((DATA,), 1, tmp_path, peers=(peer,), ratios=RATIOS)
    mine = [o.judgement for o in results.outcomes if o.peer == peer.name]
    assert len(mine) == len(DATA.questions) * len(RATIOS)
    assert all(judged.violations == violations for judged in mine)
    assert all(judged.coverage in (0.0, None) for judged in mine)
    row = next(r for r in evidence_section(results, 1).tables[0].rows if r[0] == peer.name)
    assert row[2].startswith("0.00")
    assert all(violation in row[5] for violation in violations)


def test_honesty_rows_frame_the_others(tmp_path: Path) -> None:
    results = measure((DATA,), 1, tmp_path, peers=NO_MODEL, ratios=RATIOS)
    rows = {row[0]: row for row in evidence_section(results, 1).tables[0].rows}
    assert rows["no context"][2].startswith("0.00")
    assert rows["full context"][2].startswith("1.00")
    assert rows["oracle evidence"][2].startswith("1.00")
    assert float(rows["oracle evidence"][1]) < 0.2
    assert all(not o.judgement.violations for o in results.outcomes)


def test_a_peer_that_is_not_there_is_a_row_with_its_reason(tmp_path: Path) -> None:
    absent = (Peer("gone", "", missing, install="pip install gone"), Peer("weightless", "", skipped))
    results = measure((DATA,), 1, tmp_path, peers=absent, ratios=RATIOS)
    table = next(t for t in evidence_section(results, 1).tables if t.title == "Peers that did not run here")
    assert table.rows == (
        ("gone", "not installed: pip install gone"),
        ("weightless", "its weights are not on this machine"),
    )


def test_two_runs_of_one_seed_agree_to_the_digit_but_for_times(tmp_path: Path) -> None:
    peers = tuple(peer for peer in PEERS if peer.name in ("trimtab", "bm25-sentences", "head", "random"))
    first, second = (
        evidence_section(measure((DATA,), 1, tmp_path / run, peers=peers, ratios=RATIOS), 1) for run in ("a", "b")
    )
    assert timeless(first.records) == timeless(second.records)
    times = ("cold ms", "warm ms")
    untimed = [
        [c for c, name in zip(r, first.tables[0].headers, strict=True) if name not in times]
        for r in first.tables[0].rows
    ]
    again = [
        [c for c, name in zip(r, second.tables[0].headers, strict=True) if name not in times]
        for r in second.tables[0].rows
    ]
    assert untimed == again
    assert [e.text for e in first.excerpts] == [e.text for e in second.excerpts]


def test_our_own_cuts_of_every_kind_of_text_break_no_rule(tmp_path: Path) -> None:
    ours = tuple(peer for peer in PEERS if peer.name == "trimtab")
    results = measure((selfwritten().sample(60, 1),), 1, tmp_path, peers=ours, ratios=(0.25,))
    assert [(o.question, o.judgement.violations) for o in results.outcomes if o.judgement.violations] == []


def test_another_seed_draws_another_chance(tmp_path: Path) -> None:
    chance = tuple(peer for peer in PEERS if peer.name == "random")
    one, two = (measure((DATA,), seed, tmp_path, peers=chance, ratios=RATIOS) for seed in (1, 2))
    assert timeless(evidence_section(one, 1).records) != timeless(evidence_section(two, 1).records)


def test_the_oracle_keeps_every_span_of_the_self_written_set() -> None:
    for question in selfwritten().questions:
        judged = judge(question, oracle_cut(question), None)
        assert judged.coverage in (1.0, None)
        assert not judged.violations


def test_worst_cases_show_the_question_and_the_lost_text(tmp_path: Path) -> None:
    blind = Peer("trimtab", "a planted one", lambda *_: Planted(dropping))
    results = measure((DATA,), 1, tmp_path, peers=(blind,), ratios=RATIOS)
    excerpts = evidence_section(results, 1).excerpts
    assert excerpts
    assert all("Question: " in e.text and "LOST" in e.text for e in excerpts)

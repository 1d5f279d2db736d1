"""Agent transcripts: what they need, what breaks them, and a small run of the suite with trimtab in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.agent import (
    REMOVED,
    Arm,
    Messages,
    Request,
    _section,
    cached_tokens,
    everything,
    faults,
    keep_last,
    measure,
    rendered,
    with_trimtab,
)
from benchmarks.agent_traces import Trace, traces
from benchmarks.caching_provider import caching_provider
from benchmarks.peers.trimtab import TRIMTAB_MARKERS
from benchmarks.sections import silent, timeless
from compressor.tokens import count_tokens

TOLD = traces(1, 3)
SHORT = replace(TOLD[0], steps=TOLD[0].steps[:5], answer=(TOLD[0].steps[5].needs[0],))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_need_stands_in_earlier_outputs_and_nowhere_in_the_calls_before(seed: int) -> None:
    for trace in traces(seed, 3):
        assert len(trace.steps) >= 15
        for outputs in range(1, len(trace.steps) + 1):
            sent = trace.messages(outputs)
            said = [each["content"] for each in sent if each["role"] == "tool"]
            calls = json.dumps([each.get("tool_calls") for each in sent])
            for need in trace.needs(outputs):
                assert sum(need in output for output in said) == 1, need
                assert need not in calls
                assert need not in trace.task
        assert trace.answer


def test_transcripts_hang_on_the_seed_alone() -> None:
    assert traces(1, 3) == TOLD
    assert traces(2, 3) != TOLD


def test_truncation_keeps_the_newest_outputs_and_every_message() -> None:
    given = SHORT.messages(4)
    sent, _ = keep_last(2)(given)
    assert [each["content"] == REMOVED for each in sent if each["role"] == "tool"] == [True, True, False, False]
    assert faults(given, sent, (REMOVED,), None) == ()


def changed(messages: Messages, number: int, **fields: Any) -> Messages:
    return [{**each, **fields} if n == number else each for n, each in enumerate(messages)]


def swapped(messages: Messages) -> Messages:
    return [*messages[:2], *messages[4:6], *messages[2:4], *messages[6:]]


def exchanged(messages: Messages) -> Messages:
    return changed(changed(messages, 3, content=messages[5]["content"]), 5, content=messages[3]["content"])


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (lambda m: m[:-1], "messages or calls changed"),
        (lambda m: changed(m, 0, content="Be quick."), "messages or calls changed"),
        (lambda m: changed(m, 2, tool_calls=[]), "messages or calls changed"),
        (lambda m: changed(m, 3, tool_call_id="call_09"), "messages or calls changed"),
        (swapped, "messages or calls changed"),
        (exchanged, "not verbatim"),
        (lambda m: changed(m, 3, content="Nothing of interest."), "not verbatim"),
        (lambda m: changed(m, 3, content="\n".join(reversed(m[3]["content"].splitlines()))), "reordered"),
        (lambda m: m, "over budget"),
    ],
)
def test_a_bad_trimmer_is_caught(bad: Callable[[Messages], Messages], found: str) -> None:
    given = SHORT.messages(3)
    assert found in faults(given, bad(SHORT.messages(3)), (), 100 if found == "over budget" else None)


def test_a_prefix_is_cached_up_to_the_first_difference_in_whole_steps() -> None:
    text = rendered(SHORT.messages(3))
    assert cached_tokens(text, text + " more") == count_tokens(text) // 128 * 128
    assert cached_tokens("x" + text, text) == 0
    assert cached_tokens("a short one", "a short one, longer") == 0


def run_small(folder: Path, told: Sequence[Trace]) -> tuple[list[Request], list[str]]:
    with caching_provider("openai") as provider:
        ours = Arm("trimtab", with_trimtab(folder, provider, min_coverage=0.9), TRIMTAB_MARKERS)
        arms = (Arm("everything", everything), Arm("none", keep_last(0), (REMOVED,)), ours)
        requests, losses = measure(arms, told, silent)
    return requests, [excerpt.text for excerpt in losses]


def test_a_small_run_repeats_to_the_digit_and_counts_every_loss(tmp_path: Path) -> None:
    requests, losses = run_small(tmp_path / "a", (SHORT,))
    again = run_small(tmp_path / "b", (SHORT,))
    first, second = (_section(each, (), ()) for each in (requests, again[0]))
    assert timeless(first.records) == timeless(second.records)
    assert losses == again[1]

    by_arm = {name: [r for r in requests if r.arm == name] for name in ("everything", "none", "trimtab")}
    assert all(need.met for request in by_arm["everything"] for need in request.needs)
    assert not any(need.met for request in by_arm["none"] for need in request.needs)
    assert [request.broken for request in requests if request.broken] == []
    for full, ours in zip(by_arm["everything"], by_arm["trimtab"], strict=True):
        assert ours.input_tokens <= full.input_tokens
    assert sum(not need.met for request in by_arm["trimtab"] for need in request.needs) == len(losses)
    assert all("LOST" in text for text in losses)

    rows = {row[0]: row for row in first.tables[0].rows}
    assert [cell.endswith("(0%)") for cell in rows["everything"][1:4]] == [True] * 3
    assert rows["none"][4] == f"0/{sum(len(r.needs) for r in by_arm['none'])}"

"""Intervals, the reader's verdict, the plan's arithmetic, and what is written: HTML, Markdown, records."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import command
from benchmarks.intervals import Estimate, estimate, spread
from benchmarks.latency import payload
from benchmarks.machine import run_record
from benchmarks.peers.barber import told_apart
from benchmarks.plan import REQUESTS, MeasuredCurve, _bought, _cheapest_input, _lowest_rates, _offers, _planned, _uncut
from benchmarks.questions import selfwritten
from benchmarks.reader import f1, normalised, shortened, verdict
from benchmarks.readme import NoMarkers, write_results
from benchmarks.report import html_report
from benchmarks.sections import Excerpt, Section, Table, timeless
from compressor import Source
from compressor.tokens import count_each

SECTION = Section(
    "evidence",
    "Evidence kept",
    notes=("A note with <angle> brackets.",),
    tables=(
        Table("Main", ("", "kept*"), (("trimtab", "0.25"), ("a|b*", "<script>")), readme=True),
        Table("Detail", ("x",), (("1",),)),
    ),
    excerpts=(Excerpt("q-1", "Question: <b>?"),),
)
RUN = run_record(["evidence"], 1, True)


def test_an_interval_holds_its_mean_and_narrows_with_more_questions() -> None:
    few, many = estimate([0.0, 1.0] * 10, 1), estimate([0.0, 1.0] * 200, 1)
    assert few is not None
    assert many is not None
    assert few.low <= few.mean == 0.5 <= few.high
    assert many.high - many.low < few.high - few.low
    assert few == estimate([0.0, 1.0] * 10, 1)
    assert estimate([], 1) is None
    # the normal approximation for 400 draws of a fair coin: 0.5 plus or minus 1.96 * 0.5 / 20
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)


def test_times_are_given_as_median_minimum_and_maximum() -> None:
    assert str(spread([3.0, 1.0, 200.0])) == "3.00 (1.00-200)"


def weak(mean: float, low: float, high: float) -> Estimate:
    return Estimate(mean, low, high, 10)


def test_a_reader_that_is_no_better_with_the_evidence_allows_no_conclusion() -> None:
    said = verdict(
        {
            "no context": weak(0.1, 0.0, 0.3),
            "full context": weak(0.5, 0.3, 0.7),
            "oracle evidence": weak(0.4, 0.2, 0.6),
        }
    )
    assert said.startswith("No conclusion")


def test_a_strong_reader_tells_only_what_does_not_overlap() -> None:
    said = verdict(
        {
            "no context": weak(0.1, 0.0, 0.2),
            "trimtab 0.25": weak(0.7, 0.5, 0.9),
            "full context": weak(0.8, 0.6, 0.95),
            "oracle evidence": weak(0.9, 0.8, 1.0),
        }
    )
    assert "apart from the full context: no context." in said
    assert "trimtab 0.25" in said.split("too weak")[1]


def test_answers_are_compared_as_squad_does() -> None:
    assert normalised("The  Granite, plan!") == "granite plan"
    assert f1("21 days", "the 21 days") == 1.0
    assert f1("21 hours", "21 days") == 0.5
    assert f1("", "21 days") == 0.0


def test_a_shortened_payload_keeps_every_text_with_evidence() -> None:
    for question in selfwritten().questions:
        short = shortened(question, 800)
        assert [e.text for e in short.evidence] == [e.text for e in question.evidence]
        for span in short.evidence:
            assert span.text in short.contexts[span.context].text
        needed = sum(count_each([question.contexts[n].text for n in {e.context for e in question.evidence}]))
        assert sum(count_each([c.text for c in short.contexts])) <= max(800, needed)


def test_a_latency_payload_has_the_size_it_says() -> None:
    found = payload((selfwritten(),), 2000)
    assert found is not None
    assert 1800 <= sum(count_each([c.text for c in found[1].contexts])) <= 2000
    assert payload((selfwritten(),), 10_000_000) is None


def test_a_measured_curve_interpolates_and_inverts() -> None:
    curve = MeasuredCurve(1000, (0.0, 0.25, 0.5, 1.0), (0.0, 0.8, 0.9, 1.0))
    assert curve.coverage(250) == pytest.approx(0.8)
    assert curve.coverage(375) == pytest.approx(0.85)
    assert curve.coverage(5000) == 1.0
    for wanted in (0.1, 0.8, 0.85, 1.0):
        budget = curve.budget_for(wanted)
        assert curve.coverage(budget) >= wanted
        assert budget == 0 or curve.coverage(budget - 1) < wanted


def test_no_way_of_choosing_beats_the_plan_at_the_full_context() -> None:
    for asked in REQUESTS:
        ours = _planned(asked, _uncut(asked.context_tokens), 1.0)
        assert ours.input_tokens == asked.fixed_tokens + asked.context_tokens
        offers = _offers(asked)
        others = [_bought(asked, each) for each in (*offers, _cheapest_input(offers), _lowest_rates(offers))]
        assert ours.cost_usd == min(other.cost_usd for other in others)
        assert ours.cost_usd > Decimal(0)


def test_chunks_go_back_to_the_texts_they_came_from_and_new_wording_is_kept_for_the_judge() -> None:
    contexts = (Source("a", "One.\n\nTwo."), Source("b", "Three.\n\nOne."))
    cut = told_apart(contexts, ["Two.\n\nThree.\n\nOne.", "Invented."], ["[gap]"])
    assert [(sent.context, sent.text) for sent in cut.sent] == [(0, "Two."), (1, "Three.\n\nOne.\n\nInvented.")]
    assert cut.beside == ("[gap]",)


def test_the_report_is_one_file_that_loads_nothing_and_escapes_text() -> None:
    page = html_report(RUN, [SECTION])
    assert "src=" not in page
    assert 'href="http' not in page
    assert "<script>" not in page
    assert "A note with &lt;angle&gt; brackets." in page
    assert "Question: &lt;b&gt;?" in page


def test_results_are_written_between_the_markers_and_nowhere_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    write_results(readme, RUN, [SECTION])
    text = readme.read_text()
    assert text.startswith("# Title\n<!-- results -->\n")
    assert text.endswith("\n<!-- /results -->\nafter\n")
    assert "old" not in text
    assert "| **trimtab** | 0.25 |" in text
    assert r"| a\|b\* | <script> |" in text
    assert "Detail" not in text
    write_results(readme, RUN, [SECTION])
    assert readme.read_text() == text


def test_a_readme_without_markers_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    with pytest.raises(NoMarkers, match="<!-- results -->"):
        write_results(readme, RUN, [SECTION])
    assert readme.read_text() == "# Title\n"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command.app, list(arguments))


def test_the_command_writes_report_and_records(tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = run("evidence", "--questions", "3", "--peers", "bm25-sentences,random", "--out", str(out))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert rows[0]["record"] == "run"
    assert rows[0]["seed"] == 1
    assert rows[0]["cores"] >= 1
    assert {"torch", "numpy", "tiktoken"} <= set(rows[0]["versions"])
    digests = {row["name"]: row["digest"] for row in rows if row["record"] == "dataset"}
    assert set(digests) == {"selfwritten", "stdlib-docstrings"}
    assert "Evidence kept" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "there is no suite 'nonsense'"),
        (["evidence", "--data", "nothing.jsonl"], "there is no such file, and no public set of that name"),
        (["evidence", "--questions", "0"], "--questions"),
        (["evidence", "--peers", "trimtab,nobody"], "there is no peer 'nobody'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output


def records(out: Path) -> list[dict[str, Any]]:
    return timeless([json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()])


def test_two_runs_of_one_seed_agree_to_the_digit_on_everything_but_time(tmp_path: Path) -> None:
    suites = ("evidence", "plan")
    for out in ("a", "b"):
        arguments = ("--quick", "--questions", "2", "--peers", "trimtab,random", "--out", str(tmp_path / out))
        assert run(*suites, *arguments).exit_code == 0
    first, second = records(tmp_path / "a"), records(tmp_path / "b")
    assert first == second
    assert {row["suite"] for row in first[1:]} == set(suites)


def test_own_traffic_is_measured(tmp_path: Path) -> None:
    row = {
        "query": "How large may an upload be?",
        "contexts": [{"text": f"An upload may be {n} GB. " + "It is stored in one place. " * 20} for n in range(3)],
        "evidence": [{"context": 1, "text": "An upload may be 1 GB."}],
    }
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    arguments = ("--data", str(tmp_path / "mine.jsonl"), "--peers", "bm25-sentences", "--out", str(tmp_path / "out"))
    assert run("evidence", *arguments).exit_code == 0
    assert {row["dataset"] for row in records(tmp_path / "out") if row["record"] == "outcome"} == {"mine"}

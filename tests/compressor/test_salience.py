"""What stands out without a question, and what a question names."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from compressor import Ranking, Source
from compressor.salience import named, salience, shares
from compressor.segments import segmented


def ranked_unasked(*texts: str) -> Ranking:
    sources = tuple(Source(str(n), text) for n, text in enumerate(texts))
    segments = segmented(sources)
    scores = salience(segments, sources)
    return Ranking(sources, segments, scores, shares(scores))


def kept_of(text: str, ratio: float) -> str:
    ranking = ranked_unasked(text)
    return ranking.cut(int(ratio * ranking.full_tokens)).contexts[0].text


def test_of_a_log_what_went_wrong_what_is_rare_and_how_it_ended() -> None:
    rng = random.Random(3)
    lines = [
        f"2024-01-31 12:{n // 60:02}:{n % 60:02} INFO GET /users/{rng.randint(1, 999)} took {rng.randint(1, 40)} ms"
        for n in range(500)
    ]
    lines[0] = "2024-01-31 12:00:00 INFO service version 1.2.3 is starting"
    trace = 'Traceback (most recent call last):\n  File "a.py", line 3\nOSError: no'
    lines[222] = f"2024-01-31 12:03:42 ERROR db-7: connection refused\n{trace}"
    lines[300] = "2024-01-31 12:05:00 INFO node-3 is the leader now"
    lines[400] = "2024-01-31 12:06:40 WARN disk usage at 91 %"
    lines[-1] = "2024-01-31 12:08:19 INFO shut down after 499 s"
    kept = kept_of("\n".join(lines), 0.03)
    assert all(lines[n] in kept for n in (0, 222, 300, 400, 499))
    assert "more like" in kept


def test_of_records_the_failed_and_the_outlier() -> None:
    records = [
        {"id": n, "name": f"user {n}", "latency_ms": 20 + n % 5, "errors": 0, "status": "ok"} for n in range(300)
    ]
    records[77]["latency_ms"] = 9000
    records[120]["status"] = "failed"
    kept = json.loads(kept_of(json.dumps(records, indent=1), 0.02))
    assert {77, 120} <= {record["id"] for record in kept} < set(range(300))
    assert len(kept) < 12


def test_no_error_is_no_error() -> None:
    sources = (Source("0", "One line. There were 0 errors. Then it failed. No failures since then. A last line."),)
    segments = segmented(sources)
    scores = salience(segments, sources)
    assert int(scores[1:-1].argmax()) == 1
    assert scores[1] == scores[3]


def test_headings_and_signatures_come_before_what_is_under_them() -> None:
    text = "# One\n\nWords of it. More words. Even more.\n\n# Two\n\nOther words. And others. And so on."
    ranking = ranked_unasked(text)
    order = np.argsort(-ranking.scores, kind="stable")
    assert {text[ranking.segments[i].start : ranking.segments[i].end] for i in order[:3]} == {
        "# One",
        "# Two",
        "And so on.",
    }


def test_shares_are_shares() -> None:
    assert shares(np.zeros(0)).shape == (0,)
    found = shares(np.array([0.0, 1.0, 1000.0]))
    assert found.sum() == pytest.approx(1)
    assert (np.diff(found) >= 0).all()


CODE = (
    "import os\n\n\ndef flush(a):\n" + "    step_one(a)\n\n" * 60 + "\n\ndef keep(a):\n    return a\n\n\nMAX_SIZE = 5\n"
)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("What does flush do?", "all of it"),
        ("What is MAX_SIZE?", 1),
        ("Where is `keep` called?", 1),
        ("Is the toilet flushed?", 0),
    ],
)
def test_a_definition_that_the_question_names(query: str, count: int | str) -> None:
    sources = (Source("0", CODE),)
    segments = segmented(sources)
    found = named(query, segments, sources)
    texts = [CODE[s.start : s.end] for s, hit in zip(segments, found, strict=True) if hit]
    if count == "all of it":
        assert texts[0] == "def flush(a):"
        assert sum(text.count("step_one(a)") for text in texts) == 60
    else:
        assert len(texts) == count


def test_keys_and_values_that_the_question_names() -> None:
    value = {"limits": {f"k{n}": "v" * 60 for n in range(9)}, "note": "n" * 90, "max_size": 5, "plan": "team-7"}
    sources = (Source("0", json.dumps(value, indent=1)),)
    segments = segmented(sources)

    def found(query: str) -> set[str]:
        return {
            sources[0].text[s.start : s.end]
            for s, hit in zip(segments, named(query, segments, sources), strict=True)
            if hit
        }

    assert found("What is max_size?") == {'"max_size": 5'}
    assert found('Who has the plan "team-7"?') == {'"plan": "team-7"'}
    assert len(found("Which limits are there?")) >= 9
    assert not found("How large may a file be?")

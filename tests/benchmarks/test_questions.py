"""Loading: the documented shape, its faults named, and sets that are the same on every run."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docstrings import stdlib_docstrings
from benchmarks.questions import fold, load, selfwritten
from compressor.labelled import BadQuestion

ROW: dict[str, Any] = {
    "id": "1",
    "query": "How large?",
    "contexts": [{"id": "a", "title": "Limits", "text": "An upload may be\n5 GB."}],
    "evidence": [{"context": 0, "text": "may be 5 GB"}],
    "answers": ["5 GB"],
}


def test_a_file_in_the_documented_shape_loads_packed_or_not(tmp_path: Path) -> None:
    line = json.dumps(ROW).encode() + b"\n"
    (tmp_path / "mine.jsonl").write_bytes(line)
    (tmp_path / "mine.jsonl.gz").write_bytes(gzip.compress(line))
    plain, packed = load(tmp_path / "mine.jsonl"), load(tmp_path / "mine.jsonl.gz")
    assert plain.name == packed.name == "mine"
    assert plain.questions == packed.questions
    assert plain.questions[0].contexts[0].title == "Limits"
    assert plain.questions[0].kind == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query": None}, "mine.jsonl, line 2: query must be a text, not null"),
        ({"contexts": []}, "line 2: contexts is empty"),
        ({"contexts": 5}, "contexts must be a list, not a number"),
        ({"contexts": ["An upload"]}, 'contexts[0] must be an object with a "text", not a text'),
        ({"contexts": [{"title": "no text"}]}, "contexts[0].text is missing"),
        (
            {"evidence": [{"context": 7, "text": "5 GB"}]},
            "evidence[0].context must be the number of one of the 1 contexts",
        ),
        ({"evidence": [{"context": -1, "text": "5 GB"}]}, "counted from 0, not -1"),
        ({"evidence": [{"context": True, "text": "5 GB"}]}, "counted from 0, not True"),
        ({"evidence": [{"context": 0, "text": "6 GB"}]}, "evidence[0].text does not stand in contexts[0].text: '6 GB'"),
        ({"evidence": [{"context": 0, "text": " "}]}, "evidence[0].text is blank"),
        ({"evidence": ["5 GB"]}, "evidence[0] must be an object"),
        ({"answers": [5]}, "answers[0] must be a text, not a number"),
    ],
)
def test_a_fault_is_named_with_its_line_and_field(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, **change}))
    with pytest.raises(BadQuestion, match=re.escape(said)):
        load(tmp_path / "mine.jsonl")


@pytest.mark.parametrize("field", ["query", "contexts", "evidence"])
def test_what_is_missing_is_named(field: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps({name: value for name, value in ROW.items() if name != field}))
    with pytest.raises(BadQuestion, match=f"mine.jsonl, line 1: {field} is missing"):
        load(tmp_path / "mine.jsonl")


def test_the_least_that_a_line_needs(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps({"query": "?", "contexts": [{"text": "a"}], "evidence": []}))
    question = load(tmp_path / "mine.jsonl").questions[0]
    assert (question.id, question.contexts[0].id, question.answers, question.kind) == ("1", "0", (), "")


def test_evidence_is_kept_as_it_stands_in_its_text(tmp_path: Path) -> None:
    row = {**ROW, "evidence": [{"context": 0, "text": "may be 5 GB"}]}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    assert load(tmp_path / "mine.jsonl").questions[0].evidence[0].text == "may be\n5 GB"


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b"\xff\xfe", b"\n\n"])
def test_what_is_no_question_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(content)
    with pytest.raises(BadQuestion, match=r"mine\.jsonl"):
        load(tmp_path / "mine.jsonl")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadQuestion, match="cannot be read"):
        load(tmp_path / "nothing.jsonl")


def test_the_built_in_sets_are_the_same_every_time() -> None:
    assert selfwritten() == selfwritten()
    assert stdlib_docstrings() == stdlib_docstrings()


def test_the_standard_library_set_has_its_evidence_in_its_payload() -> None:
    dataset = stdlib_docstrings()
    assert len(dataset.questions) >= 30
    assert {q.kind for q in dataset.questions} == {"parameter", "returns", "raises"}
    for question in dataset.questions:
        assert len(question.contexts) == 20
        assert len({context.text for context in question.contexts}) == 20
        for span in question.evidence:
            assert fold(span.text) in fold(question.contexts[span.context].text)


def test_a_sample_is_a_subset_in_order_and_hangs_on_the_seed_alone() -> None:
    whole = selfwritten()
    few = whole.sample(10, 4)
    places = [whole.questions.index(question) for question in few.questions]
    assert places == sorted(set(places))
    assert len(places) == 10
    assert few == whole.sample(10, 4) != whole.sample(10, 5)
    assert few.digest == whole.digest
    assert whole.sample(10_000, 4) == whole

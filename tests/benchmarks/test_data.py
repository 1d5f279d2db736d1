"""The self-written evaluation set and the example payload say what their documentation says that they say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "benchmarks" / "data"
KINDS = frozenset(
    [
        "multi_hop",
        "numeric",
        "negated",
        "unanswerable",
        "list",
        "table",
        "single",
        "code",
        "log",
        "json",
        "chat",
        "contract",
    ],
)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


CHUNKS = {chunk["id"]: chunk for chunk in rows("chunks.jsonl")}
QUESTIONS = rows("questions.jsonl")
ANSWERABLE = [question for question in QUESTIONS if question["kind"] != "unanswerable"]

each_question = pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q["id"])
each_answerable = pytest.mark.parametrize("question", ANSWERABLE, ids=lambda q: q["id"])


def test_chunks_are_many_unique_and_of_the_documented_shape() -> None:
    chunks = rows("chunks.jsonl")
    assert len(chunks) >= 200
    assert len(CHUNKS) == len(chunks)
    assert len({chunk["text"] for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert list(chunk) == ["id", "collection", "title", "text"]
        assert all(isinstance(value, str) and value.strip() == value and value for value in chunk.values())


def test_questions_are_many_unique_and_of_every_kind() -> None:
    assert len(QUESTIONS) >= 60
    assert len({question["id"] for question in QUESTIONS}) == len(QUESTIONS)
    assert len({question["query"] for question in QUESTIONS}) == len(QUESTIONS)
    counts = Counter(question["kind"] for question in QUESTIONS)
    assert set(counts) == KINDS
    assert min(counts.values()) >= 3


@each_question
def test_a_question_has_only_the_documented_fields(question: dict[str, Any]) -> None:
    required = ["id", "kind", "collection", "query", "contexts", "evidence", "answers"]
    assert list(question)[: len(required)] == required
    assert set(question) - set(required) <= {"derived", "all_answers"}
    assert question["query"].endswith("?") or question["query"].endswith(".")


@each_question
def test_a_payload_mixes_12_to_30_known_chunks(question: dict[str, Any]) -> None:
    contexts = question["contexts"]
    assert 12 <= len(contexts) <= 30
    assert len(set(contexts)) == len(contexts)
    collections = Counter(CHUNKS[context]["collection"] for context in contexts)
    assert collections[question["collection"]] >= 6
    assert len(collections) >= 2


@each_answerable
def test_evidence_is_an_exact_slice_of_a_chunk_in_the_payload(question: dict[str, Any]) -> None:
    assert question["evidence"]
    for span in question["evidence"]:
        assert span["context"] in question["contexts"]
        assert span["text"].strip() == span["text"]
        assert span["text"] in CHUNKS[span["context"]]["text"]


@each_answerable
def test_answers_stand_in_the_evidence_unless_they_are_derived(question: dict[str, Any]) -> None:
    assert question["answers"]
    evidence = "\n".join(span["text"] for span in question["evidence"])
    for answer in question["answers"]:
        assert answer
        assert (answer in evidence) or question.get("derived", False)


def test_unanswerable_questions_have_neither_evidence_nor_answers() -> None:
    unanswerable = [question for question in QUESTIONS if question["kind"] == "unanswerable"]
    assert [question["id"] for question in unanswerable if question["evidence"] or question["answers"]] == []


def test_multi_hop_questions_need_two_chunks() -> None:
    hops = {q["id"]: {span["context"] for span in q["evidence"]} for q in QUESTIONS if q["kind"] == "multi_hop"}
    assert {identifier: used for identifier, used in hops.items() if len(used) < 2} == {}


def test_evidence_does_not_favour_a_place_in_the_payload() -> None:
    """The order is shuffled: a compressor that keeps the first chunks must not score well by that alone."""
    places = [
        question["contexts"].index(span["context"]) / (len(question["contexts"]) - 1)
        for question in ANSWERABLE
        for span in question["evidence"]
    ]
    assert 0.4 < sum(places) / len(places) < 0.6


def test_the_readme_counts_what_the_files_hold() -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert f"{len(QUESTIONS)} questions over {len(CHUNKS)} chunks" in readme
    for kind, count in Counter(question["kind"] for question in QUESTIONS).items():
        assert f"| {kind} | {count} |" in readme


def test_the_example_payload_needs_two_of_its_24_chunks() -> None:
    payload = json.loads((ROOT / "examples" / "payload.json").read_text(encoding="utf-8"))
    contexts = {context["id"]: context["text"] for context in payload["trimtab"]["contexts"]}
    assert len(contexts) == len(payload["trimtab"]["contexts"]) == 24
    assert all(80 <= len(text.split()) <= 220 for text in contexts.values())
    assert payload["messages"][-1] == {
        "role": "user",
        "content": "What is the recovery window of the database orders-eu-prod?",
    }

    plan = [name for name, text in contexts.items() if "The database orders-eu-prod runs on the Granite plan" in text]
    window = [name for name, text in contexts.items() if "The recovery window of the Granite plan is 21 days." in text]
    assert plan == ["runbooks/payments-team/inventory"]
    assert window == ["limits/backups"]
    assert "the recovery window of the Granite plan was 14 days" in contexts["limits/backups-2024"]
    assert [name for name, text in contexts.items() if "21 days" in text] == window

"""Questions with their payloads and the evidence in them: what every suite measures on.

One JSON object a line, `.jsonl` or `.jsonl.gz`:

    {"id": "...", "query": "...",
     "contexts": [{"id": "...", "title": "...", "text": "..."}],     what a RAG stack would have sent
     "evidence": [{"context": 3, "text": "..."}],                    spans of contexts[3].text that hold the answer
     "answers": ["..."],                                             any of them answers; all with "all_answers": true
     "kind": "numeric", "derived": false}                            optional; derived: worked out, stands nowhere

A question without evidence is unanswerable.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor import Source

DATA = Path(__file__).parent / "data"


class BadData(ValueError):
    """A file that is not in the documented shape; the message names file, line and field."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A span of `contexts[context].text` that holds (part of) the answer."""

    context: int
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `kind` is empty where the data does not say; `derived` answers stand nowhere in the text."""

    id: str
    query: str
    contexts: tuple[Source, ...]
    evidence: tuple[Evidence, ...]
    answers: tuple[str, ...]
    kind: str = ""
    all_answers: bool = False
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions under one name. `digest` is that of the bytes they were read from, so that two runs can be compared."""

    name: str
    digest: str
    questions: tuple[Question, ...]

    def sample(self, count: int, seed: int) -> Dataset:
        """At most `count` questions, drawn by `seed`, in the order of the file; the digest stays the file's."""
        if count >= len(self.questions):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.questions)), count))
        return replace(self, questions=tuple(self.questions[i] for i in chosen))


def load(file: Path) -> Dataset:
    """The questions of a file in the documented shape. Raises BadData."""
    try:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadData(f"{file}: cannot be read as UTF-8 JSON lines ({error})") from None
    questions = tuple(
        _question(_row(line, f"{file}:{number}"), f"{file}:{number}")
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    )
    if not questions:
        raise BadData(f"{file}: holds no question")
    return Dataset(file.name.removesuffix(".gz").removesuffix(".jsonl"), digest_of(raw), questions)


def selfwritten() -> Dataset:
    """The self-written set of `benchmarks/data`, whose questions name their chunks by id."""
    raw_chunks = (DATA / "chunks.jsonl").read_bytes()
    raw_questions = (DATA / "questions.jsonl").read_bytes()
    chunks = {chunk["id"]: chunk for chunk in map(json.loads, raw_chunks.decode().splitlines())}
    questions = []
    for row in map(json.loads, raw_questions.decode().splitlines()):
        ids = row["contexts"]
        evidence = [{"context": ids.index(each["context"]), "text": each["text"]} for each in row["evidence"]]
        whole = {**row, "contexts": [chunks[i] for i in ids], "evidence": evidence}
        questions.append(_question(whole, str(row["id"])))
    return Dataset("selfwritten", digest_of(raw_chunks + raw_questions), tuple(questions))


def digest_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadData(f"{where}: is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadData(f"{where}: must be a JSON object")
    return row


def _question(row: Mapping[str, Any], where: str) -> Question:
    try:
        contexts = tuple(
            Source(str(each.get("id", number)), _text(each["text"]), str(each.get("title") or ""))
            for number, each in enumerate(row["contexts"])
        )
        evidence = tuple(Evidence(int(each["context"]), _text(each["text"])) for each in row["evidence"])
        question = Question(
            id=str(row["id"]),
            query=_text(row["query"]),
            contexts=contexts,
            evidence=evidence,
            answers=tuple(_text(answer) for answer in row.get("answers", ())),
            kind=str(row.get("kind", "")),
            all_answers=bool(row.get("all_answers", False)),
            derived=bool(row.get("derived", False)),
        )
    except KeyError as error:
        raise BadData(f"{where}: the field {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadData(f"{where}: {error}") from None
    _check_evidence(question, where)
    return question


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {type(value).__name__}")
    return value


def _check_evidence(question: Question, where: str) -> None:
    if not question.contexts:
        raise BadData(f"{where}: contexts is empty")
    folded: Sequence[str] = [fold(context.text) for context in question.contexts]
    for number, span in enumerate(question.evidence):
        if not 0 <= span.context < len(folded):
            raise BadData(f"{where}: evidence {number} names context {span.context} of {len(folded)}")
        if not span.text.strip() or fold(span.text) not in folded[span.context]:
            raise BadData(f"{where}: evidence {number} does not stand in the text of context {span.context}")


def fold(text: str) -> str:
    """White space folded: how evidence is looked for, so that a line break is not a loss."""
    return " ".join(text.split())

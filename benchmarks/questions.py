"""Questions with their payloads and the evidence in them: what every suite measures on.

The shape of a file is `compressor.labelled`'s, which reads it; a question without evidence is unanswerable.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

from compressor import Source
from compressor.labelled import BadQuestion, Labelled, labelled, read_labelled

DATA = Path(__file__).parent / "data"


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
    """The questions of a file in the documented shape. Raises BadQuestion."""
    questions = tuple(map(question_of, read_labelled(file)))
    if not questions:
        raise BadQuestion(f"{file}: holds no question")
    name = file.name.removesuffix(".gz").removesuffix(".jsonl")
    return Dataset(name, digest_of(file.read_bytes()), questions)


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
        questions.append(question_of(labelled(whole, str(row["id"]))))
    return Dataset("selfwritten", digest_of(raw_chunks + raw_questions), tuple(questions))


def question_of(row: Labelled) -> Question:
    """A labelled question as the suites take it: its evidence as text, as it stands in its context."""
    return Question(
        id=row.id,
        query=row.query,
        contexts=row.sources,
        evidence=tuple(Evidence(n, row.sources[n].text[start:end]) for n, start, end in row.spans),
        answers=row.answers,
        kind=row.kind,
        all_answers=row.all_answers,
        derived=row.derived,
    )


def digest_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def fold(text: str) -> str:
    """White space folded: how evidence is looked for, so that a line break is not a loss."""
    return " ".join(text.split())

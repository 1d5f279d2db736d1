"""Suite `reader`: does a model still answer from what is kept? Exact match, F1 and containment, at each cut.

The reader is the local SmolLM2-135M-Instruct, or any OpenAI-compatible endpoint. Where the reader is too weak to tell
the cuts apart, the section says so instead of drawing a conclusion.
"""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx

from benchmarks.evidence import budget_of, oracle_cut
from benchmarks.intervals import Estimate, estimate
from benchmarks.peers import Arm, Cut
from benchmarks.peers.trimtab import TrimtabArm
from benchmarks.questions import Dataset, Evidence, Question
from benchmarks.sections import Progress, Section, Table
from compressor.tokens import count_tokens

QUESTIONS = 10
QUICK_QUESTIONS = 3
LOCAL_PAYLOAD_TOKENS = 800
MAX_ANSWER_TOKENS = 24
RATIOS = (0.10, 0.25, 0.50)
INSTRUCTION = "Answer the question from the documents in as few words as possible. Give only the answer."


class Reader(Protocol):
    """Something that answers a prompt. `payload_tokens` is how much context it is shown at most; None for all."""

    @property
    def name(self) -> str: ...

    @property
    def payload_tokens(self) -> int | None: ...

    def answer(self, prompt: str) -> str: ...


class LocalReader:
    """The model of `trimtab.local_model`, greedily. Raises LocalModelMissing at the first answer."""

    payload_tokens: int | None = LOCAL_PAYLOAD_TOKENS

    def __init__(self) -> None:
        from trimtab.local_model import MODEL_ID, LocalModel

        self.name = MODEL_ID
        self._model = LocalModel()

    def answer(self, prompt: str) -> str:
        return self._model.complete(_messages(prompt), max_tokens=MAX_ANSWER_TOKENS).text


@dataclass(frozen=True, slots=True)
class RemoteReader:
    """A model behind OpenAI's chat completions. The key is in the environment variable `key_env`, if one is needed."""

    url: str
    name: str
    key_env: str | None = None
    payload_tokens: int | None = None

    def answer(self, prompt: str) -> str:
        key = os.environ.get(self.key_env, "") if self.key_env else ""
        body = {"model": self.name, "messages": _messages(prompt), "max_tokens": MAX_ANSWER_TOKENS, "temperature": 0}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        response = httpx.post(f"{self.url.rstrip('/')}/chat/completions", json=body, headers=headers, timeout=300)
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"])


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, scored against the best of the right ones: 0 to 1 each."""

    condition: str
    question: str
    text: str
    exact: float
    f1: float
    contained: float
    prompt_tokens: int


def run(
    dataset: Dataset,
    count: int,
    seed: int,
    folder: Path,
    *,
    remote: RemoteReader | None = None,
    progress: Progress,
) -> Section:
    """`count` questions that have an answer in the text, each asked under every condition."""
    reader: Reader = remote or LocalReader()
    questions = [shortened(q, reader.payload_tokens) for q in answerable(dataset).sample(count, seed).questions]
    if not questions:
        return Section("reader", "Reader", notes=(f"{dataset.name} has no question with an answer in its text.",))
    arm = TrimtabArm(folder / "reader")
    step = progress(f"reader {reader.name}", len(questions) * (3 + len(RATIOS)))
    answers: list[Answer] = []
    for question in questions:
        for condition, cut in _conditions(arm, question):
            prompt = _prompt(question, cut)
            answers.append(_scored(condition, question, reader.answer(prompt), count_tokens(prompt)))
            step()
    return _section(reader, dataset, answers, seed)


def answerable(dataset: Dataset) -> Dataset:
    """The questions that a reader can get right: with evidence, and an answer that stands in the text."""
    kept = tuple(q for q in dataset.questions if q.evidence and q.answers and not q.derived)
    return replace(dataset, questions=kept)


def shortened(question: Question, payload_tokens: int | None) -> Question:
    """The texts with evidence and as many of the others, in their order, as fit `payload_tokens`."""
    if payload_tokens is None:
        return question
    needed = {span.context for span in question.evidence}
    room = payload_tokens - sum(count_tokens(question.contexts[n].text) for n in needed)
    chosen = set(needed)
    for number, context in enumerate(question.contexts):
        cost = count_tokens(context.text)
        if number not in chosen and cost <= room:
            chosen.add(number)
            room -= cost
    places = {number: place for place, number in enumerate(sorted(chosen))}
    contexts = tuple(question.contexts[number] for number in sorted(chosen))
    evidence = tuple(Evidence(places[span.context], span.text) for span in question.evidence)
    return replace(question, contexts=contexts, evidence=evidence)


def normalised(text: str) -> str:
    """Lower case without articles and punctuation, as SQuAD's own evaluation does it (Rajpurkar et al., 2016)."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def f1(answer: str, right: str) -> float:
    """The harmonic mean of the shares of words that answer and right answer have in common."""
    said, wanted = normalised(answer).split(), normalised(right).split()
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted)) if common else 0.0


def _conditions(arm: Arm, question: Question) -> list[tuple[str, Cut]]:
    from benchmarks.peers.reference import FullContext

    cuts = [
        (f"trimtab {ratio:.2f}", arm.cut(question.query, question.contexts, budget_of(question, ratio), ratio))
        for ratio in RATIOS
    ]
    everything = FullContext().cut(question.query, question.contexts, 0, 1.0)
    return [("no context", Cut(())), *cuts, ("full context", everything), ("oracle evidence", oracle_cut(question))]


def _prompt(question: Question, cut: Cut) -> str:
    documents = [f"Document ({question.contexts[sent.context].title}):\n{sent.text}" for sent in cut.sent]
    return "\n\n".join([*documents, f"Question: {question.query}\nAnswer:"])


def _messages(prompt: str) -> list[Mapping[str, str]]:
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}]


def _scored(condition: str, question: Question, text: str, prompt_tokens: int) -> Answer:
    right = (" ".join(question.answers),) if question.all_answers else question.answers
    inside = [normalised(each) in normalised(text) for each in question.answers]
    return Answer(
        condition,
        question.id,
        text,
        exact=max(float(normalised(text) == normalised(each)) for each in right),
        f1=max(f1(text, each) for each in right),
        contained=float(all(inside) if question.all_answers else any(inside)),
        prompt_tokens=prompt_tokens,
    )


def _section(reader: Reader, dataset: Dataset, answers: Sequence[Answer], seed: int) -> Section:
    by_condition: dict[str, list[Answer]] = {}
    for answer in answers:
        by_condition.setdefault(answer.condition, []).append(answer)
    contained = {name: _mean([a.contained for a in of], seed) for name, of in by_condition.items()}
    rows = tuple(
        (
            name,
            f"{sum(a.prompt_tokens for a in of) / len(of):,.0f}",
            str(_mean([a.exact for a in of], seed)),
            str(_mean([a.f1 for a in of], seed)),
            str(contained[name]),
        )
        for name, of in by_condition.items()
    )
    count = len(next(iter(by_condition.values())))
    shown = "" if reader.payload_tokens is None else f", payloads shortened to {reader.payload_tokens:,} tokens"
    title = f"{reader.name} on {count} questions of {dataset.name}{shown}"
    headers = ("context", "prompt tokens", "exact match", "F1", "answer contained")
    return Section(
        "reader",
        "Reader",
        notes=(verdict(contained), "Intervals are 95 % bootstrap intervals over questions."),
        tables=(Table(title, headers, rows, readme=True),),
        records=tuple(_record(reader.name, dataset.name, a) for a in answers),
    )


def verdict(contained: Mapping[str, Estimate]) -> str:
    """What may be concluded: nothing where the reader does no better with the evidence than without any context, and
    nothing between two cuts whose intervals overlap."""
    if contained["oracle evidence"].overlaps(contained["no context"]):
        return (
            "No conclusion: even with exactly the evidence this reader is not measurably better than with no context, on "
            "so few questions. It is too weak to judge a cut."
        )
    full = contained["full context"]
    apart = [name for name, found in contained.items() if name != "full context" and not found.overlaps(full)]
    same = [name for name in contained if name not in (*apart, "full context")]
    told = f"It tells these apart from the full context: {', '.join(apart)}. " if apart else ""
    rest = f"It is too weak, on so few questions, to tell these from it: {', '.join(same)}." if same else ""
    return f"The reader uses its context. {told}{rest}".strip()


def _mean(values: Sequence[float], seed: int) -> Estimate:
    found = estimate(values, seed)
    if found is None:
        raise ValueError("no answers to take a mean of")
    return found


def _record(reader: str, dataset: str, answer: Answer) -> dict[str, Any]:
    return {
        "record": "answer",
        "reader": reader,
        "dataset": dataset,
        "condition": answer.condition,
        "question": answer.question,
        "text": answer.text,
        "exact": answer.exact,
        "f1": answer.f1,
        "contained": answer.contained,
        "prompt_tokens": answer.prompt_tokens,
    }

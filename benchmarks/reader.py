"""Suite `reader`: does a model still answer from what is kept? Exact match, F1 and containment, at each cut.

The reader is the local SmolLM2-135M-Instruct, or any OpenAI-compatible endpoint; another one may judge its answers. Where
the reader is too weak to tell the cuts apart, the section says so instead of drawing a conclusion.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks.endpoint import Endpoint
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
NOT_STATED = "not stated"
UNANSWERABLE = "unanswerable"
ABSTAIN = f" If the documents do not say it, answer: {NOT_STATED}."
UNANSWERABLE_SHARE = 4
"""One question that has no answer beside so many that have one. Not asked of the local reader, which never abstains."""
JUDGE = (
    "You grade answers. Say yes if the given answer means the same as one of the right answers (as all of them, where all "
    "are asked for), else no. Say nothing but yes or no."
)


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
    """An endpoint that reads. It is shown whole payloads, and may say that the documents do not say."""

    endpoint: Endpoint
    payload_tokens: int | None = None

    @property
    def name(self) -> str:
        return self.endpoint.model

    def answer(self, prompt: str) -> str:
        return self.endpoint.ask(INSTRUCTION + ABSTAIN, prompt)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, scored against the best of the right ones: 0 to 1 each. `judged` is the judge's word, if there is one."""

    condition: str
    question: str
    kind: str
    text: str
    exact: float
    f1: float
    contained: float
    judged: float | None
    prompt_tokens: int


def run(
    dataset: Dataset,
    count: int,
    seed: int,
    folder: Path,
    *,
    remote: RemoteReader | None = None,
    judge: Endpoint | None = None,
    progress: Progress,
) -> Section:
    """`count` questions that have an answer in the text, each asked under every condition; of a remote reader some that
    have none, too. Raises EndpointFailed, or LocalModelMissing."""
    reader: Reader = remote or LocalReader()
    questions = [shortened(q, reader.payload_tokens) for q in answerable(dataset).sample(count, seed).questions]
    if questions and remote:
        questions += unanswerable(dataset).sample(max(1, count // UNANSWERABLE_SHARE), seed).questions
    if not questions:
        return Section("reader", "Reader", notes=(f"{dataset.name} has no question with an answer in its text.",))
    arm = TrimtabArm(folder / "reader")
    step = progress(f"reader {reader.name}", len(questions) * (3 + len(RATIOS)))
    answers: list[Answer] = []
    for question in questions:
        for condition, cut in _conditions(arm, question):
            prompt = _prompt(question, cut)
            text = reader.answer(prompt)
            judged = None if judge is None else _judged(judge, question, text)
            answers.append(_scored(condition, question, text, judged, count_tokens(prompt)))
            step()
    return _section(reader, dataset, answers, seed)


def answerable(dataset: Dataset) -> Dataset:
    """The questions that a reader can get right: with evidence, and an answer that stands in the text."""
    kept = tuple(q for q in dataset.questions if q.evidence and q.answers and not q.derived)
    return replace(dataset, questions=kept)


def unanswerable(dataset: Dataset) -> Dataset:
    """The questions without evidence, whose right answer is that the documents do not say."""
    kept = tuple(replace(q, answers=(NOT_STATED,), kind=UNANSWERABLE) for q in dataset.questions if not q.evidence)
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


def _judged(judge: Endpoint, question: Question, text: str) -> float:
    wanted = "all of: " if question.all_answers else "any of: "
    right = wanted + "; ".join(question.answers)
    prompt = f"Question: {question.query}\nRight answers, {right}\nGiven answer: {text}\nIs it right?"
    return float(judge.ask(JUDGE, prompt).strip().lower().startswith("yes"))


def _scored(condition: str, question: Question, text: str, judged: float | None, prompt_tokens: int) -> Answer:
    right = (" ".join(question.answers),) if question.all_answers else question.answers
    inside = [normalised(each) in normalised(text) for each in question.answers]
    return Answer(
        condition,
        question.id,
        question.kind,
        text,
        exact=max(float(normalised(text) == normalised(each)) for each in right),
        f1=max(f1(text, each) for each in right),
        contained=float(all(inside) if question.all_answers else any(inside)),
        judged=judged,
        prompt_tokens=prompt_tokens,
    )


def _section(reader: Reader, dataset: Dataset, answers: Sequence[Answer], seed: int) -> Section:
    by_condition: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.kind != UNANSWERABLE:
            by_condition.setdefault(answer.condition, []).append(answer)
    contained = {name: _mean([a.contained for a in of], seed) for name, of in by_condition.items()}
    rows = tuple(
        (
            name,
            f"{sum(a.prompt_tokens for a in of) / len(of):,.0f}",
            str(_mean([a.exact for a in of], seed)),
            str(_mean([a.f1 for a in of], seed)),
            str(contained[name]),
            *(str(_mean(judged, seed)) for judged in [[a.judged for a in of if a.judged is not None]] if judged),
        )
        for name, of in by_condition.items()
    )
    count = len(next(iter(by_condition.values())))
    shown = "" if reader.payload_tokens is None else f", payloads shortened to {reader.payload_tokens:,} tokens"
    title = f"{reader.name} on {count} questions of {dataset.name}{shown}"
    headers = ("context", "prompt tokens", "exact match", "F1", "answer contained", "judged right")[: len(rows[0])]
    return Section(
        "reader",
        "Reader",
        notes=(verdict(contained), "Intervals are 95 % bootstrap intervals over questions."),
        tables=(Table(title, headers, rows, readme=True), *_by_kind(answers)),
        records=tuple(_record(reader.name, dataset.name, a) for a in answers),
    )


def _by_kind(answers: Sequence[Answer]) -> Sequence[Table]:
    """Where the questions have kinds: the share of answers that hold a right one; for those without an answer, the share
    that says so."""
    conditions = list(dict.fromkeys(a.condition for a in answers))
    rows = []
    for kind in dict.fromkeys(a.kind for a in answers if a.kind):
        of = [a for a in answers if a.kind == kind]
        shares = [[a.contained for a in of if a.condition == condition] for condition in conditions]
        rows.append((kind, str(len(shares[0])), *(f"{sum(each) / len(each):.2f}" for each in shares)))
    note = "Few questions a kind: read these as where to look. Unanswerable: the share of answers that say so."
    return (
        [Table("Answer contained, by kind of question", ("kind", "n", *conditions), tuple(rows), note)] if rows else []
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
        "kind": answer.kind,
        "text": answer.text,
        "exact": answer.exact,
        "f1": answer.f1,
        "contained": answer.contained,
        "judged": answer.judged,
        "prompt_tokens": answer.prompt_tokens,
    }

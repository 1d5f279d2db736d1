"""Public question sets by name, through the package `datasets`, for those who have a network.

    python -m benchmarks evidence --data hotpotqa

A row of `SETS` says where a set is; its function turns one published row into questions of the documented shape. These
functions are pure, and skip what has no evidence that can be pointed at. Rows are streamed, so that a set of 40 GB costs
the download of its first rows; nothing is kept on the disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from benchmarks.questions import Dataset, digest_of, question_of
from compressor.labelled import BadQuestion, labelled

QUESTIONS = 200
"""The first so many of a set; `--questions` draws from them."""

Row = Mapping[str, Any]
_QMSUM = "https://raw.githubusercontent.com/Yale-LILY/QMSum/main/data/ALL/jsonl/val.jsonl"


@dataclass(frozen=True, slots=True)
class PublicSet:
    """Where a set is: the arguments of `datasets.load_dataset`. `questions` turns one of its rows into questions;
    `gathered`, where a question's distractors are in the rows around it, joins rows first."""

    path: str
    config: str | None
    split: str
    questions: Callable[[Row], Iterator[Row]]
    files: str | None = None
    gathered: Callable[[Iterable[Row]], Iterator[Row]] | None = None


def load_public(name: str, count: int = QUESTIONS) -> Dataset:
    """The first `count` questions of the set called `name` in `SETS`. Raises BadQuestion, in one line, where the package
    is missing or the set cannot be had."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise BadQuestion(
            f"the set {name!r} is loaded by the package datasets, which is not installed: pip install 'trimtab[data]'"
        ) from None
    found = SETS[name]
    try:
        rows: Iterable[Row] = load_dataset(
            found.path, found.config, data_files=found.files, split=found.split, streaming=True
        )
        questions = list(islice(questions_of(found, rows), count))
    except BadQuestion:
        raise
    except (OSError, ValueError) as error:  # what datasets raises, off line and for a set that moved
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BadQuestion(f"the set {name!r} ({found.path}) could not be loaded: {said}") from None
    if not questions:
        raise BadQuestion(f"the set {name!r} ({found.path}): no row has evidence; its shape may have changed")
    digest = digest_of("".join(json.dumps(row, sort_keys=True) for row in questions).encode())
    return Dataset(name, digest, tuple(question_of(labelled(row, f"{name} {row['id']}")) for row in questions))


def questions_of(found: PublicSet, rows: Iterable[Row]) -> Iterator[Row]:
    """The set's rows as questions of the documented shape. Raises BadQuestion where a row has not the shape it had."""
    for row in found.gathered(rows) if found.gathered else rows:
        try:
            yield from found.questions(row)
        except (KeyError, TypeError, IndexError) as error:
            raise BadQuestion(f"{found.path}: a row has not the published shape ({error!r})") from None


def paragraphs_with_facts(row: Row) -> Iterator[Row]:
    """HotpotQA, and 2WikiMultihopQA in its shape: titled lists of sentences, and (title, sentence number) of the facts."""
    titles, sentences = row["context"]["title"], row["context"]["sentences"]
    facts = list(zip(row["supporting_facts"]["title"], row["supporting_facts"]["sent_id"], strict=True))
    evidence = [
        {"context": titles.index(title), "text": sentences[titles.index(title)][number].strip()}
        for title, number in facts
        # some facts of HotpotQA name a sentence that its paragraph has not
        if title in titles and number < len(sentences[titles.index(title)])
    ]
    texts = ["".join(each) if _spaced(each) else " ".join(each) for each in sentences]
    contexts = [{"id": str(n), "title": titles[n], "text": text} for n, text in enumerate(texts)]
    if len(evidence) == len(facts) and evidence:
        yield _question(row["id"], row["question"], contexts, evidence, [row["answer"]], row.get("type", ""))


def musique(row: Row) -> Iterator[Row]:
    """MuSiQue marks whole paragraphs; the evidence of a hop is the sentence of its paragraph that holds its answer."""
    paragraphs = row["paragraphs"]
    evidence = []
    for hop in row["question_decomposition"]:
        number = hop["paragraph_support_idx"]
        if number is None:
            return
        place = next(n for n, each in enumerate(paragraphs) if each["idx"] == number)
        said = sentence_with(hop["answer"], paragraphs[place]["paragraph_text"])
        if said is None:
            return
        evidence.append({"context": place, "text": said})
    contexts = [
        {"id": str(n), "title": each["title"], "text": each["paragraph_text"]} for n, each in enumerate(paragraphs)
    ]
    if row["answerable"]:
        kind = f"{len(evidence)} hops"
        yield _question(row["id"], row["question"], contexts, evidence, [row["answer"], *row["answer_aliases"]], kind)


def natural_question(row: Row) -> Iterator[Row]:
    """Natural Questions: one Wikipedia page, its top-level passages as contexts; the evidence is the stretch of the
    passage from full stop to full stop that holds the first short answer."""
    tokens, is_html = row["document"]["tokens"]["token"], row["document"]["tokens"]["is_html"]
    candidates = row["long_answer_candidates"]
    short = next((each for each in row["annotations"]["short_answers"] if each["text"]), None)
    if short is None:
        return
    bounds = zip(candidates["start_token"], candidates["end_token"], candidates["top_level"], strict=True)
    passages = [(a, b) for a, b, top in bounds if top and any(not html for html in is_html[a:b])]
    first, last = short["start_token"][0], short["end_token"][0]
    place = next((n for n, (a, b) in enumerate(passages) if a <= first and last <= b), None)
    if place is None:
        return
    start, end = passages[place]
    while first > start and tokens[first - 1] != "." and not is_html[first - 1]:
        first -= 1
    while last < end and tokens[last - 1] != "." and not is_html[last]:
        last += 1
    joined = [_joined(tokens[a:b], is_html[a:b]) for a, b in passages]
    contexts = [{"id": str(n), "title": row["document"]["title"], "text": text} for n, text in enumerate(joined)]
    evidence = [{"context": place, "text": _joined(tokens[first:last], is_html[first:last])}]
    yield _question(row["id"], row["question"]["text"], contexts, evidence, list(short["text"]))


def longbench(row: Row) -> Iterator[Row]:
    """LongBench marks no evidence: it is the sentence in which an answer stands first. One long text is one context."""
    text = row["context"]
    said = next((found for answer in row["answers"] if (found := sentence_with(answer, text))), None)
    if said is not None:
        query = row.get("input") or row["question"]
        identity = row.get("_id") or digest_of(f"{query}{text}".encode())
        contexts = [{"id": "0", "title": "", "text": text}]
        yield _question(identity, query, contexts, [{"context": 0, "text": said}], list(row["answers"]))


def qmsum(row: Row) -> Iterator[Row]:
    """QMSum: a meeting, one context, and for each specific query the turns that a summary needs."""
    turns = [f"{turn['speaker']}: {turn['content']}" for turn in row["meeting_transcripts"]]
    contexts = [{"id": "0", "title": "meeting", "text": "\n".join(turns)}]
    meeting = digest_of(contexts[0]["text"].encode())
    for number, asked in enumerate(row["specific_query_list"]):
        spans = [(int(first), int(last)) for first, last in asked["relevant_text_span"]]
        needed = dict.fromkeys(n for first, last in spans for n in range(first, min(last + 1, len(turns))))
        evidence = [{"context": 0, "text": turns[n]} for n in needed if turns[n].strip()]
        if evidence:
            answers = [asked["answer"]]
            yield _question(f"{meeting}-{number}", asked["query"], contexts, evidence, answers, derived=True)


def ms_marco(row: Row) -> Iterator[Row]:
    """MS MARCO marks passages, not spans: the evidence is the sentence of a marked passage that holds an answer word for
    word. Questions whose answer was put in other words are left out."""
    texts = row["passages"]["passage_text"]
    marked = [n for n, selected in enumerate(row["passages"]["is_selected"]) if selected]
    contexts = [{"id": str(n), "title": "", "text": text} for n, text in enumerate(texts)]
    for answer in row["answers"]:
        for number in marked:
            if said := sentence_with(answer, texts[number]):
                evidence = [{"context": number, "text": said}]
                yield _question(row["query_id"], row["query"], contexts, evidence, [answer], row["query_type"].lower())
                return


def articles(rows: Iterable[Row]) -> Iterator[Row]:
    """SQuAD's rows have one paragraph each: those that follow one another under one title, joined."""
    gathered: list[Row] = []
    for row in rows:
        if gathered and row["title"] != gathered[0]["title"]:
            yield {"rows": gathered}
            gathered = []
        gathered.append(row)
    if gathered:
        yield {"rows": gathered}


def squad(article: Row) -> Iterator[Row]:
    """SQuAD: an article's paragraphs are the contexts of each of its questions; the evidence is the answer's sentence."""
    texts = list(dict.fromkeys(row["context"] for row in article["rows"]))
    for row in article["rows"]:
        contexts = [{"id": str(n), "title": row["title"].replace("_", " "), "text": t} for n, t in enumerate(texts)]
        answers = list(dict.fromkeys(row["answers"]["text"]))
        evidence = []
        if answers:
            start = row["answers"]["answer_start"][0]
            said = sentence_at(row["context"], start, start + len(row["answers"]["text"][0]))
            evidence = [{"context": texts.index(row["context"]), "text": said}]
        yield _question(row["id"], row["question"], contexts, evidence, answers)


SETS: Mapping[str, PublicSet] = {
    "hotpotqa": PublicSet("hotpotqa/hotpot_qa", "distractor", "validation", paragraphs_with_facts),
    "musique": PublicSet("dgslibisey/MuSiQue", None, "validation", musique),
    "2wiki": PublicSet("framolfese/2WikiMultihopQA", None, "validation", paragraphs_with_facts),
    "nq": PublicSet("google-research-datasets/natural_questions", "dev", "validation", natural_question),
    "longbench": PublicSet("Xnhyacinth/LongBench", "multifieldqa_en", "test", longbench),
    "qmsum": PublicSet("json", None, "train", qmsum, files=_QMSUM),
    "msmarco": PublicSet("microsoft/ms_marco", "v2.1", "validation", ms_marco),
    "squad": PublicSet("rajpurkar/squad", "plain_text", "validation", squad, gathered=articles),
}
"""By the name that `--data` takes."""

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[A-Z0-9])|\n+")


def sentence_with(answer: str, text: str) -> str | None:
    """The first sentence of `text` that holds `answer` as whole words, whatever its case; None if there is none."""
    found = re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", text, re.IGNORECASE) if answer.strip() else None
    return sentence_at(text, *found.span()) if found else None


def sentence_at(text: str, start: int, end: int) -> str:
    """The sentence (or sentences, where the answer runs on) around characters `start:end`."""
    first, last = 0, len(text)
    for stop in _SENTENCE_END.finditer(text):
        if stop.end() <= start:
            first = stop.end()
        elif stop.start() >= end:
            last = stop.start()
            break
    return text[first:last].strip()


def _joined(tokens: Sequence[str], is_html: Sequence[bool]) -> str:
    return " ".join(token for token, html in zip(tokens, is_html, strict=True) if not html)


def _spaced(sentences: Sequence[str]) -> bool:
    """Whether the sentences bring the spaces between them, as HotpotQA's do."""
    return any(each[:1].isspace() for each in sentences[1:]) or any(each[-1:].isspace() for each in sentences[:-1])


def _question(
    identity: object,
    query: str,
    contexts: Sequence[Row],
    evidence: Sequence[Row],
    answers: Sequence[str],
    kind: str = "",
    *,
    derived: bool = False,
) -> Row:
    named = {"id": str(identity), "query": query, "contexts": contexts, "evidence": evidence, "answers": answers}
    return {**named, "kind": kind, "derived": derived}

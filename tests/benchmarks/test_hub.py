"""Public sets: each published row shape, as recorded from the sets' own cards, becomes questions of the documented shape."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest

from benchmarks.hub import SETS, load_public, questions_of, sentence_at, sentence_with
from benchmarks.questions import Question, question_of
from compressor.labelled import BadQuestion, labelled

HOTPOTQA = {
    "id": "5a7a06935542990198eaf050",
    "question": "Which magazine was started first, The Lamp or The Harbour?",
    "answer": "The Lamp",
    "type": "comparison",
    "level": "medium",
    "supporting_facts": {"title": ["The Lamp", "The Harbour"], "sent_id": [0, 1]},
    "context": {
        "title": ["The Lamp", "Beacon", "The Harbour"],
        "sentences": [
            ["The Lamp was a magazine started in 1844.", " It ceased in 1879."],
            ["A beacon is a fire.", " It is lit on a hill."],
            ["The Harbour is a monthly.", " Its first number came out in 1989."],
        ],
    },
}
TWO_WIKI = {
    "id": "13f5ad2c088c11ebbd6fac1f6bf848b6",
    "question": "Where was the director of Polder born?",
    "answer": "Leiden",
    "type": "compositional",
    "evidences": [["Polder", "director", "Anna Vos"], ["Anna Vos", "place of birth", "Leiden"]],
    "supporting_facts": {"title": ["Polder", "Anna Vos"], "sent_id": [0, 1]},
    "context": {
        "title": ["Anna Vos", "Polder"],
        "sentences": [["Anna Vos is a director.", "She was born in Leiden."], ["Polder is a film by Anna Vos."]],
    },
}
MUSIQUE = {
    "id": "2hop__482757_12019",
    "paragraphs": [
        {"idx": 0, "title": "Tern", "paragraph_text": "A tern is a bird. It flies far.", "is_supporting": False},
        {
            "idx": 1,
            "title": "Mill",
            "paragraph_text": "The mill was built. Its maker is Ada Holt.",
            "is_supporting": True,
        },
        {"idx": 2, "title": "Ada Holt", "paragraph_text": "Ada Holt died in Delft. She was 60.", "is_supporting": True},
    ],
    "question": "Where did the maker of the mill die?",
    "question_decomposition": [
        {"id": 482757, "question": "mill >> maker", "answer": "Ada Holt", "paragraph_support_idx": 1},
        {"id": 12019, "question": "where did #1 die", "answer": "Delft", "paragraph_support_idx": 2},
    ],
    "answer": "Delft",
    "answer_aliases": ["Delft, Holland"],
    "answerable": True,
}
_NQ = [
    *(("<P>", True), ("The", False), ("dam", False), ("is", False), ("old", False), (".", False), ("</P>", True)),
    *(("<P>", True), ("It", False), ("is", False), ("high", False), (".", False), ("It", False), ("is", False)),
    *(("90", False), ("m", False), ("long", False), (".", False), ("So", False), (".", False), ("</P>", True)),
]
NQ = {
    "id": "5225754983651766092",
    "document": {
        "title": "Dam",
        "url": "https://en.wikipedia.org/wiki/Dam",
        "html": "",
        "tokens": {
            "token": [token for token, _ in _NQ],
            "is_html": [html for _, html in _NQ],
            "start_byte": list(range(len(_NQ))),
            "end_byte": list(range(1, len(_NQ) + 1)),
        },
    },
    "question": {"text": "how long is the dam", "tokens": ["how", "long", "is", "the", "dam"]},
    "long_answer_candidates": {
        "start_token": [0, 7, 8],
        "end_token": [7, 21, 12],
        "start_byte": [0, 7, 8],
        "end_byte": [7, 21, 12],
        "top_level": [True, True, False],
    },
    "annotations": {
        "id": ["593165450220027640"],
        "long_answer": [{"start_token": 7, "end_token": 21, "start_byte": 7, "end_byte": 21, "candidate_index": 1}],
        "short_answers": [
            {"start_token": [14], "end_token": [16], "start_byte": [14], "end_byte": [16], "text": ["90 m"]}
        ],
        "yes_no_answer": [-1],
    },
}
LONGBENCH = {
    "context": "The fair opens in May.\nTickets cost 12 pounds. Children pay half.",
    "question": "What does a ticket cost?",
    "answer_prefix": "Answer:",
    "answers": ["12 pounds"],
    "all_classes": None,
    "length": 12,
    "task": "multifieldqa_en",
    "max_new_tokens": 64,
}
QMSUM = {
    "topic_list": [{"topic": "Budget", "relevant_text_span": [["0", "1"]]}],
    "general_query_list": [{"query": "Summarize the whole meeting.", "answer": "They spoke of money."}],
    "specific_query_list": [
        {"query": "What was said of the roof?", "answer": "It leaks.", "relevant_text_span": [["1", "2"]]}
    ],
    "meeting_transcripts": [
        {"speaker": "Chair", "content": "Good morning."},
        {"speaker": "Ms Lund", "content": "The roof leaks."},
        {"speaker": "Chair", "content": "Then we mend the roof."},
    ],
}
MS_MARCO = {
    "answers": ["a steep slope"],
    "passages": {
        "is_selected": [0, 1],
        "passage_text": ["Scarlet is a colour.", "A scarp is a steep slope. It is formed by erosion."],
        "url": ["https://a.example", "https://b.example"],
    },
    "query": "what is a scarp",
    "query_id": 1102432,
    "query_type": "DESCRIPTION",
    "wellFormedAnswers": "[]",
}
SQUAD = [
    {
        "id": "56be4db0acb8001400a502ec",
        "title": "Fog_signal",
        "context": context,
        "question": question,
        "answers": {"text": [answer, answer], "answer_start": [context.index(answer)] * 2},
    }
    for context, question, answer in (
        ("A fog signal warns ships. It sounds every 30 seconds.", "How often does it sound?", "every 30 seconds"),
        ("The first one was a cannon. It stood at Boston.", "Where was the first?", "Boston"),
    )
]
ROWS: Mapping[str, list[Any]] = {
    "hotpotqa": [HOTPOTQA],
    "2wiki": [TWO_WIKI],
    "musique": [MUSIQUE],
    "nq": [NQ],
    "longbench": [LONGBENCH],
    "qmsum": [QMSUM],
    "msmarco": [MS_MARCO],
    "squad": SQUAD,
}


def loaded(name: str, rows: list[Any]) -> list[Question]:
    return [question_of(labelled(row, name)) for row in questions_of(SETS[name], rows)]


@pytest.mark.parametrize(
    ("name", "query", "contexts", "evidence", "answers"),
    [
        (
            "hotpotqa",
            "Which magazine was started first, The Lamp or The Harbour?",
            3,
            ["The Lamp was a magazine started in 1844.", "Its first number came out in 1989."],
            ("The Lamp",),
        ),
        (
            "2wiki",
            "Where was the director of Polder born?",
            2,
            ["Polder is a film by Anna Vos.", "She was born in Leiden."],
            ("Leiden",),
        ),
        (
            "musique",
            "Where did the maker of the mill die?",
            3,
            ["Its maker is Ada Holt.", "Ada Holt died in Delft."],
            ("Delft", "Delft, Holland"),
        ),
        ("nq", "how long is the dam", 2, ["It is 90 m long ."], ("90 m",)),
        ("longbench", "What does a ticket cost?", 1, ["Tickets cost 12 pounds."], ("12 pounds",)),
        (
            "qmsum",
            "What was said of the roof?",
            1,
            ["Ms Lund: The roof leaks.", "Chair: Then we mend the roof."],
            ("It leaks.",),
        ),
        ("msmarco", "what is a scarp", 2, ["A scarp is a steep slope."], ("a steep slope",)),
        ("squad", "How often does it sound?", 2, ["It sounds every 30 seconds."], ("every 30 seconds",)),
    ],
)
def test_each_published_shape_becomes_questions(
    name: str, query: str, contexts: int, evidence: list[str], answers: tuple[str, ...]
) -> None:
    question = loaded(name, ROWS[name])[0]
    assert question.query == query
    assert len(question.contexts) == contexts
    assert [span.text for span in question.evidence] == evidence
    assert question.answers == answers
    assert question.id


def test_every_set_of_the_table_has_a_recorded_row() -> None:
    assert set(ROWS) == set(SETS)


def test_paragraphs_read_as_they_were_published() -> None:
    assert (
        loaded("hotpotqa", [HOTPOTQA])[0].contexts[0].text
        == "The Lamp was a magazine started in 1844. It ceased in 1879."
    )
    assert loaded("2wiki", [TWO_WIKI])[0].contexts[0].text == "Anna Vos is a director. She was born in Leiden."
    assert loaded("nq", [NQ])[0].contexts[1].text == "It is high . It is 90 m long . So ."


def test_an_article_s_paragraphs_are_each_other_s_distractors() -> None:
    other = {**SQUAD[0], "title": "Buoy", "id": "x"}
    questions = loaded("squad", [*SQUAD, other])
    assert [len(question.contexts) for question in questions] == [2, 2, 1]
    assert [question.evidence[0].context for question in questions] == [0, 1, 0]
    assert questions[0].contexts[0].title == "Fog signal"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("hotpotqa", {**HOTPOTQA, "supporting_facts": {"title": ["The Lamp"], "sent_id": [9]}}),
        ("musique", {**MUSIQUE, "answerable": False}),
        ("nq", {**NQ, "annotations": {**NQ["annotations"], "short_answers": [{"text": [], "start_token": []}]}}),
        ("longbench", {**LONGBENCH, "answers": ["13 pounds"]}),
        ("qmsum", {**QMSUM, "specific_query_list": []}),
        ("msmarco", {**MS_MARCO, "answers": ["No Answer Present."]}),
        ("msmarco", {**MS_MARCO, "passages": {**MS_MARCO["passages"], "is_selected": [0, 0]}}),
    ],
)
def test_a_row_without_evidence_to_point_at_is_left_out(name: str, row: Any) -> None:
    assert loaded(name, [row]) == []


def test_a_changed_shape_is_told() -> None:
    with pytest.raises(
        BadQuestion, match=r"microsoft/ms_marco: a row has not the published shape \(KeyError\('passages'\)\)"
    ):
        loaded("msmarco", [{"query": "?"}])


@pytest.mark.parametrize(
    ("answer", "found"),
    [("6 bar", "It rose to 6 bar, no more."), ("bar", "It rose to 6 bar, no more."), ("noon", None), ("", None)],
)
def test_the_sentence_of_an_answer(answer: str, found: str | None) -> None:
    assert sentence_with(answer, "At 16 bars it stops. It rose to 6 bar, no more.\nThe end.") == found


def test_an_answer_across_two_sentences_keeps_both() -> None:
    text = "One. Two is. Three is. Four."
    assert sentence_at(text, text.index("Two"), text.index(" is. Four")) == "Two is. Three is."


def planted(monkeypatch: pytest.MonkeyPatch, load_dataset: Any) -> None:
    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_a_set_is_streamed_and_has_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def rows() -> Iterator[Any]:
        for number in range(1000):
            read.append(number)
            yield {**MS_MARCO, "query_id": number}

    def load_dataset(path: str, config: str, **more: Any) -> Iterator[Any]:
        assert (path, config) == ("microsoft/ms_marco", "v2.1")
        assert more == {"data_files": None, "split": "validation", "streaming": True}
        return rows()

    planted(monkeypatch, load_dataset)
    dataset = load_public("msmarco", 3)
    assert [question.id for question in dataset.questions] == ["0", "1", "2"]
    assert len(read) <= 4
    assert dataset.name == "msmarco"
    assert dataset.digest == load_public("msmarco", 3).digest != load_public("msmarco", 2).digest


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadQuestion, match=r"pip install 'trimtab\[data\]'"):
        load_public("hotpotqa")


def test_without_a_network_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'hotpotqa/hotpot_qa' on the Hub (LocalEntryNotFoundError)\nRetry later.")

    planted(monkeypatch, load_dataset)
    with pytest.raises(BadQuestion) as failed:
        load_public("hotpotqa")
    assert str(failed.value) == (
        "the set 'hotpotqa' (hotpotqa/hotpot_qa) could not be loaded: "
        "Couldn't reach 'hotpotqa/hotpot_qa' on the Hub (LocalEntryNotFoundError)"
    )

"""The suite `conversations`, small: it bills what the providers document, and trimtab never costs more than sending as is."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.caching_provider import ANSWER_TOKENS, CachingProvider, Kind
from benchmarks.conversations import MODELS, _replays, run
from benchmarks.questions import Dataset, Evidence, Question
from benchmarks.sections import silent
from compressor import Source
from compressor.tokens import count_tokens
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.talking import LONG_RULES, RULES, TOPICS, chunk
from trimtab import pipeline
from trimtab.cache_marks import MARK

TURNS = 3


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("a suite"))


def dataset() -> Dataset:
    questions = []
    for number in range(TURNS):
        topic = TOPICS[number]
        contexts = tuple(Source(str(at), chunk(10 * number + at, TOPICS[(number + at) % 8], 8)) for at in range(8))
        evidence = f"The {topic} of plan {10 * number} cost {10 * number + 7} dollars."
        assert evidence in contexts[0].text
        query = f"What do the {topic} of plan {10 * number} cost?"
        questions.append(Question(str(number), query, contexts, (Evidence(0, evidence),), (str(10 * number + 7),)))
    return Dataset("made", "0", tuple(questions))


def test_through_trimtab_costs_less_than_as_it_is_and_than_cutting_anew(tmp_path: Path) -> None:
    section = run(dataset(), TURNS, 1, tmp_path, silent)
    found = {(record["model"], record["way"]): record for record in section.records}
    assert len(found) == len(section.records) == 7
    for model in MODELS.values():
        usd = {way: Decimal(str(record["total_usd"])) for (of, way), record in found.items() if of == model}
        assert usd["through trimtab"] < usd["as it is"], model
        assert usd["through trimtab"] < usd["cut anew each turn"], model
    cached = {each: record["cached_share"] for each, record in found.items()}
    assert cached[MODELS["anthropic"], "as it is"] == cached[MODELS["anthropic"], "cut anew each turn"] == 0
    assert all(
        0 < share < 1 for (of, way), share in cached.items() if way == "through trimtab" or of == MODELS["openai"]
    )
    (table,) = section.tables
    assert [row[0] for row in table.rows] == [str(record["model"]) for record in section.records]
    assert [len(series.ys) for plot in section.plots for series in plot.series] == [TURNS] * 7


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("chunks", [0, 4])
def test_the_total_of_a_conversation_is_never_above_sending_it_as_it_is(
    tmp_path: Path, kind: Kind, chunks: int
) -> None:
    """With nothing to cut, too: what marking a prefix costs is back before the fifth turn."""
    documents = [
        "\n".join(f"<document>\n{chunk(9 * n + at, 'keys')}\n</document>" for at in range(chunks)) for n in range(5)
    ]
    talk = [f"{text}\n\nWhat do the keys of plan {9 * n} cost?" for n, text in enumerate(documents)]
    usd = {each.way: each.total_usd for each in _replays(kind, MODELS[kind], talk, tmp_path, silent)}
    assert usd["through trimtab"] <= usd["as it is"]


class TestWhatTheProviderBills:
    def asked(self, *contents: Any, **more: Any) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": each} for each in contents], **more}

    def test_openai_reads_what_it_read_before_in_steps(self) -> None:
        provider = CachingProvider("openai")
        tokens = 4 + count_tokens(RULES[:256] * 1)
        first = provider.bill(self.asked(RULES, "Why?"))
        assert (first["prompt_tokens_details"]["cached_tokens"], first["completion_tokens"]) == (0, ANSWER_TOKENS)
        again = provider.bill(self.asked(RULES, "How?"))["prompt_tokens_details"]["cached_tokens"]
        assert again >= 1_024
        assert again % 128 == 0
        assert provider.bill(self.asked("x" + RULES))["prompt_tokens_details"]["cached_tokens"] == 0
        short = self.asked(RULES[: 4 * tokens])
        assert [provider.bill(short)["prompt_tokens_details"]["cached_tokens"] for _ in range(2)] == [0, 0]

    def test_anthropic_writes_and_reads_up_to_a_mark_and_nothing_without(self) -> None:
        provider = CachingProvider("anthropic")
        marked = [{"type": "text", "text": LONG_RULES, **MARK}]
        tokens = count_tokens(LONG_RULES) + 4

        def billed(*contents: Any) -> tuple[int, int]:
            bill = provider.bill(self.asked(*contents))
            total = bill["input_tokens"] + bill["cache_read_input_tokens"] + bill["cache_creation_input_tokens"]
            assert total == sum(count_tokens(c if isinstance(c, str) else c[0]["text"]) + 4 for c in contents)
            return bill["cache_read_input_tokens"], bill["cache_creation_input_tokens"]

        assert billed(LONG_RULES, "Why?") == (0, 0)
        assert billed(marked, "Why?") == (0, tokens)
        assert billed(LONG_RULES, "Why?") == (0, 0)
        assert billed(marked, "How?") == (tokens, 0)
        more = [{"type": "text", "text": RULES, **MARK}]
        assert billed(LONG_RULES, more) == (tokens, count_tokens(RULES) + 4)
        assert billed([{"type": "text", "text": RULES, **MARK}]) == (0, 0)  # shorter than what is cached

"""LangChain itself: its retriever with our compressor, and its agent with our middleware before a provider's wire."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from tests.trimtab.payloads import CHUNKS, EVIDENCE, QUESTION, stuffed
from trimtab import Trimtab
from trimtab.errors import BadRequest
from trimtab.langchain import TrimtabAgentMiddleware, TrimtabCompressor

FOUND = [
    Document(each["text"], id=each["id"], metadata={"title": each["title"], "page": number, "tags": ["a"]})
    for number, each in enumerate(CHUNKS)
]


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


def retriever(compressor: TrimtabCompressor) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(base_compressor=compressor, base_retriever=RunnableLambda(lambda _: FOUND))


def test_the_retriever_gives_what_the_question_needs(trimtab: Trimtab) -> None:
    kept = retriever(TrimtabCompressor(ratio=0.2, trimtab=trimtab)).invoke(QUESTION)
    originals = {each.id: each for each in FOUND}
    assert 0 < len(kept) < len(FOUND)
    assert any(EVIDENCE in each.page_content for each in kept)
    assert sum(len(each.page_content) for each in kept) < 0.3 * sum(len(each.page_content) for each in FOUND)
    assert [each.metadata["page"] for each in kept] == sorted(each.metadata["page"] for each in kept)
    for each in kept:
        original = originals[each.id]
        ours = each.metadata.pop("trimtab")
        assert each.metadata == original.metadata
        slices = [original.page_content[start:end] for start, end in ours["spans"]]
        assert all(part in each.page_content for part in slices)
        assert 0 <= ours["score"] <= 1
    assert all("trimtab" not in each.metadata for each in FOUND)


def test_the_same_asynchronously(trimtab: Trimtab) -> None:
    finding = retriever(TrimtabCompressor(ratio=0.2, trimtab=trimtab))
    assert asyncio.run(finding.ainvoke(QUESTION)) == finding.invoke(QUESTION)


def test_the_score_is_the_share_of_the_evidence(trimtab: Trimtab) -> None:
    whole = TrimtabCompressor(ratio=1.0, trimtab=trimtab).compress_documents(FOUND, QUESTION)
    scores = [each.metadata["trimtab"]["score"] for each in whole]
    assert [each.page_content for each in whole] == [each.page_content for each in FOUND]
    assert sum(scores) == pytest.approx(1, abs=0.01)
    best = sorted(zip(scores, FOUND, strict=True), key=lambda each: -each[0])[:3]
    assert any(EVIDENCE in document.page_content for _, document in best)


def test_nothing_is_lost_where_nothing_can_be_ranked(trimtab: Trimtab, monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError

    compressor = TrimtabCompressor(ratio=0.1, trimtab=trimtab)
    assert [each.page_content for each in compressor.compress_documents(FOUND, " ")] == [d.page_content for d in FOUND]
    assert compressor.compress_documents([], QUESTION) == []
    monkeypatch.setattr(trimtab, "ranks", SimpleNamespace(rank=broken))
    kept = compressor.compress_documents(FOUND, QUESTION)
    assert [each.page_content for each in kept] == [each.page_content for each in FOUND]
    assert {each.metadata["trimtab"]["score"] for each in kept} == {None}


@pytest.mark.parametrize("size", [{"ratio": 2}, {"ratio": 0.5, "budget_tokens": 3}, {"budget_tokens": -1}])
def test_a_size_that_cannot_be_is_an_error(trimtab: Trimtab, size: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        TrimtabCompressor(**size, trimtab=trimtab).compress_documents(FOUND, QUESTION)


class Model(GenericFakeChatModel):
    """Answers from a script, and remembers what it was sent."""

    model_name: str = "gpt-5-mini"
    sent: list[Any]

    def _generate(self, messages: Any, *args: Any, **options: Any) -> Any:
        self.sent.append(messages)
        return super()._generate(messages, *args, **options)

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self


@tool
def search(query: str) -> str:
    """Search the manual."""
    return stuffed().removesuffix(QUESTION)


USAGE = {"input_tokens": 900, "output_tokens": 4, "total_tokens": 904, "input_token_details": {"cache_read": 100}}


def agent(trimtab: Trimtab) -> tuple[Any, Model]:
    calling = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "recovery window"}, "id": "call_1"}])
    answer = AIMessage("21 days.", usage_metadata=USAGE, response_metadata={"finish_reason": "stop"})
    model = Model(messages=iter([calling, answer]), sent=[])
    middleware = TrimtabAgentMiddleware(ratio=0.3, trimtab=trimtab)
    return create_agent(model, [search], middleware=[middleware], system_prompt="Be brief."), model


HOW = {
    "invoke": lambda agent, start: agent.invoke(start),
    "ainvoke": lambda agent, start: asyncio.run(agent.ainvoke(start)),
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW.keys())
def test_an_agents_model_gets_less_of_a_tools_output(trimtab: Trimtab, how: Callable[[Any, Any], Any]) -> None:
    made, model = agent(trimtab)
    state = how(made, {"messages": [HumanMessage(QUESTION)]})
    system, question, calling, result = model.sent[1]
    assert system.content == "Be brief."
    assert question.content == QUESTION
    assert calling.tool_calls[0]["id"] == result.tool_call_id == "call_1"
    assert EVIDENCE in result.content
    whole = next(each for each in state["messages"] if isinstance(each, ToolMessage))
    assert len(result.content) < 0.5 * len(whole.content)  # the agent's own state keeps it whole
    receipt = state["messages"][-1].response_metadata["trimtab"]
    assert state["messages"][-1].response_metadata["finish_reason"] == "stop"
    assert receipt["tokens_after"] <= 0.3 * receipt["tokens_before"]
    assert receipt["input_tokens_billed"] == 900
    assert receipt["cache_read_tokens_billed"] == 100
    assert receipt["billed_cost_usd"]


def test_counts_that_make_no_sense_cost_no_answer(trimtab: Trimtab) -> None:
    usage: Any = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4, "input_token_details": {"cache_read": 9}}
    model = Model(messages=iter([AIMessage("Yes.", usage_metadata=usage)]), sent=[])
    state: Any = create_agent(model, middleware=[TrimtabAgentMiddleware(trimtab=trimtab)]).invoke(
        {"messages": [HumanMessage(stuffed())]}
    )
    receipt = state["messages"][-1].response_metadata["trimtab"]
    assert receipt["input_tokens_billed"] is None
    assert receipt["tokens_after"] < receipt["tokens_before"]


def test_a_middleware_that_cannot_be_is_an_error() -> None:
    with pytest.raises(BadRequest, match="ratio"):
        TrimtabAgentMiddleware(ratio=3)


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("langchain", "langchain", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("litellm", "litellm", "litellm"),
        ("mcp", "mcp", "mcp"),
    ],
)
def test_a_missing_library_is_told_with_its_extra(module: str, library: str, extra: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import trimtab.{module}"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert f"pip install 'trimtab[{extra}]'" in ran.stderr.splitlines()[-1]

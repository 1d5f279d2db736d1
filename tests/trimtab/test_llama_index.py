"""LlamaIndex itself: a query engine with our postprocessor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import ImageNode, MetadataMode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from tests.trimtab.payloads import CHUNKS, EVIDENCE, QUESTION
from trimtab import Trimtab
from trimtab.errors import BadRequest
from trimtab.llama_index import TrimtabPostprocessor


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


def found() -> list[NodeWithScore]:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="manual")}
    return [
        NodeWithScore(
            node=TextNode(id_=each["id"], text=each["text"], metadata={"title": each["title"]}, relationships=source),
            score=1 / (1 + number),
        )
        for number, each in enumerate(CHUNKS)
    ]


def test_nodes_are_cut_to_what_the_question_needs(trimtab: Trimtab) -> None:
    nodes = found()
    kept = TrimtabPostprocessor(ratio=0.2, trimtab=trimtab).postprocess_nodes(nodes, query_str=QUESTION)
    assert 0 < len(kept) < len(nodes)
    assert any(EVIDENCE in each.node.get_content() for each in kept)
    originals = {each.node.node_id: each for each in nodes}
    assert [each.score for each in kept] == sorted((each.score for each in kept), reverse=True)
    for each in kept:
        original = originals[each.node.node_id]
        ours = each.node.metadata.pop("trimtab")
        assert each.score == original.score
        assert each.node.metadata == original.node.metadata
        assert each.node.relationships == original.node.relationships
        text = original.node.get_content()
        assert all(text[start:end] in each.node.get_content() for start, end in ours["spans"])
    assert [each.node.get_content() for each in nodes] == [each["text"] for each in CHUNKS]


def test_neither_the_model_nor_an_embedding_is_shown_our_notes(trimtab: Trimtab) -> None:
    kept = TrimtabPostprocessor(ratio=0.2, trimtab=trimtab).postprocess_nodes(found(), query_str=QUESTION)
    again = TrimtabPostprocessor(ratio=1.0, trimtab=trimtab).postprocess_nodes(kept, query_str=QUESTION)
    for each in (*kept, *again):
        assert "spans" not in each.node.get_content(MetadataMode.LLM)
        assert "spans" not in each.node.get_content(MetadataMode.EMBED)
        assert each.node.excluded_llm_metadata_keys == ["trimtab"]


def test_the_same_asynchronously(trimtab: Trimtab) -> None:
    postprocessor = TrimtabPostprocessor(ratio=0.2, trimtab=trimtab)
    kept = asyncio.run(postprocessor.apostprocess_nodes(found(), query_str=QUESTION))
    assert kept == postprocessor.postprocess_nodes(found(), query_str=QUESTION)


def test_what_is_no_text_or_has_no_question_passes(trimtab: Trimtab) -> None:
    image = NodeWithScore(node=ImageNode(image="iVBORw0KGgo=", text=""), score=0.5)
    postprocessor = TrimtabPostprocessor(budget_tokens=40, trimtab=trimtab)
    kept = postprocessor.postprocess_nodes([*found(), image], query_str=QUESTION)
    assert kept[-1] is image
    assert [each.node.get_content() for each in postprocessor.postprocess_nodes(found())] == [c["text"] for c in CHUNKS]
    assert postprocessor.postprocess_nodes([], query_str=QUESTION) == []


def test_a_size_that_cannot_be_is_an_error(trimtab: Trimtab) -> None:
    with pytest.raises(BadRequest, match="ratio"):
        TrimtabPostprocessor(ratio=0, trimtab=trimtab).postprocess_nodes(found(), query_str=QUESTION)


def test_a_query_engine_sends_what_is_kept(trimtab: Trimtab) -> None:
    postprocessor = TrimtabPostprocessor(ratio=0.2, trimtab=trimtab)
    nodes: Any = [each.node for each in found()]
    engine = SummaryIndex(nodes).as_query_engine(llm=MockLLM(), node_postprocessors=[postprocessor])
    answer = engine.query(QUESTION)
    assert EVIDENCE in str(answer)  # the mock answers with its prompt
    assert len(str(answer)) < 0.5 * sum(len(each["text"]) for each in CHUNKS)
    assert "spans" not in str(answer)


def test_it_is_described_without_the_pipeline(trimtab: Trimtab) -> None:
    described = TrimtabPostprocessor(ratio=0.2, trimtab=trimtab).to_dict()
    assert described["class_name"] == "TrimtabPostprocessor"
    assert "trimtab" not in described

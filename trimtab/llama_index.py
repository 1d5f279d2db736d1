"""LlamaIndex: a node postprocessor for query engines. `pip install 'trimtab[llama-index]'`.

index.as_query_engine(node_postprocessors=[TrimtabPostprocessor(ratio=0.3)])
"""

from __future__ import annotations

from typing import Any

from trimtab.pipeline import Trimtab
from trimtab.retrieved import Cut, cut_texts
from trimtab.trimming import default_trimtab

try:
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise ImportError("trimtab.llama_index needs LlamaIndex: pip install 'trimtab[llama-index]'") from error

_KEY = "trimtab"


class TrimtabPostprocessor(BaseNodePostprocessor):
    """Cuts retrieved nodes to what the question needs; nodes of which nothing is kept are left out.

    `ratio`, `budget_tokens` and `min_coverage` are those of `Trimtab.compress`, over all nodes together; `llm` names whose
    tokens are counted. Order, ids, scores, metadata and relationships are kept. `metadata["trimtab"]`, which neither the
    model nor an embedding is shown, says which `spans` of the original were kept, and as `score` the share of the evidence
    that the node was expected to hold. Nodes that are no text pass as they are.

    >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("An upload may be 5 GB.", "Data is encrypted.")]
    >>> postprocessor = TrimtabPostprocessor(ratio=0.7)
    >>> [each.node.text for each in postprocessor.postprocess_nodes(nodes, query_str="How large may an upload be?")]
    ['An upload may be 5 GB.']
    """

    ratio: float | None = None
    budget_tokens: int | None = None
    min_coverage: float | None = None
    llm: str | None = None
    trimtab: Any = Field(default=None, exclude=True, description="A Trimtab; None for one that the process shares.")

    @classmethod
    def class_name(cls) -> str:
        return "TrimtabPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        readable = [each for each in nodes if isinstance(each.node, TextNode) and each.node.text]  # an image has none
        texts = [(each.node.get_content(MetadataMode.NONE), _title(each)) for each in readable]
        size = {"ratio": self.ratio, "budget_tokens": self.budget_tokens, "min_coverage": self.min_coverage}
        trimtab: Trimtab = self.trimtab or default_trimtab()
        query = "" if query_bundle is None else query_bundle.query_str
        cuts = dict(zip(map(id, readable), cut_texts(trimtab, query, texts, {**size, "model": self.llm}), strict=True))
        return [
            each if id(each) not in cuts else _node(each, cuts[id(each)])
            for each in nodes
            if id(each) not in cuts or cuts[id(each)].text
        ]


def _title(scored: NodeWithScore) -> str:
    metadata = scored.node.metadata
    return str(metadata.get("title") or metadata.get("file_name") or "")


def _node(scored: NodeWithScore, cut: Cut) -> NodeWithScore:
    # its metadata and lists are copied too, because other queries share the stored node
    node = scored.node.model_copy(deep=True)
    node.set_content(cut.text)
    node.metadata[_KEY] = cut.to_metadata()
    for hidden in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
        if _KEY not in hidden:
            hidden.append(_KEY)
    return NodeWithScore(node=node, score=scored.score)

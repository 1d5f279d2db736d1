"""LlamaIndex's SentenceEmbeddingOptimizer: a share of each node's sentences, by cosine.

It is told a share of the *number* of sentences of each node, so what it keeps in tokens is its own affair; and it joins
them in the order of their scores, which the harness counts as reordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.embedding import Embedder
from benchmarks.peers.peer import Cut, Sent
from compressor import Source


class LlamaIndexOptimizer:
    """The real class with `percentile_cutoff=ratio`. Its default of one sentence of context on either side repeats
    sentences, so that is set to none."""

    def __init__(self) -> None:
        from llama_index.core.base.embeddings.base import BaseEmbedding
        from llama_index.core.postprocessor import SentenceEmbeddingOptimizer
        from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

        embedder = Embedder()

        class MiniLM(BaseEmbedding):  # type: ignore[misc, unused-ignore]
            def _get_text_embedding(self, text: str) -> list[float]:
                return [float(x) for x in embedder.embed([text])[0]]

            def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
                return [[float(x) for x in vector] for vector in embedder.embed(texts)]

            def _get_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

        self._embedder = embedder
        self._model = MiniLM()
        self._optimizer: Any = SentenceEmbeddingOptimizer
        self._node: Any = lambda text: NodeWithScore(node=TextNode(text=text), score=1.0)
        self._query: Any = QueryBundle

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        optimizer = self._optimizer(embed_model=self._model, percentile_cutoff=ratio, context_before=0, context_after=0)
        nodes = [self._node(context.text) for context in contexts]
        out = optimizer.postprocess_nodes(nodes, query_bundle=self._query(query))
        return Cut(tuple(Sent(n, each.node.get_content()) for n, each in enumerate(out)))

    def forget(self) -> None:
        self._embedder.forget()

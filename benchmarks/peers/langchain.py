"""LangChain's EmbeddingsFilter: whole documents by cosine. It is told a number of documents or a threshold, no tokens."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.cosine import whole_passages
from benchmarks.peers.embedding import Embedder
from benchmarks.peers.peer import Cut
from compressor import Source


class LangchainEmbeddingsFilter:
    """The real class with k = all, for its order; then documents in that order while they fit the budget, put back into
    the payload's order: the kindest reading, since a user would have to guess k."""

    def __init__(self) -> None:
        from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
        from langchain_core.documents import Document
        from langchain_core.embeddings import Embeddings

        importlib.import_module("langchain_community")  # the filter needs it at its first use only: better known now
        embedder = Embedder()

        class MiniLM(Embeddings):  # type: ignore[misc, unused-ignore]
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [[float(x) for x in vector] for vector in embedder.embed(texts)]

            def embed_query(self, text: str) -> list[float]:
                return self.embed_documents([text])[0]

        self._embedder = embedder
        self._document: Any = Document
        self._filter: Any = EmbeddingsFilter
        self._embeddings = MiniLM()

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        documents = [
            self._document(page_content=f"{c.title} {c.text}".strip(), metadata={"number": n})
            for n, c in enumerate(contexts)
        ]
        ranked = self._filter(embeddings=self._embeddings, k=len(documents)).compress_documents(documents, query)
        return whole_passages(contexts, [document.metadata["number"] for document in ranked], budget_tokens)

    def forget(self) -> None:
        self._embedder.forget()

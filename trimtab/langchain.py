"""LangChain: a document compressor for retrievers, and a middleware for agents. `pip install 'trimtab[langchain]'`.

ContextualCompressionRetriever(base_compressor=TrimtabCompressor(ratio=0.3), base_retriever=retriever)
create_agent(model, tools, middleware=[TrimtabAgentMiddleware()])
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio.to_thread

from routing.offers import Usage
from trimtab.options import Options, checked
from trimtab.pipeline import Trimtab
from trimtab.retrieved import Cut, cut_texts
from trimtab.trimming import TrimmedRequest, default_trimtab, trim

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.messages import AIMessage, AnyMessage
    from pydantic import ConfigDict
except ImportError as error:
    raise ImportError("trimtab.langchain needs LangChain: pip install 'trimtab[langchain]'") from error


class TrimtabCompressor(BaseDocumentCompressor):
    """Cuts retrieved documents to what the question needs; documents of which nothing is kept are left out.

    `ratio`, `budget_tokens` and `min_coverage` are those of `Trimtab.compress`, over all documents together; `model` names
    whose tokens are counted. Order, ids and metadata are kept; `metadata["trimtab"]` says which `spans` of the original
    were kept, and as `score` the share of the evidence that the document was expected to hold.

    >>> documents = [Document("An upload may be 5 GB.", metadata={"page": 3}), Document("Data is encrypted at rest.")]
    >>> compressor = TrimtabCompressor(ratio=0.6)
    >>> [(each.page_content, each.metadata["page"]) for each in compressor.compress_documents(documents, "upload size?")]
    [('An upload may be 5 GB.', 3)]
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    ratio: float | None = None
    budget_tokens: int | None = None
    min_coverage: float | None = None
    model: str | None = None
    trimtab: Trimtab | None = None

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        texts = [(each.page_content, str(each.metadata.get("title") or "")) for each in documents]
        size = self.model_dump(include={"ratio", "budget_tokens", "min_coverage", "model"})
        cuts = cut_texts(self.trimtab or default_trimtab(), query, texts, size)
        return [_document(each, cut) for each, cut in zip(documents, cuts, strict=True) if cut.text]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        return await anyio.to_thread.run_sync(lambda: self.compress_documents(documents, query))


def _document(document: Document, cut: Cut) -> Document:
    metadata = {**document.metadata, "trimtab": cut.to_metadata()}
    return document.model_copy(update={"page_content": cut.text, "metadata": metadata})


class TrimtabAgentMiddleware(AgentMiddleware[Any, Any]):
    """Trims what an agent sends to its model: retrieved context and long tool outputs, in each call anew.

    The agent's own state keeps every message whole. `ratio`, `budget_tokens` and `min_coverage` are those of a request's
    `trimtab` object; BadRequest is raised for what they cannot be. The receipt is the answer's
    `response_metadata["trimtab"]`.
    """

    def __init__(
        self,
        *,
        ratio: float | None = None,
        budget_tokens: int | None = None,
        min_coverage: float | None = None,
        trimtab: Trimtab | None = None,
    ) -> None:
        super().__init__()
        size = {"ratio": ratio, "budget_tokens": budget_tokens, "min_coverage": min_coverage}
        self._options = {name: value for name, value in size.items() if value is not None}
        self._trimtab = trimtab
        checked(Options, self._options, None)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        trimmed = self._trim(request)
        began = time.perf_counter()
        with trimmed.sending(began):
            response = handler(_rewritten(request, trimmed))
        return _with_receipt(response, trimmed, began)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        trimmed = await anyio.to_thread.run_sync(lambda: self._trim(request))
        began = time.perf_counter()
        with trimmed.sending(began):
            response = await handler(_rewritten(request, trimmed))
        return _with_receipt(response, trimmed, began)

    def _trim(self, request: ModelRequest[Any]) -> TrimmedRequest:
        model = getattr(request.model, "model_name", None) or getattr(request.model, "model", None)
        spoken = [each for each in (request.system_message, *request.messages) if each is not None]
        messages = [{"role": _ROLES.get(each.type, each.type), "content": each.content} for each in spoken]
        body: dict[str, Any] = {"model": str(model or "unknown"), "messages": messages}
        if self._options:
            body["trimtab"] = self._options
        return trim(self._trimtab or default_trimtab(), body)


_ROLES = {"human": "user", "ai": "assistant"}


def _rewritten(request: ModelRequest[Any], trimmed: TrimmedRequest) -> ModelRequest[Any]:
    sent = trimmed.body["messages"][0 if request.system_message is None else 1 :]
    messages = [
        message if message.content == each["content"] else message.model_copy(update={"content": each["content"]})
        for message, each in zip(request.messages, sent, strict=True)
    ]
    return request.override(messages=messages)


def _with_receipt(response: ModelResponse[Any], trimmed: TrimmedRequest, began_s: float) -> ModelResponse[Any]:
    receipt = trimmed.over(_usage(response.result), began_s).to_dict()
    result = [_noted(each, receipt) if isinstance(each, AIMessage) else each for each in response.result]
    return replace(response, result=result)


def _noted(message: AIMessage, receipt: Mapping[str, object]) -> AnyMessage:
    return message.model_copy(update={"response_metadata": {**message.response_metadata, "trimtab": receipt}})


def _usage(result: Sequence[Any]) -> Usage | None:
    said = next((each.usage_metadata for each in result if isinstance(each, AIMessage) and each.usage_metadata), None)
    if said is None:
        return None
    details = said.get("input_token_details") or {}
    try:
        read, written = details.get("cache_read") or 0, details.get("cache_creation") or 0
        return Usage(said["input_tokens"], said["output_tokens"], read, written)
    except (TypeError, ValueError):
        return None  # counts that make no sense cost no answer

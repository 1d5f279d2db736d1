"""LiteLLM's compress: whole messages by BM25; the others become stubs that name a retrieval tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.peer import Cut, Sent, Stateless
from compressor import Source
from compressor.tokens import count_tokens

_STUB = "[Compressed: "


class LitellmCompress(Stateless):
    """`compress(messages, model, compression_trigger=0, compression_target=budget + question)`, a message a context.

    Its target does not count the stubs it writes (some 30 tokens each), so what it sends is its own affair. The title
    stands on the first line of a message, for the score, and is taken off again.
    """

    def __init__(self) -> None:
        from litellm.compression import compress

        self._compress: Any = compress

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        heads = [f"{context.title}\n" if context.title else "" for context in contexts]
        messages = [{"role": "user", "content": head + c.text} for head, c in zip(heads, contexts, strict=True)]
        messages.append({"role": "user", "content": query})
        target = budget_tokens + count_tokens(query)
        result = self._compress(messages, model="gpt-4o", compression_trigger=0, compression_target=target)
        texts = [message["content"] for message in result["messages"][: len(contexts)]]
        sent = [
            Sent(n, text.removeprefix(heads[n])) for n, text in enumerate(texts) if text and not text.startswith(_STUB)
        ]
        return Cut(tuple(sent), tuple(text for text in texts if text.startswith(_STUB)))

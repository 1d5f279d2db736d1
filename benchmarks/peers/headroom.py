"""headroom: structure-aware compression of messages. Prose is left to a model of its own (Kompress), which it downloads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.peer import Cut, Sent, Stateless
from compressor import Source


class Headroom(Stateless):
    """`compress(messages, compress_user_messages=True, target_ratio=ratio, protect_recent=0)`, a message a context: the
    setting that its documentation gives for documents. Its weights are on a hub, so what is measured here is headroom
    without a network: what is not JSON or a log passes through."""

    def __init__(self) -> None:
        from headroom import compress

        logging.getLogger("headroom").setLevel(logging.ERROR)
        self._compress: Any = compress

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        messages = [{"role": "user", "content": context.text} for context in contexts]
        messages.append({"role": "user", "content": query})
        result = self._compress(
            messages,
            model="claude-sonnet-4-5-20250929",
            compress_user_messages=True,
            target_ratio=ratio,
            protect_recent=0,
            min_tokens_to_compress=0,
        )
        texts = [message["content"] for message in result.messages[: len(contexts)]]
        return Cut(tuple(Sent(n, text) for n, text in enumerate(texts) if text))

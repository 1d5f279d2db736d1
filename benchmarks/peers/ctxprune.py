"""ctxprune: token pruning by a small encoder, which does not see the question. Its weights are on a hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.peer import Cut, Sent, Skipped, Stateless
from compressor import Source
from compressor.tokens import count_tokens


class Ctxprune(Stateless):
    """`Compressor().compress(text, rate=ratio, measure=count)`, a context at a time: `measure` makes its rate exact in
    our tokens."""

    def __init__(self) -> None:
        from ctxprune import DEFAULT_MODEL, Compressor
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            self._compressor: Any = Compressor()
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
            raise Skipped(f"its weights ({DEFAULT_MODEL}) are not on this machine") from None

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        texts = [self._compressor.compress(c.text, rate=ratio, measure=count_tokens)["text"] for c in contexts]
        return Cut(tuple(Sent(n, text) for n, text in enumerate(texts) if text))

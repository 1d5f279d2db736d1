"""trimwise: extractive, with a shared token budget over many sources."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers.peer import Cut, Sent, Stateless
from compressor import Source


class Trimwise(Stateless):
    """`Trimmer().trim_context(texts, limit, query=...)`, defaults (the strategy AUTO is lexical where no model of its own
    is installed)."""

    def __init__(self) -> None:
        from trimwise import Trimmer

        self._trimmer = Trimmer()

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        if budget_tokens < 1:
            return Cut(())
        result = self._trimmer.trim_context([context.text for context in contexts], budget_tokens, query=query)
        return Cut(tuple(Sent(s.source_index, s.text) for s in result.sources if s.text))

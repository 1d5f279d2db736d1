"""trimtab itself, through the call that its users make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import diskcache

from benchmarks.peers.peer import Cut, Sent
from compressor import Source
from trimtab import Trimtab

# between JSON's members a comma, in code a comment, and the body of a Python clause that was left out
TRIMTAB_MARKERS = ("…", ",", "# …", "// …", "-- …", "...")


class TrimtabArm:
    """`Trimtab().compress(query, contexts, ratio=...)` with default settings and a cache folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._trimtab = Trimtab(cache_dir=folder)
        self._trimtab.warm_up()
        self._vectors = folder / "vectors"

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        given = [{"id": c.id, "title": c.title, "text": c.text} for c in contexts]
        result = self._trimtab.compress(query, given, budget_tokens=budget_tokens)
        return Cut(tuple(Sent(n, kept.text, kept.spans) for n, kept in enumerate(result.contexts) if kept.text))

    def forget(self) -> None:
        with diskcache.Cache(str(self._vectors)) as cache:
            cache.clear()

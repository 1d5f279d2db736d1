"""barber-llm: whole chunks of a message, by a lexical score, with guards that keep more than was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.peers.peer import Cut, Sent, Stateless
from compressor import Source

_MARKER = re.compile(r"\[… \d+ passage\(s\) omitted as not relevant to this question — [^\]]*…\]")


class Barber(Stateless):
    """`trim([context message, question], keep=ratio)`, its default lexical embedder. All contexts stand in one message,
    because it leaves messages below 800 characters alone."""

    def __init__(self) -> None:
        from barber import trim

        self._trim = trim

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        joined = "\n\n".join(context.text for context in contexts)
        messages = [{"role": "user", "content": joined}, {"role": "user", "content": query}]
        kept = self._trim(messages, keep=ratio).messages[0]["content"]
        return told_apart(contexts, _MARKER.split(kept), _MARKER.findall(kept))


def told_apart(contexts: Sequence[Source], pieces: Sequence[str], markers: Sequence[str]) -> Cut:
    """Pieces of a text that was `contexts` joined by blank lines, given back to the contexts that they came from.

    Chunks are looked for from where the last one ended. One that is found nowhere is new wording: it stays with the
    context before it, where the harness will see it.
    """
    number, position = 0, 0
    out: dict[int, list[str]] = {}
    for chunk in (chunk.strip() for piece in pieces for chunk in re.split(r"\n\s*\n", piece)):
        if not chunk:
            continue
        found = _find(contexts, chunk, number, position)
        if found is not None:
            number, position = found
        out.setdefault(number, []).append(chunk)
    return Cut(tuple(Sent(n, "\n\n".join(chunks)) for n, chunks in sorted(out.items())), tuple(markers))


def _find(contexts: Sequence[Source], chunk: str, number: int, position: int) -> tuple[int, int] | None:
    """The context that holds `chunk` at or after `position` in context `number`, and where the chunk ends there."""
    for n in range(number, len(contexts)):
        at = contexts[n].text.find(chunk, position if n == number else 0)
        if at >= 0:
            return n, at + len(chunk)
    return None

"""Contexts: the originals of what was cut, kept for a while under their digests, for whoever sent them.

`GET /v1/contexts/{digest}` gives one back. A digest is the SHA-256 of the text in UTF-8, so that a caller can work it out;
what another caller sent is found by nobody else, digest or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from compressor import Kept
from compressor.segments import Source
from compressor.tokens import count_each
from retrieval.store import Store
from routing.receipt import Cut
from trimtab.caller import Caller, name_of

SIZE_LIMIT_BYTES: Final = 512 * 2**20
"""Of all originals on disk; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Original:
    """A source that was cut, what is kept of it, and its line on the receipt."""

    source: Source
    kept: Kept
    cut: Cut


def digest_of(text: str) -> str:
    """The SHA-256 of the text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def originals_of(sources: Sequence[Source], kept: Sequence[Kept], encoding: str) -> tuple[Original, ...]:
    """The sources of which something was cut, in order."""
    cut = [pair for pair in zip(sources, kept, strict=True) if pair[0].text != pair[1].text]
    before = count_each([source.text for source, _ in cut], encoding)
    after = count_each([each.text for _, each in cut], encoding)
    return tuple(
        Original(source, each, Cut(source.id, digest_of(source.text), tokens, left))
        for (source, each), tokens, left in zip(cut, before, after, strict=True)
    )


class Contexts:
    """The originals in a store. One for a process; safe to share between threads. `lifetime_h` 0 keeps nothing."""

    def __init__(self, store: Store, lifetime_h: float) -> None:
        self._store = store
        self._lifetime_s = lifetime_h * 3600.0

    def keep(self, caller: Caller, originals: Sequence[Original]) -> None:
        """Keep what a caller sent. Of the same text sent twice, the latest cut."""
        if self._lifetime_s and originals:
            entries = {name_of(caller, each.cut.digest): _packed(each) for each in originals}
            self._store.set(entries, self._lifetime_s)

    def find(self, caller: Caller, digest: str) -> dict[str, Any] | None:
        """The original under `digest`, if this caller sent it: its id, title and text, and the spans of it that were kept
        (pairs of characters); None where there is none."""
        name = name_of(caller, digest.lower())
        raw = self._store.get([name]).get(name)
        if raw is None:
            return None
        head, _, text = raw.partition(b"\n")
        return {**json.loads(head), "text": text.decode("utf-8", "surrogatepass")}

    def close(self) -> None:
        """Release the files."""
        self._store.close()


def _packed(original: Original) -> bytes:
    source, kept, digest = original.source, original.kept, original.cut.digest
    head = {"object": "context", "digest": digest, "id": source.id, "title": source.title, "spans": kept.spans}
    return json.dumps(head).encode() + b"\n" + source.text.encode("utf-8", "surrogatepass")

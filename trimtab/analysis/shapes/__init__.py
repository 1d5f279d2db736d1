"""Shapes: the forms that recorded requests come in, as a table of frozen rows.

A row recognises one entry of a file (a line of JSONL, an element of a list) and reads the request in it. None means that
the entry is understood and holds no request to analyse: a picture in a HAR, a span of a trace, an embedding, a call that
failed. Readers raise ValueError, which quotes nothing of the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trimtab.analysis.recorded import Recorded
from trimtab.analysis.shapes import bodies, har, langfuse, litellm, receipts

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """One row. `read(entry, where)` gives the request."""

    name: str
    recognises: Callable[[Entry], bool]
    read: Callable[[Entry, str], Recorded | None]


SHAPES: Final = (
    Shape("HAR (a browser's or a proxy's export)", har.recognises, har.read),
    Shape("LiteLLM (spend logs, or StandardLoggingPayload)", litellm.recognises, litellm.read),
    Shape("Langfuse (observations)", langfuse.recognises, langfuse.read),
    Shape("trimtab (receipts)", receipts.recognises, receipts.read),
    Shape(
        'requests of OpenAI or Anthropic, alone or as {"request": ..., "response": ...}', bodies.recognises, bodies.read
    ),
)
"""The first that recognises an entry reads it; the plain ones last, since the others hold such requests too."""


def shape_of(entry: Entry) -> Shape | None:
    return next((shape for shape in SHAPES if shape.recognises(entry)), None)

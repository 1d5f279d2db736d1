"""Citations: an Anthropic answer's places in documents, told in the originals' characters.

Only an answer that cites a document which was cut is written anew, and only its citations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.citations import Shown
from routing.chat_answer import to_bytes
from routing.streams import EventSplitter, Garbage, parse_object


def resolved_message(content: bytes, shown: Mapping[int, Shown]) -> bytes:
    """A whole message."""
    if not shown or b"char_location" not in content:
        return content
    try:
        message = parse_object(content)
    except Garbage:
        return content
    blocks = message.get("content")
    for block in blocks if isinstance(blocks, list) else ():
        citations = block.get("citations") if isinstance(block, dict) else None
        if isinstance(citations, list):
            block["citations"] = [_resolved(each, shown) for each in citations]
    return to_bytes(message)


def resolved_events(chunk: bytes, shown: Mapping[int, Shown]) -> bytes:
    """Whole events of a stream."""
    if not shown or b"char_location" not in chunk:
        return chunk
    splitter = EventSplitter()
    events = [_resolved_event(raw, data, shown) for raw, data in splitter.feed(chunk)]
    return b"".join(events) + splitter.rest()[0]


def _resolved_event(raw: bytes, data: bytes, shown: Mapping[int, Shown]) -> bytes:
    if b"char_location" not in data:
        return raw
    event = parse_object(data)
    delta = event.get("delta")
    if not isinstance(delta, dict) or delta.get("type") != "citations_delta":
        return raw
    told = {**event, "delta": {**delta, "citation": _resolved(delta.get("citation"), shown)}}
    return b"event: content_block_delta\ndata: " + to_bytes(told) + b"\n\n"


def _resolved(citation: Any, shown: Mapping[int, Shown]) -> Any:
    if not isinstance(citation, dict) or citation.get("type") != "char_location":
        return citation  # blocks and pages keep their numbers
    document = citation.get("document_index")
    start, end = citation.get("start_char_index"), citation.get("end_char_index")
    cut = shown.get(document) if isinstance(document, int) else None
    if cut is None or not isinstance(start, int) or not isinstance(end, int):
        return citation
    start, end = cut.span(start, end)
    return {**citation, "start_char_index": start, "end_char_index": end, "cited_text": cut.original[start:end]}

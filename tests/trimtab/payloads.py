"""Requests of the size that middleware meets: the chunks of `examples/payload.json`, as applications write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAYLOAD = json.loads((Path(__file__).parents[2] / "examples" / "payload.json").read_text(encoding="utf-8"))
QUESTION = PAYLOAD["messages"][-1]["content"]
CHUNKS: list[dict[str, str]] = PAYLOAD["trimtab"]["contexts"]
EVIDENCE = "21 days"  # what answers the question, in one of the chunks


def stuffed() -> str:
    """The question below its retrieved documents, in one text."""
    documents = "\n".join(f'<document title="{each["title"]}">\n{each["text"]}\n</document>' for each in CHUNKS)
    return f"<documents>\n{documents}\n</documents>\n\n{QUESTION}"


def asking(**more: Any) -> dict[str, Any]:
    """A chat completion's body, or a message's."""
    return {"model": "m", "messages": [{"role": "user", "content": stuffed()}], **more}

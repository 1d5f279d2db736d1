"""trimtab as a library: what a question needs of retrieved chunks. No server, no key, no configuration."""

import json
from pathlib import Path

from trimtab import Trimtab

body = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
question = body["messages"][-1]["content"]

result = Trimtab().compress(question, body["trimtab"]["contexts"], ratio=0.15)

for context in result.contexts:
    if context.text:
        print(f"[{context.id}] {context.text}\n")
print(f"{result.tokens_before:,} -> {result.tokens_after:,} tokens, {result.dropped} of {len(result.contexts)} dropped")

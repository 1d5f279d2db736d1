"""RAG with the official Anthropic client, through a trimtab server, which may buy the answer from any provider.

Start it first: trimtab serve --config trimtab.toml. ANTHROPIC_BASE_URL says where it is, TRIMTAB_MODEL which model.
"""

import json
import os
from pathlib import Path

from anthropic import Anthropic

payload = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
client = Anthropic(
    base_url=os.environ.get("ANTHROPIC_BASE_URL", "http://127.0.0.1:8400"), api_key="none is needed here"
)

message = client.messages.create(
    model=os.environ.get("TRIMTAB_MODEL", "claude-haiku-5-5"),
    system=payload["messages"][0]["content"],
    messages=payload["messages"][1:],
    max_tokens=40,
    extra_body={"temperature": 0, "trimtab": {"contexts": payload["trimtab"]["contexts"], "ratio": 0.15}},
)
print("".join(block.text for block in message.content if block.type == "text"))
print(f"{message.trimtab['tokens_before']:,} -> {message.trimtab['tokens_after']:,} tokens of context")

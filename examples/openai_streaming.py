"""The same as a stream: the words as they come, and the receipt in a last chunk that has no choices."""

import json
import os
from pathlib import Path

from openai import OpenAI

body = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
client = OpenAI(base_url=os.environ.get("TRIMTAB_URL", "http://127.0.0.1:8400/v1"), api_key="none is needed here")

stream = client.chat.completions.create(
    model=os.environ.get("TRIMTAB_MODEL", body["model"]),
    messages=body["messages"],
    max_tokens=80,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
    extra_body={"trimtab": {"contexts": body["trimtab"]["contexts"], "ratio": 0.15}},
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
    if receipt := getattr(chunk, "trimtab", None):
        print(f"\n{receipt['tokens_before']:,} -> {receipt['tokens_after']:,} tokens, ${receipt['billed_cost_usd']}")

"""The official OpenAI client, pointed at trimtab. Start it first: trimtab serve --config trimtab.toml"""

import json
import os
from pathlib import Path

from openai import OpenAI

body = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
client = OpenAI(base_url=os.environ.get("TRIMTAB_URL", "http://127.0.0.1:8400/v1"), api_key="none is needed here")

completion = client.chat.completions.create(
    model=os.environ.get("TRIMTAB_MODEL", body["model"]),
    messages=body["messages"],
    max_tokens=80,
    temperature=0,
    extra_body={"trimtab": {"contexts": body["trimtab"]["contexts"], "ratio": 0.15}},
)
receipt = completion.trimtab
print(completion.choices[0].message.content)
print(f"{receipt['tokens_before']:,} -> {receipt['tokens_after']:,} tokens of context, by {receipt['provider']}")
print(f"billed ${receipt['billed_cost_usd']}, saved ${receipt['saved_usd']}")

"""RAG with the official OpenAI client, trimmed in process: no server, your own key, your provider's own address.

OPENAI_API_KEY (and OPENAI_BASE_URL for another provider) say who answers, TRIMTAB_MODEL which model.
"""

import json
import os
from pathlib import Path

from openai import OpenAI

from trimtab import wrap

payload = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
client = wrap(OpenAI())

completion = client.chat.completions.create(
    model=os.environ.get("TRIMTAB_MODEL", "gpt-5-mini"),
    messages=payload["messages"],
    max_tokens=40,
    temperature=0,
    extra_body={"trimtab": {"contexts": payload["trimtab"]["contexts"], "ratio": 0.15}},
)
print(completion.choices[0].message.content)
print(f"{completion.trimtab['tokens_before']:,} -> {completion.trimtab['tokens_after']:,} tokens of context")

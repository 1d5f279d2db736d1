"""RAG without a client library, trimmed in process by httpx's transport.

OPENAI_API_KEY and OPENAI_BASE_URL say who answers, TRIMTAB_MODEL which model.
"""

import json
import os
from pathlib import Path

import httpx

from trimtab import TrimtabTransport

payload = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
url = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
body = {
    "model": os.environ.get("TRIMTAB_MODEL", "gpt-5-mini"),
    "messages": payload["messages"],
    "max_tokens": 40,
    "temperature": 0,
    "trimtab": {"contexts": payload["trimtab"]["contexts"], "ratio": 0.15},
}
key = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}

with httpx.Client(transport=TrimtabTransport(), timeout=120) as client:
    answer = client.post(f"{url}/chat/completions", json=body, headers=key).raise_for_status()

receipt = answer.extensions["trimtab"]
print(answer.json()["choices"][0]["message"]["content"])
print(f"{receipt.tokens_before:,} -> {receipt.tokens_after:,} tokens of context")

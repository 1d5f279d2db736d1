"""Without a client library: what would it cost, and only then the answer."""

import json
import os
from pathlib import Path

import httpx

url = os.environ.get("TRIMTAB_URL", "http://127.0.0.1:8400/v1")
body = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
body["model"] = os.environ.get("TRIMTAB_MODEL", body["model"])

with httpx.Client(timeout=120) as client:
    plan = client.post(f"{url}/plan", json=body).raise_for_status().json()
    for offer in (plan["chosen"], *plan["runners_up"]):
        what = f"{offer['provider']}/{offer['model']}, {offer['input_tokens']:,} tokens in"
        print(f"${offer['expected_cost_usd']}  {what}  {offer.get('why', 'chosen')}")

    answer = client.post(f"{url}/chat/completions", json=body).raise_for_status()
    print(answer.json()["choices"][0]["message"]["content"])
    print({name: value for name, value in answer.headers.items() if name.startswith("x-trimtab-")})

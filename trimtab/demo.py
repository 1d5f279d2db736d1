"""The demo: a real RAG payload, answered by a real local model through a real trimtab, over HTTP."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trimtab.errors import BadRequest
from trimtab.local_model import serve_local_model
from trimtab.pipeline import Trimtab
from trimtab.serving import served
from trimtab.tables import plan_table

LOCAL_PROVIDER = "local"
HOSTED_BESIDE = ("gpt-6.1-sol", "claude-haiku-5-5")


def run_demo(payload: Path | None, out: Console) -> None:
    """Serve the local model and trimtab on loopback, send the payload to both endpoints, and print what came back.

    Raises BadRequest for a payload that trimtab refuses.
    """
    body = _body(payload or _packaged_payload())
    out.print("Loading a real local model (SmolLM2-135M-Instruct) and the encoder (all-MiniLM-L6-v2) ...", style="dim")
    with tempfile.TemporaryDirectory() as cache, serve_local_model() as model_url:
        trimtab = Trimtab(_demo_settings(model_url, body["model"], cache))
        trimtab.warm_up()
        with served(trimtab) as url, httpx.Client(base_url=url, timeout=300) as client:
            asked = {**body, "trimtab": {**body["trimtab"], "candidates": list(HOSTED_BESIDE)}}
            planned = _posted(client, "/v1/plan", asked)
            began = time.perf_counter()
            answer = _posted(client, "/v1/chat/completions", asked)
            seconds = time.perf_counter() - began
            _show(out, body, planned, answer, seconds)


def _body(file: Path) -> dict[str, Any]:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(None, f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise BadRequest(None, f"{file}: is not JSON in UTF-8") from None
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise BadRequest(None, f"{file}: must be the body of a chat completion, with a model")
    if not isinstance(body.get("trimtab"), dict) or not body["trimtab"].get("contexts"):
        raise BadRequest("trimtab.contexts", f"is missing in {file}: the demo shows what is kept of them")
    return body


def _demo_settings(model_url: str, model: str, cache: str) -> dict[str, Any]:
    """The local model beside two hosted ones, which are planned with and never called: no key is set for them."""
    hosted = (("openai", "https://api.openai.com/v1"), ("anthropic", "https://api.anthropic.com/v1"))
    providers = [
        {
            "name": LOCAL_PROVIDER,
            "kind": "openai",
            "base_url": model_url,
            "models": [model],
            "prices": {"input_mtok": "0.02", "output_mtok": "0.04"},
        },
        *(
            {
                "name": name,
                "kind": "openai",
                "base_url": url,
                "api_key_env": "TRIMTAB_DEMO_HAS_NO_KEY",
                "models": [model],
            }
            for (name, url), model in zip(hosted, HOSTED_BESIDE, strict=True)
        ),
    ]
    return {"providers": providers, "cache_dir": cache}


def _show(
    out: Console, body: Mapping[str, Any], planned: Mapping[str, Any], answer: Mapping[str, Any], seconds: float
) -> None:
    receipt = answer["trimtab"]
    out.print(Panel(Text(str(body["messages"][-1].get("content"))), title="Question"))
    before, after = receipt["tokens_before"], receipt["tokens_after"]
    share = f" ({after / before:.0%})" if before else ""
    out.print(f"Context: {len(body['trimtab']['contexts'])} chunks, {before:,} tokens -> [bold]{after:,}[/]{share}\n")
    out.print(plan_table(planned["chosen"], planned["runners_up"]))
    text = answer["choices"][0]["message"]["content"]
    out.print(Panel(Text(text or ""), title=f"Answer of {answer['model']} ({seconds:.1f} s)"))
    table = Table(title="Receipt", show_header=False)
    for name, value in receipt.items():
        if name == "attempts":
            value = ", ".join(f"{a['provider']}: {a['outcome']} in {a['latency_ms']:.0f} ms" for a in value)
        elif name == "cut":
            value = f"{len(value)} contexts; GET /v1/contexts/DIGEST gives each one back whole"
        elif name == "ms":
            value = ", ".join(f"{stage} {ms:.1f}" for stage, ms in value.items())
        if value not in (None, [], ""):
            table.add_row(name, Text(str(value)))
    out.print(table)


def _posted(client: httpx.Client, path: str, body: Mapping[str, Any]) -> Any:
    response = client.post(path, json=body)
    if response.is_error:
        raise BadRequest(None, response.json()["error"]["message"])
    return response.json()


def _packaged_payload() -> Path:
    """The payload of `examples/`: beside the package in a checkout, inside it in a wheel."""
    inside = Path(str(files("trimtab"))) / "payload.json"
    return inside if inside.exists() else Path(str(files("trimtab"))).parent / "examples" / "payload.json"

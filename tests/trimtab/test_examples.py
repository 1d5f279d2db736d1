"""Every file of `examples/` runs as it stands: those of the server before a loopback provider, and the five RAG
applications (`rag_*.py`) against the real local model."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.loopback import LoopbackProvider, ok
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.asking import provider, serving
from trimtab.local_model import MODEL_ID, serve_local_model

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAYLOAD = json.loads((ROOT / "examples" / "payload.json").read_text(encoding="utf-8"))
SAYS = {
    "openai_client.py": ("Fourteen days.", "tokens of context, by a", "billed $0.00"),
    "openai_streaming.py": ("Fourteen days.", " tokens, $0.00"),
    "python_compress.py": ("recovery window", "dropped"),
    "plain_httpx.py": ("chosen", "Fourteen days.", "x-trimtab-receipt-id"),
}
RAG = [path for path in EXAMPLES if path.name.startswith("rag_")]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[LoopbackProvider, httpx.Client]]:
    with LoopbackProvider() as fake, serving(provider("a", fake, PAYLOAD["model"])) as client:
        yield fake, client


@pytest.mark.parametrize("example", [path for path in EXAMPLES if path not in RAG], ids=lambda path: path.name)
def test_it_runs(server: tuple[LoopbackProvider, httpx.Client], example: Path) -> None:
    fake, client = server
    fake.then(ok("Fourteen days."))
    environ = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "TRIMTAB_URL": f"{str(client.base_url).rstrip('/')}/v1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }
    ran = subprocess.run(
        [sys.executable, str(example)], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    for words in SAYS[example.name]:
        assert words in ran.stdout
    fake._script.clear()


@pytest.fixture(scope="module")
def local_model() -> Iterator[tuple[str, str]]:
    """The local model's address, and that of a trimtab before it."""
    with serve_local_model() as url:
        local = {"name": "local", "kind": "openai", "base_url": url, "models": [MODEL_ID]}
        prices = {"input_mtok": "0.02", "output_mtok": "0.04"}
        with serving({**local, "prices": prices}) as trimtab:
            yield url, str(trimtab.base_url).rstrip("/")


@pytest.mark.parametrize("example", RAG, ids=lambda path: path.name)
def test_the_same_application_five_ways(
    local_model: tuple[str, str],
    example: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, where the encoder is loaded already. Each answers from the documents, and says what it cut."""
    url, trimtab = local_model
    for name, value in (
        *(("OPENAI_BASE_URL", url), ("OPENAI_API_KEY", "none"), ("ANTHROPIC_BASE_URL", trimtab)),
        ("TRIMTAB_MODEL", MODEL_ID),
    ):
        monkeypatch.setenv(name, value)
    runpy.run_path(str(example), run_name="__main__")
    answer, _, cut = capsys.readouterr().out.strip().rpartition("\n")
    assert "recovery window" in answer
    assert "days" in answer
    assert " -> " in cut


def test_the_application_is_there_five_times() -> None:
    assert [path.stem for path in RAG] == [
        "rag_anthropic",
        "rag_httpx",
        "rag_langchain",
        "rag_llama_index",
        "rag_openai",
    ]


@pytest.mark.filterwarnings("ignore:Items? .* `ReadOnly` qualifier:UserWarning")  # litellm's own types
def test_the_page_about_python_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its blocks in order, in one namespace, before providers on loopback."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing it fetches a file
    import litellm

    blocks = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.M | re.S
    )
    monkeypatch.setattr(litellm, "callbacks", [])
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "none")
    namespace: dict[str, object] = {}
    with LoopbackProvider() as fake, LoopbackProvider(tongue=ANTHROPIC) as claude:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", claude.base_url)
        for block in blocks:
            exec(block, namespace)
        sent = [each.json["messages"] for each in fake.requests]
        namespace["client"].close()  # type: ignore[attr-defined]
        namespace["claude"].close()  # type: ignore[attr-defined]
    assert len(blocks) == 9
    assert len(sent) == 3
    assert all("5 GB" in str(messages) and "Oregon" not in str(messages) for messages in sent)
    assert "message_stop" in capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 40


def test_the_payload_is_a_real_one() -> None:
    assert len(PAYLOAD["trimtab"]["contexts"]) >= 20
    assert all(each["id"] and each["title"] and each["text"] for each in PAYLOAD["trimtab"]["contexts"])

"""The command line: what it prints, in a narrow and in a wide terminal, and how it says what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import CONTEXTS, QUESTION, chat, provider, serving
from trimtab.cli import app
from trimtab.tables import plan_table

ROOT = Path(__file__).parents[2]
TEXT = "An upload may be 5 GB. The office is in [bold]Graz[/bold]. Data is encrypted at rest."


def run(*arguments: str, stdin: str | bytes = "") -> Any:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def wrong(*arguments: str, stdin: str | bytes = "") -> str:
    """The one line that an error is, exit status 2."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    message: str = result.stderr
    return message


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body.json"
    path.write_text(json.dumps(chat(trimtab={"contexts": CONTEXTS, "ratio": 0.4}) | {"model": "gpt-6.1-sol"}))
    return path


def test_compress_a_text_from_standard_input_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(TEXT)
    for where, stdin in (("-", TEXT), (str(file), "")):
        result = run("compress", where, "--query", QUESTION, "--budget-tokens", "9", stdin=stdin)
        assert (result.exit_code, result.stdout) == (0, "An upload may be 5 GB.\n")
        assert re.fullmatch(r"2\d -> 8 tokens, expected coverage 0\.\d\d, \d+ ms\n", result.stderr)


def test_brackets_are_text_and_not_markup() -> None:
    assert run("compress", "--query", "Graz", "--ratio", "1", stdin=TEXT).stdout == TEXT + "\n"
    assert "[/x]" in wrong("compress", "no/[bold]/[/x].txt", "--query", "q")
    assert "[[providers]]" in wrong("prices", "no-such-model")


def test_compress_json_to_json(tmp_path: Path) -> None:
    asked = json.dumps({"query": QUESTION, "contexts": CONTEXTS, "ratio": 0.3})
    result = run("compress", "--json", stdin=asked)
    told = json.loads(result.stdout)
    names = ("contexts", "tokens_before", "tokens_after", "coverage_estimate", "dropped", "ms")
    assert list(told) == [*names, "lossless_tokens", "coverage_basis"]
    assert [each["id"] for each in told["contexts"]] == ["limits", "security", "regions"]
    assert told["tokens_after"] <= 0.3 * told["tokens_before"]
    other = json.loads(run("compress", "--json", "--query", "Where are buckets?", "--ratio", "0.3", stdin=asked).stdout)
    assert "Frankfurt" in other["contexts"][2]["text"]


def test_plan_as_a_table_and_as_json(body: Path) -> None:
    made = json.loads(run("plan", str(body), "--json").stdout)
    assert list(made) == ["chosen", "runners_up"]
    shown = run("plan", "-", stdin=body.read_text()).stdout
    assert f"${made['chosen']['expected_cost_usd']}" in shown
    assert "chosen" in shown


@pytest.mark.parametrize("columns", [80, 150])
def test_a_plan_is_readable_in_a_narrow_and_in_a_wide_terminal(columns: int) -> None:
    offer = {
        "provider": "anthropic",
        "model": "claude-haiku-5-5",
        "processing": "sync",
        "budget_tokens": 98_039,
        "input_tokens": 100_600,
        "output_tokens": 1_000,
        "expected_cost_usd": "0.01234567",
        "coverage_estimate": 0.97,
    }
    why = "costs $0.0422 more: 100,600 input tokens are above the 100,000-token boundary"
    console = Console(width=columns, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(plan_table(offer, [{**offer, "processing": "batch", "why": why}] * 10))
        shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= columns
    assert "…" not in shown
    for whole in ("anthropic/claude-haiku-5-5", "98,039", "100,600", "$0.01234567", "0.97", "(batch)", "chosen"):
        assert whole in shown
    assert "and 2 more; --json shows all" in shown
    assert why in re.sub(r"\s+", " ", shown)


def test_prices_with_every_boundary(tmp_path: Path) -> None:
    shown = run("prices", "claude-haiku-5-5").stdout
    assert re.search(r"anthropic │ sync +│ +│ +0\.1 │", shown)
    assert re.search(r"anthropic │ sync +│ +100,000 │ +0\.5 │", shown)
    told = json.loads(run("prices", "claude-haiku-5-5", "--json").stdout)
    assert [(each["processing"], each["above_tokens"], each["input_usd_per_mtok"]) for each in told[:2]] == [
        ("sync", -1, "0.1"),
        ("sync", 100_000, "0.5"),
    ]
    config = tmp_path / "t.toml"
    config.write_text(
        '[[providers]]\nname = "mine"\nkind = "openai"\nbase_url = "http://127.0.0.1/v1"\nmodels = ["m"]\n'
        "prices = { input_mtok = 0.1, output_mtok = 0.2 }\n"
    )
    assert "mine" in run("prices", "m", "--config", str(config)).stdout


def test_what_is_wrong_is_one_line_and_status_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("min_coverge = 1")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    deep = "[" * 100_000
    assert "--query" in wrong("compress", stdin="text")
    assert "query" in wrong("compress", "--query", " ", stdin="text")
    assert "ratio" in wrong("compress", "--query", "q", "--ratio", "2", stdin="text")
    assert "ratio" in wrong("compress", "--query", "q", "--ratio", "nan", stdin="text")
    assert "not both" in wrong("compress", "--query", "q", "--ratio", "0.5", "--budget-tokens", "5", stdin="text")
    assert "contexts: is missing" in wrong("compress", "--query", "q", stdin='{"messages": []}')
    assert "cannot be read" in wrong("compress", str(tmp_path / "none"), "--query", "q")
    assert "not UTF-8" in wrong("compress", str(binary), "--query", "q")
    assert "not UTF-8" in wrong("compress", "--query", "q", stdin=b"\xff\xfe")
    assert "is not a JSON object with messages" in wrong("plan", stdin="[]")
    assert "is not a JSON object with messages" in wrong("plan", stdin=deep)
    assert "model: must name a model" in wrong("plan", stdin='{"messages": [{"role": "user"}]}')
    assert "did you mean 'min_coverage'?" in wrong("plan", "--config", str(bad), stdin=json.dumps(chat()))
    assert str(bad) in wrong("serve", "--config", str(bad))
    assert "no-such-model" in wrong("prices", "no-such-model")
    assert "cannot be read" in wrong("demo", str(tmp_path / "none"))
    assert "is not JSON" in wrong("demo", str(binary))
    assert "trimtab.contexts" in wrong("demo", _written(tmp_path, chat()))


def _written(folder: Path, body: Any) -> str:
    path = folder / "written.json"
    path.write_text(json.dumps(body))
    return str(path)


def test_help_names_every_command() -> None:
    shown = run("--help").stdout
    assert all(name in shown for name in ("serve", "demo", "compress", "plan", "prices"))
    assert "settings and providers" in re.sub(r"[\s│]+", " ", run("plan", "--help").stdout)


def test_serve_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with LoopbackProvider() as server:
        config = tmp_path / "trimtab.toml"
        config.write_text(
            f'cache_dir = "{tmp_path}"\n[[providers]]\nname = "a"\nkind = "openai"\nbase_url = "{server.base_url}"\n'
            'models = ["m"]\nprices = { input_mtok = 1, output_mtok = 2 }\n'
        )
        arguments = ["serve", "--config", str(config), "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from trimtab.cli import main; main()", *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            lines: list[str] = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail("".join(lines))
            with httpx.Client(base_url=found[1], trust_env=False, timeout=60) as client:
                answer = client.post("/v1/chat/completions", json=chat())
            assert answer.json()["choices"][0]["message"]["content"] == "Hello from loopback."
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    log = "".join(lines) + rest
    assert process.returncode in (
        0,
        -signal.SIGTERM,
    )  # uvicorn shuts down in order, and then lets the signal do its work
    assert "Application shutdown complete" in log
    assert "Traceback" not in log
    assert "ERROR" not in log
    assert QUESTION not in log


def test_the_table_of_a_served_plan_is_that_of_the_command(body: Path) -> None:
    with serving() as client:
        made = client.post("/v1/plan", json=json.loads(body.read_text())).json()
    assert json.loads(run("plan", str(body), "--json").stdout) == made


def test_providers_are_configured_alike_in_a_file_and_in_python(tmp_path: Path) -> None:
    with LoopbackProvider(listen=False) as server:
        table = provider("a", server)
    config = tmp_path / "t.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if name != "prices"]
    prices = ", ".join(f"{name} = {value}" for name, value in table["prices"].items())
    config.write_text("\n".join(["[[providers]]", *lines, f"prices = {{ {prices} }}"]))
    told = json.loads(run("plan", "--config", str(config), "--json", stdin=json.dumps(chat())).stdout)
    assert (told["chosen"]["provider"], told["chosen"]["model"]) == ("a", "m")

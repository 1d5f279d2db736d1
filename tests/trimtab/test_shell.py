"""The command line as a shell sees it: version, help, completion, and JSON from every command that has something to tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main
from typer.testing import CliRunner

from trimtab.api_docs import VERSION
from trimtab.cli import app

ROOT = Path(__file__).parents[2]
TELL_NOTHING = {"serve", "mcp", "bench", "demo"}
"""They run until they are stopped, pass their arguments on, or are there to be looked at."""


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")  # type: ignore[arg-type]
        else:
            yield f"{path}{name}", command


ALL = dict(commands(typer.main.get_command(app)))  # type: ignore[arg-type]


def completed(words: str, *, at: int) -> list[str]:
    environ = {**os.environ, "_TRIMTAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    ran = subprocess.run(
        [sys.executable, "-c", "from trimtab.cli import main; main()"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ran.stdout.split()


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"trimtab {VERSION}\n"


@pytest.mark.parametrize("name", ALL)
def test_every_command_says_what_it_does_and_what_its_options_are(name: str) -> None:
    command = ALL[name]
    assert command.help, name
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name not in ("help",):
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"
    if name not in TELL_NOTHING:
        assert any("--json" in parameter.opts for parameter in command.params), f"{name} has no --json"


def test_a_shell_completes_commands_and_models(tmp_path: Path) -> None:
    assert completed("trimtab tra", at=1) == ["train-ranker", "train-router"]
    assert "claude-haiku-5-5" in completed("trimtab prices claude-haiku", at=2)
    config = tmp_path / "trimtab.toml"
    config.write_text(
        '[[providers]]\nname = "a"\nkind = "openai"\nbase_url = "http://h"\nmodels = ["our-own", "our-other"]\n'
        "prices = { input_mtok = 1, output_mtok = 2 }\n"
    )
    assert completed(f"trimtab prices --config {config} our", at=4) == ["our-other", "our-own"]
    assert completed("trimtab prices --config /no/such.toml our", at=4) == []


def test_training_says_in_json_what_it_wrote(tmp_path: Path) -> None:
    file, to = tmp_path / "scored.jsonl", tmp_path / "router.npz"
    rows = [{"prompt": f"Question {n} of some length?", "scores": {"a": n % 2, "b": 1 - n % 2}} for n in range(20)]
    file.write_text("\n".join(map(json.dumps, rows)))
    result = CliRunner().invoke(app, ["train-router", str(file), "--out", str(to), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"prompts": 20, "models": ["a", "b"], "file": str(to)}
    assert to.exists()

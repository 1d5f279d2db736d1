"""`trimtab ledger`: lists, totals, one request, pruning."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.trimtab.ledger.made import made, written
from trimtab.cli import app
from trimtab.commands import ledger as command
from trimtab.database import Database
from trimtab.ledger.entries import Entry


@pytest.fixture
def entries() -> list[Entry]:
    return made(60, seed=8, now=datetime.now(UTC))


@pytest.fixture
def config(tmp_path: Path, entries: list[Entry]) -> Path:
    database = Database(f"sqlite:///{tmp_path / 'trimtab.sqlite'}")
    written(database, entries)
    database.close()
    file = tmp_path / "trimtab.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n')
    return file


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)])


def told(*arguments: Any) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_lines_with_filters(config: Path, entries: list[Entry]) -> None:
    assert [each["receipt_id"] for each in told("list", "-c", config, "--limit", 4)] == [
        each.receipt_id for each in entries[:-5:-1]
    ]
    negative = told("list", "-c", config, "--negative", "--limit", 100)
    assert (
        {each["receipt_id"] for each in negative} == {e.receipt_id for e in entries if (e.saved_usd or 0) < 0} != set()
    )
    assert all(each["saved_usd"].startswith("-") for each in negative)
    assert told("list", "-c", config, "--user", "ada", "--since", "7d", "--tag", "feature=other") == []


def test_bare_it_lists(config: Path, entries: list[Entry]) -> None:
    result = run("-c", config)
    assert result.exit_code == 0
    assert entries[-1].receipt_id[:13] in result.output


def test_totals_are_those_of_the_lines(config: Path, entries: list[Entry]) -> None:
    (total,) = told("totals", "-c", config)
    assert total["requests"] == 60
    assert Decimal(total["saved_usd"]) == sum(e.saved_usd for e in entries if e.saved_usd is not None)
    by_model = told("totals", "-c", config, "--by", "model")
    assert {each["name"] for each in by_model} == {e.model for e in entries}
    assert sum(Decimal(each["cost_usd"]) for each in by_model) == Decimal(total["cost_usd"])
    assert "all" in run("totals", "-c", config, "--by", "day").output


def test_a_loss_is_red(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Console(record=True, width=200, force_terminal=True)
    monkeypatch.setattr(command, "out", recorded)
    assert run("list", "-c", config, "--negative").exit_code == 0
    assert "\x1b[31m-$0." in recorded.export_text(styles=True)


def test_one_request(config: Path, entries: list[Entry]) -> None:
    entry = entries[3]
    shown = told("show", entry.receipt_id, "-c", config)
    assert shown["detail"] == entry.detail
    assert shown["saved_usd"] == (None if entry.saved_usd is None else format(entry.saved_usd.normalize(), "f"))
    words = run("show", entry.receipt_id[:20], "-c", config)
    assert words.exit_code == 0
    assert "Plan" in words.output
    assert run("show", "rcpt_", "-c", config).exit_code == 2


def test_pruning(config: Path, entries: list[Entry]) -> None:
    old = [e for e in entries if (datetime.now(UTC) - e.at).total_seconds() > 5 * 86_400]
    assert told("prune", "--days", 5, "-c", config) == {"deleted": len(old)}
    assert len(told("list", "-c", config, "--limit", 100)) == 60 - len(old)
    assert told("prune", "-c", config) == {"deleted": 0}  # ledger_days of the settings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--since", "yesterday"), "--since"),
        (("list", "--tag", "feature"), "NAME=VALUE"),
        (("totals", "--by", "weather"), "--by"),
    ],
)
def test_what_cannot_be_asked(config: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments, "-c", config)
    assert result.exit_code == 2
    assert words in result.output


def test_an_empty_ledger_says_so(tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    file.write_text(f'data_dir = "{tmp_path / "new"}"\n')
    assert "no line fits" in run("list", "-c", file).output
    assert told("totals", "-c", file)[0]["requests"] == 0


def test_a_database_that_is_away_is_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "away.toml"
    file.write_text('database_url = "postgresql://nobody:secret@127.0.0.1:9/none"\n')
    result = run("list", "-c", file)
    assert result.exit_code == 2
    assert "cannot be used" in result.output
    assert "secret" not in result.output

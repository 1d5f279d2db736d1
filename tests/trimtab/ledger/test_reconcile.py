"""Providers' exports, in the forms that they give out, against a ledger that is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.trimtab.ledger.made import made, written
from tests.trimtab.ledger.stores import sqlite_database
from trimtab.cli import app
from trimtab.database import Database
from trimtab.errors import BadRequest
from trimtab.ledger.entries import Entry
from trimtab.ledger.exports import Used, read_export
from trimtab.ledger.reconcile import compare, explanations, ours, theirs

PERCENT = Decimal("0.01")

OPENAI_USAGE = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": 1795392000,
            "end_time": 1795478400,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 1000,
                    "output_tokens": 500,
                    "input_cached_tokens": 800,
                    "num_model_requests": 5,
                    "project_id": None,
                    "model": "gpt-5-mini-2025-08-07",
                    "batch": None,
                }
            ],
        },
        {"object": "bucket", "start_time": 1795478400, "end_time": 1795564800, "results": []},
    ],
    "has_more": False,
}
OPENAI_COSTS = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": 1795392000,
            "end_time": 1795478400,
            "results": [
                {
                    "object": "organization.costs.result",
                    "amount": {"value": 0.1, "currency": "usd"},
                    "line_item": "gpt-5-mini-2025-08-07, input",
                },
                {
                    "object": "organization.costs.result",
                    "amount": {"value": 0.2, "currency": "usd"},
                    "line_item": "gpt-5-mini-2025-08-07, output",
                },
            ],
        }
    ],
}
OPENAI_COSTS_CSV = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id\n"
    "1795392000,1795478400,2026-11-23T00:00:00+00:00,2026-11-24T00:00:00+00:00,0.30000000000000000,usd,,\n"
    "1795478400,1795564800,2026-11-24T00:00:00+00:00,2026-11-25T00:00:00+00:00,,,,\n"
)
OPENAI_USAGE_CSV = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,model,batch,input_tokens,"
    "output_tokens,input_cached_tokens,input_uncached_tokens\n"
    "1795392000,1795478400,2026-11-23T00:00:00+00:00,2026-11-24T00:00:00+00:00,,5,gpt-5-mini-2025-08-07,,1000,500,800,200\n"
)
ANTHROPIC_USAGE = {
    "data": [
        {
            "starting_at": "2026-11-23T00:00:00Z",
            "ending_at": "2026-11-24T00:00:00Z",
            "results": [
                {
                    "uncached_input_tokens": 1500,
                    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
                    "cache_read_input_tokens": 200,
                    "output_tokens": 500,
                    "server_tool_use": {"web_search_requests": 10},
                    "model": "claude-haiku-4-5-20251001",
                    "service_tier": "standard",
                }
            ],
        }
    ],
    "has_more": False,
}
ANTHROPIC_COST = {
    "data": [
        {
            "starting_at": "2026-11-23T00:00:00Z",
            "ending_at": "2026-11-24T00:00:00Z",
            "results": [
                {"currency": "USD", "amount": "123.45", "model": "claude-haiku-4-5-20251001", "token_type": None}
            ],
        }
    ]
}
ANTHROPIC_CSV = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
    "usage_output_tokens,web_search_count\n"
    "2026-11-23,claude-haiku-4-5-20251001,key,Default,standard,0-200k,1500,500,1000,200,500,10\n"
)


@pytest.mark.parametrize(
    ("text", "provider", "row"),
    [
        (json.dumps(OPENAI_USAGE), "openai", Used("2026-11-23", "gpt-5-mini", 5, 1000, 500, 800)),
        (OPENAI_USAGE_CSV, "openai", Used("2026-11-23", "gpt-5-mini", 5, 1000, 500, 800)),
        (OPENAI_COSTS_CSV, "openai", Used("2026-11-23", "", usd=Decimal("0.3"))),
        (json.dumps(ANTHROPIC_USAGE), "anthropic", Used("2026-11-23", "claude-haiku-4-5", None, 3200, 500, 200, 1500)),
        (ANTHROPIC_CSV, "anthropic", Used("2026-11-23", "claude-haiku-4-5", None, 3200, 500, 200, 1500)),
        (json.dumps(ANTHROPIC_COST), "anthropic", Used("2026-11-23", "claude-haiku-4-5", usd=Decimal("1.2345"))),
        (
            "\ufeffdate;model;requests;cost\n2026-11-23;m;3;$1,000.50\n",
            "",
            Used("2026-11-23", "m", 3, usd=Decimal("1000.5")),
        ),
    ],
)
def test_each_form_of_export(text: str, provider: str, row: Used) -> None:
    export = read_export(text)
    assert (export.provider, export.rows) == (provider, (row,))


def test_amounts_are_read_as_they_are_written() -> None:
    """0.1 and 0.2 as floats are 0.30000000000000004."""
    (sums,) = theirs(read_export(json.dumps(OPENAI_COSTS)).rows).values()
    assert sums.usd == Decimal("0.3")


def test_usage_and_costs_of_the_same_days_are_put_together() -> None:
    rows = (*read_export(json.dumps(OPENAI_USAGE)).rows, *read_export(json.dumps(OPENAI_COSTS)).rows)
    ((key, sums),) = theirs(rows).items()
    assert key == ("2026-11-23", "gpt-5-mini")
    assert (sums.requests, sums.input_tokens, sums.usd) == (5, 1000, Decimal("0.3"))


def test_columns_of_another_kind_are_named() -> None:
    text = "Datum,Modell,Betrag,geschrieben\n2026-11-23,m,0.5,7\n"
    columns = {"day": "Datum", "model": "Modell", "usd": "Betrag", "cache_write_tokens": "geschrieben"}
    assert read_export(text, columns).rows == (Used("2026-11-23", "m", cache_write_tokens=7, usd=Decimal("0.5")),)


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("", {}, "no rows"),
        ("a,b\n1,2\n", {}, "no column holds the day"),
        ("date,cost\nsoon,2\n", {}, "row 1: day"),
        ("date,cost\n2026-11-23,much\n", {}, "row 1: usd"),
        ("date,cost\n2026-11-23,nan\n", {}, "row 1: usd"),
        ("date,cost\n2026-11-23,1\n", {"usd": "price"}, "no column 'price'"),
        ("date,cost\n2026-11-23,1\n", {"dollars": "cost"}, "dollars is none of"),
        ("{", {}, "begins like JSON"),
        ("[1]", {}, "not the answer of a usage API"),
    ],
)
def test_a_file_that_is_no_export_says_what_it_lacks(text: str, columns: dict[str, str], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read_export(text, columns)


# --- against the ledger -------------------------------------------------------------------------------------------------


def lines_of_a_day() -> list[Entry]:
    """Forty requests of the 23rd at two models of one provider, five of them unanswered and two without a bill."""
    day = datetime(2026, 11, 23, 9, tzinfo=UTC)
    entries = [replace(each, at=day, provider="openai") for each in made(40, seed=5)]
    entries = [replace(each, model=("gpt-5-mini", "gpt-6.1-sol")[n % 2]) for n, each in enumerate(entries)]
    return [*entries, replace(made(1, seed=6)[0], at=day, provider="anthropic", receipt_id="other")]


def export_of(entries: list[Entry], keep: Callable[[Entry], bool] = lambda _: True, factor: str = "1") -> list[Used]:
    """What the provider would say of these."""
    counted = [each for each in entries if each.provider == "openai" and each.answered and keep(each)]
    return [
        Used(
            f"{each.at:%Y-%m-%d}",
            each.model,
            1,
            each.input_tokens_billed,
            each.output_tokens_billed,
            each.cache_read_tokens_billed,
            None,
            (each.cost_usd or Decimal(0)) * Decimal(factor),
        )
        for each in counted
    ]


def test_what_agrees_agrees_exactly(database: Database) -> None:
    entries = lines_of_a_day()
    written(database, entries)
    own = ours(database, "openai", "2026-11-23", "2026-11-23")
    rows = compare(theirs(export_of(entries)), own)
    assert [(row.day, row.model) for row in rows] == [("2026-11-23", "gpt-5-mini"), ("2026-11-23", "gpt-6.1-sol")]
    for row in rows:
        assert [row.difference(name) for name in ("requests", "input_tokens", "output_tokens", "usd")] == [0, 0, 0, 0]
        assert not row.exceeds(Decimal(0), Decimal(0), ("requests", "input_tokens", "output_tokens", "usd"))
    assert explanations(rows, PERCENT) == []


def test_other_days_and_providers_are_left_alone(database: Database) -> None:
    written(database, lines_of_a_day())
    assert ours(database, "openai", "2026-11-22", "2026-11-22") == {}
    assert ours(database, "openai", "2026-11-24", "2026-11-24") == {}
    assert len(ours(database, "anthropic", "2026-11-20", "2026-11-30")) == 1


def test_differences_are_explained(database: Database) -> None:
    entries = lines_of_a_day()
    written(database, entries)
    own = ours(database, "openai", "2026-11-23", "2026-11-23")

    def words(rows: list[Used]) -> str:
        return " ".join(explanations(compare(theirs(rows), own), PERCENT))

    assert "in the ledger and not in the export" in words(export_of(entries, lambda each: each.model == "gpt-5-mini"))
    stranger = Used("2026-11-23", "gpt-99", 3, 10, 10, 0, 0, Decimal("2.5"))
    assert "2026-11-23 gpt-99: in the export and not in the ledger ($2.5000)" in words([*export_of(entries), stranger])
    assert "The prices differ" in words(export_of(entries, factor="0.8"))
    more = [*export_of(entries), Used("2026-11-23", "gpt-5-mini", 2, 100, 100, 0, None, Decimal("0.01"))]
    assert "They count 2 requests more" in words(more)
    first = export_of(entries)
    assert "The ledger has 1 requests more" in words(first[1:])


def test_an_answer_without_a_bill_is_told(database: Database) -> None:
    entry = replace(made(1)[0], provider="openai", answered=True, status=200, billed_usd=None, cost_usd=Decimal("0.25"))
    entry = replace(entry, input_tokens_billed=None, output_tokens_billed=None, at=datetime(2026, 11, 23, tzinfo=UTC))
    written(database, [entry])
    own = ours(database, "openai", "2026-11-23", "2026-11-23")
    rows = compare({("2026-11-23", entry.model): next(iter(own.values()))}, own)
    assert "1 answers in the ledger came without a bill" in " ".join(explanations(rows, PERCENT))
    assert "$0.2500" in " ".join(explanations(rows, PERCENT))


def test_an_export_without_models_is_compared_by_the_day(database: Database) -> None:
    entries = lines_of_a_day()
    written(database, entries)
    total = sum((each.usd for each in export_of(entries) if each.usd is not None), Decimal(0))
    rows = compare(theirs([Used("2026-11-23", "", usd=total)]), ours(database, "openai", "2026-11-23", "2026-11-23"))
    assert [(row.day, row.model, row.difference("usd")) for row in rows] == [("2026-11-23", "", 0)]


# --- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "trimtab.toml"
    file.write_text(f'data_dir = "{tmp_path}"\ndatabase_url = "sqlite:///{tmp_path / "ledger.sqlite"}"\n')
    return file


def run(*arguments: Any, **more: Any) -> Any:
    return CliRunner().invoke(app, [str(each) for each in arguments], **more)


def csv_of(rows: list[Used], folder: Path) -> Path:
    file = folder / "export.csv"
    lines = ["date,model,requests,input_tokens,output_tokens,cost"]
    lines += [f"{r.day},{r.model}-2025-08-07,{r.requests},{r.input_tokens},{r.output_tokens},{r.usd}" for r in rows]
    file.write_text("\n".join(lines))
    return file


def test_the_command_exits_with_0_or_1(config: Path, tmp_path: Path) -> None:
    entries = lines_of_a_day()
    with sqlite_database(tmp_path) as database:
        written(database, entries)
    good = run("reconcile", csv_of(export_of(entries), tmp_path), "--provider", "openai", "-c", config)
    assert good.exit_code == 0, good.output
    assert "agrees within 1 %" in good.output
    file = csv_of(export_of(entries, factor="1.02"), tmp_path)
    bad = run("reconcile", file, "--provider", "openai", "-c", config, "--json", "--tolerance-usd", "0")
    assert bad.exit_code == 1
    told = json.loads(bad.output)
    assert told["differs"]
    assert any(row["exceeds"] for row in told["rows"])
    assert told["total"]["requests"]["difference"] == 0
    assert "The prices differ" in " ".join(told["explanations"])
    assert run("reconcile", file, "--provider", "openai", "-c", config, "--tolerance", "3").exit_code == 0


def test_the_command_says_what_is_wrong(config: Path, tmp_path: Path) -> None:
    with sqlite_database(tmp_path) as database:
        written(database, lines_of_a_day())
    file = csv_of(export_of(lines_of_a_day()), tmp_path)
    unnamed = run("reconcile", file, "-c", config)
    assert (unnamed.exit_code, "say with --provider" in unnamed.output) == (2, True)
    assert "anthropic, openai" in unnamed.output
    assert run("reconcile", file, "-c", config, "--column", "day").exit_code == 2
    assert run("reconcile", tmp_path / "none.csv", "-c", config).exit_code == 2

"""`trimtab whatif` and `trimtab prices`: real receipts in, what they would have cost out, and every bad line by number."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from routing.catalog import Catalog
from routing.offers import Usage
from routing.planner import Needs, plan
from routing.receipt import opened, settled
from trimtab.commands.prices import prices
from trimtab.commands.whatif import whatif

START = datetime(2026, 11, 16, 9, tzinfo=UTC)  # a Monday
app = typer.Typer()
app.command()(whatif)
app.command()(prices)


def run(*arguments: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, list(arguments), input=stdin, terminal_width=200)


@dataclass(frozen=True)
class Line:
    full_tokens: int = 50_000

    def coverage(self, budget_tokens: int) -> float:
        return min(1.0, budget_tokens / self.full_tokens)

    def budget_for(self, coverage: float) -> int:
        return round(coverage * self.full_tokens)

    def steps(self) -> range:
        return range(1, self.full_tokens + 1)


def receipt(at: datetime, model: str = "gpt-6.1-sol", output_tokens: int = 1_000, **changed: Any) -> dict[str, Any]:
    """A settled receipt of a request of 50,000 tokens, as the pipeline makes one."""
    (offer,) = Catalog().offers([model], at)
    made = plan(curve=Line(), needs=Needs(0, output_tokens), offers=[offer])
    open_one = opened(
        made, receipt_id="r", model_asked=model, baseline=offer, tokens_before=50_000, tokens_after=50_000
    )
    done = settled(open_one, answered=offer, baseline=offer, usage=Usage(50_000, output_tokens))
    return done.to_dict() | {"at": at.isoformat()} | changed


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Five days, ten calls a day on sol: each $0.10 in and $0.01 out."""
    file = tmp_path / "ledger.jsonl"
    calls = [receipt(START + timedelta(days=day, minutes=each)) for day in range(5) for each in range(10)]
    file.write_text("".join(json.dumps(call) + "\n" for call in calls))
    return file


def contract(tmp_path: Path, **fields: Any) -> Path:
    known = {"name": "ptu", "provider": "openai", "models": ["gpt-6.1-*"], "per": "day", "price_usd": 0.5} | fields
    file = tmp_path / "contract.toml"
    file.write_text("[[commitments]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in known.items()))
    return file


def asked(*arguments: str | Path) -> dict[str, Any]:
    result = run("whatif", "--json", *map(str, arguments))
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def totals(told: dict[str, Any]) -> dict[str, Decimal]:
    return {way["name"]: Decimal(way["total_usd"]) for way in told["ways"]}


def test_a_contract_is_reckoned_with_what_it_covers_what_it_does_not_and_its_price(
    ledger: Path, tmp_path: Path
) -> None:
    """408,000 tokens a day cover eight calls of 51,000; two of ten a day stay at list prices, and five days are paid."""
    told = asked("--ledger", ledger, "--commit", contract(tmp_path, tokens=408_000))
    assert totals(told) == {
        "as billed": Decimal("5.5"),
        "list prices": Decimal("5.5"),
        "the contract": Decimal("0.5") * 5 + 10 * Decimal("0.11"),
    }
    (use,) = told["ways"][2]["commitments"]
    assert use == {"name": "ptu", "periods": 5, "paid_usd": "2.5", "drawn": "2040000", "bought": "2040000"}
    assert told["cheapest"] == "the contract"
    assert told["verdict"] == "'the contract' would have been cheapest: $1.9 less than 'as billed' (34.5%)."


def test_a_contract_that_is_too_large_loses(ledger: Path, tmp_path: Path) -> None:
    told = asked("--ledger", ledger, "--commit", contract(tmp_path, tokens=10**9, price_usd=100))
    assert totals(told)["the contract"] == 500
    assert told["verdict"] == "Nothing would have been cheaper than 'as billed'."


def test_prepaid_dollars(ledger: Path, tmp_path: Path) -> None:
    """A dollar a day for $0.80: nine calls of $0.11 fit, and the tenth is paid for."""
    told = asked("--ledger", ledger, "--commit", contract(tmp_path, usd=1, price_usd=0.8))
    assert totals(told)["the contract"] == 5 * (Decimal("0.8") + Decimal("0.11"))


def test_other_prices_and_both_together(ledger: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "o.toml"
    overlay.write_text(
        'version = "offer"\n[[overlay]]\nname = "n"\nprovider = "openai"\nmodels = ["gpt-6.1-sol"]\nmultiplier = 0.5\n'
    )
    told = asked("--ledger", ledger, "--prices", overlay)
    assert totals(told)["the other prices"] == Decimal("2.75")
    told = asked("--ledger", ledger, "--prices", overlay, "--commit", contract(tmp_path, tokens=408_000))
    assert list(totals(told)) == ["as billed", "list prices", "the other prices", "the contract", "both"]
    assert totals(told)["both"] == Decimal("0.5") * 5 + 10 * Decimal("0.055")
    assert told["cheapest"] == "the other prices"


def test_prices_are_those_of_each_calls_hour(tmp_path: Path) -> None:
    hours = [START.replace(hour=2), START.replace(hour=12), START.replace(hour=2) + timedelta(days=5)]
    lines = "\n".join(json.dumps(receipt(at, "deepseek-flash")) for at in hours)
    free = contract(tmp_path, provider="nobody", tokens=1, price_usd=0)
    told = json.loads(run("whatif", "--ledger", "-", "--commit", str(free), "--json", stdin=lines).stdout)
    one = Decimal("0.0081")
    assert totals(told)["list prices"] == 2 * one + one + one


def test_bad_lines_are_named_and_the_rest_goes_on(ledger: Path, tmp_path: Path) -> None:
    good = ledger.read_text().splitlines()[:3]
    bad = [
        "{",
        "[]",
        "",
        json.dumps(receipt(START) | {"at": None}),
        json.dumps(receipt(START) | {"at": "2026-11-16T09:00:00"}),
        json.dumps(receipt(START, input_tokens_billed=None)),
        json.dumps(receipt(START) | {"model": "no-such-model"}),
        json.dumps(receipt(START, provider="nobody")),
        json.dumps(receipt(START, billed_cost_usd="-1")),
        json.dumps(receipt(START, cache_read_tokens_billed=60_000)),
        "[" * 100_000,
    ]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join([*bad, *good]))
    arguments = ["--ledger", str(mixed), "--commit", str(contract(tmp_path, tokens=1))]
    told = asked(*arguments)
    assert told["calls"] == 3
    said = dict(line.split(": ", 1) for line in told["left_out"])
    assert list(said) == [f"line {number}" for number in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)]
    assert said["line 1"] == "is not JSON"
    assert said["line 2"] == "must be a JSON object"
    assert "at must be a time with its zone" in said["line 4"]
    assert "at must be a time with its zone" in said["line 5"]
    assert said["line 6"] == "input_tokens_billed must be a whole number of 0 or more"
    assert "no-such-model" in said["line 7"]
    assert "nobody" in said["line 8"]
    assert "billed_cost_usd must be dollars as a text" in said["line 9"]
    assert "are part of the input" in said["line 10"]
    result = run("whatif", *arguments)
    assert result.exit_code == 0
    assert "10 lines were left out (the first 5 are above)" in result.stderr


def test_a_receipt_without_a_bill_leaves_out_what_was_billed(tmp_path: Path) -> None:
    lines = json.dumps(receipt(START, billed_cost_usd=None))
    free = contract(tmp_path, provider="nobody", tokens=1, price_usd=0)
    told = json.loads(run("whatif", "--ledger", "-", "--commit", str(free), "--json", stdin=lines).stdout)
    assert [way["name"] for way in told["ways"]] == ["list prices", "the contract"]


def test_the_table_says_dollars_difference_and_use(ledger: Path, tmp_path: Path) -> None:
    shown = run("whatif", "--ledger", str(ledger), "--commit", str(contract(tmp_path, tokens=408_000))).stdout
    assert re.search(r"as billed +│ +\$5\.5000 │ +│", shown)
    assert re.search(r"the contract +│ +\$3\.6000 │ +-\$1\.9000 │", shown)
    assert "50 calls, 2026-11-16 09:00 to 2026-11-20 09:09" in shown
    assert "100% used" in re.sub(r"[\s│]+", " ", shown)
    assert "would have been cheapest: $1.9 less" in shown


def test_what_is_wrong_is_one_line_and_status_2(ledger: Path, tmp_path: Path) -> None:
    def wrong(*arguments: str) -> str:
        result = run("whatif", *arguments)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        message: str = result.stderr
        return message

    good = str(contract(tmp_path, tokens=1))
    assert "say what to try" in wrong("--ledger", str(ledger))
    assert "cannot be read" in wrong("--ledger", str(tmp_path / "none"), "--commit", good)
    assert "cannot be read" in wrong("--ledger", str(ledger), "--commit", str(tmp_path / "none"))
    assert "'commitments' is no field here" in wrong("--ledger", str(ledger), "--prices", good)
    empty = tmp_path / "empty"
    empty.write_text("{}\n")
    assert "no line could be replayed; line 1: " in wrong("--ledger", str(empty), "--commit", good)
    bad = tmp_path / "bad.toml"
    bad.write_text("[[commitments]]\nname = 'x'")
    assert "bad.toml: commitments[0] 'x': per is missing" in wrong("--ledger", str(ledger), "--commit", str(bad))


def test_a_plot_needs_matplotlib_and_says_so(ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["whatif", "--ledger", str(ledger), "--commit", str(contract(tmp_path, tokens=408_000)), "--plot"]
    picture = tmp_path / "p.png"
    if importlib.util.find_spec("matplotlib") is not None:
        assert run(*arguments, str(picture)).exit_code == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert "cannot be drawn" in run(*arguments, str(tmp_path / "p.unknown")).stderr
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run(*arguments, str(picture))
    assert result.exit_code == 2
    assert "pip install 'trimtab[bench]'" in result.stderr


def test_prices_shows_when_a_model_costs_what_and_who_says_so() -> None:
    shown = run("prices", "deepseek-flash").stdout
    assert re.search(r"│ Mon-Fri 01:00-04:00, 06:00-10:00 +│ +0\.3 │", shown)
    assert "api-docs.deepseek.com" in shown
    assert "next seven days" not in run("prices", "claude-haiku-5-5").stdout
    (told,) = json.loads(run("prices", "deepseek-flash", "--json").stdout)
    assert {each["when"]: each["input_usd_per_mtok"] for each in told["week"]} == {
        "Mon-Fri 00:00-01:00, 04:00-06:00, 10:00-24:00; Sat, Sun": "0.15",
        "Mon-Fri 01:00-04:00, 06:00-10:00": "0.3",
    }
    assert told["overlay"][0].startswith("'deepseek weekends' (Sat, Sun UTC): https://")


def test_prices_with_an_overlay_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'version = "acme"\n[[overlay]]\nname = "nights"\nprovider = "openai"\nmodels = ["gpt-6.1-sol"]\n'
        'hours = ["22:30-05:15"]\nweekdays = ["mon", "wed"]\nzone = "Europe/Vienna"\nmultiplier = 0.5\n'
    )
    told = json.loads(run("prices", "gpt-6.1-sol", "--prices", str(own), "--json").stdout)
    sync = next(each for each in told if each["processing"] == "sync")
    halves = next(each["when"] for each in sync["week"] if each["input_usd_per_mtok"] == "1")
    # UTC is an hour behind Vienna's winter, and two behind its summer
    assert re.fullmatch(r"Sun, Tue 2[23]:00-24:00; Mon, Wed 00:00-0[34]:15, 2[01]:30-2[23]:00", _sundays_first(halves))
    bad = run("prices", "gpt-6.1-sol", "--prices", str(tmp_path / "none.toml"))
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)


def _sundays_first(when: str) -> str:
    """Days are told from Monday on; Sunday night begins a Monday in Vienna, so the two parts may come in either order."""
    parts = sorted(when.split("; "), key=lambda part: "Sun" not in part)
    return "; ".join(part.replace("Tue, Sun", "Sun, Tue") for part in parts)

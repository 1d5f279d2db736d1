"""`trimtab analyze` as a user meets it: text, JSON, the HTML page, the ledger, and every way to ask it wrongly."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.trimtab.analysis.traffic import PLANTED, START, Maker, chat, traffic
from trimtab.cli import app
from trimtab.database import Database
from trimtab.ledger.entries import TABLES, Entry, record_of, write

SECRET = "sk-live-0123456789abcdef0123"
HOSTILE = '<script>alert("x")</script>'


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["analyze", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "trimtab.toml"
    file.write_text(f'cache_dir = "{tmp_path / "cache"}"\ndata_dir = "{tmp_path / "data"}"\n')
    return file


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The time in a system prompt (with a script and a key in it), and one line that is none."""
    entries = traffic(1, 0, planted=PLANTED[:1]).entries
    for n, entry in enumerate(entries):
        entry["headers"] = {"Authorization": f"Bearer {SECRET}"}
        system = entry["request"]["messages"][0]
        system["content"] = system["content"].replace("Current time:", f"Current time {HOSTILE} \x1b[31m {SECRET}:")
        entry["id"] = f"{HOSTILE}{n}"
    file = tmp_path / "recorded.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + "{broken\n")
    return file


class Page(HTMLParser):
    """The tags of a page, and what they would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.links.append(str(value))
            if name == "id":
                self.ids.add(str(value))


def test_text_says_what_to_change(recorded: Path, config: Path) -> None:
    result = run(recorded, "-c", config)
    assert result.exit_code == 0, result.output
    assert re.search(r"1\. \$0\.2\d a day +A time in the system prompt breaks the cache of gpt-6\.1-sol", result.stdout)
    assert "all changes together, at most" in result.stdout
    assert "line 2, line 3, line 4 and 56 more" in result.stdout
    assert "line 61: is not JSON" in result.stderr
    assert "1 entry was left out" in result.stderr
    assert SECRET not in result.output
    assert "\x1b" not in result.output


def test_json_is_exact_and_complete(recorded: Path, config: Path) -> None:
    told = json.loads(run(recorded, "-c", config, "--json").stdout)
    (found,) = told["findings"]
    assert (found["kind"], found["requests"], found["models"]) == ("unstable-prefix", 59, ["gpt-6.1-sol"])
    assert len(found["request_ids"]) == len(found["places"]) == 50
    assert Decimal(found["saved_usd"]) == Decimal(told["together_usd"]) > 0
    assert (told["unreadable"], told["problems"]) == (1, ["line 61: is not JSON"])
    assert any("Current time" in excerpt for excerpt in found["excerpts"])
    quiet = run(recorded, "-c", config, "--json", "--no-excerpts").stdout
    assert json.loads(quiet)["findings"][0]["excerpts"] == []
    assert "Current time" not in quiet


def test_the_page_stands_alone_and_escapes(recorded: Path, config: Path, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    assert run(recorded, "-c", config, "--html", html).exit_code == 0
    text = html.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "&lt;script&gt;" in text
    assert SECRET not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert run(recorded, "-c", config, "--html", tmp_path / "no" / "such.html").exit_code == 2


def test_nothing_found_is_said(config: Path, tmp_path: Path) -> None:
    file, html = tmp_path / "one.json", tmp_path / "one.html"
    file.write_text(json.dumps(chat("gpt-5", "Be brief.", "How large may a file be?")))
    result = run(file, "-c", config, "--html", html)
    assert "Nothing to restructure was found" in result.stdout
    assert "Nothing to restructure was found" in html.read_text()
    assert "no times recorded" in result.stdout


def test_models_to_consider_and_limits(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "easy.jsonl"
    entries = traffic(1, 0, planted=PLANTED[-1:]).entries
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert "gpt-5-mini" not in run(file, "-c", config).stdout
    assert (
        "gpt-5-mini is expected to answer 25 requests of gpt-5 as well"
        in run(file, "-c", config, "--consider", "gpt-5-mini").stdout
    )
    limited = run(file, "-c", config, "--limit", "3")
    assert "there were more: this is about the first 3" in limited.stderr


def test_the_ledger_gives_what_counts_allow(config: Path, tmp_path: Path) -> None:
    empty = run("--ledger", "-c", config)
    assert empty.exit_code == 2
    assert "no request that was answered and billed yet" in empty.stderr
    database = Database(f"sqlite:///{tmp_path / 'data' / 'trimtab.sqlite'}")
    database.create(TABLES)
    entries = [
        Entry(f"r{n}", START + timedelta(minutes=n), "claude-haiku-5-5", provider="anthropic", model="claude-haiku-5-5",
              processing="sync", route="nightly-report" if n < 12 else "", input_tokens_billed=110_000 if n == 20 else 5_000,
              output_tokens_billed=100, cache_read_tokens_billed=0, cache_write_tokens_billed=0)
        for n in range(24)
    ]  # fmt: skip
    write(
        database, [record_of(entry) for entry in [*entries, Entry("failed", START, "claude-haiku-5-5", answered=False)]]
    )
    database.close()
    told = json.loads(run("--ledger", "-c", config, "--json").stdout)
    assert (told["source"], told["requests"]) == ("the ledger", 24)
    boundary, batch = told["findings"]
    assert (boundary["kind"], boundary["request_ids"]) == ("tier-boundary", ["r20"])
    # 110,000 at $0.50 and 100 at $2.50 a million, against 100,000 at $0.10 and 100 at $0.50
    assert Decimal(boundary["saved_usd"]) == Decimal("0.055") + Decimal("0.00025") - Decimal("0.01") - Decimal(
        "0.00005"
    )
    assert (batch["kind"], batch["requests"]) == ("could-wait", 12)
    assert Decimal(batch["saved_usd"]) == 12 * (5_000 * Decimal("0.05") + 100 * Decimal("0.25")) / 1_000_000


def test_wrong_questions_get_an_answer(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"secret": "sk-live-0123456789abcdef0123"}')
    for arguments, says in (
        ((), "say what to read"),
        ((file, "--ledger"), "say what to read"),
        ((tmp_path / "none.jsonl",), "no such file"),
        ((file,), "LiteLLM"),
    ):
        result = run(*arguments, "-c", config)
        assert result.exit_code == 2
        assert says in result.stderr
        assert SECRET not in result.output


def test_a_folder_is_read_whole(config: Path, tmp_path: Path) -> None:
    maker = Maker(1, "folder")
    folder = tmp_path / "logs"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.json").write_text(json.dumps([chat("gpt-5", "Be brief.", maker.question())] * 2))
    assert json.loads(run(folder, "-c", config, "--json").stdout)["requests"] == 6


def test_the_ledger_s_digests_tell_a_prefix_that_changes(config: Path, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'data' / 'trimtab.sqlite'}")
    database.create(TABLES)
    entries = [
        Entry(f"{route}{n}", START + timedelta(seconds=60 * n), "gpt-5", provider="openai", model="gpt-5", processing="sync",
              route=route, input_tokens_billed=4_000, output_tokens_billed=100, cache_read_tokens_billed=0,
              cache_write_tokens_billed=0, prefix_digest=f"{n * (route == 'support')}", prefix_tokens=3_000 + n)
        for route in ("support", "steady")
        for n in range(30)
    ]  # fmt: skip
    write(database, [record_of(entry) for entry in entries])
    database.close()
    (found,) = json.loads(run("--ledger", "-c", config, "--json").stdout)["findings"]
    assert (found["kind"], found["requests"]) == ("changing-prefix", 29)
    assert "of the route support" in found["title"]
    assert "at most" in found["reckoned"]
    assert Decimal(found["saved_usd"]) == 29 * 3_000 * (Decimal("1.25") - Decimal("0.125")) / 1_000_000

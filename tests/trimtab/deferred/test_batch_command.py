"""`trimtab batch` against a real server over a loopback provider."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.loopback import LoopbackProvider, hang, status
from tests.trimtab.asking import provider, serving
from tests.trimtab.deferred.batch_rig import CHAT, jsonl, line
from trimtab.cli import app
from trimtab.commands import batch as command

Run = Callable[..., Result]


@pytest.fixture
def upstream() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as server:
        yield server


@pytest.fixture
def http(upstream: LoopbackProvider, tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(provider("p", upstream), data_dir=tmp_path / "data") as made:
        yield made


@pytest.fixture
def run(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TRIMTAB_BASE_URL", str(http.base_url))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(command, "_POLL_S", (0.05, 0.1))
    return lambda *args, **more: CliRunner().invoke(app, ["batch", *map(str, args)], **more)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl(line("a"), line("b"), "nonsense"))
    return path


def submitted(run: Run, file: Path, *args: str) -> dict[str, Any]:
    done = run("submit", file, "--json", *args)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_submit_and_wait_and_fetch(run: Run, file: Path, tmp_path: Path) -> None:
    done = run("submit", file, "--deadline", "5m", "--wait")
    assert done.exit_code == 0, done.output
    assert "completed" in done.stdout
    assert "3, 2 answered, 1 failed" in done.stdout
    assert "It cost $" in done.stderr
    assert "At once it would have cost $" in done.stderr
    listed = json.loads(run("list", "--json").stdout)["data"]
    (made,) = listed
    assert made["expires_at"] == made["created_at"] + 300
    assert made["id"] in run("list").stdout
    printed = run("results", made["id"])
    assert [json.loads(each)["custom_id"] for each in printed.stdout.splitlines()] == ["a", "b"]
    assert "trimtab" in json.loads(printed.stdout.splitlines()[0])["response"]["body"]
    assert "It cost $" in printed.stderr
    (bad,) = run("results", made["id"], "--errors").stdout.splitlines()
    assert json.loads(bad)["error"]["line"] == 3
    target = tmp_path / "out.jsonl"
    saved = json.loads(run("results", made["id"], "-o", target, "--json").stdout)
    assert saved["output"] == str(target)
    assert target.read_text(encoding="utf-8") == printed.stdout
    assert Path(saved["errors"]).read_text(encoding="utf-8").strip() == bad
    assert saved["trimtab"]["billed_usd"] == made["trimtab"]["billed_usd"]
    assert not list(tmp_path.glob("*.part"))


def test_status_waits_if_it_is_asked_to(run: Run, file: Path) -> None:
    made = submitted(run, file)
    assert made["status"] == "validating"
    done = json.loads(run("status", made["id"], "--wait", "--json").stdout)
    assert (done["id"], done["status"]) == (made["id"], "completed")


def test_cancel(run: Run, file: Path, upstream: LoopbackProvider) -> None:
    upstream.then(hang(), hang())
    made = submitted(run, file)
    early = run("results", made["id"])
    assert early.exit_code == 2
    assert "there are results when it is over" in early.stderr
    assert json.loads(run("cancel", made["id"], "--json").stdout)["status"] == "cancelling"
    done = run("status", made["id"], "--wait")
    assert done.exit_code == 0
    assert "cancelled" in done.stdout


def test_a_batch_that_fails_says_why_and_ends_with_1(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(jsonl(*(line(str(n), method="GET") for n in range(7))))
    done = run("submit", bad, "--wait")
    assert done.exit_code == 1
    assert "line 1" in done.stdout
    assert 'The method must be "POST"' in done.stdout
    assert "and more: 2" in done.stdout


def test_a_line_that_fails_is_no_failure_of_the_batch(run: Run, file: Path, upstream: LoopbackProvider) -> None:
    upstream.then(status(400), status(400))
    done = run("submit", file, "--wait")
    assert done.exit_code == 0
    assert "3, 0 answered, 3 failed" in done.stdout


def test_standard_input(run: Run, file: Path) -> None:
    done = run("submit", "-", "--json", input=file.read_bytes())
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["endpoint"] == CHAT


def test_pages_of_a_list(run: Run, file: Path) -> None:
    made = [submitted(run, file)["id"] for _ in range(3)]
    first = run("list", "--limit", "2")
    assert made[2] in first.stdout
    assert made[0] not in first.stdout
    assert f"--after {made[1]}" in first.stderr
    assert made[0] in run("list", "--after", made[1]).stdout


def test_no_batches(run: Run) -> None:
    assert "No batches yet" in run("list").stderr


def test_another_key_is_another_tenant(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = submitted(run, file)
    monkeypatch.setenv("MY_KEY", "sk-other")
    refused = run("status", made["id"], "--api-key-env", "MY_KEY")
    assert refused.exit_code == 2
    assert "there is no batch" in refused.stderr
    monkeypatch.delenv("MY_KEY")
    refused = run("status", made["id"], "--api-key-env", "MY_KEY")
    assert refused.exit_code == 2
    assert "MY_KEY is not set" in refused.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "the first line has no url"), (b"[1]\n", "the first line has no url"), (b'{"url": 5}\n', "no url")],
)
def test_a_file_that_says_no_endpoint(run: Run, tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    done = run("submit", path)
    assert done.exit_code == 2
    assert told in done.stderr


def test_errors_a_user_can_mend(run: Run, file: Path, tmp_path: Path) -> None:
    for args, told in (
        (("submit", tmp_path / "none"), "cannot be read"),
        (("submit", file, "--deadline", "yesterday"), "trimtab.deadline: must be a number of seconds"),
        (("submit", file, "--endpoint", "/v1/completions"), "endpoint: must be one of"),
        (("list", "--base-url", "http://127.0.0.1:9"), "trimtab serve"),
        (("list", "--base-url", "localhost"), "is no address"),
        (("results", "batch_none"), "there is no batch"),
    ):
        done = run(*args)
        assert done.exit_code == 2, args
        assert told in done.stderr
        assert "Traceback" not in done.output
    made = submitted(run, file, "--wait")
    unwritable = run("results", made["id"], "-o", tmp_path / "no" / "such" / "folder")
    assert unwritable.exit_code == 2
    assert "cannot be written" in unwritable.stderr


def test_bars_on_a_terminal(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload's and the batch's, drawn and taken away again."""
    drawn = io.StringIO()
    monkeypatch.setattr(command, "err", type(command.err)(file=drawn, force_terminal=True, width=80))
    assert run("submit", file, "--wait").exit_code == 0
    assert "uploading" in drawn.getvalue()
    assert "/3" in drawn.getvalue()


def test_a_server_that_is_none_of_ours(run: Run, upstream: LoopbackProvider) -> None:
    done = run("list", "--base-url", upstream.base_url)
    assert done.exit_code == 2
    assert "no GET /v1/batches" in done.stderr

"""`POST /v1/inspect` and `trimtab inspect`: the same spans, for a request of any surface, and nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from tests.compressor.test_inspection import CASES
from tests.compressor.test_prompts import ASKS, document, messages, responses, result
from tests.compressor.test_recognition import DOC, LONG
from tests.trimtab.asking import serving
from trimtab.commands.inspect import inspect
from trimtab.errors import BadRequest
from trimtab.surfaces import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, Surface, surface_of

QUESTION = "How large may an upload be?"
APP = typer.Typer()
APP.command()(inspect)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving() as made:
        yield made


def told(*arguments: str, **more: Any) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(APP, list(arguments), **more)


@pytest.mark.parametrize("name", CASES)
def test_both_say_the_same(client: httpx.Client, name: str, tmp_path: Path) -> None:
    _, body = CASES[name]
    (tmp_path / "body.json").write_text(json.dumps(body))
    over_http = client.post("/v1/inspect", json=body).raise_for_status().json()
    printed = told(str(tmp_path / "body.json"), "--json")
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == over_http
    assert {span["form"] for span in over_http["spans"] if span["trimmable"]} == {name}
    assert over_http["trimmable_tokens"] > 0


def test_the_table_shows_what_and_why(tmp_path: Path) -> None:
    body = messages([document(LONG, "[bold]Limits[/]"), ASKS], "ok", [result(DOC)], system="Be brief.")
    shown = told("-", input=json.dumps(body))
    assert shown.exit_code == 0
    for words in (
        "a request of messages",
        "cut: document block",
        "[bold]Limits[/]",
        "system message",
        "short tool output",
    ):
        assert words in shown.stdout
    assert f"messages.0: {ASKS['text']}" in shown.stdout
    marked = messages([document(LONG, cache_control={"type": "ephemeral"}), ASKS])
    assert "up to messages.0.content.0.source.data" in told("-", input=json.dumps(marked)).stdout


@pytest.mark.parametrize(
    ("body", "surface"),
    [
        ({"messages": [{"role": "user", "content": "Hi."}]}, CHAT),
        ({"messages": [{"role": "user", "content": "Hi."}], "system": "Be brief."}, MESSAGES),
        ({"messages": [], "tools": [{"name": "f", "input_schema": {}}]}, MESSAGES),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, MESSAGES),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, CHAT),
        ({"messages": "nonsense"}, CHAT),
        ({"input": "Hi."}, RESPONSES),
        ({"input": [{"role": "user", "content": "Hi."}]}, RESPONSES),
        ({"input": ["a", "b"]}, EMBEDDINGS),
        ({"input": [1, 2]}, EMBEDDINGS),
        ({"input": []}, RESPONSES),
    ],
)
def test_a_surface_by_its_shape(body: dict[str, Any], surface: Surface) -> None:
    assert surface_of(body) is surface
    assert surface_of(body, "embeddings") is EMBEDDINGS


def test_what_is_no_request_is_refused(client: httpx.Client) -> None:
    for path, body, said in (
        ("/v1/inspect", {}, "neither messages nor input"),
        ("/v1/inspect", {"messages": []}, "messages: must be a list"),
        ("/v1/inspect?surface=chats", responses("a"), "surface: is one of chat, messages, responses, embeddings"),
        ("/v1/inspect?surface=chat", responses("a"), "messages: must be a list"),
        ("/v1/inspect", {"messages": [], "trimtab": {"nothing": 1}}, "trimtab.nothing"),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]
    for text in ("nonsense", "[]", "{}"):
        assert told("-", input=text).exit_code == 2
    with pytest.raises(BadRequest):
        surface_of({}, "x")

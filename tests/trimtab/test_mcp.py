"""The MCP server through the SDK's own client: in memory, and once over stdio as an agent starts it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from tests.trimtab.payloads import CHUNKS, EVIDENCE, QUESTION
from trimtab import Trimtab
from trimtab.mcp import Originals, mcp_server

TEXTS = [each["text"] for each in CHUNKS]


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


def called(trimtab: Trimtab, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    async def call() -> list[Any]:
        async with Client(mcp_server(trimtab)) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(call())


def test_it_says_what_it_can(trimtab: Trimtab) -> None:
    async def tools() -> Any:
        async with Client(mcp_server(trimtab)) as client:
            return (await client.list_tools()).tools, client.instructions

    listed, instructions = asyncio.run(tools())
    assert [each.name for each in listed] == ["compress", "expand", "plan"]
    assert all(each.description for each in listed)
    assert all(field["description"] for field in listed[0].input_schema["properties"].values())
    assert "compress" in instructions


def test_compress_and_expand(trimtab: Trimtab) -> None:
    async def both() -> tuple[Any, Any]:
        async with Client(mcp_server(trimtab)) as client:
            cut = await client.call_tool("compress", {"query": QUESTION, "contexts": TEXTS, "ratio": 0.15})
            dropped = next(each for each in cut.structured_content["contexts"] if not each["text"])
            return cut.structured_content, await client.call_tool("expand", {"digest": dropped["digest"]})

    cut, whole = asyncio.run(both())
    assert len(cut["contexts"]) == len(TEXTS)
    assert any(EVIDENCE in each["text"] for each in cut["contexts"])
    assert cut["tokens_after"] <= 0.15 * cut["tokens_before"]
    assert 0 < cut["coverage_estimate"] <= 1
    assert [each["complete"] for each in cut["contexts"]] == [
        each["text"] == text for each, text in zip(cut["contexts"], TEXTS, strict=True)
    ]
    dropped = next(number for number, each in enumerate(cut["contexts"]) if not each["text"])
    assert whole.content[0].text == TEXTS[dropped]


def test_plan(trimtab: Trimtab) -> None:
    options = {"contexts": TEXTS, "candidates": ["claude-haiku-5-5"]}
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": QUESTION}], "trimtab": options}
    [planned] = called(trimtab, ("plan", {"body": body}))
    assert planned.structured_content["chosen"]["model"] in ("gpt-5-mini", "claude-haiku-5-5")
    assert planned.structured_content["runners_up"]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("compress", {"query": " ", "contexts": ["a"]}, "query: must say what the contexts are needed for"),
        ("compress", {"query": "q", "contexts": ["a"], "ratio": 3}, "ratio"),
        ("compress", {"query": "q", "contexts": []}, "contexts"),
        ("expand", {"digest": "0" * 32}, "nothing is kept under"),
        ("plan", {"body": {"model": "gpt-5-mini"}}, "messages: must be a list"),
        ("plan", {"body": {"model": "no such model", "messages": [{"role": "user", "content": "a"}]}}, "no such model"),
    ],
)
def test_a_mistake_is_told_to_the_agent(trimtab: Trimtab, name: str, arguments: dict[str, Any], words: str) -> None:
    [result] = called(trimtab, (name, arguments))
    assert result.is_error
    assert words in result.content[0].text


def test_originals_are_bounded_and_the_least_used_go_first() -> None:
    originals = Originals(limit_bytes=10)
    first, second = originals.keep("1234"), originals.keep("abcd")
    assert originals.keep("1234") == first  # the same text is kept once
    assert originals.get(first) == "1234"
    third = originals.keep("ABCD")
    assert originals.get(second) is None
    assert (originals.get(first), originals.get(third)) == ("1234", "ABCD")
    assert originals.get(originals.keep("longer than all of it")) is None
    assert originals.get(first) == "1234"
    assert originals.get(originals.keep("\ud800é")) == "\ud800é"


def test_over_stdio(tmp_path: Path) -> None:
    """The command's function, as the entry point runs it, in a process of its own."""
    code = "from trimtab.commands.mcp import mcp; mcp()"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CACHE_HOME": str(tmp_path)}
    server = StdioServerParameters(command=sys.executable, args=["-W", "error::UserWarning", "-c", code], env=environ)

    async def call() -> Any:
        async with Client(server, read_timeout_seconds=60) as client:
            texts = ["An upload may be 5 GB.", "Data is encrypted at rest."]
            arguments = {"query": "How large may an upload be?", "contexts": texts, "ratio": 0.6}
            return await client.call_tool("compress", arguments)

    result = asyncio.run(call())
    assert [each["text"] for each in result.structured_content["contexts"]] == ["An upload may be 5 GB.", ""]

"""What the tools were last asked is part of the question, in every API."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.payload import parse
from compressor.prompts import CHAT, MESSAGES, RESPONSES, Api

TASK = "Why did the deployment fail?"
OUTPUT = "line one\nline two\n" * 40


def chat(*calls: str) -> dict[str, Any]:
    asked = [
        {"id": f"c{n}", "type": "function", "function": {"name": "read", "arguments": c}} for n, c in enumerate(calls)
    ]
    answers = [{"role": "tool", "tool_call_id": f"c{n}", "content": OUTPUT} for n in range(len(calls))]
    return {"messages": [{"role": "user", "content": TASK}, {"role": "assistant", "tool_calls": asked}, *answers]}


def messages(*calls: str) -> dict[str, Any]:
    asked = [{"type": "tool_use", "id": f"c{n}", "name": "read", "input": {"path": c}} for n, c in enumerate(calls)]
    answers = [{"type": "tool_result", "tool_use_id": f"c{n}", "content": OUTPUT} for n in range(len(calls))]
    turns = [{"role": "user", "content": TASK}, {"role": "assistant", "content": asked}]
    return {"messages": [*turns, {"role": "user", "content": answers}]}


def responses(*calls: str) -> dict[str, Any]:
    asked = [{"type": "function_call", "call_id": f"c{n}", "name": "read", "arguments": c} for n, c in enumerate(calls)]
    answers = [{"type": "function_call_output", "call_id": f"c{n}", "output": OUTPUT} for n in range(len(calls))]
    return {"input": [{"role": "user", "content": TASK}, *asked, *answers]}


@pytest.mark.parametrize(("api", "body"), [(CHAT, chat), (MESSAGES, messages), (RESPONSES, responses)])
def test_the_question_names_the_task_and_every_latest_call(api: Api, body: Any) -> None:
    query = parse(api, body("app/config.yaml", "var/log/deploy.log")).query
    assert query.startswith(TASK)
    assert "read" in query
    assert "app/config.yaml" in query
    assert "var/log/deploy.log" in query


def test_calls_before_the_question_are_no_part_of_it() -> None:
    body = chat("app/config.yaml")
    body["messages"].append({"role": "user", "content": "And who deployed it?"})
    assert parse(CHAT, body).query == "And who deployed it?"


def test_only_the_latest_round_counts_and_long_arguments_are_cut() -> None:
    body = chat("old.txt")
    body["messages"] += chat("x" * 5_000)["messages"][1:]
    query = parse(CHAT, body).query
    assert "old.txt" not in query
    assert len(query) < 1_000

"""An agent of 15 turns whose tools write more and more: no call loses its result, and what was trimmed can be fetched."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.loopback import OPENAI, LoopbackProvider, Step, calls_tool, ok
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.asking import CALLERS_KEY, KEY, KEY_ENV, provider, serving
from trimtab.expansion import NAME

TURNS = 15
QUESTION = "Which order of the Tromsø office is late, and who signed for it?"
CITIES = ("Osaka", "Köln", "Leeds", "Quito", "Accra", "Tromsø", "Perth", "Lyon")
SCHEMA = {"type": "object", "properties": {"page": {"type": "integer"}}, "required": ["page"]}


def page(number: int) -> str:
    """What the tool gives: orders, more with each turn, each with an id that stands nowhere else."""
    chance = random.Random(number)
    lines = [
        f"Order {order(number, at)} for {chance.choice(CITIES)}: {chance.randint(2, 90)} boxes of paper, shelf {at}, paid."
        for at in range(20 + 6 * number)
    ]
    return "\n".join(lines)


def order(number: int, at: int) -> str:
    return f"R{number:02}-{(at * 7919 + number * 104729) % 100_000:05}"


NEEDED = order(4, 11)


class Agent:
    """A provider that plays the model, and a trimtab before it."""

    def __init__(self, server: LoopbackProvider, http: httpx.Client) -> None:
        self.server = server
        self.root = str(http.base_url).rstrip("/")
        self.receipts: list[dict[str, Any]] = []

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [request.json for request in self.server.requests]

    def play(self, *steps: Step) -> None:
        self.server.then(*steps)


@pytest.fixture(scope="module", params=["chat, openai", "messages, anthropic", "chat, anthropic", "messages, openai"])
def played(request: pytest.FixtureRequest) -> Iterator[tuple[Agent, str]]:
    """An agent that has gone through its turns, and what it said at the end."""
    surface, wire = request.param.split(", ")
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=OPENAI if wire == "openai" else ANTHROPIC) as server,
        serving(provider("a", server, "m", api_key_env=KEY_ENV)) as http,
    ):
        patch.setenv(KEY_ENV, KEY)
        agent = Agent(server, http)
        yield agent, loop(surface, agent, NEEDED)


def loop(surface: str, agent: Agent, needed: str) -> str:
    """15 turns by the official client; in the last one the model asks for the order that it no longer sees."""
    trimtab = {"ratio": 0.15, "expand": True}
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    with (
        openai.OpenAI(base_url=f"{agent.root}/v1", api_key=CALLERS_KEY, max_retries=0) as chat,
        anthropic.Anthropic(base_url=agent.root, api_key=CALLERS_KEY, max_retries=0) as claude,
    ):
        for turn in range(TURNS):
            agent.play(calls_tool("read_page", {"page": turn}, call_id=f"call_{turn}"))
            messages += asked(surface, chat, claude, messages, trimtab, agent, turn)
        agent.play(calls_tool(NAME, {"query": f"order {needed}"}, call_id="call_x"), ok(f"{needed} is late."))
        return final(surface, chat, claude, messages, trimtab, agent)


def asked(
    surface: str,
    chat: openai.OpenAI,
    claude: anthropic.Anthropic,
    messages: list[Any],
    trimtab: Any,
    agent: Agent,
    turn: int,
) -> list[Any]:
    """The model's call, and the tool's result."""
    if surface == "chat":
        function = {"name": "read_page", "parameters": SCHEMA}
        answer = chat.chat.completions.create(
            model="m",
            messages=messages,
            tools=[{"type": "function", "function": function}],
            extra_body={"trimtab": trimtab},
        )
        agent.receipts.append(answer.trimtab)  # type: ignore[attr-defined]
        said = answer.choices[0].message
        assert [call.function.name for call in said.tool_calls or ()] == ["read_page"]  # type: ignore[union-attr]
        call = (said.tool_calls or [])[0]
        result = {"role": "tool", "tool_call_id": call.id, "content": page(turn)}
        return [said.model_dump(include={"role", "content", "tool_calls"}), result]
    message = claude.messages.create(
        model="m",
        max_tokens=99,
        messages=messages,
        tools=[{"name": "read_page", "input_schema": SCHEMA}],
        extra_body={"trimtab": trimtab},
    )
    agent.receipts.append(message.trimtab)  # type: ignore[attr-defined]
    (block,) = message.content
    assert block.type == "tool_use"
    used = {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
    told = {"type": "tool_result", "tool_use_id": block.id, "content": page(turn)}
    return [{"role": "assistant", "content": [used]}, {"role": "user", "content": [told]}]


def final(
    surface: str, chat: openai.OpenAI, claude: anthropic.Anthropic, messages: list[Any], trimtab: Any, agent: Agent
) -> str:
    if surface == "chat":
        function = {"name": "read_page", "parameters": SCHEMA}
        answer = chat.chat.completions.create(
            model="m",
            messages=messages,
            tools=[{"type": "function", "function": function}],
            extra_body={"trimtab": trimtab},
        )
        agent.receipts.append(answer.trimtab)  # type: ignore[attr-defined]
        return answer.choices[0].message.content or ""
    message = claude.messages.create(
        model="m",
        max_tokens=99,
        messages=messages,
        tools=[{"name": "read_page", "input_schema": SCHEMA}],
        extra_body={"trimtab": trimtab},
    )
    agent.receipts.append(message.trimtab)  # type: ignore[attr-defined]
    (block,) = message.content
    return block.text if block.type == "text" else ""


def pairs(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The ids of the calls and of the results, in order; each result must come right after the turn of its call."""
    calls: list[str] = []
    results: list[str] = []
    due: list[str] = []
    for message in body["messages"]:
        blocks = message["content"] if isinstance(message.get("content"), list) else []
        made = [call["id"] for call in message.get("tool_calls") or ()]
        made += [block["id"] for block in blocks if block["type"] == "tool_use"]
        given = [message["tool_call_id"]] if message["role"] == "tool" else []
        given += [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        for each in given:
            assert each in due
            due.remove(each)
        assert not (made and due)
        due += made
        calls += made
        results += given
    assert not due
    return calls, results


def test_no_pair_is_broken_and_what_was_trimmed_can_be_fetched(played: tuple[Agent, str]) -> None:
    playing, answer = played
    line = next(each for each in page(4).splitlines() if NEEDED in each)
    assert answer == f"{NEEDED} is late."
    assert len(playing.sent) == TURNS + 2
    for number, body in enumerate(playing.sent[: TURNS + 1]):
        calls, results = pairs(body)
        assert calls == results == [f"call_{turn}" for turn in range(number)]
    before, after = (json.dumps(body, ensure_ascii=False) for body in playing.sent[-2:])
    assert NEEDED not in before
    assert line.split(": ")[1].split(",")[0] in after
    assert NEEDED in after
    assert pairs(playing.sent[-1])[0][-1] == "call_x"
    # and the caller's conversation was cut: far less was sent than the caller has
    assert len(before) < 0.6 * sum(len(page(turn)) for turn in range(TURNS))


def test_whatever_was_cut_was_offered_for_expansion(played: tuple[Agent, str]) -> None:
    """No identifier of a tool's result is gone from what the model sees without the tool being there to fetch it."""
    playing, _ = played
    gone = 0
    for number, body in enumerate(playing.sent[: TURNS + 1]):
        seen = json.dumps(body, ensure_ascii=False)
        missing = [
            order(turn, at) for turn in range(number) for at in range(20 + 6 * turn) if order(turn, at) not in seen
        ]
        gone += bool(missing)
        offered = [tool.get("function", tool)["name"] for tool in body["tools"]]
        assert (NAME in offered) == bool(missing)
    assert gone > TURNS / 2
    assert [receipt["expansions"] for receipt in playing.receipts[:-1]] == [[]] * TURNS
    (expansion,) = playing.receipts[-1]["expansions"]
    assert expansion["digests"]

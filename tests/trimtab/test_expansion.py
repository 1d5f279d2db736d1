"""trimtab_expand: what was cut is there for the model to fetch, answered inside trimtab, over every wire and surface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from tests.loopback import OPENAI, LoopbackProvider, Step, bad_request, calls_tool, cut, ok, status
from tests.loopback_tongues import ANTHROPIC, GEMINI
from tests.trimtab.asking import CALLERS_KEY, KEY, KEY_ENV, PRICES, provider, serving, without_receipt_event
from trimtab.expansion import MAX_ROUNDS, NAME

WIRES = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}
SURFACES = ("chat", "messages", "responses")
QUESTION = "How large may one upload be?"
SECRET = "The badge code of the Tromsø office is K7-4412."
FILLER = " ".join(f"Shelf {n} in hall {n % 7} holds boxes of paper, and is emptied on day {n % 28}." for n in range(60))
CONTEXTS = [
    {"id": "limits", "title": "Limits", "text": f"An upload may be 5 GB. {FILLER}"},
    {"id": "offices", "title": "Offices", "text": f"{FILLER} {SECRET} {FILLER}"},
]
ASKS: dict[str, Any] = {"contexts": CONTEXTS, "ratio": 0.1, "expand": True}
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 50}


def expand(**arguments: str) -> Step:
    return calls_tool(NAME, arguments)


def both(*calls: tuple[str, dict[str, Any]], text: str | None = None) -> Step:
    made = tuple(
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for at, (name, arguments) in enumerate(calls)
    )
    return Step(text=text, tool_calls=made)


class Client:
    """One provider, and a trimtab before it."""

    def __init__(self, server: LoopbackProvider, http: Any) -> None:
        self.server = server
        self.http = http
        root = str(http.base_url).rstrip("/")
        self.openai = openai.OpenAI(base_url=f"{root}/v1", api_key=CALLERS_KEY, max_retries=0)
        self.anthropic = anthropic.Anthropic(base_url=root, api_key=CALLERS_KEY, max_retries=0)

    def ask(self, surface: str, *steps: Step, stream: bool = False, **more: Any) -> dict[str, Any]:
        """What the official client gets: its text, the calls that it sees, why it stopped, and the receipt."""
        self.server.then(*steps)
        self.server.requests.clear()
        return {"chat": self.chat, "messages": self.messages, "responses": self.responses}[surface](stream, more)

    def chat(self, stream: bool, more: dict[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": "m",
            "messages": [{"role": "user", "content": QUESTION}],
            "extra_body": {"trimtab": more.pop("trimtab", ASKS)},
            **more,
        }
        client = self.openai
        if not stream:
            answer = client.chat.completions.create(**asked)
            said = answer.choices[0].message
            calls = [(call.function.name, call.function.arguments) for call in said.tool_calls or ()]  # type: ignore[union-attr]
            reason = answer.choices[0].finish_reason
            return {
                "text": said.content,
                "calls": calls,
                "reason": reason,
                "trimtab": answer.trimtab,
                "usage": answer.usage,
            }  # type: ignore[attr-defined]
        text, parts, reason, receipt, ids = "", {}, None, None, set()
        for chunk in client.chat.completions.create(**asked, stream=True):
            receipt = getattr(chunk, "trimtab", None) or receipt
            for choice in chunk.choices:
                ids.add(chunk.id)
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
                for call in choice.delta.tool_calls or ():
                    name, arguments = parts.get(call.index, ("", ""))
                    assert call.function is not None
                    parts[call.index] = (
                        name + (call.function.name or ""),
                        arguments + (call.function.arguments or ""),
                    )
        assert len(ids) == 1
        return {"text": text, "calls": list(parts.values()), "reason": reason, "trimtab": receipt}

    def messages(self, stream: bool, more: dict[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": "m",
            "max_tokens": 99,
            "messages": [{"role": "user", "content": QUESTION}],
            "extra_body": {"trimtab": more.pop("trimtab", ASKS)},
            **more,
        }
        client = self.anthropic
        if stream:
            with client.messages.stream(**asked) as events:
                answer = events.get_final_message()
            receipt = None
        else:
            answer = client.messages.create(**asked)
            receipt = answer.trimtab  # type: ignore[attr-defined]
        text = "".join(block.text for block in answer.content if block.type == "text")
        calls = [(block.name, json.dumps(block.input)) for block in answer.content if block.type == "tool_use"]
        return {"text": text, "calls": calls, "reason": answer.stop_reason, "trimtab": receipt, "usage": answer.usage}

    def responses(self, stream: bool, more: dict[str, Any]) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": "m",
            "input": QUESTION,
            "extra_body": {"trimtab": more.pop("trimtab", ASKS)},
            **more,
        }
        client = self.openai
        if stream:
            with client.responses.stream(**asked) as events:
                answer: Any = events.get_final_response()
            receipt = None
        else:
            answer = client.responses.create(**asked)
            receipt = answer.trimtab
        calls = [(item.name, item.arguments) for item in answer.output if item.type == "function_call"]
        return {
            "text": answer.output_text,
            "calls": calls,
            "reason": answer.status,
            "trimtab": receipt,
            "usage": answer.usage,
        }

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [request.json for request in self.server.requests]


@pytest.fixture(scope="module", params=WIRES)
def each(request: pytest.FixtureRequest) -> Iterator[Client]:
    yield from client_of(request.param)


@pytest.fixture(scope="module")
def chat() -> Iterator[Client]:
    yield from client_of("openai")


def client_of(wire: str) -> Iterator[Client]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=WIRES[wire]) as server,
        serving(provider("a", server, "m", api_key_env=KEY_ENV), max_attempts=1) as http,
    ):
        patch.setenv(KEY_ENV, KEY)
        made = Client(server, http)
        with made.openai, made.anthropic:
            yield made


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("surface", SURFACES)
def test_the_model_fetches_what_was_cut(each: Client, surface: str, stream: bool) -> None:
    answer = each.ask(surface, expand(query="badge code of the Tromsø office"), ok("It is K7-4412."), stream=stream)
    assert answer["text"] == "It is K7-4412."
    assert answer["calls"] == []
    assert answer["reason"] == {"chat": "stop", "messages": "end_turn", "responses": "completed"}[surface]
    first, second = (json.dumps(body, ensure_ascii=False) for body in each.sent)
    assert NAME in first
    assert "K7-4412" not in first
    assert "K7-4412" in second
    assert len(second) < len(first) + 12_000  # what was asked for, and not all of it


def test_the_receipt_lists_it_and_adds_up_the_bills(chat: Client) -> None:
    step = Step(tool_calls=expand(id="offices").tool_calls, text=None, usage=USAGE)
    answer = chat.ask("chat", step, ok("It is K7-4412.", usage={"prompt_tokens": 3_000, "completion_tokens": 20}))
    receipt = answer["trimtab"]
    offices = next(row for row in receipt["cut"] if row["id"] == "offices")
    (expansion,) = receipt["expansions"]
    assert expansion["round"] == 1
    assert expansion["digests"] == [offices["digest"]]
    assert expansion["tokens"] >= offices["tokens_before"]
    assert (receipt["input_tokens_billed"], receipt["output_tokens_billed"]) == (4_000, 70)
    assert (answer["usage"].prompt_tokens, answer["usage"].completion_tokens) == (4_000, 70)
    spent = (4_000 * Decimal(PRICES["input_mtok"]) + 70 * Decimal(PRICES["output_mtok"])) / 1_000_000
    assert Decimal(receipt["billed_cost_usd"]) == spent
    # untouched, it would have been asked once: less our tool, and with all that was cut
    cut_tokens = receipt["tokens_before"] - receipt["tokens_after"]
    assert Decimal(receipt["baseline_cost_usd"]) < (1_000 + cut_tokens) * Decimal("2e-6") + 20 * Decimal("1e-5")
    assert [each["outcome"] for each in receipt["attempts"]] == ["ok", "ok"]


def test_what_the_receipt_says_was_cut(chat: Client) -> None:
    receipt = chat.ask("chat", ok("5 GB."))["trimtab"]
    assert [row["id"] for row in receipt["cut"]] == ["limits", "offices"]
    assert sum(row["tokens_before"] for row in receipt["cut"]) == receipt["tokens_before"]
    assert sum(row["tokens_after"] for row in receipt["cut"]) == receipt["tokens_after"]
    assert receipt["expansions"] == []


def test_there_is_no_tool_unless_it_is_asked_for_and_something_was_cut(chat: Client) -> None:
    for options in ({**ASKS, "expand": False}, {**ASKS, "ratio": 1.0}):
        assert chat.ask("chat", ok("5 GB."), trimtab=options)["text"] == "5 GB."
        assert "tools" not in chat.sent[0]


@pytest.mark.parametrize("surface", SURFACES)
def test_the_words_of_the_conversation_are_the_callers(chat: Client, surface: str) -> None:
    chat.ask(surface, ok("5 GB."))
    offered = chat.sent[0]
    chat.ask(surface, ok("5 GB."), trimtab={**ASKS, "expand": False})
    (tool,) = offered.pop("tools")
    assert tool["function"]["name"] == NAME
    assert len(json.dumps(tool)) < 900
    assert offered == chat.sent[0]


@pytest.mark.parametrize(
    ("surface", "choice"),
    [
        ("chat", "none"),
        ("chat", {"type": "function", "function": {"name": "find"}}),
        ("messages", {"type": "none"}),
        ("messages", {"type": "tool", "name": "find"}),
        ("responses", "none"),
        ("responses", {"type": "function", "name": "find"}),
    ],
)
def test_a_tool_choice_that_forbids_it_is_obeyed(chat: Client, surface: str, choice: Any) -> None:
    receipt = chat.ask(surface, ok("5 GB."), tools=[tool_of(surface)], tool_choice=choice)["trimtab"]
    assert NAME not in json.dumps(chat.sent[0])
    assert receipt["notes"] == [f"{NAME} was not offered: tool_choice leaves no room for it"]


def tool_of(surface: str, name: str = "find") -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    if surface == "messages":
        return {"name": name, "input_schema": schema}
    if surface == "responses":
        return {"type": "function", "name": name, "parameters": schema, "strict": False}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("surface", SURFACES)
def test_calls_of_the_callers_own_are_made_when_ours_are_answered(each: Client, surface: str, stream: bool) -> None:
    find = ("find", {"city": "Tromsø"})
    steps = both(find, (NAME, {"query": "badge"}), (NAME, {"id": "limits"})), both(find, ("find", {"city": "Köln"}))
    answer = each.ask(surface, *steps, stream=stream, tools=[tool_of(surface)])
    assert [(name, json.loads(arguments)) for name, arguments in answer["calls"]] == [find, ("find", {"city": "Köln"})]
    assert answer["reason"] == {"chat": "tool_calls", "messages": "tool_use", "responses": "completed"}[surface]
    second = json.dumps(each.sent[1], ensure_ascii=False)
    assert "K7-4412" in second
    assert "Köln" not in second
    assert len(each.sent) == 2


def test_every_call_that_goes_back_has_its_result(chat: Client) -> None:
    step = both(("find", {"city": "Ōsaka"}), (NAME, {"query": "badge"}), (NAME, {"query": "limits"}), text="I look.")
    answer = chat.ask("chat", step, ok("Done."), tools=[tool_of("chat")])
    *_, said, one, two = chat.sent[1]["messages"]
    assert [call["function"]["name"] for call in said["tool_calls"]] == [NAME, NAME]
    assert [call["id"] for call in said["tool_calls"]] == [one["tool_call_id"], two["tool_call_id"]]
    assert len(answer["trimtab"]["expansions"]) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("surface", SURFACES)
def test_what_was_said_before_the_call_is_heard(chat: Client, surface: str, stream: bool) -> None:
    words = {"id": "call_1", "type": "function", "function": {"name": NAME, "arguments": '{"query": "badge"}'}}
    frame = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = {"role": "assistant", "content": "I look.", "tool_calls": [words]}
    whole = {"index": 0, "message": said, "finish_reason": "tool_calls"}
    deltas = [
        ({"role": "assistant", "content": "I "}, None),
        ({"content": "look."}, None),
        ({"tool_calls": [{"index": 0, **words}]}, None),
        ({}, "tool_calls"),
    ]
    chunks = [{**frame, "choices": [{"index": 0, "delta": each, "finish_reason": why}]} for each, why in deltas]
    events = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    body = events if stream else json.dumps({**frame, "choices": [whole]}).encode()
    step = Step(body=body, content_type="text/event-stream" if stream else "application/json")
    assert chat.ask(surface, step, ok("It is K7."), stream=stream)["text"] == "I look.\n\nIt is K7."
    assert chat.sent[1]["messages"][-2]["content"] == "I look."


@pytest.mark.parametrize("own", [False, True], ids=["no tools", "tools"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("surface", SURFACES)
def test_a_model_that_never_has_enough_must_answer(each: Client, surface: str, stream: bool, own: bool) -> None:
    more = {"tools": [tool_of(surface)]} if own else {}
    rounds = [expand(query="badge") for _ in range(MAX_ROUNDS)]
    answer = each.ask(surface, *rounds, ok("It is K7-4412."), stream=stream, **more)
    assert answer["text"] == "It is K7-4412."
    assert len(each.sent) == MAX_ROUNDS + 1
    if each.server.tongue is OPENAI:
        last = each.sent[-1]
        names = [tool["function"]["name"] for tool in last["tools"]]
        assert (names, last.get("tool_choice")) == ((["find"], None) if own else ([NAME], "none"))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_that_may_not_be_made_any_more_reaches_nobody(chat: Client, stream: bool) -> None:
    answer = chat.ask("chat", *(expand(query="badge") for _ in range(MAX_ROUNDS + 1)), stream=stream)
    assert (answer["text"], answer["calls"], answer["reason"]) == ("", [], "stop")
    assert len(chat.sent) == MAX_ROUNDS + 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("nonsense", "Error: the arguments must be an object"),
        ("[1]", "Error: the arguments must be an object"),
        ('{"id": "nowhere"}', "Error: no shortened text is called 'nowhere'. There are: Limits; Offices."),
        ('{"id": "OFFICES"}', "K7-4412"),
        ('{"id": 7, "query": null}', "Error: no shortened text is called '7'"),
        ("", "5 GB"),
        ("{}", "5 GB"),
    ],
)
def test_whatever_the_model_asks_it_is_told(chat: Client, arguments: str, told: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": NAME, "arguments": arguments}}
    assert chat.ask("chat", Step(text=None, tool_calls=(call,)), ok("Done."))["text"] == "Done."
    assert told in chat.sent[1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("surface", "more", "said"),
    [
        ("chat", {"n": 2}, "n: must be 1 with trimtab.expand"),
        ("chat", {"tools": [tool_of("chat", NAME)]}, f"tools: {NAME} is the name of trimtab's own tool"),
        ("messages", {"tools": [tool_of("messages", NAME)]}, f"tools: {NAME} is the name of trimtab's own tool"),
        ("responses", {"previous_response_id": "r"}, "has no word for previous_response_id"),
        ("chat", {"trimtab": {"expand": "yes"}}, "trimtab.expand"),
    ],
)
def test_what_cannot_be_expanded_is_refused(chat: Client, surface: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as refused:
        chat.ask(surface, **more)
    assert said in str(refused.value)
    assert chat.sent == []


@pytest.mark.parametrize("surface", SURFACES)
def test_an_error_is_told_in_the_callers_tongue(each: Client, surface: str) -> None:
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
        each.ask(surface, bad_request("too long"))
    with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)):
        each.ask(surface, expand(query="badge"), status(500))


@pytest.mark.parametrize("surface", SURFACES)
def test_a_stream_that_cannot_go_on_says_so(chat: Client, surface: str) -> None:
    for steps in ((expand(query="badge"), status(500)), (expand(query="badge"), cut(2))):
        # OpenAI's helper for response streams hands an error event on, and misses the response at the end.
        with pytest.raises(
            (openai.APIError, anthropic.APIError, RuntimeError), match=r"(?i)provider|response\.completed"
        ):
            chat.ask(surface, *steps, stream=True)


def test_the_stream_ends_with_usage_receipt_and_done(chat: Client) -> None:
    chat.server.then(Step(text=None, tool_calls=expand(query="badge").tool_calls, usage=USAGE), ok("K7.", usage=USAGE))
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "stream": True, "trimtab": ASKS}
    answer = chat.http.post("/v1/chat/completions", json={**body, "stream_options": {"include_usage": True}})
    stream, receipt, _ = without_receipt_event(answer.content)
    *_, usage, done = stream.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    assert json.loads(usage.removeprefix(b"data: "))["usage"]["prompt_tokens"] == 2_000
    assert receipt["input_tokens_billed"] == 2_000
    assert len(receipt["expansions"]) == 1
    chat.server.then(expand(query="badge"), ok("K7."))
    quiet = chat.http.post("/v1/chat/completions", json=body).content
    assert b'"prompt_tokens"' not in without_receipt_event(quiet)[0]

"""A prefix is marked for a provider that caches only what is marked, when it is worth it, and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from benchmarks.caching_provider import CachingProvider, caching_provider
from compressor.prompts import CHAT, MESSAGES, RESPONSES
from tests.loopback import LoopbackProvider, status
from tests.loopback_tongues import ANTHROPIC
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.asking import KEY, KEY_ENV, provider, serving_of
from tests.trimtab.talking import LONG_RULES, RULES, as_bytes, asks, bare, chunk, clocked, marks
from trimtab import Trimtab, pipeline
from trimtab.cache_marks import MARK, last_mark, marked
from trimtab.prepared import Prepared

PRICES = {"input_mtok": "2", "output_mtok": "10", "cache_read_mtok": "0.2", "cache_write_mtok": "2.5"}
DEAR = {name: f"{usd}0" for name, usd in {**PRICES, "cache_read_mtok": "2", "cache_write_mtok": "25"}.items()}
TEXT = {"type": "text", "text": "And?"}
SAYS = {"role": "user", "content": [TEXT]}


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("marks"))
    monkeypatch.setenv(KEY_ENV, KEY)


def requests(turns: int, rules: str = LONG_RULES, **more: Any) -> Iterator[dict[str, Any]]:
    """The chat completions of a conversation with chunks in every turn."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": rules}]
    for turn in range(turns):
        messages.append(
            {"role": "user", "content": asks("keys", [chunk(2 * turn, "keys"), chunk(2 * turn + 1, "seats")])}
        )
        yield {"model": "m", "messages": [*messages], "max_tokens": 64, "trimtab": {"ratio": 0.5}, **more}
        messages.append({"role": "assistant", "content": "So it is."})


def native(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion as a request of Anthropic's own API."""
    system, *messages = body["messages"]
    return {**body, "system": system["content"], "messages": messages}


@contextmanager
def edge(*providers: Mapping[str, Any]) -> Iterator[tuple[httpx.Client, Trimtab]]:
    trimtab = Trimtab(providers=list(providers))
    with serving_of(trimtab) as client:
        yield client, trimtab


def anthropic(server: LoopbackProvider, name: str = "a", prices: Mapping[str, str] = PRICES) -> dict[str, Any]:
    return provider(name, server, api_key_env=KEY_ENV, prices=prices)


def sent_by(client: httpx.Client, server: LoopbackProvider, body: Mapping[str, Any], path: str) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    sent: dict[str, Any] = server.requests[-1].json
    return sent


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_one_mark_from_the_second_turn_on_at_the_end_of_what_comes_back(path: str) -> None:
    with LoopbackProvider(tongue=ANTHROPIC) as server, edge(anthropic(server)) as (client, _):
        counts, before = [], list[bytes]()
        for number, body in enumerate(requests(5)):
            sent = sent_by(client, server, native(body) if path == "/v1/messages" else body, path)
            counts.append(marks(sent))
            if number:
                assert sent["messages"][-1]["content"][-1]["cache_control"] == MARK["cache_control"]
            shown = as_bytes(bare(sent["messages"]))
            assert shown[: len(before)] == before
            before = shown
        assert counts == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("rules", "prices"),
    [
        pytest.param(RULES, PRICES, id="shorter than what the cache takes"),
        pytest.param(LONG_RULES, {**PRICES, "cache_read_mtok": "2"}, id="read for as much as it costs without a cache"),
        pytest.param(LONG_RULES, {**PRICES, "cache_write_mtok": "40"}, id="too dear to write"),
    ],
)
def test_nothing_is_marked_that_does_not_pay(rules: str, prices: Mapping[str, str]) -> None:
    with LoopbackProvider(tongue=ANTHROPIC) as server, edge(anthropic(server, prices=prices)) as (client, _):
        for body in requests(5, rules):
            assert marks(sent_by(client, server, body, "/v1/chat/completions")) == 0


def test_single_questions_are_not_marked_until_they_share_a_beginning() -> None:
    with LoopbackProvider(tongue=ANTHROPIC) as server, edge(anthropic(server)) as (client, _):
        for number in range(6):
            body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": f"{LONG_RULES} {number}"}]}
            assert marks(sent_by(client, server, body, "/v1/messages")) == 0
        for number in range(4):
            body = {**body, "system": LONG_RULES, "messages": [{"role": "user", "content": f"Why {number}?"}]}
            sent = sent_by(client, server, body, "/v1/messages")
            assert sent["system"] == ([{"type": "text", "text": LONG_RULES, **MARK}] if number else LONG_RULES)
            assert marks(sent) == bool(number)


def test_openai_never_sees_a_mark() -> None:
    with LoopbackProvider() as server, edge(provider("o", server, prices=PRICES)) as (client, _):
        for body in requests(5):
            assert b"cache_control" not in sent_by_bytes(client, server, body)


def sent_by_bytes(client: httpx.Client, server: LoopbackProvider, body: Mapping[str, Any]) -> bytes:
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    return server.requests[-1].body


@pytest.mark.parametrize("other", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
def test_whoever_stands_in_gets_the_body_without_the_mark(other: str, stream: bool) -> None:
    with (
        LoopbackProvider(tongue=ANTHROPIC) as first,
        LoopbackProvider(tongue=ANTHROPIC if other == "anthropic" else None) as second,
        edge(anthropic(first), provider("b", second, api_key_env=KEY_ENV, prices=DEAR)) as (client, _),
    ):
        for number, body in enumerate(requests(3, stream=stream)):
            if number:
                first.then(status(500))
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200
            assert len(second.requests) == number
            if number:
                failed, stood_in = first.requests[-1].json, second.requests[-1].json
                assert (marks(failed), marks(stood_in)) == (1, 0)
                if other == "anthropic":
                    assert bare(stood_in["messages"]) == bare(failed["messages"])


@pytest.mark.parametrize("where", ["in a message", "in the system prompt", "on the whole", "in the tools"])
def test_a_caller_that_marks_is_left_to_it(where: str) -> None:
    with LoopbackProvider(tongue=ANTHROPIC) as server, edge(anthropic(server)) as (client, _):
        for turn, body in enumerate(map(native, requests(4))):
            own = dict(body)
            if where == "in a message":
                first = {"role": "user", "content": [{"type": "text", "text": body["messages"][0]["content"], **MARK}]}
                own["messages"] = [first, *body["messages"][1:]]
            elif where == "in the system prompt":
                own["system"] = [{"type": "text", "text": body["system"], **MARK}]
            elif where == "on the whole":
                own |= MARK
            else:
                own["tools"] = [{"name": "read", "input_schema": {"type": "object"}, **MARK}]
            sent = sent_by(client, server, own, "/v1/messages")
            assert marks(sent) == 1, turn
            if where in ("in a message", "on the whole"):  # up to there, nothing may be touched
                assert sent["messages"][0] == own["messages"][0]


class TestThePlanKnowsWhatIsCached:
    @contextmanager
    def caching(self) -> Iterator[tuple[Trimtab, CachingProvider]]:
        with caching_provider("anthropic") as server:
            own = {"name": "a", "kind": "anthropic", "base_url": server.base_url, "models": ["m"], "prices": PRICES}
            yield Trimtab(providers=[own]), server

    def test_no_more_is_expected_to_be_read_than_was_marked(self) -> None:
        """What was sent without a mark is in no cache, and a plan that took it for warm would be cheap on paper only."""
        with self.caching() as (trimtab, server):
            for number, body in enumerate(requests(5)):
                prepared = trimtab.prepare(body)
                candidate = prepared.plan.chosen
                trimtab.complete(body)
                usage = server.usages[-1]
                read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
                assert (candidate.cache_read_tokens > 0) == (read > 0) == (number >= 2)
                assert candidate.cache_read_tokens == pytest.approx(read, rel=0.02)
                assert candidate.cache_write_tokens == pytest.approx(written, rel=0.1, abs=30)

    def test_a_mark_that_was_never_answered_wrote_nothing(self) -> None:
        with LoopbackProvider(tongue=ANTHROPIC) as server, edge(anthropic(server)) as (client, trimtab):
            bodies = list(requests(3))
            client.post("/v1/chat/completions", json=bodies[0])
            server.then(status(400))
            assert client.post("/v1/chat/completions", json=bodies[1]).status_code == 400
            assert marks(server.requests[-1].json) == 1
            assert trimtab.prepare(bodies[2]).plan.chosen.cache_read_tokens == 0

    def test_what_was_written_cools_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with self.caching() as (trimtab, _):
            clock, bodies = clocked(trimtab), list(requests(5))
            for body in bodies[:3]:
                trimtab.complete(body)
            assert trimtab.prepare(bodies[3]).plan.chosen.cache_read_tokens > 4_096
            clock.now_s += 301
            assert trimtab.prepare(bodies[4]).plan.chosen.cache_read_tokens == 0

    def test_the_callers_own_marks_count(self) -> None:
        with self.caching() as (trimtab, _):
            system = [{"type": "text", "text": LONG_RULES, **MARK}]
            body = {"model": "m", "max_tokens": 9, "system": system, "messages": [{"role": "user", "content": "Why?"}]}
            trimtab_learns(trimtab, body)
            again = {**body, "messages": [{"role": "user", "content": "How?"}]}
            held = trimtab.experience.standings(
                trimtab.prepare(again, api=MESSAGES).offers,
                trimtab.prepare(again, api=MESSAGES).chain,
                input_tokens=9,
            )
            assert [each.warm_tokens > 4_096 for each in held.values()] == [True]


def trimtab_learns(trimtab: Trimtab, body: Mapping[str, Any]) -> Prepared:
    """`body` sent, and learned from, as the server does it for Anthropic's API."""
    import asyncio

    from routing.tongues import MESSAGES as TONGUE

    prepared = trimtab.prepare(body, api=MESSAGES)

    async def ask() -> None:
        async with trimtab.router() as router:
            trimtab.learn(prepared, await trimtab.forward(prepared, router, stream=False, tongue=TONGUE))

    asyncio.run(ask())
    return prepared


class TestContextsBesideTheConversation:
    def test_the_mark_stands_before_them(self) -> None:
        """They come back in no later request, and neither does what follows them as it was read."""
        with LoopbackProvider(tongue=ANTHROPIC) as server, edge(anthropic(server)) as (client, _):
            messages: list[dict[str, Any]] = []
            for turn in range(4):
                messages.append({"role": "user", "content": "What do the keys cost?"})
                options = {"contexts": [chunk(turn, "keys"), chunk(50 + turn, "seats")], "ratio": 0.5}
                body = {
                    "model": "m",
                    "max_tokens": 9,
                    "system": LONG_RULES,
                    "messages": [*messages],
                    "trimtab": options,
                }
                sent = sent_by(client, server, body, "/v1/messages")
                (beside,) = [at for at, each in enumerate(sent["messages"]) if "<context>" in str(each["content"])]
                assert beside == len(sent["messages"]) - 2
                assert marks(sent["messages"][beside:]) == 0
                assert marks(sent) == (turn > 0)
                messages.append({"role": "assistant", "content": "So it is."})

    def test_an_agent_that_gives_them_with_every_call_has_its_own_turns_marked(self) -> None:
        """They stand before the question, so that each later message is one further on than the agent counts it."""
        with LoopbackProvider(tongue=ANTHROPIC) as server, edge(anthropic(server)) as (client, _):
            messages: list[dict[str, Any]] = [{"role": "user", "content": "What do the keys cost?"}]
            options = {"contexts": [chunk(1, "keys"), chunk(2, "seats")], "ratio": 0.5}
            for step in range(3):
                body = {
                    "model": "m",
                    "max_tokens": 9,
                    "system": LONG_RULES,
                    "messages": [*messages],
                    "trimtab": options,
                }
                sent = sent_by(client, server, body, "/v1/messages")
                assert "<context>" in str(sent["messages"][0])
                assert [marks(each) for each in sent["messages"][1:]] == [
                    0,
                    *([0, 0] * (step - 1) + [1, 0] if step else []),
                ]
                call = {"type": "tool_use", "id": f"t{step}", "name": "read", "input": {}}
                messages.append({"role": "assistant", "content": [call]})
                result = {"type": "tool_result", "tool_use_id": f"t{step}", "content": "Nothing."}
                messages.append({"role": "user", "content": [result]})


BLOCKS: dict[str, dict[str, Any]] = {
    "thinking": {"type": "thinking", "thinking": "Hm.", "signature": "x"},
    "redacted thinking": {"type": "redacted_thinking", "data": "x"},
    "a blank text": {"type": "text", "text": " \n"},
    "what nobody has heard of": {"type": "container_upload", "file_id": "f"},
}


class TestWhatBearsAMark:
    @pytest.mark.parametrize("kind", BLOCKS)
    def test_the_last_block_that_can(self, kind: str) -> None:
        body = {"messages": [{"role": "assistant", "content": [TEXT, BLOCKS[kind]]}]}
        assert marked(MESSAGES, body, 0) == {
            "messages": [{"role": "assistant", "content": [{**TEXT, **MARK}, BLOCKS[kind]]}]
        }
        assert marked(MESSAGES, {"messages": [{"role": "assistant", "content": [BLOCKS[kind]]}]}, 0) is None

    @pytest.mark.parametrize("content", [None, "", " ", [], [None], 7, {"type": "text"}])
    def test_nothing_where_there_is_no_text(self, content: object) -> None:
        assert marked(CHAT, {"messages": [{"role": "user", "content": content}]}, 0) is None
        assert marked(MESSAGES, {"system": content, "messages": [SAYS]}, -1) is None

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "tool_use", "id": "t", "name": "read", "input": {}},
            {"type": "tool_result", "tool_use_id": "t", "content": "x"},
            {"type": "image", "source": {}},
            {"type": "document", "source": {}},
        ],
        ids=lambda block: str(block["type"]),
    )
    def test_results_and_media_do(self, block: dict[str, Any]) -> None:
        made = marked(MESSAGES, {"messages": [SAYS, {"role": "user", "content": [TEXT, block]}]}, 1)
        assert made == {"messages": [SAYS, {"role": "user", "content": [TEXT, {**block, **MARK}]}]}

    def test_a_text_becomes_the_block_that_it_stands_for(self) -> None:
        body = {"system": "Be brief.", "messages": [{"role": "user", "content": "And?"}]}
        assert marked(MESSAGES, body, -1) == {**body, "system": [{"type": "text", "text": "Be brief.", **MARK}]}
        assert marked(MESSAGES, body, 0) == {**body, "messages": [{"role": "user", "content": [{**TEXT, **MARK}]}]}
        assert body == {"system": "Be brief.", "messages": [{"role": "user", "content": "And?"}]}

    @pytest.mark.parametrize("turn", [1, 9])
    def test_a_turn_that_is_not_there_bears_none(self, turn: int) -> None:
        assert marked(CHAT, {"messages": [SAYS]}, turn) is None

    def test_responses_have_no_such_mark(self) -> None:
        assert marked(RESPONSES, {"input": [SAYS]}, 0) is None


@pytest.mark.parametrize(
    ("body", "turn"),
    [
        ({"messages": [SAYS]}, None),
        ({"messages": [{"role": "user", "content": [{**TEXT, "cache_control": None}]}]}, None),
        ({"system": [{**TEXT, **MARK}], "messages": [SAYS]}, -1),
        ({"tools": [{"name": "t", **MARK}], "messages": [SAYS]}, -1),
        ({"messages": [{"role": "user", "content": [{**TEXT, **MARK}]}, SAYS]}, 0),
        ({"messages": [SAYS, {"role": "user", "content": "And?", **MARK}], "system": [{**TEXT, **MARK}]}, 1),
        ({"messages": [SAYS, SAYS], **MARK}, 1),
        ({"messages": [{"role": "user", "content": [{**TEXT, "prompt_cache_breakpoint": {}}]}]}, 0),
    ],
)
def test_the_last_mark_is_found_wherever_it_stands(body: dict[str, Any], turn: int | None) -> None:
    assert last_mark(MESSAGES, body) == turn
    assert (marked(MESSAGES, body, 0) is None) == (turn is not None)

"""A conversation's earlier turns are sent as they were sent before, to the byte, for as long as that is worth something."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor import Ranker, Ranking
from compressor.prompts import CHAT, MESSAGES, RESPONSES
from tests.loopback import LoopbackProvider, ok, status
from tests.loopback_tongues import ANTHROPIC
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.asking import KEY, KEY_ENV, provider, serving_of
from tests.trimtab.talking import LONG_RULES, TOPICS, Clock, Where, as_bytes, asks, bare, chunk, clocked, tagged
from trimtab import Trimtab, pipeline
from trimtab.conversations import Conversations, chain
from trimtab.prepared import Prepared

SIZE: Final = {"ratio": 0.4}


@dataclass(frozen=True, slots=True)
class Turn:
    """What is asked in a turn, where its chunks stand, and how the answer is wanted."""

    topic: str
    seeds: tuple[int, ...] = ()
    where: Where = "message"
    stream: bool = False

    @property
    def chunks(self) -> list[str]:
        return [chunk(seed, self.topic) for seed in self.seeds]


@dataclass(slots=True)
class Talk:
    """A chat client in a conversation, in the API's shapes; `surface` is "chat/completions" or "messages"."""

    surface: str
    rules: str = LONG_RULES
    messages: list[dict[str, Any]] = field(default_factory=list)

    def body(self, turn: Turn) -> dict[str, Any]:
        """The request of the next turn, which is in the conversation from now on."""
        chat = self.surface == "chat/completions"
        options: dict[str, Any] = dict(SIZE)
        if turn.where == "message" or not turn.seeds:
            self._say("user", asks(turn.topic, turn.chunks))
        else:
            self._say("user", asks(turn.topic))
        if turn.seeds and turn.where == "beside":
            options["contexts"] = turn.chunks
        if turn.seeds and turn.where == "tool":
            self._read_with_a_tool(tagged(turn.chunks), chat)
        system = {"role": "system", "content": self.rules}
        prompt = (
            {"messages": [system, *self.messages]} if chat else {"system": self.rules, "messages": [*self.messages]}
        )
        return {"model": "m", "max_tokens": 64, **prompt, "stream": turn.stream, "trimtab": options}

    def answered(self, text: str) -> None:
        self._say("assistant", text)

    def _say(self, role: str, content: Any) -> None:
        self.messages.append({"role": role, "content": content})

    def _read_with_a_tool(self, found: str, chat: bool) -> None:
        name = f"call_{len(self.messages)}"
        if chat:
            function = {"name": "read", "arguments": "{}"}
            call = {"id": name, "type": "function", "function": function}
            self.messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            self.messages.append({"role": "tool", "tool_call_id": name, "content": found})
        else:
            self._say("assistant", [{"type": "tool_use", "id": name, "name": "read", "input": {}}])
            self._say("user", [{"type": "tool_result", "tool_use_id": name, "content": found}])


@dataclass(frozen=True, slots=True)
class Edge:
    surface: str
    client: httpx.Client
    server: LoopbackProvider
    trimtab: Trimtab

    def forwarded(self, body: Mapping[str, Any], answer: str = "So it is.") -> dict[str, Any]:
        """What the provider got for `body`."""
        self.server.then(ok(answer))
        got = self.client.post(f"/v1/{self.surface}", json=body)
        assert got.status_code == 200, got.text
        sent: dict[str, Any] = self.server.requests[-1].json
        return sent

    def shown(self, sent: Mapping[str, Any]) -> list[bytes]:
        """The messages as bytes. Anthropic's as its cache tells them apart, since marks are no part of a prefix."""
        return as_bytes(bare(sent["messages"]) if self.surface == "messages" else sent["messages"])


@pytest.fixture(scope="module", params=["chat/completions", "messages"])
def edge(request: pytest.FixtureRequest) -> Iterator[Edge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("conversations"))
        patch.setenv(KEY_ENV, KEY)
        tongue = ANTHROPIC if request.param == "messages" else None
        with LoopbackProvider(tongue=tongue) as server:
            trimtab = Trimtab(providers=[provider("a", server, api_key_env=KEY_ENV)])
            with serving_of(trimtab) as client:
                yield Edge(request.param, client, server, trimtab)


def turns(where: st.SearchStrategy[Where]) -> st.SearchStrategy[list[Turn]]:
    seeds = st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True).map(tuple) | st.just(())
    turn = st.builds(Turn, st.sampled_from(TOPICS), seeds, where, st.booleans())
    return st.lists(turn, min_size=10, max_size=10)


class TestEachTurnExtendsTheLast:
    @given(talk=turns(st.sampled_from(["message", "tool", "beside"])))
    @settings(max_examples=6, deadline=None)
    def test_to_the_byte_wherever_contexts_stand(self, edge: Edge, talk: list[Turn]) -> None:
        """Contexts beside the conversation are in no later request; all that stands before them is."""
        edge.trimtab.forget()
        client, before = Talk(edge.surface), list[bytes]()
        for number, turn in enumerate(talk):
            body = client.body(turn)
            shown = edge.shown(edge.forwarded(body, f"Answer {number}."))
            assert shown[: len(before)] == before
            beside = [at for at, each in enumerate(shown) if b"<context>" in each]
            assert len(beside) == (turn.where == "beside" and bool(turn.seeds))
            before = shown[: beside[0]] if beside else shown
            client.answered(f"Answer {number}.")

    @pytest.mark.parametrize("where", ["message", "tool"])
    def test_and_the_turns_are_cut_ones(self, edge: Edge, where: Where) -> None:
        edge.trimtab.forget()
        client, sizes = Talk(edge.surface), []
        for topic in TOPICS[:4]:
            body = client.body(Turn(topic, (1, 2, 3), where))
            sizes.append((len(orjson.dumps(body["messages"])), len(orjson.dumps(edge.forwarded(body)["messages"]))))
            client.answered("So it is.")
        first, last = sizes[0], sizes[-1]
        assert last[0] - last[1] > 3.5 * (first[0] - first[1]) > 300

    def test_a_turn_that_went_whole_while_its_contexts_stood_beside_it_stays_whole(self, edge: Edge) -> None:
        edge.trimtab.forget()
        client, beside = Talk(edge.surface), {"contexts": ["The seats of plan 9 cost 9 dollars.", "Keys rotate."]}
        for topic in ("seats", "keys"):  # the first is in the second's prefix, and was not looked through for chunks
            own = client.body(Turn(topic, (2, 3)))
            edge.forwarded(own | {"trimtab": beside})
            client.answered("So it is.")
        whole = edge.shown(own)[-3]
        for topic in ("regions", "quotas"):
            assert whole in edge.shown(edge.forwarded(client.body(Turn(topic, (4,)))))
            client.answered("So it is.")

    def test_the_question_of_a_settled_turn_is_not_its_contexts(
        self, edge: Edge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An agent's tool answers a question that was asked, with documents, a request ago."""
        edge.trimtab.forget()
        client, queries = Talk(edge.surface), list[str]()
        rank = Ranker.rank

        def listening(ranker: Ranker, query: str, *rest: Any) -> Ranking:
            queries.append(query)
            return rank(ranker, query, *rest)

        monkeypatch.setattr(Ranker, "rank", listening)
        edge.forwarded(client.body(Turn("invoices", (1, 2))))
        client._read_with_a_tool(tagged([chunk(3, "invoices"), chunk(4, "keys")]), edge.surface == "chat/completions")
        system = {"role": "system", "content": client.rules}
        prompt = (
            {"messages": [system, *client.messages]}
            if edge.surface == "chat/completions"
            else {"system": client.rules, "messages": client.messages}
        )
        edge.forwarded({"model": "m", "max_tokens": 64, **prompt, "trimtab": SIZE})
        assert queries == ["What do the invoices cost?", "What do the invoices cost?\nread {}"]


class TestWhoeverLeavesThePathIsServedFromThereOn:
    def two_turns(self, edge: Edge) -> tuple[Talk, list[bytes]]:
        edge.trimtab.forget()
        client, shown = Talk(edge.surface), list[bytes]()
        for topic in ("keys", "seats"):
            shown = edge.shown(edge.forwarded(client.body(Turn(topic, (1, 2, 3)))))
            client.answered("So it is.")
        return client, shown

    @pytest.mark.parametrize("what", ["another answer", "an earlier question", "a turn less", "one byte"])
    def test_an_edited_turn_and_all_behind_it_are_cut_anew(self, edge: Edge, what: str) -> None:
        client, before = self.two_turns(edge)
        system = int(edge.surface == "chat/completions")
        last = len(client.messages) - 1
        if what == "another answer":
            client.messages[last] = {"role": "assistant", "content": "Or is it?"}
            same = system + last
        elif what == "an earlier question":
            client.messages[0] = {"role": "user", "content": asks("quotas", [chunk(7, "quotas"), chunk(8, "keys")])}
            same = system
        elif what == "a turn less":
            del client.messages[2:]
            same = system + 2
        else:
            client.messages[0] = {**client.messages[0], "content": client.messages[0]["content"].replace("7", "8", 1)}
            same = system
        body = client.body(Turn("regions", (4, 5)))
        shown = edge.shown(edge.forwarded(body))
        own = edge.shown(body)
        assert len(shown) == len(own)
        assert shown[:same] == before[:same]
        assert shown[same:][:1] != before[same:][:1]
        again = Talk(edge.surface, messages=[*client.messages, {"role": "assistant", "content": "Good."}])
        assert edge.shown(edge.forwarded(again.body(Turn("keys", (6,)))))[: len(shown)] == shown

    def test_a_question_that_is_asked_again_gets_the_cut_that_it_asks_for(self, edge: Edge) -> None:
        client, before = self.two_turns(edge)
        body = client.body(Turn("regions", (4, 5, 6)))
        little, much = edge.forwarded(body), edge.forwarded({**body, "trimtab": {"ratio": 1.0}})
        assert edge.shown(much)[-1] == edge.shown(body)[-1]
        assert len(edge.shown(little)[-1]) < len(edge.shown(much)[-1])
        assert edge.shown(much)[:-1] == edge.shown(little)[:-1] == [*before, edge.shown(body)[-2]]
        client.answered("So it is.")
        assert edge.shown(much)[-1] in edge.shown(edge.forwarded(client.body(Turn("keys", (7,)))))

    def test_another_callers_conversation_gets_nothing_of_it(self, edge: Edge) -> None:
        client, before = self.two_turns(edge)
        other = Talk(edge.surface, rules=client.rules + " ", messages=[*client.messages])
        shown = edge.shown(edge.forwarded(other.body(Turn("quotas", (4,)))))
        system = int(edge.surface == "chat/completions")
        assert shown[system] != before[system]

    def test_what_was_never_answered_is_not_taken_for_sent(self, edge: Edge) -> None:
        edge.trimtab.forget()
        client = Talk(edge.surface)
        body = client.body(Turn("keys", (1, 2, 3)))
        edge.server.then(*[status(400)] * 1)
        assert edge.client.post(f"/v1/{edge.surface}", json=body).status_code == 400
        assert edge.trimtab.conversations.resumed(CHAT, body, chain(CHAT, body))[1] == 0


class TestWhatGoesCold:
    """The cache's lifetime by a clock of the test's own."""

    @pytest.fixture
    def cooling(self, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Clock:
        edge.trimtab.forget()
        monkeypatch.setattr(edge.trimtab, "experience", edge.trimtab.experience)
        return clocked(edge.trimtab)

    def test_is_cut_anew_for_the_question_at_hand_and_then_stays(self, edge: Edge, cooling: Clock) -> None:
        client = Talk(edge.surface)
        both = (chunk(1, "keys"), chunk(2, "seats"), chunk(3, "quotas"))
        client.messages.append({"role": "user", "content": asks("keys", both)})
        first = edge.shown(edge.forwarded(self.request(client)))
        client.answered("So it is.")
        cooling.now_s += 299
        client.messages.append({"role": "user", "content": asks("seats", [chunk(4, "seats"), chunk(5, "keys")])})
        second = edge.shown(edge.forwarded(self.request(client)))
        assert second[: len(first)] == first
        client.answered("So it is.")
        cooling.now_s += 301
        client.messages.append({"role": "user", "content": asks("quotas", [chunk(6, "quotas"), chunk(7, "keys")])})
        third = edge.shown(edge.forwarded(self.request(client)))
        assert third[: len(first)] != first
        client.answered("So it is.")
        for topic in ("regions", "refunds"):
            cooling.now_s += 200
            client.messages.append({"role": "user", "content": asks(topic, [chunk(8, topic), chunk(9, "keys")])})
            shown = edge.shown(edge.forwarded(self.request(client)))
            assert shown[: len(third)] == third
            client.answered("So it is.")

    def request(self, client: Talk) -> dict[str, Any]:
        chat = client.surface == "chat/completions"
        system = {"role": "system", "content": client.rules}
        prompt = (
            {"messages": [system, *client.messages]}
            if chat
            else {"system": client.rules, "messages": [*client.messages]}
        )
        return {"model": "m", "max_tokens": 64, **prompt, "trimtab": {"ratio": 0.25}}


def request_of(*words: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": each} for each in words], **more}


TEXTS = st.lists(st.text(max_size=5), min_size=1, max_size=5)


class TestDigests:
    @given(TEXTS, TEXTS)
    def test_agree_as_far_as_the_turns_do(self, one: list[str], other: list[str]) -> None:
        first, second = chain(CHAT, request_of(*one)), chain(CHAT, request_of(*other))
        assert (len(first), len(second)) == (len(one) + 1, len(other) + 1)
        for turns in range(1, min(len(one), len(other)) + 1):
            assert (first[turns] == second[turns]) == (one[:turns] == other[:turns])

    @pytest.mark.parametrize(
        "more",
        [{"stream": True}, {"max_tokens": 9}, {"max_completion_tokens": 9}, {"temperature": 0}, {"trimtab": SIZE}],
    )
    def test_know_nothing_of_how_an_answer_is_wanted(self, more: dict[str, Any]) -> None:
        assert chain(CHAT, request_of("a", **more)) == chain(CHAT, request_of("a"))

    @pytest.mark.parametrize("more", [{"model": "n"}, {"tools": [{}]}, {"system": "x"}, {"tool_choice": "none"}])
    def test_know_what_stands_before_the_conversation(self, more: dict[str, Any]) -> None:
        assert set(chain(CHAT, request_of("a") | more)).isdisjoint(chain(CHAT, request_of("a")))

    @pytest.mark.parametrize("odd", [10**30, "\ud800", 1e999, {"deep": [None, True, 0.1]}])
    def test_take_whatever_json_can_hold(self, odd: object) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": odd}], "seed": odd}
        assert chain(CHAT, body) == chain(CHAT, {**body}) != chain(CHAT, request_of("a"))

    def test_a_text_alone_is_one_turn(self) -> None:
        assert len(chain(RESPONSES, {"model": "m", "input": "a"})) == 2


class TestMemory:
    def noted(self, held: Conversations, *words: str, cut: str | None = None) -> None:
        asked = request_of(*words)
        sent = request_of(*words[:-1], words[-1] if cut is None else cut)
        held.sent(CHAT, asked, chain(CHAT, asked), sent)

    def test_a_turn_that_went_as_it_came_is_the_callers_own(self) -> None:
        """Nothing of it is held, so that memory is bounded by what is counted."""
        held = Conversations()
        self.noted(held, "x" * 1_000_000)
        assert held._bytes < 1_000
        body = request_of("x" * 1_000_000, "and?")
        resumed, turns = held.resumed(CHAT, body, chain(CHAT, body))
        assert turns == 1
        assert resumed["messages"][0] is body["messages"][0]

    def test_is_bounded_and_the_oldest_goes_first(self) -> None:
        held = Conversations(max_bytes=50_000)
        for number in range(500):
            self.noted(held, f"question {number}", cut=f"cut {number} " + "x" * 1_000)
            assert held._bytes <= 50_000
            assert held._bytes == sum(kept.size_bytes for kept in held._sent.values())
        assert 20 < len(held._sent) < 50
        for number, known in ((0, 0), (499, 1)):
            body = request_of(f"question {number}", "and?")
            assert held.resumed(CHAT, body, chain(CHAT, body))[1] == known

    def test_the_latest_of_two_cuts_holds(self) -> None:
        held = Conversations()
        for cut in ("first", "second"):
            self.noted(held, "question", cut=cut)
        body = request_of("question", "and?")
        assert held.resumed(CHAT, body, chain(CHAT, body))[0] == request_of("second", "and?")
        assert held._bytes == sum(kept.size_bytes for kept in held._sent.values())

    def test_forgets(self) -> None:
        held = Conversations()
        self.noted(held, "question", cut="cut")
        held.forget()
        body = request_of("question", "and?")
        assert (held.resumed(CHAT, body, chain(CHAT, body)), held._bytes) == ((body, 0), 0)

    def test_many_threads_at_once(self) -> None:
        held, failed = Conversations(max_bytes=20_000), list[BaseException]()

        def talk(person: int) -> None:
            try:
                words: list[str] = []
                for turn in range(60):
                    words.append(f"{person % 2} says {turn}")  # two conversations, of four people each
                    body = request_of(*words)
                    resumed, settled = held.resumed(CHAT, body, chain(CHAT, body))
                    for at, message in enumerate(resumed["messages"]):
                        assert message["content"] in (words[at], f"cut {words[at]}")
                    assert settled < len(words)
                    held.sent(CHAT, body, chain(CHAT, body), request_of(*(f"cut {each}" for each in words)))
            except BaseException as error:  # noqa: BLE001 (told by the test's own thread)
                failed.append(error)

        threads = [threading.Thread(target=talk, args=(person,)) for person in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert held._bytes == sum(kept.size_bytes for kept in held._sent.values()) <= 20_000


def test_a_defect_in_the_memory_costs_the_trimming_and_no_answer(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.trimtab.forget()
    body = Talk(edge.surface).body(Turn("keys", (1, 2)))

    def broken(*_: object, **__: object) -> Any:
        raise IndexError("a secret")

    monkeypatch.setattr(Conversations, "resumed", broken)
    sent = edge.forwarded(body)
    assert edge.shown(sent) == edge.shown(body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "broken_part", ["trimtab.conversations.Conversations.sent", "trimtab.experience.Experience.answered"]
)
def test_what_cannot_be_learned_costs_no_answer(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool, broken_part: str
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise IndexError("a secret of the prompt")

    monkeypatch.setattr(broken_part, broken)
    body = Talk(edge.surface).body(Turn("keys", (1, 2), stream=stream))
    edge.server.then(ok("Known."))
    got = edge.client.post(f"/v1/{edge.surface}", json=body)
    assert got.status_code == 200
    assert "Known" in got.text
    assert "rcpt_" in got.text
    assert "nothing was learned from an answer (IndexError)" in caplog.text
    assert "secret" not in caplog.text
    if edge.surface == "chat/completions" and not stream:
        assert edge.trimtab.complete(body).status == 200


def test_a_prepared_request_that_is_not_sent_is_not_remembered(edge: Edge) -> None:
    edge.trimtab.forget()
    api = MESSAGES if edge.surface == "messages" else CHAT
    client = Talk(edge.surface)
    prepared = edge.trimtab.prepare(client.body(Turn("keys", (1, 2))), api=api)
    assert isinstance(prepared, Prepared)
    client.answered("So it is.")
    assert edge.trimtab.prepare(client.body(Turn("seats")), api=api).request.settled_turns == 0

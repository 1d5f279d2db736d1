"""A request understood and counted: how many tokens stand up to the end of each message, and which cannot change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor import Source
from compressor.payload import APART, parse
from compressor.prompts import CHAT, MESSAGES, Api
from compressor.tokens import count_tokens
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.talking import asks, chunk, tagged
from trimtab import Trimtab, pipeline
from trimtab.prepared import Prepared
from trimtab.request import IMAGE_TOKENS, MESSAGE_TOKENS, cap, fixed_tokens, links, max_output_tokens

ENCODING = "o200k_base"
MODEL = "gpt-6.1-sol"


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("requests"))
        return Trimtab()


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


CALL = {"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}
CHUNKS = [chunk(seed, topic) for seed, topic in enumerate(("keys", "seats", "quotas"))]
BODIES: dict[str, tuple[Api, dict[str, Any]]] = {
    "nothing to cut": (CHAT, {"messages": [said("system", "Be brief."), said("user", "Why?")]}),
    "in a message": (CHAT, {"messages": [said("system", "Be brief."), said("user", asks("keys", CHUNKS))]}),
    "in an earlier message": (
        CHAT,
        {"messages": [said("user", asks("keys", CHUNKS)), said("assistant", "7."), said("user", "And the seats?")]},
    ),
    "in a tool's result": (
        CHAT,
        {
            "messages": [
                said("user", "What do the keys cost?"),
                {**said("assistant", None), "tool_calls": [CALL]},
                {**said("tool", tagged(CHUNKS)), "tool_call_id": "c"},
            ]
        },
    ),
    "beside": (CHAT, {"messages": [said("system", "Be brief."), said("user", "What do the keys cost?")]}),
    "beside an agent's calls": (
        CHAT,
        {
            "messages": [
                said("user", "What do the keys cost?"),
                {**said("assistant", None), "tool_calls": [CALL]},
                {**said("tool", "Nothing."), "tool_call_id": "c"},
            ]
        },
    ),
    "beside, at Anthropic": (MESSAGES, {"system": "Be brief.", "messages": [said("user", "What do the keys cost?")]}),
}


def prepared(trimtab: Trimtab, name: str, ratio: float = 0.5) -> Prepared:
    api, body = BODIES[name]
    contexts = {"contexts": CHUNKS} if name.startswith("beside") else {}
    options = {"ratio": ratio, **contexts}
    return trimtab.prepare({"model": MODEL, **body, "trimtab": options}, api=api)


@pytest.mark.parametrize("name", BODIES)
class TestTheChain:
    def test_has_a_link_for_each_message_that_is_sent_and_one_before_them(self, trimtab: Trimtab, name: str) -> None:
        made = prepared(trimtab, name)
        assert len(made.chain) == len(made.body["messages"]) + 1
        assert len({link.digest for link in made.chain}) == len(made.chain)
        tokens = [link.tokens for link in made.chain]
        assert tokens == sorted(tokens)

    def test_counts_what_the_plan_counts(self, trimtab: Trimtab, name: str) -> None:
        made = prepared(trimtab, name)
        fixed = made.plan.chosen.input_tokens - made.plan.chosen.budget_tokens
        assert made.receipt.tokens_after is not None
        assert made.chain[-1].tokens == pytest.approx(fixed + made.receipt.tokens_after, abs=3)

    def test_begins_with_what_was_known_before_the_cut(self, trimtab: Trimtab, name: str) -> None:
        """The prefix that no cut can change, to the same digests and tokens; so it can be looked up while planning."""
        little, much = prepared(trimtab, name, 0.2), prepared(trimtab, name, 1.0)
        known = little.request.known_chain()
        assert len(known) >= 1
        assert known == little.chain[: len(known)] == much.chain[: len(known)]
        if name != "nothing to cut":
            assert little.chain[len(known)] != much.chain[len(known)]

    def test_numbers_each_message_of_the_callers_as_it_is_sent(self, trimtab: Trimtab, name: str) -> None:
        made = prepared(trimtab, name, 1.0)
        for turn, message in enumerate(made.request.asked["messages"]):
            sent = made.body["messages"][made.request.sent_turn(made.body, turn)]
            assert sent == message or tagged(CHUNKS[:1])[:40] in str(message)
        assert made.request.sent_turn(made.body, -1) == -1


def test_contexts_of_which_nothing_is_kept_take_no_place(trimtab: Trimtab) -> None:
    made = prepared(trimtab, "beside", 1e-9)
    assert made.body["messages"] == BODIES["beside"][1]["messages"]
    assert len(made.chain) == 3
    assert [made.request.sent_turn(made.body, turn) for turn in (-1, 0, 1)] == [-1, 0, 1]


def test_fixed_tokens_are_those_of_the_texts_and_of_the_template() -> None:
    body = {"messages": [said("system", "Be brief."), said("user", "Why is that so?")], "tools": [{"name": "read"}]}
    fixed = fixed_tokens(parse(CHAT, body), ENCODING)
    assert fixed[0] == count_tokens("Be brief.") + MESSAGE_TOKENS
    assert fixed[1] == count_tokens("Why is that so?") + MESSAGE_TOKENS
    assert fixed[-1] == count_tokens("name") + count_tokens("read")


def test_an_image_counts_and_contexts_beside_are_counted_apart() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.test/i.png"}}
    payload = parse(CHAT, {"messages": [said("user", [image, image])]})
    assert fixed_tokens(payload, ENCODING)[-1] == 2 * IMAGE_TOKENS

    apart = fixed_tokens(parse(CHAT, {"messages": [said("user", "Why?")]}, [Source("a", "A text.", "Title")]), ENCODING)
    assert apart[APART] == count_tokens('<document title="Title">\n\n</document>')


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=8))
@settings(deadline=None)
def test_links_add_up(counts: list[int]) -> None:
    digests = tuple(bytes([at]) for at in range(len(counts)))
    made = links(digests, dict(enumerate(counts, start=-1)))
    assert [link.digest for link in made] == list(digests)
    assert [link.tokens for link in made] == [sum(counts[: at + 1]) for at in range(len(counts))]
    assert links(digests, {APART: 99, 10_000: 99}) == tuple((digest, 0) for digest in digests)


@pytest.mark.parametrize(
    ("body", "answers", "tokens"),
    [
        ({}, 1, None),
        ({"max_tokens": 9}, 1, 9),
        ({"max_tokens": 9}, 3, 27),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 1, 7),
        ({"max_output_tokens": 5}, 1, 5),
        ({"max_tokens": 0}, 1, None),
        ({"max_tokens": True}, 1, None),
        ({"max_tokens": "9"}, 1, None),
        ({"max_tokens": None, "max_output_tokens": 4}, 1, 4),
    ],
)
def test_the_callers_own_maximum(body: dict[str, Any], answers: int, tokens: int | None) -> None:
    assert max_output_tokens(body, answers) == tokens


@pytest.mark.parametrize(
    ("ratio", "budget", "tokens"),
    [(None, None, None), (None, 7, 7), (0.5, None, 50), (1e-9, None, 0), (1.0, None, 100)],
)
def test_the_most_that_may_be_kept(ratio: float | None, budget: int | None, tokens: int | None) -> None:
    assert cap(100, ratio, budget) == tokens

"""What past answers teach: how long the next one is, how far our counts are off, and what is warm where."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from compressor.tokens import count_tokens
from routing.catalog import Catalog, Provider
from routing.offers import Offer, Usage
from routing.prompt_cache import Link
from routing.standing import called
from tests.loopback import LoopbackProvider, ok, status
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.asking import provider, serving_of
from tests.trimtab.talking import RULES, Clock
from trimtab import Trimtab, pipeline
from trimtab.experience import Experience

PRICES = {"input_mtok": "2", "output_mtok": "10", "cache_read_mtok": "0.2", "cache_write_mtok": "2.5"}
PROVIDERS = (
    Provider("o", "openai", "http://o.test/v1", None, ("m",), PRICES),
    Provider("a", "anthropic", "http://a.test", None, ("m",), PRICES),
)
CHAIN = [Link(bytes([at]), 2_000 * (at + 1)) for at in range(4)]


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("experience"))


def offers() -> dict[str, Offer]:
    return {each.provider: each for each in Catalog(PROVIDERS).offers(["m"], datetime(2026, 11, 24, tzinfo=UTC))}


class TestWhatIsWarm:
    def warm(self, experience: Experience, chain: list[Link] = CHAIN) -> dict[str, int]:
        held = experience.standings(tuple(offers().values()), chain, input_tokens=9_000)
        return {name: held[called(offer)].warm_tokens for name, offer in offers().items()}

    def test_where_it_was_sent_for_as_long_as_it_lives(self) -> None:
        clock = Clock()
        experience = Experience(Catalog(PROVIDERS), clock=clock)
        experience.answered(offers()["o"], CHAIN[:2], estimated_tokens=None, usage=None)
        assert self.warm(experience) == {"o": 4_000, "a": 0}
        assert experience.warm(tuple(offers().values()), CHAIN) == 4_000
        clock.now_s += 299
        assert self.warm(experience)["o"] == 4_000
        clock.now_s += 1
        assert self.warm(experience)["o"] == 0
        assert experience.warm(tuple(offers().values()), CHAIN) == 0

    @pytest.mark.parametrize(("marked_turn", "tokens"), [(None, 0), (-1, 0), (1, 6_000), (2, 8_000)])
    def test_up_to_the_mark_where_only_marks_are_cached(self, marked_turn: int | None, tokens: int) -> None:
        """The head alone, 2,000 tokens, is shorter than what Anthropic caches."""
        experience = Experience(Catalog(PROVIDERS), clock=Clock())
        experience.answered(offers()["a"], CHAIN, estimated_tokens=None, usage=None, marked_turn=marked_turn)
        assert self.warm(experience) == {"o": 0, "a": tokens}
        assert experience.warm(tuple(offers().values()), CHAIN) == 8_000  # read it was, and is worth sending unchanged

    def test_a_prefix_within_what_was_marked_is_no_entry_of_its_own(self) -> None:
        experience = Experience(Catalog(PROVIDERS), clock=Clock())
        experience.answered(offers()["a"], CHAIN, estimated_tokens=None, usage=None, marked_turn=2)
        assert self.warm(experience, [*CHAIN[:3], Link(b"other", 9_000)])["a"] == 0

    @pytest.mark.parametrize(("model", "tokens"), [("gpt-6.1-sol", 8_000), ("claude-sonnet-5-5", 0)])
    def test_where_middleware_calls_a_maker_by_its_models_name(self, model: str, tokens: int) -> None:
        """Nobody is configured: the client has the address. Middleware marks nothing, so Anthropic holds nothing."""
        experience = Experience(Catalog(), clock=Clock())
        (offer,) = Catalog().offers([model], datetime.now(UTC))
        experience.answered(offer, CHAIN, estimated_tokens=None, usage=None)
        assert experience.warm((offer,), CHAIN) == tokens

    def test_nothing_once_it_is_forgotten(self) -> None:
        experience = Experience(Catalog(PROVIDERS), clock=Clock())
        for name in ("o", "a"):
            usage = Usage(8_400, 50)
            experience.answered(offers()[name], CHAIN, estimated_tokens=8_000, usage=usage, marked_turn=2)
        experience.came(CHAIN)
        experience.forget()
        assert self.warm(experience) == {"o": 0, "a": 0}
        (standing, _) = experience.standings(tuple(offers().values()), CHAIN, input_tokens=9).values()
        assert (standing.output_tokens, standing.margin) == (None, 0.02)
        assert experience.expected([*CHAIN, Link(b"next", 9_000)], context_apart=False).carried.times == 0

    def test_qualities_are_those_of_the_models(self) -> None:
        experience = Experience(Catalog(PROVIDERS))
        held = experience.standings(tuple(offers().values()), CHAIN, input_tokens=9, qualities={"m": 0.7})
        assert {each.quality for each in held.values()} == {0.7}


class Taught:
    """A Trimtab with one provider, whose bills are the test's own."""

    def __init__(self, server: LoopbackProvider, **more: Any) -> None:
        self.server = server
        self.trimtab = Trimtab(providers=[provider("a", server, **more)])

    def body(self, question: str = "Why?", **more: Any) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": question}], **more}

    def answered(self, body: dict[str, Any], output_tokens: int, times: int = 1, input_tokens: int = 20) -> None:
        async def ask() -> None:
            async with self.trimtab.router() as router:
                for _ in range(times):
                    self.server.then(ok(usage=bill))
                    assert (await self.trimtab.acomplete(body, router)).status == 200

        bill = {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": 0}
        asyncio.run(ask())

    def expected(self, **more: Any) -> int:
        return self.trimtab.plan(self.body(**more)).chosen.output_tokens


@pytest.fixture
def taught() -> Iterator[Taught]:
    with LoopbackProvider() as server:
        yield Taught(server)


class TestHowLongAnswersAre:
    def test_a_plan_expects_what_was_seen(self, taught: Taught) -> None:
        assert taught.expected() == 512
        taught.answered(taught.body(), 40, times=30)
        assert 40 <= taught.expected() < 60

    def test_each_route_has_answers_of_its_own(self, taught: Taught) -> None:
        for route, tokens in (("yes or no", 2), ("essay", 900)):
            taught.answered(taught.body(trimtab={"route": route}), tokens, times=30)
        assert taught.expected(trimtab={"route": "yes or no"}) < 40
        assert taught.expected(trimtab={"route": "essay"}) > 850
        assert 300 < taught.expected(trimtab={"route": "never heard of"}) < 600

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_the_callers_maximum_bounds_it(self, taught: Taught, name: str) -> None:
        taught.answered(taught.body(), 300, times=20)
        assert taught.expected(**{name: 50}) == 50
        assert taught.expected(**{name: 5_000}) == taught.expected() < 350

    def test_each_of_several_answers_counts(self, taught: Taught) -> None:
        taught.answered(taught.body(n=4), 400, times=30)
        one = taught.expected()
        assert 100 <= one < 130
        assert 4 * one - 4 < taught.expected(n=4) <= 4 * one
        assert taught.expected(n=4, max_tokens=20) == 80

    def test_an_error_teaches_nothing(self, taught: Taught) -> None:
        taught.server.then(*[status(400)] * 5)
        for _ in range(5):
            assert taught.trimtab.complete(taught.body()).status == 400
        assert taught.expected() == 512

    def test_a_stream_teaches_too(self, taught: Taught) -> None:
        with serving_of(taught.trimtab) as client:
            body = taught.body(stream=True, stream_options={"include_usage": True})
            for _ in range(20):
                taught.server.then(ok(usage={"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}))
                answer = client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200
        assert taught.expected() < 60


class TestTheMargin:
    """qwen3-max costs twice as much above 32,000 tokens of input (genai-prices 0.2.3)."""

    @pytest.mark.parametrize("share", [0.015, 0.05, 0.0])
    def test_follows_the_bills_and_holds_at_a_boundary(self, share: float) -> None:
        with LoopbackProvider() as server:
            taught = Taught(server, models=["qwen3-max"], prices="alibaba")
            body = taught.body(RULES, max_tokens=9) | {"model": "qwen3-max"}
            counted = taught.trimtab.plan(body).chosen.input_tokens
            taught.answered(body, 9, times=25, input_tokens=round(counted * (1 + share)))
            learned = taught.trimtab.experience.history.margin("qwen3-max")
            assert learned == pytest.approx(max(share, 0.002), abs=0.001)
            made = taught.trimtab.plan(full_to_the_boundary())
            billed_tokens = made.chosen.input_tokens * (1 + learned)
            assert 31_900 < billed_tokens <= 32_000
            dear = [each for each in made.runners_up if each.input_tokens > 32_000]
            assert dear
            assert all(each.expected_cost_usd > 1.5 * float(made.chosen.expected_cost_usd) for each in dear)

    def test_images_are_no_measure_of_a_tokenizer(self, taught: Taught) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://x.test/i.png"}}
        body = taught.body([{"type": "text", "text": RULES}, image])  # type: ignore[arg-type]
        taught.answered(body, 9, times=25, input_tokens=50_000)
        assert taught.trimtab.experience.history.margin("m") == 0.02


def full_to_the_boundary() -> dict[str, Any]:
    """A question that one sentence answers, among walls of text that could go without a loss."""
    text = " ".join(["Moss grows on the old garden wall, and rain falls on it in spring."] * 40)
    contexts = [f"{text} {number}." for number in range(32_500 // count_tokens(text))]
    contexts[7] = f"The upload limit is high, as high as 5 GB. {contexts[7]}"
    return {
        "model": "qwen3-max",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "How high is the limit?"}],
        "trimtab": {"contexts": contexts, "budget_tokens": 40_000},
    }

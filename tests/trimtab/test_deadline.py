"""What a caller says of time, quality and wrong answers, and what is bought for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.errors import NoOffer
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.talking import TOPICS, chunk
from trimtab import Trimtab, pipeline
from trimtab.errors import BadRequest
from trimtab.options import read_options, seconds_until

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
FLEX_MODEL = "gpt-5-mini"  # genai-prices has a flex price for it


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("deadlines"))
        return Trimtab()


def asking(model: str = FLEX_MODEL, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What do the keys cost?"}]
    return {"model": model, "messages": messages, "trimtab": options}


def later(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


class TestReading:
    @pytest.mark.parametrize(
        ("deadline", "seconds"),
        [
            ("20m", 1_200),
            ("1.5h", 5_400),
            (" 30 s ", 30),
            ("2d", 172_800),
            (90, 90),
            (0.5, 0.5),
            ("2026-11-24T18:20:00Z", 1_200),
            ("2026-11-24T19:20:00+01:00", 1_200),
            ("2026-11-24T17:00:00Z", -3_600),
        ],
    )
    def test_seconds_spans_and_moments(self, deadline: float | str, seconds: float) -> None:
        assert seconds_until(deadline, NOW) == seconds

    @given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), st.integers(-14, 14))
    def test_a_moment_is_the_same_in_every_zone(self, moment: datetime, hours: int) -> None:
        here, there = (
            moment.replace(tzinfo=UTC),
            moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=hours))),
        )
        assert seconds_until(there.isoformat(), NOW) == (here - NOW).total_seconds()

    @pytest.mark.parametrize(
        "deadline",
        [
            *(0, -1, -0.5, "0m", "0s", "-5m"),
            *("2020-01-01T00:00:00Z", "2026-11-24T18:00:00", "2026-11-24", "soon", "", "20", "20 minutes", "m", "1e3s"),
            *(True, False, [], {}, ["20m"], float("nan"), float("inf"), -float("inf")),
        ],
        ids=repr,
    )
    def test_everything_else_is_an_error_that_names_the_field(self, trimtab: Trimtab, deadline: object) -> None:
        with pytest.raises(BadRequest) as told:
            trimtab.plan(asking(deadline=deadline))
        assert told.value.param == "trimtab.deadline"
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize("deadline", ["2026-11-24T18:00:00", "soon", "20 minutes"])
    def test_an_error_shows_what_would_do(self, trimtab: Trimtab, deadline: str) -> None:
        with pytest.raises(BadRequest, match=r'a number of seconds, a span such as "20m", or a moment such as'):
            trimtab.plan(asking(deadline=deadline))

    @pytest.mark.parametrize("deadline", [0, "0m", "2020-01-01T00:00:00Z"])
    def test_a_deadline_that_has_passed_is_said_to_have(self, trimtab: Trimtab, deadline: object) -> None:
        with pytest.raises(BadRequest, match="has passed; give a later one"):
            trimtab.plan(asking(deadline=deadline))

    def test_one_that_passes_while_the_request_is_read_is_no_time_left(self) -> None:
        options = read_options(asking(deadline=later(milliseconds=30)))
        until = datetime.now(UTC) + timedelta(milliseconds=40)
        while datetime.now(UTC) < until:
            pass
        assert options.deadline_s == 0.0

    def test_none_is_wanted_at_once(self) -> None:
        assert read_options(asking()).deadline_s is None
        assert read_options(asking(deadline=None)).deadline_s is None


class TestFlex:
    @pytest.mark.parametrize("deadline", ["15m", 900, 3_600.0, "2h"])
    def test_is_bought_where_there_is_time(self, trimtab: Trimtab, deadline: object) -> None:
        made = trimtab.plan(asking(deadline=deadline))
        assert made.chosen.offer.processing == "flex"
        assert [each.processing for each in made.fallbacks] == ["sync"]
        assert made.chosen.expected_cost_usd < trimtab.plan(asking()).chosen.expected_cost_usd

    @pytest.mark.parametrize("moment", [{"minutes": 16}, {"days": 1}])
    def test_is_bought_where_a_moment_is_far_enough(self, trimtab: Trimtab, moment: dict[str, float]) -> None:
        assert trimtab.plan(asking(deadline=later(**moment))).chosen.offer.processing == "flex"

    @pytest.mark.parametrize("deadline", ["14.9m", 1, 899, "30s"])
    def test_is_not_bought_where_there_is_not(self, trimtab: Trimtab, deadline: object) -> None:
        made = trimtab.plan(asking(deadline=deadline))
        assert (made.chosen.offer.processing, made.fallbacks) == ("sync", ())
        assert any("the deadline is" in each.why for each in made.runners_up if each.offer.processing == "flex")

    def test_is_not_even_thought_of_without_a_deadline(self, trimtab: Trimtab) -> None:
        made = trimtab.plan(asking())
        assert {each.offer.processing for each in (made.chosen, *made.runners_up)} == {"sync"}

    def test_a_model_without_it_is_bought_as_ever(self, trimtab: Trimtab) -> None:
        assert trimtab.plan(asking("claude-haiku-5-5", deadline="1d")).chosen.offer.processing == "sync"


class TestQuality:
    def test_nobody_is_known_to_be_good_until_somebody_measures_it(self, trimtab: Trimtab) -> None:
        with pytest.raises(NoOffer, match=r"nobody knows how well it answers where min_quality is 0\.80"):
            trimtab.plan(asking(min_quality=0.8))

    @pytest.mark.parametrize("quality", [0, -0.1, 1.1, True, "good"])
    def test_is_a_share(self, trimtab: Trimtab, quality: object) -> None:
        with pytest.raises(BadRequest) as told:
            trimtab.plan(asking(min_quality=quality))
        assert told.value.param == "trimtab.min_quality"


class TestWrongAnswers:
    def test_the_dearer_they_are_the_more_context_is_sent(self, trimtab: Trimtab) -> None:
        contexts = [chunk(seed, TOPICS[seed % len(TOPICS)]) for seed in range(30)]
        budgets, coverages = [], []
        for usd in (0, "0.00001", "0.0001", "0.001", "0.01", "0.1", "1", "100"):
            chosen = trimtab.plan(asking(contexts=contexts, wrong_answer_usd=usd)).chosen
            budgets.append(chosen.budget_tokens)
            coverages.append(chosen.coverage_estimate)
        assert budgets == sorted(budgets)
        assert coverages == sorted(coverages)
        assert budgets[0] == 0
        assert coverages[-1] > 0.99

    def test_and_the_least_sum_of_the_bill_and_of_them_is_bought(self, trimtab: Trimtab) -> None:
        contexts = [chunk(seed, TOPICS[seed % len(TOPICS)]) for seed in range(30)]
        chosen = trimtab.plan(asking(contexts=contexts, wrong_answer_usd="0.001")).chosen
        assert chosen.wrong_answer_usd == Decimal("0.001") * (1 - Decimal(str(round(chosen.coverage_estimate, 9))))
        for ratio in (0.05, 0.2, 0.5, 1.0):
            other = trimtab.plan(asking(contexts=contexts, ratio=ratio)).chosen
            lost_usd = Decimal("0.001") * (1 - Decimal(str(other.coverage_estimate)))
            assert chosen.total_usd <= other.total_usd + lost_usd + Decimal("1e-9")

    @pytest.mark.parametrize("usd", [-1, "NaN", "Infinity", "a dollar"])
    def test_are_dollars(self, trimtab: Trimtab, usd: object) -> None:
        with pytest.raises(BadRequest) as told:
            trimtab.plan(asking(wrong_answer_usd=usd))
        assert told.value.param == "trimtab.wrong_answer_usd"

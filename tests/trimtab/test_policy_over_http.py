"""Our own options and OpenRouter's words, sent by the real client: who is asked, who is not, and what each one receives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from compressor import Ranker
from routing.catalog import Provider
from tests.loopback import LoopbackProvider, bad_request, status
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.asking import KEY, KEY_ENV, chat, provider, serving, serving_of
from trimtab import Trimtab
from trimtab.errors import BadRequest

CHEAP = {"input_mtok": "1", "output_mtok": "2"}
DEAR = {"input_mtok": "4", "output_mtok": "8"}


class Two(NamedTuple):
    """`cheap` and `dear` both serve m; `cheap` serves small too."""

    trimtab: Trimtab
    http: httpx.Client
    client: openai.OpenAI
    cheap: LoopbackProvider
    dear: LoopbackProvider

    def ask(self, model: str = "m", **extra: Any) -> str:
        """Who answers."""
        answer = self.client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "Hi?"}], extra_body=extra
        )
        return str(answer.headers["x-trimtab-provider"])

    def refused(self, model: str = "m", **extra: Any) -> dict[str, Any]:
        """The error, with its status."""
        with pytest.raises(openai.APIStatusError) as raised:
            self.ask(model, **extra)
        return {"status": raised.value.status_code, **raised.value.body}  # type: ignore[dict-item]

    def planned(self, **body: Any) -> dict[str, Any]:
        return self.http.post("/v1/plan", json=chat(**body)).json()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def module_two() -> Iterator[Two]:
    with LoopbackProvider() as cheap, LoopbackProvider() as dear:
        sellers = [
            provider("cheap", cheap, "m", "small", prices=CHEAP, region="us"),
            provider("dear", dear, "m", prices=DEAR, region="eu", data_policy=["zdr"], tags=["hipaa"]),
        ]
        trimtab = Trimtab(providers=sellers)
        with (
            serving_of(trimtab) as http,
            openai.OpenAI(api_key="any", base_url=f"{http.base_url}/v1", max_retries=0) as client,
        ):
            yield Two(trimtab, http, client, cheap, dear)


@pytest.fixture
def two(module_two: Two) -> Two:
    module_two.trimtab.experience.health.forget()
    module_two.cheap.requests.clear()
    module_two.dear.requests.clear()
    return module_two


@pytest.mark.parametrize(
    ("extra", "who"),
    [
        ({}, "cheap"),
        ({"trimtab": {"allow": ["dear"]}}, "dear"),
        ({"trimtab": {"deny": ["cheap"]}}, "dear"),
        ({"trimtab": {"order": ["dear"]}}, "dear"),
        ({"trimtab": {"regions": ["eu", "ch"]}}, "dear"),
        ({"trimtab": {"require": ["no_training", "hipaa"]}}, "dear"),
        ({"provider": {}}, "cheap"),
        ({"provider": {"order": ["dear", "cheap"]}}, "dear"),
        ({"provider": {"order": ["dear"], "allow_fallbacks": False}}, "dear"),
        ({"provider": {"only": ["dear"]}}, "dear"),
        ({"provider": {"ignore": ["cheap"]}}, "dear"),
        ({"provider": {"sort": "price"}}, "cheap"),
        ({"provider": {"sort": {"by": "latency", "partition": "none"}}}, "cheap"),
        ({"provider": {"data_collection": "deny"}}, "dear"),
        ({"provider": {"data_collection": "allow", "zdr": False, "only": None}}, "cheap"),
        ({"provider": {"zdr": True}}, "dear"),
        ({"provider": {"max_price": {"prompt": 1, "completion": "2"}}}, "cheap"),
        ({"provider": {"require_parameters": True}}, "cheap"),
        ({"provider": {"only": ["dear", "cheap"]}, "trimtab": {"allow": ["dear"]}}, "dear"),
    ],
)
def test_who_answers(two: Two, extra: dict[str, Any], who: str) -> None:
    assert two.ask(**extra) == who
    (sent,) = [*two.cheap.requests, *two.dear.requests]
    assert set(sent.json) == {"model", "messages"}  # none of our fields, and none of OpenRouter's


def test_the_suffixes_say_how_to_sort(two: Two) -> None:
    assert two.ask("m:floor") == "cheap"
    assert two.ask("m:nitro") in ("cheap", "dear")
    assert {each.json["model"] for each in (*two.cheap.requests, *two.dear.requests)} == {"m"}
    assert two.refused("m:free")["status"] == 404


def test_models_are_fallbacks_in_their_order(two: Two) -> None:
    two.cheap.then(status(500))
    two.dear.then(status(500))
    assert two.ask(models=["small:floor"]) == "cheap"
    assert [each.json["model"] for each in two.cheap.requests] == ["m", "small"]
    assert [each.json["model"] for each in two.dear.requests] == ["m"]


def test_without_fallbacks_the_first_failure_is_the_answer(two: Two) -> None:
    two.cheap.then(*(status(500),) * 5)
    assert two.refused(provider={"allow_fallbacks": False})["status"] == 500
    assert two.dear.requests == []


def test_the_plan_says_who_was_left_out_and_why(two: Two) -> None:
    made = two.planned(provider={"order": ["dear"]}, trimtab={"regions": ["eu"]})
    assert made["chosen"]["provider"] == "dear"
    why = "is in region us where eu is required"
    assert made["refused"] == [{"provider": "cheap", "model": "m", "processing": "sync", "why": why}]
    made = two.planned(provider={"order": ["dear"]})
    assert "refused" not in made
    assert [each["why"] for each in made["runners_up"]] == ["comes later in the order that was asked for"]


REFUSED: list[tuple[dict[str, Any], int, str | None, str]] = [
    ({"provider": {"only": ["dear"]}, "trimtab": {"deny": ["dear"]}}, 422, "trimtab", "dear/m (sync): is denied"),
    ({"provider": {"zdr": True, "ignore": ["dear"]}}, 422, "trimtab", "cheap/m (sync): does not promise zdr"),
    (
        {"provider": {"max_price": {"prompt": 0.5}}},
        422,
        "trimtab",
        "asks $1 a million tokens of input where max_price is $0.5",
    ),
    ({"provider": {"odrer": ["dear"]}}, 400, "provider.odrer", "no such field"),
    ({"provider": {"quantizations": ["fp8"]}}, 400, "provider.quantizations", "known at OpenRouter and not"),
    ({"provider": {"max_price": {"image": 1}}}, 400, "provider.max_price.image", "known at OpenRouter and not"),
    (
        {"provider": {"ignore": ["deer"]}},
        400,
        "provider.ignore.0",
        "no provider here is called 'deer'; did you mean 'dear'?",
    ),
    ({"provider": {"sort": "random"}}, 400, "provider.sort.by", "'price', 'throughput' or 'latency'"),
    ({"provider": ["dear"]}, 400, "provider", "must be an object"),
    ({"provider": {"order": ["dear"]}, "trimtab": {"order": ["cheap"]}}, 400, "trimtab.order", "give one of them"),
    ({"trimtab": {"deny": ["x"]}}, 400, "trimtab.deny.0", "no provider here is called 'x'; there are cheap, dear"),
    ({"trimtab": {"deny": "cheap"}}, 400, "trimtab.deny", "must be a list"),
    ({"models": ["m", "absent"]}, 404, "models.1", "no configured provider lists the model 'absent'"),
    ({"models": "m"}, 400, "models", "must be a list"),
]


@pytest.mark.parametrize(("extra", "code", "param", "said"), REFUSED)
def test_what_cannot_be_kept_is_an_error(
    two: Two, extra: dict[str, Any], code: int, param: str | None, said: str
) -> None:
    error = two.refused(**extra)
    assert (error["status"], error["param"]) == (code, param)
    assert said in error["message"]
    assert [*two.cheap.requests, *two.dear.requests] == []


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_the_other_surfaces_keep_to_it_too(two: Two, path: str) -> None:
    body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "Hi?"}]}
    if path == "/v1/responses":
        body = {"model": "m", "input": "Hi?"}
    answer = two.http.post(path, json={**body, "provider": {"zdr": True}})
    assert (answer.status_code, answer.headers["x-trimtab-provider"]) == (200, "dear")
    assert "provider" not in two.dear.requests[0].json


def test_a_defect_of_ours_asks_nobody_who_was_refused(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Ranker, "rank", broken)
    two.dear.then(*(status(500),) * 5)
    assert two.refused(provider={"only": ["dear"]})["status"] == 500
    assert two.cheap.requests == []


def test_an_offer_that_would_lose_a_parameter_is_not_planned_with() -> None:
    with (
        LoopbackProvider() as exact,
        LoopbackProvider(tongue=ANTHROPIC) as converting,
        serving(provider("converting", converting, prices=CHEAP), provider("exact", exact, prices=DEAR)) as http,
    ):
        made = http.post("/v1/plan", json=chat(n=2)).json()
        assert made["chosen"]["provider"] == "exact"
        assert made["refused"][0]["why"] == "cannot honour n: Anthropic gives one answer for a request"
        answer = http.post("/v1/chat/completions", json=chat(n=2)).json()
        assert [each["outcome"] for each in answer["trimtab"]["attempts"]] == ["ok"]
        assert http.post("/v1/plan", json=chat()).json()["chosen"]["provider"] == "converting"


def test_tokens_are_counted_by_nobody_who_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with LoopbackProvider(tongue=ANTHROPIC) as counting, LoopbackProvider() as other:
        sellers = [
            provider("counting", counting, prices=CHEAP, api_key_env=KEY_ENV),
            provider("other", other, prices=DEAR),
        ]
        with serving(*sellers) as http:
            for extra, asked in (
                ({}, 1),
                ({"trimtab": {"deny": ["counting"]}}, 0),
                ({"provider": {"only": ["other"]}}, 0),
            ):
                counting.requests.clear()
                answer = http.post("/v1/messages/count_tokens", json={**chat(), **extra})
                assert answer.json()["input_tokens"] > 0, answer.text
                assert len(counting.requests) == asked
                assert all("provider" not in each.json for each in counting.requests)


class Mixed(NamedTuple):
    http: httpx.Client
    openrouter: LoopbackProvider
    own: LoopbackProvider

    def ask(self, **body: Any) -> tuple[str, dict[str, Any]]:
        """Who answers, and OpenRouter's fields as it got them."""
        self.openrouter.requests.clear()
        self.own.requests.clear()
        answer = self.http.post("/v1/chat/completions", json={**chat(), **body})
        assert answer.status_code == 200, answer.text
        (sent,) = [*self.openrouter.requests, *self.own.requests]
        fields = {name: sent.json[name] for name in ("provider", "models") if name in sent.json}
        return answer.headers["x-trimtab-provider"], fields


@pytest.fixture(scope="module")
def mixed() -> Iterator[Mixed]:
    """OpenRouter is played by a loopback server, so that it is told by its name here and not by its host."""
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider() as openrouter,
        LoopbackProvider() as own,
    ):
        patch.setattr(Provider, "is_openrouter", property(lambda each: each.name == "openrouter"))
        with serving(
            provider("openrouter", openrouter, "m", "there", prices=DEAR), provider("own", own, prices=CHEAP)
        ) as http:
            yield Mixed(http, openrouter, own)


def test_what_only_openrouter_sells_is_left_to_it(mixed: Mixed) -> None:
    fields = {"provider": {"order": ["deepinfra/turbo"], "quantizations": ["fp8"], "new": 1}, "models": ["x", "y"]}
    assert mixed.ask(model="there", **fields) == ("openrouter", fields)
    assert mixed.ask(model="there:nitro") == ("openrouter", {"provider": {"sort": "throughput"}})
    assert mixed.ask(model="there:nitro", provider={"sort": "price"}) == ("openrouter", {"provider": {"sort": "price"}})


def test_what_only_openrouter_knows_goes_to_it_alone(mixed: Mixed) -> None:
    for fields in ({"provider": {"only": ["deepinfra"]}}, {"provider": {"quantizations": ["fp8"]}, "models": ["x"]}):
        assert mixed.ask(**fields) == ("openrouter", fields)


def test_where_both_could_be_meant_it_is_read_here(mixed: Mixed) -> None:
    assert mixed.ask(provider={"data_collection": "allow"}) == ("own", {})
    assert mixed.ask(provider={"order": ["openrouter"], "sort": "latency"}, models=["there"]) == (
        "openrouter",
        {"provider": {"sort": "latency"}},
    )
    assert mixed.ask(provider={"only": ["openrouter"]}) == ("openrouter", {})


def test_a_caller_error_is_no_reason_to_go_elsewhere(two: Two) -> None:
    two.dear.then(bad_request())
    assert two.refused(provider={"order": ["dear"]})["status"] == 400
    assert two.cheap.requests == []


def test_plans_need_no_provider_to_keep_to_a_policy() -> None:
    trimtab = Trimtab()
    body = chat(model="gpt-6.1-sol", trimtab={"candidates": ["claude-haiku-5-5"], "order": ["openai"]})
    assert trimtab.plan(body).chosen.offer.provider == "openai"
    body = chat(model="gpt-6.1-sol", trimtab={"candidates": ["claude-haiku-5-5"]}, provider={"only": ["anthropic"]})
    made = trimtab.plan(body)
    assert made.chosen.offer.provider == "anthropic"
    assert made.refused[0][1] == "is not among the providers that are allowed (anthropic)"
    with pytest.raises(BadRequest, match=r"provider\.nope: no such field"):
        trimtab.plan(chat(model="gpt-6.1-sol", provider={"nope": 1}))

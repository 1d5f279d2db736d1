"""Who may be asked and who is preferred: against a search written another way, and each rule by itself."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.abilities import Abilities
from routing.catalog import Provider
from routing.errors import NoOffer
from routing.limits import MaxPrice
from routing.offers import Offer, Rates
from routing.planner import Needs, Plan, plan
from routing.policy import Admitted, Group, Policy, admitted
from routing.standing import Standing, called
from routing.tongues import CHAT, MESSAGES

NEEDS = Needs(fixed_tokens=1_000, output_tokens=100)


class Whole:
    """A context of which nothing may be cut."""

    full_tokens = 0

    def coverage(self, budget_tokens: int) -> float:
        return 1.0

    def budget_for(self, coverage: float) -> int:
        return 0

    def steps(self) -> tuple[int, ...]:
        return ()


def provider(name: str, **more: Any) -> Provider:
    return Provider(name, more.pop("kind", "openai"), f"https://{name}.example/v1", None, ("m",), **more)


def offer(name: str, dollars_a_million: str = "1", model: str = "m", *dearer: tuple[int, str]) -> Offer:
    tiers = [(-1, dollars_a_million), *dearer]
    rows = tuple(Rates(above, *(Decimal(usd).scaleb(-6),) * 4) for above, usd in tiers)
    return Offer(name, model, "sync", rows, None, "test")


def admit(policy: Policy, *providers: Provider, groups: tuple[Group, ...] = ()) -> Admitted:
    by_name = {each.name: each for each in providers}
    own = groups or (Group(tuple(offer(each.name) for each in providers)),)
    return admitted(own, policy, by_name.get)


def names(offers: tuple[Offer, ...]) -> list[str]:
    return [each.provider for each in offers]


def asked(made: Plan) -> list[str]:
    return names((made.chosen.offer, *made.fallbacks))


EU = provider("eu", region="eu", data_policy=["zdr"])
US = provider("us", region="us", data_policy=["no_training"], tags=["hipaa"])
NOWHERE = provider("nowhere")

ALONE: list[tuple[Policy, list[str], dict[str, str]]] = [
    (Policy(), ["eu", "us", "nowhere"], {}),
    (
        Policy(allow=("us", "eu")),
        ["eu", "us"],
        {"nowhere": "is not among the providers that are allowed (us, eu)"},
    ),
    (Policy(deny=("us",)), ["eu", "nowhere"], {"us": "is denied"}),
    (
        Policy(regions=("eu",)),
        ["eu"],
        {"us": "is in region us where eu is required", "nowhere": "states no region where eu is required"},
    ),
    (Policy(regions=("us", "eu")), ["eu", "us"], {"nowhere": "states no region where us or eu is required"}),
    (Policy(require=("zdr",)), ["eu"], {"us": "does not promise zdr", "nowhere": "does not promise zdr"}),
    (Policy(require=("no_training",)), ["eu", "us"], {"nowhere": "does not promise no_training"}),
    (
        Policy(require=("no_training", "hipaa")),
        ["us"],
        {"eu": "does not promise hipaa", "nowhere": "does not promise no_training and hipaa"},
    ),
    (Policy(order=("us", "nowhere")), ["us", "nowhere", "eu"], {}),
    (
        Policy(order=("us",), fallbacks=False),
        ["us"],
        dict.fromkeys(("eu", "nowhere"), "is not in the order (us), and no fallbacks are allowed"),
    ),
]


@pytest.mark.parametrize(("policy", "left", "refused"), ALONE)
def test_each_rule_by_itself(policy: Policy, left: list[str], refused: dict[str, str]) -> None:
    found = admit(policy, EU, US, NOWHERE)
    assert names(found.offers) == left
    assert {each.provider: why for each, why in found.refused} == refused
    made = found.plan(Whole(), NEEDS)
    assert asked(made) == left  # prices are equal, so what is left is the order
    told: Any = made.to_dict().get("refused", [])
    assert [each["why"] for each in told] == list(refused.values())


def test_where_nobody_is_left_each_reason_is_told() -> None:
    with pytest.raises(NoOffer) as raised:
        admit(Policy(deny=("eu",), regions=("eu",)), EU, US, NOWHERE)
    assert raised.value.reasons == (
        "eu/m (sync): is denied",
        "us/m (sync): is in region us where eu is required",
        "nowhere/m (sync): states no region where eu is required",
    )
    assert str(raised.value) == "no offer meets the request. " + " | ".join(raised.value.reasons)


def test_where_the_plan_finds_nobody_both_kinds_of_reasons_are_told() -> None:
    found = admit(Policy(deny=("us",)), EU, US)
    with pytest.raises(NoOffer) as raised:
        found.plan(Whole(), replace(NEEDS, max_cost_usd=Decimal("0.0001")))
    cost, denied = raised.value.reasons
    assert cost.startswith("eu/m (sync): with 0 context tokens it costs $0.0011 where max_cost_usd is")
    assert denied == "us/m (sync): is denied"


def test_an_order_goes_before_price_and_says_so() -> None:
    groups = (Group((offer("cheap", "1"), offer("dear", "3"), offer("dearest", "9"))),)
    found = admitted(groups, Policy(order=("dearest", "absent")), lambda _: None)
    made = found.plan(Whole(), NEEDS)
    assert asked(made) == ["dearest", "cheap", "dear"]
    assert {each.why for each in made.runners_up} == {"comes later in the order that was asked for"}
    assert found.baseline.provider == "cheap"


def test_the_first_in_the_order_is_passed_over_while_it_is_down() -> None:
    groups = (Group((offer("cheap"), offer("dear", "3"))),)
    found = admitted(groups, Policy(order=("dear",)), lambda _: None)
    down = {called(groups[0].offers[1]): Standing(available=False)}
    assert asked(found.plan(Whole(), NEEDS, down)) == ["cheap", "dear"]


def test_models_are_asked_in_their_order_whatever_they_cost() -> None:
    first = Group((offer("a", "9", "one"), offer("b", "8", "one")))
    second = Group((offer("a", "1", "two"), offer("b", "9", "one")))  # the last stands before already
    made = admitted((first, second), Policy(), lambda _: None).plan(Whole(), NEEDS)
    told = [(each.provider, each.model) for each in (made.chosen.offer, *made.fallbacks)]
    assert told == [("b", "one"), ("a", "one"), ("a", "two")]


def test_without_fallbacks_one_offer_of_each_model_is_asked() -> None:
    groups = (
        Group((offer("a", "9", "one"), offer("b", "8", "one"))),
        Group((offer("a", "2", "two"), offer("c", "1", "two"))),
    )
    made = admitted(groups, Policy(fallbacks=False), lambda _: None).plan(Whole(), NEEDS)
    assert [(each.provider, each.model) for each in (made.chosen.offer, *made.fallbacks)] == [
        ("b", "one"),
        ("c", "two"),
    ]
    alone = admitted(groups[:1], Policy(fallbacks=False), lambda _: None).plan(Whole(), NEEDS)
    assert asked(alone) == ["b"]


@pytest.mark.parametrize(("sort", "order"), [("throughput", "cab"), ("latency", "acb"), ("price", "bca")])
def test_sorts(sort: Any, order: str) -> None:
    offers = (offer("a", "3"), offer("b", "1"), offer("c", "2"))
    standings = {
        called(offers[0]): Standing(tokens_per_second=50.0, first_token_ms=100.0),
        called(offers[2]): Standing(tokens_per_second=90.0, first_token_ms=300.0),
    }
    made = admitted((Group(offers, sort),), Policy(), lambda _: None).plan(Whole(), NEEDS, standings)
    assert asked(made) == list(order)


def test_max_price_holds_for_the_tier_that_would_be_billed() -> None:
    """Just under a boundary an offer is within the price that it exceeds above it: the cut goes there."""

    class Line(Whole):
        full_tokens = 200_000

        def coverage(self, budget_tokens: int) -> float:
            return min(1.0, budget_tokens / self.full_tokens)

        def budget_for(self, coverage: float) -> int:
            return round(coverage * self.full_tokens)

        def steps(self) -> tuple[int, ...]:
            return (self.full_tokens,)

    tiered, flat = offer("tiered", "1", "m", (180_000, "3")), offer("flat", "2")
    needs = Needs(0, 100, tolerance=0.5)
    for most, chosen, budget in (("2.5", "tiered", 176_470), ("1.5", "tiered", 176_470), ("0.5", None, 0)):
        policy = Policy(max_price=MaxPrice(input_usd=Decimal(most).scaleb(-6)))
        found = admitted((Group((tiered, flat)),), policy, lambda _: None)
        if chosen is None:
            with pytest.raises(NoOffer, match=r"asks \$1 a million tokens of input where max_price is \$0\.5"):
                found.plan(Line(), needs)
            continue
        made = found.plan(Line(), needs)
        assert (made.chosen.offer.provider, made.chosen.budget_tokens) == (chosen, budget)
        whole = {each.offer.provider: each.why for each in made.runners_up if each.budget_tokens == 200_000}
        assert whole["tiered"] == f"asks $3 a million tokens of input where max_price is ${most}"
    # a price on wrong answers looks for budgets of its own, and keeps to the same rates
    priced = replace(needs, wrong_answer_usd=Decimal(1_000))
    policy = Policy(max_price=MaxPrice(input_usd=Decimal("1.5").scaleb(-6)))
    made = admitted((Group((tiered, flat)),), policy, lambda _: None).plan(Line(), priced)
    assert (made.chosen.offer.provider, made.chosen.budget_tokens) == ("tiered", 176_470)


@pytest.mark.parametrize(
    ("most", "why"),
    [
        (MaxPrice(output_usd=Decimal("1E-6")), "asks $2 a million tokens of output where max_price is $1"),
        (MaxPrice(request_usd=Decimal("0.001")), "asks $0.005 a request where max_price is $0.001"),
        (MaxPrice(Decimal("1E-6"), Decimal("2E-6"), Decimal("0.005")), None),
    ],
)
def test_max_price_of_output_and_of_a_request(most: MaxPrice, why: str | None) -> None:
    usd = Decimal("1E-6")
    assert most.refusal(Rates(-1, usd, usd * 2, usd, usd, Decimal("0.005"))) == why


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_plan_is_the_cheapest_of_the_first_rank_that_is_left(data: st.DataObject) -> None:
    """Against a search that sorts by hand: model, place in the order, cost."""
    pool = list("abcdef")
    prices = {name: data.draw(st.integers(1, 50)) for name in pool}
    some = st.lists(st.sampled_from(pool), unique=True, max_size=4)
    allow, deny, order = data.draw(st.none() | some), data.draw(some), data.draw(some)
    fallbacks = data.draw(st.booleans())
    cut = data.draw(st.integers(1, 6))
    groups = (
        Group(tuple(offer(name, str(prices[name]), "one") for name in pool[:cut])),
        Group(tuple(offer(name, str(prices[name]), "two") for name in pool[cut:])),
    )
    policy = Policy(
        allow=None if allow is None else tuple(allow), deny=tuple(deny), order=tuple(order), fallbacks=fallbacks
    )
    left = [
        (number, order.index(name) if name in order else len(order), prices[name], place, name)
        for place, name in enumerate(pool)
        for number in [int(place >= cut)]
        if (allow is None or name in allow) and name not in deny and (fallbacks or not order or name in order)
    ]
    if not left:
        with pytest.raises(NoOffer):
            admitted(groups, policy, lambda _: None)
        return
    found = admitted(groups, policy, lambda _: None)
    assert {each.provider for each, _ in found.refused} == set(pool) - {row[-1] for row in left}
    expected = [row[-1] for row in sorted(left)]
    if not fallbacks and not order:
        expected = [
            next(row[-1] for row in sorted(left) if row[0] == number) for number in sorted({row[0] for row in left})
        ]
    assert asked(found.plan(Whole(), NEEDS)) == expected


def test_without_a_policy_a_plan_is_what_it_was() -> None:
    offers = tuple(offer(name, usd) for name, usd in zip("abcd", "4213", strict=True))
    made, plain = (
        admitted((Group(offers),), Policy(), lambda _: None).plan(Whole(), NEEDS),
        plan(Whole(), NEEDS, offers),
    )
    assert made.to_dict() == plain.to_dict()
    assert made.fallbacks == plain.fallbacks


def test_what_a_wire_would_lose_is_known_before_planning() -> None:
    sellers = {"o": provider("o"), "a": provider("a", kind="anthropic"), "g": provider("g", kind="gemini")}
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 2}
    abilities = Abilities(body, CHAT)
    offers = (offer("o", "9"), offer("a", "1"), offer("g", "5", "gemini-2.5-flash"))

    def unable(each: Offer) -> str | None:
        return abilities.lacking(sellers[each.provider], each.model)

    found = admitted((Group(offers),), Policy(), sellers.get, unable)
    assert names(found.offers) == ["o", "g"]
    assert found.refused == ((offers[1], "cannot honour n: Anthropic gives one answer for a request"),)
    # where all of them would lose it, sending says so, with the field: it is not a matter of choice
    assert names(
        admitted((Group((offers[1], replace(offers[1], model="k"))),), Policy(), sellers.get, unable).offers
    ) == ["a", "a"]


def test_a_wire_that_passes_the_body_on_is_taken_at_its_word() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "top_k": 3,
        "yet_to_come": 1,
    }
    assert Abilities(body, CHAT).lacking(provider("o"), "m") is None
    assert Abilities(body, MESSAGES).lacking(provider("a", kind="anthropic"), "m") is None
    why = Abilities(body, MESSAGES).lacking(provider("o"), "m")
    assert why is not None
    assert why.startswith("cannot honour yet_to_come")
    assert Abilities(body, CHAT).lacking(None, "m") is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("region", "", "region of provider 'p' must be a text that is not empty"),
        ("region", 5, "region of provider 'p' must be a text that is not empty"),
        ("tags", "hipaa", "tags of provider 'p' must be a list of words"),
        ("tags", ["hipaa", ""], "tags of provider 'p' must be a list of words"),
        ("data_policy", ["ZDR"], "data_policy of provider 'p' may hold zdr and no_training, not 'ZDR'"),
    ],
)
def test_a_provider_says_what_it_promises_in_words_that_are_checked(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        provider("p", **{field: value})


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("openrouter.ai", True),
        ("eu.openrouter.ai", True),
        ("openrouter.ai.example", False),
        ("notopenrouter.ai", False),
    ],
)
def test_openrouter_is_known_by_its_host(host: str, is_it: bool) -> None:
    assert replace(NOWHERE, base_url=f"https://{host}/api/v1").is_openrouter is is_it

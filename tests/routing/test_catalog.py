"""The catalog against genai-prices itself, and what it says when it cannot sell."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cache
from typing import Any

import genai_prices
import pytest
from genai_prices import types as theirs
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from hypothesis import given
from hypothesis import strategies as st

from routing.catalog import PRICES_VERSION, STATED_PRICES, Catalog, Listing, Provider
from routing.errors import UnknownModel
from routing.offers import Offer, Usage, price
from routing.overlay import Overlay

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SERVICES = ("sync", "batch", "flex", "priority", "fast")
CONTEXTS: dict[str, dict[str, str] | None] = {
    "sync": None,
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast"},
}


def provider(**fields: Any) -> Provider:
    settings: dict[str, Any] = {
        "name": "openai",
        "kind": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key_env": "OPENAI_API_KEY",
        "models": ("gpt-6.1-sol",),
    }
    return Provider(**settings | fields)


def names_of(match: object) -> Iterator[str]:
    """The texts in a matching rule: tries for a name that finds its row."""
    for clause in getattr(match, "or_", None) or getattr(match, "and_", None) or (match,):
        if clause is not match:
            yield from names_of(clause)
        for kind in ("equals", "starts_with", "contains"):
            if text := getattr(clause, kind, None):
                yield text


@cache
def rows() -> tuple[tuple[theirs.Provider, theirs.ModelInfo, str], ...]:
    """Every row of the snapshot, with a name that its price list finds it under (mostly its id)."""
    found = []
    for price_list in get_snapshot().providers:
        for row in price_list.models:
            name = next((each for each in (row.id, *names_of(row.match)) if price_list.find_model(each) is row), None)
            if name is not None:
                found.append((price_list, row, name))
    return tuple(found)


def is_priced(row: theirs.ModelInfo, now: datetime) -> bool:
    standard = row.get_prices(now)
    writes = "embed" not in row.id  # what only embeds has no output to be priced
    return standard.input_mtok is not None and (standard.output_mtok is not None or not writes)


def their_cost(
    model: theirs.ModelInfo, price_list: theirs.Provider, usage: Usage, service: str, now: datetime
) -> Decimal:
    their_usage = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    return model.calc_price(
        their_usage, price_list, genai_request_timestamp=now, price_context=CONTEXTS[service]
    ).total_price


def some_usage(draw: random.Random, boundaries: tuple[int, ...]) -> Usage:
    """Counts of every size, and often exactly at, above and below a boundary."""
    edges = [max(0, edge + step) for edge in boundaries for step in (-1, 0, 1)]
    input_tokens = draw.choice([0, 1, draw.randrange(2_000), draw.randrange(2_000_000), *edges])
    read_tokens = draw.choice([0, draw.randint(0, input_tokens)])
    write_tokens = draw.choice([0, draw.randint(0, input_tokens - read_tokens)])
    return Usage(input_tokens, draw.choice([0, draw.randrange(200_000)]), read_tokens, write_tokens)


@pytest.mark.parametrize("price_list", get_snapshot().providers, ids=lambda each: each.id)
def test_every_price_equals_genai_prices_to_the_digit(price_list: theirs.Provider) -> None:
    """All models of the snapshot, in every service class, at text, cache-read and five-minute cache-write tokens.

    Out of scope, because `Usage` does not count them: audio, image, video, documents, searches, reasoning and
    citation tokens priced apart, one-hour cache writes. Models priced in those units alone are unknown here.
    """
    draw = random.Random(price_list.id)
    own = [(row, name) for seller, row, name in rows() if seller is price_list]
    catalog = Catalog([provider(name="seller", prices=price_list.id, models=tuple(name for _, name in own))])
    for row, name in own:
        if not is_priced(row, NOW):
            with pytest.raises(UnknownModel):
                catalog.offers([name], NOW)
            continue
        offers = catalog.offers([name], NOW, SERVICES)
        assert offers[0].processing == "sync"
        assert offers[0].context_window_tokens == row.context_window
        for offer in offers:
            for _ in range(4):
                usage = some_usage(draw, offer.boundaries)
                assert price(offer, usage) == their_cost(row, price_list, usage, offer.processing, NOW), (name, usage)


def test_the_rows_above_are_nearly_all_rows() -> None:
    """The others have no name that a test could make up (regular expressions, rows that an earlier one shadows)."""
    assert len(rows()) >= 0.99 * sum(len(price_list.models) for price_list in get_snapshot().providers)


@given(st.data())
def test_prices_follow_the_clock_as_genai_prices_does(data: st.DataObject) -> None:
    """Any moment of three years, in any time zone, for the models whose price depends on it. Without the overlay."""
    dated = [each for each in rows() if isinstance(each[1].prices, list) or each[1].price_variants]
    price_list, model, name = data.draw(st.sampled_from(dated))
    zone = timezone(timedelta(minutes=data.draw(st.integers(-720, 840))))
    now = data.draw(st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31))).replace(tzinfo=zone)
    if not is_priced(model, now):
        return
    offers = Catalog(overlay=Overlay()).offers([f"{price_list.id}/{name}"], now, SERVICES)
    for offer in offers:
        usage = some_usage(random.Random(data.draw(st.integers(0, 10**6))), offer.boundaries)
        assert price(offer, usage) == their_cost(model, price_list, usage, offer.processing, now)


@pytest.mark.parametrize(
    ("at", "input_usd"),
    [
        (time(0, 59, 59), "0.00000015"),
        (time(1, 0), "0.0000003"),
        (time(3, 59, 59), "0.0000003"),
        (time(4, 0), "0.00000015"),
        (time(6, 0), "0.0000003"),
        (time(10, 0), "0.00000015"),
    ],
)
def test_deepseek_costs_double_in_its_peak_hours(at: time, input_usd: str) -> None:
    now = datetime.combine(NOW.date(), at, UTC)
    (offer,) = Catalog().offers(["deepseek-flash"], now)
    assert offer.tiers[0].input_usd == Decimal(input_usd)


def test_a_service_class_without_an_active_variant_is_not_sold() -> None:
    """genai-prices itself would answer such a question with the standard price."""
    assert Catalog().offers(["claude-haiku-5-5"], NOW, ["flex", "no-such-tier"]) == ()
    before_batch = datetime(2026, 10, 13, 12, tzinfo=UTC)
    assert Catalog().offers(["claude-haiku-5-5"], before_batch, ["batch"]) == ()
    (batch,) = Catalog().offers(["claude-haiku-5-5"], NOW, ["batch"])
    (sync,) = Catalog().offers(["claude-haiku-5-5"], NOW)
    assert price(batch, Usage(1000, 1000)) * 2 == price(sync, Usage(1000, 1000))


def test_a_borrowed_model_has_no_service_classes() -> None:
    """Azure sells Anthropic's models at Anthropic's list price; Anthropic's batch price is not Azure's."""
    azure = Catalog([provider(name="azure", models=("claude-haiku-5-5",))])
    assert [offer.processing for offer in azure.offers(["claude-haiku-5-5"], NOW, ["sync", "batch"])] == ["sync"]


def test_order_is_models_then_providers_then_services_and_nothing_twice() -> None:
    catalog = Catalog(
        [
            provider(models=("gpt-6.1-sol", "gpt-6-luna")),
            provider(name="second", prices="openai", models=("gpt-6.1-sol",)),
        ]
    )
    asked = ["gpt-6-luna", "gpt-6.1-sol", "openai/gpt-6-luna", "second/gpt-6.1-sol"]
    offers = catalog.offers(asked, NOW, ["batch", "sync"])
    assert [(each.model, each.provider, each.processing) for each in offers] == [
        ("gpt-6-luna", "openai", "batch"),
        ("gpt-6-luna", "openai", "sync"),
        ("gpt-6.1-sol", "openai", "batch"),
        ("gpt-6.1-sol", "openai", "sync"),
        ("gpt-6.1-sol", "second", "batch"),
        ("gpt-6.1-sol", "second", "sync"),
    ]
    assert {each.prices_version for each in offers} == {PRICES_VERSION}
    assert f"genai-prices {genai_prices.__version__}" == PRICES_VERSION


def test_a_pin_picks_the_provider_and_a_listed_name_goes_before_a_pin() -> None:
    catalog = Catalog(
        [
            provider(),
            provider(name="azure"),
            provider(name="openrouter", models=("openai/gpt-6.1-sol",)),
        ]
    )

    def sellers(asked: str) -> list[tuple[str, str]]:
        return [(each.provider, each.model) for each in catalog.offers([asked], NOW)]

    assert sellers("gpt-6.1-sol") == [("openai", "gpt-6.1-sol"), ("azure", "gpt-6.1-sol")]
    assert sellers("azure/gpt-6.1-sol") == [("azure", "gpt-6.1-sol")]
    assert sellers("openai/gpt-6.1-sol") == [("openrouter", "openai/gpt-6.1-sol")]
    assert sellers("openrouter/openai/gpt-6.1-sol") == [("openrouter", "openai/gpt-6.1-sol")]


def test_case_is_kept_and_matters() -> None:
    catalog = Catalog([provider(name="minimax", models=("MiniMax-M3",))])
    assert [each.model for each in catalog.offers(["MiniMax-M3"], NOW)] == ["MiniMax-M3"]
    with pytest.raises(UnknownModel, match=r"near: MiniMax-M3"):
        catalog.offers(["minimax-m3"], NOW)


def test_a_table_states_its_own_prices() -> None:
    table = {"input_mtok": 0.1, "output_mtok": "0.4", "cache_read_mtok": Decimal("0.01")}
    catalog = Catalog([provider(name="local", api_key_env=None, models=("smollm2",), prices=table)])
    (offer,) = catalog.offers(["smollm2"], NOW, ["sync", "batch"])
    assert (offer.processing, offer.context_window_tokens, offer.prices_version) == ("sync", None, STATED_PRICES)
    # 0.1 is a tenth and not 0.1000000000000000055; the write price that is not stated is the input's.
    assert price(offer, Usage(1_000_000, 0)) == Decimal("0.1")
    assert price(offer, Usage(1_000_000, 1_000_000, 500_000, 500_000)) == Decimal("0.455")
    assert catalog.offers(["smollm2"], NOW, ["batch"]) == ()


def test_a_table_is_copied_and_frozen() -> None:
    table = {"input_mtok": 1, "output_mtok": 1}
    local = provider(prices=table)
    table["input_mtok"] = 0
    assert isinstance(local.prices, dict) is False
    assert local.prices == {"input_mtok": 1, "output_mtok": 1}


def test_without_providers_every_model_is_sold_at_its_makers_list_price() -> None:
    """The same provider and model as genai-prices' own search, for every name that it finds."""
    snapshot = get_snapshot()
    checked, unsold = 0, []
    for name in sorted({model.id for price_list in snapshot.providers for model in price_list.models}):
        if any(name.startswith(f"{price_list.id}/") for price_list in snapshot.providers):
            continue  # "mistral/..." pins; see the next test
        try:
            maker, model = snapshot.find_provider_model(name, None, None, None)
        except LookupError:
            unsold.append(name)
            continue
        if not is_priced(model, NOW):
            continue
        (offer,) = Catalog().offers([name], NOW)
        assert (offer.provider, offer.model) == (maker.id, name)
        assert price(offer, Usage(50_000, 500)) == their_cost(model, maker, Usage(50_000, 500), "sync", NOW)
        checked += 1
    assert checked > 300
    for name in unsold[::50]:  # each takes milliseconds to find the near names of
        with pytest.raises(UnknownModel):
            Catalog().offers([name], NOW)


def test_without_providers_a_pin_names_a_price_list() -> None:
    (offer,) = Catalog().offers(["github-copilot/claude-haiku-5.5"], NOW)
    assert (offer.provider, offer.model) == ("github-copilot", "claude-haiku-5.5")
    assert Catalog().provider("github-copilot") is None


def test_asking_for_invented_names_leaves_nothing_behind() -> None:
    """The snapshot's own search keeps every name that it was ever asked for."""
    snapshot = get_snapshot()
    misses, hits = len(snapshot._provider_misses), len(snapshot._provider_cache)
    for number in range(5):
        for name in (f"invented-{number}", f"gpt-invented-{number}"):
            with pytest.raises(UnknownModel):
                Catalog().offers([name], NOW)
    assert (len(snapshot._provider_misses), len(snapshot._provider_cache)) == (misses, hits)


def test_new_prices_are_seen_at_once() -> None:
    """A snapshot that is replaced (genai-prices updates itself that way) replaces what the catalog found in the old one."""
    catalog = Catalog([provider(name="anthropic", models=("claude-haiku-5-5",))])
    (before,) = catalog.offers(["claude-haiku-5-5"], NOW)
    dearer = theirs.ModelPrice(input_mtok=Decimal(7), output_mtok=Decimal(9))
    row = theirs.ModelInfo("claude-haiku-5-5", theirs.ClauseEquals("claude-haiku-5-5"), prices=dearer)
    maker = theirs.Provider("anthropic", "Anthropic", "https://api", models=[row])
    set_custom_snapshot(DataSnapshot([maker], from_auto_update=True))
    try:
        (after,) = catalog.offers(["claude-haiku-5-5"], NOW)
    finally:
        set_custom_snapshot(None)
    assert before.tiers[0].input_usd == Decimal("1E-7")
    assert after.tiers[0].input_usd == Decimal("7E-6")
    assert catalog.offers(["claude-haiku-5-5"], NOW) == (before,)


def refusal(catalog: Catalog, model: str) -> str:
    with pytest.raises(UnknownModel) as caught:
        catalog.offers([model], NOW)
    assert caught.value.model
    return str(caught.value)


def test_an_unlisted_model_is_named_with_its_neighbours_and_the_fix() -> None:
    message = refusal(Catalog([provider()]), "gpt-6.1-soll")
    assert "no configured provider lists the model 'gpt-6.1-soll' (near: gpt-6.1-sol)" in message
    assert "Add it to a provider's `models`" in message


def test_a_pin_to_a_model_that_the_provider_does_not_list() -> None:
    message = refusal(Catalog([provider()]), "openai/gpt-6.1-so")
    assert "provider 'openai' does not list the model 'gpt-6.1-so' (near: gpt-6.1-sol)" in message


def test_an_unknown_maker() -> None:
    message = refusal(Catalog(), "gpt-6.1-soll")
    assert "no maker's price for the model 'gpt-6.1-soll'" in message
    assert "near: " in message
    assert message.count("gpt-6") >= 2
    assert "[[providers]]" in message


def test_a_provider_that_the_price_data_does_not_know() -> None:
    """Not even one whose name contains a known one: genai-prices' own search would take it for OpenAI."""
    message = refusal(Catalog([provider(name="my-openai-proxy")]), "gpt-6.1-sol")
    assert "has no provider 'my-openai-proxy'" in message
    assert "Set `prices`" in message


def test_a_listed_model_that_the_price_data_does_not_know() -> None:
    message = refusal(Catalog([provider(models=("gpt-99-nova",))]), "gpt-99-nova")
    assert "no price for the model 'gpt-99-nova' that provider 'openai' lists" in message
    assert "input_mtok" in message


@pytest.mark.parametrize("model", ["openai/moderation", "openai/whisper-1"])
def test_a_missing_price_is_not_a_price_of_zero(model: str) -> None:
    message = refusal(Catalog(), model)
    assert "an unknown price is not a price of zero" in message


def test_a_long_name_is_cut_in_the_message() -> None:
    assert len(refusal(Catalog([provider()]), "x" * 100_000)) < 400


def test_one_unknown_model_among_known_ones_is_an_error() -> None:
    with pytest.raises(UnknownModel, match="nova"):
        Catalog([provider()]).offers(["gpt-6.1-sol", "nova"], NOW)


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Catalog().offers(["gpt-6.1-sol"], NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="one text"):
        Catalog().offers("gpt-6.1-sol", NOW)
    with pytest.raises(ValueError, match="one text"):
        Catalog().offers(["gpt-6.1-sol"], NOW, "sync")


def test_models_lists_each_name_once_with_its_providers() -> None:
    catalog = Catalog([provider(models=("b", "a", "b")), provider(name="azure", models=("a",))])
    assert catalog.models() == (Listing("b", ("openai",)), Listing("a", ("openai", "azure")))
    assert Catalog().models() == ()
    found = catalog.provider("azure")
    assert found is not None
    assert found.name == "azure"
    assert catalog.provider("nobody") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "without '/'"),
        ({"kind": "cohere"}, "kind of provider 'openai' must be one of openai, anthropic, gemini"),
        ({"base_url": "api.openai.com/v1"}, "base_url"),
        ({"base_url": "ftp://api.openai.com"}, "base_url"),
        ({"base_url": "https:///v1"}, "base_url"),
        ({"models": ()}, "models"),
        ({"models": ("a", "")}, "models"),
        ({"models": "gpt-6"}, "models"),
        ({"prices": {"input_mtok": 1}}, "must state output_mtok"),
        ({"prices": {"input_mtok": 1, "output_mtok": 1, "input": 1}}, "not 'input'"),
        ({"prices": {"input_mtok": -1, "output_mtok": 1}}, "input_mtok"),
        ({"prices": {"input_mtok": True, "output_mtok": 1}}, "input_mtok"),
        ({"prices": {"input_mtok": float("nan"), "output_mtok": 1}}, "input_mtok"),
        ({"prices": {"input_mtok": "cheap", "output_mtok": 1}}, "input_mtok"),
    ],
)
def test_a_provider_names_its_bad_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        provider(**fields)


@pytest.mark.parametrize(
    "fields", [{"api_key_env": "sk-proj-secret-123"}, {"base_url": "https://user:secret-123@host/v1"}]
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))) as caught:
        provider(**fields)
    assert "secret-123" not in str(caught.value)


def test_two_providers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two providers are called 'openai'"):
        Catalog([provider(), provider()])


def test_offers_can_be_compared_and_hashed() -> None:
    first: tuple[Offer, ...] = Catalog().offers(["gpt-6.1-sol"], NOW)
    assert set(first) == set(Catalog().offers(["gpt-6.1-sol"], NOW))

"""A key in the environment is all that a server needs: the maker's own API, with every model whose price is known."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime

import pytest

import trimtab.zero_config
from routing.catalog import Catalog, Provider
from routing.errors import UnknownModel
from trimtab.settings import Settings
from trimtab.zero_config import MAKERS, no_key, providers_in

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ALL = {"OPENAI_API_KEY": "sk-a", "ANTHROPIC_API_KEY": "sk-b", "GEMINI_API_KEY": "key-c"}


def test_the_example() -> None:
    assert doctest.testmod(trimtab.zero_config).failed == 0


@pytest.mark.parametrize("name", ALL)
def test_a_key_gives_its_maker(name: str) -> None:
    (provider,) = providers_in({name: ALL[name]})
    assert provider.api_key_env == name
    assert ALL[name] not in repr(provider)
    assert providers_in({name: "  "}) == ()
    assert name in no_key()


@pytest.mark.parametrize(
    ("model", "seller"),
    [
        ("gpt-6.1-sol", "openai"),
        ("gpt-5-mini-2025-08-07", "openai"),
        ("o3-mini", "openai"),
        ("text-embedding-3-small", "openai"),
        ("claude-sonnet-5", "anthropic"),
        ("claude-sonnet-4-5-20250929", "anthropic"),  # Google's price list has it too, and its API does not
        ("gemini-3.8-flash", "gemini"),
        ("gemini/gemini-3.8-flash", "gemini"),
    ],
)
def test_each_model_is_its_makers(model: str, seller: str) -> None:
    offers = Catalog(providers_in(ALL)).offers([model], NOW)
    assert [offer.provider for offer in offers] == [seller]
    assert offers[0].tiers[0].input_usd > 0


@pytest.mark.parametrize("model", ["gpt-nonsense", "claude-", "mistral-large", "*", "gpt-*"])
def test_a_model_without_a_price_is_unknown(model: str) -> None:
    with pytest.raises(UnknownModel):
        Catalog(providers_in(ALL)).offers([model], NOW)


def test_what_is_listed_can_be_asked_for() -> None:
    catalog = Catalog(MAKERS)
    listed = [each.model for each in catalog.models()]
    assert {"gpt-6.1-sol", "claude-sonnet-5", "gemini-3.8-flash"} <= set(listed)
    assert not any("*" in each for each in listed)
    assert all(each.startswith(("gpt", "chatgpt", "o", "codex", "text-embedding", "claude", "gem")) for each in listed)
    assert len(catalog.offers([each for each in listed if each.startswith("claude")], NOW)) > 10


def test_invented_names_leave_nothing_behind() -> None:
    catalog = Catalog(MAKERS)
    for number in range(20):
        with pytest.raises(UnknownModel):
            catalog.offers([f"gpt-{number}-invented"], NOW)
    catalog.offers(["gpt-5-mini-2025-08-07"], NOW)
    assert catalog._found[1] == {}


def test_a_star_stands_for_names_that_begin_so_and_nothing_else() -> None:
    provider = Provider("p", "openai", "http://127.0.0.1", None, ("a", "b-*"), {"input_mtok": 1, "output_mtok": 1})
    assert [provider.lists(name) for name in ("a", "b-", "b-1", "b", "a-1", "B-1", "b-*")] == [True] * 3 + [
        False
    ] * 3 + [True]
    assert [each.model for each in Catalog([provider]).models()] == ["a"]
    assert Catalog([provider]).offers(["b-7"], NOW)[0].model == "b-7"


def test_the_profile_is_a_conservative_one() -> None:
    settings = Settings(providers=providers_in(ALL))
    assert settings.min_coverage == 0.95
    assert [provider.name for provider in settings.providers] == ["openai", "anthropic", "gemini"]

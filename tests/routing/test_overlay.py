"""The overlay: each thing that it can say, that it wins where it should, and what it says of a bad file."""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.catalog import PRICES_VERSION, STATED_PRICES, Catalog, Provider
from routing.commitments import commitments_of
from routing.errors import UnknownModel
from routing.offers import AMOUNTS, Offer, Rates, Usage, price
from routing.overlay import Overlay, overlay_with, shipped_overlay

TUESDAY = datetime(2026, 11, 24, 12, tzinfo=UTC)
SOL = "gpt-6.1-sol"


def overlay(text: str, tmp_path: Path, version: str = "mine") -> Overlay:
    file = tmp_path / "prices.toml"
    file.write_text(f'version = "{version}"\n{text}', encoding="utf-8")
    return Overlay.load(file)


def entry(more: str, *, name: str = "n", provider: str = "openai", models: str = '["gpt-*"]') -> str:
    return f'[[overlay]]\nname = "{name}"\nprovider = "{provider}"\nmodels = {models}\n{more}\n'


def seller(**fields: Any) -> Provider:
    known: dict[str, Any] = {
        "name": "openai",
        "kind": "openai",
        "base_url": "http://127.0.0.1/v1",
        "api_key_env": None,
        "models": (SOL,),
    }
    return Provider(**known | fields)


def only(catalog: Catalog, model: str = SOL, now: datetime = TUESDAY, service: str = "sync") -> Offer:
    (offer,) = catalog.offers([model], now, [service])
    return offer


LISTED = only(Catalog(overlay=Overlay()))


def test_a_multiplier_is_an_uplift_or_a_discount_on_every_price_and_boundary(tmp_path: Path) -> None:
    eu = overlay(entry("multiplier = 1.1", provider="openai-eu"), tmp_path)
    catalog = Catalog([seller(), seller(name="openai-eu", prices="openai")], eu)
    home, away = catalog.offers([SOL], TUESDAY)
    assert home == LISTED
    assert away.boundaries == LISTED.boundaries
    for service in ("sync", "batch"):
        listed, uplifted = (each for each in catalog.offers([SOL], TUESDAY, [service]))
        for usage in (Usage(1_000, 10), Usage(300_000, 1_000, 1_000, 2_000)):
            assert price(uplifted, usage) == price(listed, usage) * Decimal("1.1")
    assert away.prices_version == f"{PRICES_VERSION} + overlay mine"


def test_multipliers_come_one_after_another(tmp_path: Path) -> None:
    both = overlay(entry("multiplier = 1.1", name="eu") + entry("multiplier = 0.8", name="contract"), tmp_path)
    assert price(only(Catalog(overlay=both)), Usage(1_000, 0)) == price(LISTED, Usage(1_000, 0)) * Decimal("0.88")


def test_a_negotiated_table_stands_instead_of_the_lists_and_is_named_alone(tmp_path: Path) -> None:
    table = "tiers = [{ input_mtok = 1.5, output_mtok = 8, cache_read_mtok = 0.1, request_usd = 0.01 }]"
    offer = only(Catalog(overlay=overlay(entry(table, name="contract"), tmp_path)))
    assert price(offer, Usage(1_000_000, 1_000_000)) == Decimal("9.51")
    assert price(offer, Usage(1_000_000, 0, 1_000_000)) == Decimal("0.11")
    assert price(offer, Usage(1_000_000, 0, 0, 1_000_000)) == Decimal("1.51")  # a write that is not stated is input
    assert (offer.prices_version, offer.boundaries) == ("overlay mine", ())


def test_a_price_of_ones_own_is_for_the_standard_class_and_a_correction_for_all(tmp_path: Path) -> None:
    own = Catalog(overlay=overlay(entry("tiers = [{ input_mtok = 1, output_mtok = 1 }]"), tmp_path))
    assert only(own, service="batch") == only(Catalog(overlay=Overlay()), service="batch")
    flex = Catalog(overlay=overlay(entry('processing = ["flex"]\nmultiplier = 0'), tmp_path))
    assert price(only(flex, service="flex"), Usage(10, 10)) == 0
    assert only(flex) == LISTED


@pytest.mark.parametrize(
    ("bound", "cheap_tokens", "dear_tokens"),
    [("from_tokens = 200_000", 199_999, 200_000), ("above_tokens = 200_000", 200_000, 200_001)],
)
def test_a_boundary_is_inclusive_or_exclusive_as_it_says(
    bound: str, cheap_tokens: int, dear_tokens: int, tmp_path: Path
) -> None:
    tiers = f"tiers = [{{ input_mtok = 2, output_mtok = 6 }}, {{ {bound}, input_mtok = 4, output_mtok = 12 }}]"
    offer = only(Catalog(overlay=overlay(entry(tiers), tmp_path)))
    assert offer.boundaries == (cheap_tokens,)
    assert price(offer, Usage(cheap_tokens, 0)) == cheap_tokens * Decimal("2E-6")
    assert price(offer, Usage(dear_tokens, 0)) == dear_tokens * Decimal("4E-6")


def test_a_model_that_no_list_has(tmp_path: Path) -> None:
    doubao = overlay(
        entry(
            "context_window_tokens = 262_144\n"
            "tiers = [{ input_mtok = 1, output_mtok = 5 }, { above_tokens = 32_000, input_mtok = 2, output_mtok = 9 }]",
            provider="volcengine",
            models='["doubao-*", "doubao-seed-2-0-pro"]',
        ),
        tmp_path,
    )
    configured = Catalog([seller(name="volcengine", models=("doubao-seed-2-0-pro", "other"))], doubao)
    offers = configured.offers(["doubao-seed-2-0-pro"], TUESDAY, ["sync", "flex", "batch"])
    assert [(each.processing, each.boundaries, each.context_window_tokens) for each in offers] == [
        ("sync", (32_000,), 262_144)
    ]
    with pytest.raises(UnknownModel, match="has no provider 'volcengine'"):
        configured.offers(["other"], TUESDAY)
    # Without providers, by its exact name or with its seller; a pattern alone would price invented names.
    for asked in ("doubao-seed-2-0-pro", "volcengine/doubao-seed-2-0-pro", "volcengine/doubao-new"):
        assert only(Catalog(overlay=doubao), asked).provider == "volcengine"
    with pytest.raises(UnknownModel):
        Catalog(overlay=doubao).offers(["doubao-new"], TUESDAY)


def test_a_machine_by_the_hour_costs_its_hour_over_what_it_does_in_one(tmp_path: Path) -> None:
    spot = "hourly = { usd_per_hour = 1.8, input_tokens_per_second = 5000, output_tokens_per_second = 250 }"
    offer = only(Catalog([seller(name="gpu")], overlay(entry(spot, provider="gpu"), tmp_path)))
    # an hour of reading, an hour of writing
    assert price(offer, Usage(3600 * 5000, 0)) == Decimal("1.8")
    assert price(offer, Usage(0, 3600 * 250)) == Decimal("1.8")
    third = "hourly = { usd_per_hour = 1, input_tokens_per_second = 7, output_tokens_per_second = 3 }"
    offer = only(Catalog([seller(name="gpu")], overlay(entry(third, provider="gpu"), tmp_path)))
    assert abs(price(offer, Usage(3600 * 7, 0)) - 1) < Decimal("1E-20")


def test_an_entry_counts_from_a_date_until_before_another_in_its_zone(tmp_path: Path) -> None:
    dated = entry('from = 2026-12-01\nuntil = 2027-01-01\nzone = "Europe/Vienna"\nmultiplier = 0.5')
    catalog = Catalog(overlay=overlay(dated, tmp_path))
    for now, halved in (
        (datetime(2026, 11, 30, 22, 59, 59, tzinfo=UTC), False),
        (datetime(2026, 11, 30, 23, 0, tzinfo=UTC), True),
        (datetime(2026, 12, 31, 22, 59, 59, tzinfo=UTC), True),
        (datetime(2026, 12, 31, 23, 0, tzinfo=UTC), False),
    ):
        assert (only(catalog, now=now) != LISTED) is halved


@pytest.mark.parametrize(
    ("window", "local", "holds"),
    [
        ('weekdays = ["sat", "sun"]', "2026-11-21T00:00", True),
        ('weekdays = ["sat", "sun"]', "2026-11-23T00:00", False),
        ('dates = [2026-12-25]\nweekdays = ["sun"]', "2026-12-25T23:59", True),
        ("dates = [2026-12-25]", "2026-12-26T00:00", False),
        ('hours = ["01:00-04:00", "06:00-10:00"]', "2026-11-24T01:00", True),
        ('hours = ["01:00-04:00", "06:00-10:00"]', "2026-11-24T04:00", False),
        ('hours = ["01:00-04:00", "06:00-10:00"]', "2026-11-24T09:59", True),
        ('hours = ["22:00-06:00"]', "2026-11-24T23:00", True),
        ('hours = ["22:00-06:00"]', "2026-11-24T05:59", True),
        ('hours = ["22:00-06:00"]', "2026-11-24T06:00", False),
        ('hours = ["18:00-24:00"]', "2026-11-24T23:59", True),
        ('hours = ["18:00-24:00"]', "2026-11-24T00:00", False),
        ('weekdays = ["tue"]\nhours = ["09:00-10:00"]', "2026-11-24T09:30", True),
        ('weekdays = ["wed"]\nhours = ["09:00-10:00"]', "2026-11-24T09:30", False),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_windows_are_read_on_the_clock_of_the_zone(
    window: str, local: str, holds: bool, zone: str, tmp_path: Path
) -> None:
    (only_entry,) = overlay(entry(f'{window}\nzone = "{zone}"\nmultiplier = 2'), tmp_path).entries
    moment = datetime.fromisoformat(local).replace(tzinfo=only_entry.scope.zone).astimezone(UTC)
    assert only_entry.applies(("openai",), SOL, "sync", moment) is holds


def test_a_price_of_another_hour_of_the_same_day() -> None:
    """All of a weekend costs what its noon does, to the digit, whichever hour is asked for."""
    raw, corrected = Catalog(overlay=Overlay()), Catalog()
    for hour in range(24):
        saturday = datetime(2026, 11, 21, hour, 30, tzinfo=UTC)
        assert (
            only(corrected, "deepseek-v4-pro", saturday).tiers
            == only(raw, "deepseek-v4-pro", saturday.replace(hour=12, minute=0)).tiers
        )
        monday = saturday + timedelta(days=2)
        assert only(corrected, "deepseek-v4-pro", monday) == only(raw, "deepseek-v4-pro", monday)


def test_the_users_file_comes_last_and_replaces_an_entry_of_the_same_name(tmp_path: Path) -> None:
    shipped = shipped_overlay().entries
    file = tmp_path / "own.toml"
    file.write_text(
        'version = "own"\n'
        + entry("multiplier = 3", name="deepseek weekends", provider="deepseek", models='["deepseek-*"]')
    )
    merged = overlay_with(file)
    assert [each.name for each in merged.entries] == ["qwen3-max international", "deepseek weekends"]
    saturday = datetime(2026, 11, 21, 2, tzinfo=UTC)
    raw = only(Catalog(overlay=Overlay()), "deepseek-flash", saturday)
    ours = only(Catalog(overlay=merged), "deepseek-flash", saturday)
    assert price(ours, Usage(1_000, 0)) == 3 * price(raw, Usage(1_000, 0))
    assert overlay_with(None).entries == shipped
    # an entry of another name comes on top of the shipped one, and both are named
    file.write_text('version = "own"\n' + entry("multiplier = 3", provider="deepseek", models='["deepseek-*"]'))
    ours = only(Catalog(overlay=overlay_with(file)), "deepseek-flash", saturday)
    assert price(ours, Usage(1_000_000, 0)) == Decimal("0.45")
    assert ours.prices_version == f"{PRICES_VERSION} + overlay {shipped[0].version} + overlay own"


def test_prices_stated_in_the_configuration_are_corrected_by_the_sellers_name_alone(tmp_path: Path) -> None:
    local = seller(name="local", models=("deepseek-flash",), prices={"input_mtok": 1, "output_mtok": 1})
    catalog = Catalog([local], overlay(entry("multiplier = 2", provider="local", models='["*"]'), tmp_path))
    offer = only(catalog, "deepseek-flash")
    assert (offer.tiers[0].input_usd, offer.prices_version) == (Decimal("2E-6"), f"{STATED_PRICES} + overlay mine")
    assert catalog.offers(["deepseek-flash"], TUESDAY, ["batch"]) == ()


def test_which_entries_made_a_price_can_be_asked(tmp_path: Path) -> None:
    catalog = Catalog([seller(name="mine", prices="deepseek", models=("deepseek-flash",))])
    saturday = datetime(2026, 11, 21, 2, tzinfo=UTC)
    offer = only(catalog, "deepseek-flash", saturday)
    assert [each.name for each in catalog.corrections(offer, saturday)] == ["deepseek weekends"]
    assert "api-docs.deepseek.com" in catalog.corrections(offer, saturday)[0].source
    assert catalog.corrections(offer, TUESDAY) == ()


@given(st.integers(0, 10**6))
def test_an_overlay_without_a_fitting_entry_changes_nothing(seed: int) -> None:
    draw = random.Random(seed)
    row = Rates(-1, *(Decimal(draw.randrange(100)).scaleb(-6) for _ in AMOUNTS))
    offer = Offer("openai", "m", "sync", (row,), None, "v")
    for each in shipped_overlay().entries:
        assert not each.applies(("openai",), "m", "sync", TUESDAY)
    assert shipped_overlay().quote(("openai",), "m", "sync", TUESDAY, lambda at: offer) is offer
    halved = Overlay((replace(shipped_overlay().entries[0], multiplier=Decimal("0.5"), price_at=None),))
    assert halved.quote(("openai",), "m", "sync", TUESDAY, lambda at: offer) is offer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "version is missing"),
        ('version = "1"\nentries = []', "'entries' is no field here; there are version, overlay"),
        ('version = "1"\noverlay = 3', r"overlay must be a list of tables, each written \[\[overlay\]\]"),
        ('version = "1"\noverlay = [3]', r"overlay\[0\]: must be a table"),
        ('version = "1"\n[[overlay]]\nprovider = "p"', r"overlay\[0\]: name is missing"),
        ('version = "1"\n' + entry("multiplyer = 2"), r"overlay\[0\] 'n': 'multiplyer' is no field here; did you mean"),
        ('version = "1"\n' + entry(""), "must have exactly one of multiplier, price_at, tiers, hourly, and has none"),
        ('version = "1"\n' + entry('multiplier = 1\nprice_at = "12:00"'), "and has multiplier and price_at"),
        ('version = "1"\n' + entry("multiplier = -1"), "multiplier must be a number of 0 or more, not -1"),
        ('version = "1"\n' + entry("multiplier = true"), "multiplier must be a number of 0 or more, not True"),
        ('version = "1"\n' + entry("multiplier = nan"), "multiplier must be a number of 0 or more"),
        ('version = "1"\n' + entry('price_at = "25:00"'), "price_at must be a time of day such as"),
        ('version = "1"\n' + entry('multiplier = 1\nweekdays = ["sunday"]'), "weekdays may hold mon, tue, .* 'sunday'"),
        ('version = "1"\n' + entry('multiplier = 1\nhours = ["1-4"]'), 'hours must each be written like "01:00-04:00"'),
        ('version = "1"\n' + entry('multiplier = 1\nhours = ["04:00-04:00"]'), "hours must each"),
        ('version = "1"\n' + entry('multiplier = 1\nhours = ["23:00-24:30"]'), "hours must each"),
        ('version = "1"\n' + entry("multiplier = 1\nhours = []"), "hours must be a list of one or more texts"),
        ('version = "1"\n' + entry('multiplier = 1\ndates = ["2026-10-01"]'), "dates must be a list of dates"),
        ('version = "1"\n' + entry('multiplier = 1\nzone = "Vienna"'), "zone must be the name of a time zone"),
        ('version = "1"\n' + entry('multiplier = 1\nfrom = "2026-08-23"'), "from must be a date such as 2026-08-23"),
        (
            'version = "1"\n' + entry("multiplier = 1\nfrom = 2026-08-23\nuntil = 2026-08-23"),
            "until must be later than `from`",
        ),
        ('version = "1"\n' + entry("multiplier = 1", models='"gpt-*"'), "models must be a list of one or more texts"),
        (
            'version = "1"\n' + entry("multiplier = 1\ncontext_window_tokens = 9"),
            "context_window_tokens must be left out",
        ),
        ('version = "1"\n' + entry("tiers = []"), "tiers must be a list of one or more tables"),
        ('version = "1"\n' + entry("tiers = [{ input_mtok = 1 }]"), r"tiers\[0\]: output_mtok is missing"),
        (
            'version = "1"\n' + entry("tiers = [{ above_tokens = 1, input_mtok = 1, output_mtok = 1 }]"),
            r"tiers\[0\]: above_tokens must be left out of the first tier",
        ),
        (
            'version = "1"\n'
            + entry("tiers = [{ input_mtok = 1, output_mtok = 1 }, { input_mtok = 1, output_mtok = 1 }]"),
            r"tiers\[1\]: must have exactly one of above_tokens, from_tokens",
        ),
        (
            'version = "1"\n'
            + entry(
                "tiers = [{ input_mtok = 1, output_mtok = 1 }, { above_tokens = 9, input_mtok = 1, output_mtok = 1 },"
                " { from_tokens = 10, input_mtok = 1, output_mtok = 1 }]"
            ),
            r"tiers\[2\]: must begin above the tier before it",
        ),
        ('version = "1"\n' + entry("hourly = { usd_per_hour = 1 }"), "hourly: input_tokens_per_second is missing"),
        (
            'version = "1"\n'
            + entry("hourly = { usd_per_hour = 1, input_tokens_per_second = 0, output_tokens_per_second = 1 }"),
            "input_tokens_per_second must be a number above 0, not 0",
        ),
        ('version = "1"\n' + entry("multiplier = 1") * 2, "two entries are called 'n'"),
        ("version = ", "is not TOML"),
    ],
)
def test_a_bad_file_names_itself_the_entry_the_field_and_the_fix(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Overlay.load(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml: cannot be read"):
        Overlay.load(tmp_path / "none.toml")


def test_the_shipped_file_names_a_source_for_everything() -> None:
    assert shipped_overlay().entries
    assert all("https://" in each.source for each in shipped_overlay().entries)


def test_the_examples_in_the_documentation_are_good() -> None:
    text = (Path(__file__).parents[2] / "docs" / "prices.md").read_text(encoding="utf-8")
    own, refresh, commitments = (tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL))
    assert len(Overlay.of(own, "prices.toml").entries) == 6
    assert refresh == {"refresh_prices_hours": 6}
    assert len(commitments_of(commitments["commitments"])) == 1
    own["overlay"][3]["hourly"]["input_tokens_per_second"] = 0
    with pytest.raises(ValueError, match="spot H100") as caught:
        Overlay.of(own, "prices.toml")
    assert str(caught.value) in text
    names = {field for each in own["overlay"] for field in each} | {"above_tokens", "from_tokens", "cache_write_mtok"}
    assert all(f"`{name}`" in text for name in names)

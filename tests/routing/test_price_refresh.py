"""Fresh prices: what is believed, what is refused, and that the next request is planned on them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import Provider as PriceList

from routing.catalog import PRICES_VERSION, Catalog, Provider
from routing.errors import UnknownModel
from routing.offers import Usage, price
from routing.planner import Needs, plan
from routing.price_refresh import PriceChange, PriceRefresh, fetched_from, reviewed

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def prices(input_mtok: Any = "1", output_mtok: Any = "4", **more: Any) -> ModelPrice:
    exact = {key: Decimal(each) if isinstance(each, str) else each for key, each in more.items()}
    in_price, out_price = (Decimal(each) if isinstance(each, str) else each for each in (input_mtok, output_mtok))
    return ModelPrice(input_mtok=in_price, output_mtok=out_price, **exact)


def row(name: str, price_of: Any = None, **more: Any) -> ModelInfo:
    return ModelInfo(name, ClauseEquals(name), prices=price_of or prices(), **more)


def snapshot(*rows: ModelInfo, fresh: bool = True, others: tuple[PriceList, ...] = ()) -> DataSnapshot:
    maker = PriceList("maker", "Maker", "https://maker", models=list(rows))
    return DataSnapshot([maker, *others], from_auto_update=fresh, timestamp=NOW)


def seller(*models: str, **more: Any) -> Provider:
    return Provider("maker", "openai", "http://127.0.0.1/v1", None, models, **more)


def changes(before: ModelInfo, after: ModelInfo | None) -> tuple[PriceChange, ...]:
    fetched = snapshot(*([after] if after else []))
    return reviewed(snapshot(before), fetched, [seller("m")], NOW).changes


def test_the_same_prices_are_no_change() -> None:
    assert reviewed(get_snapshot(), get_snapshot(), [], NOW).changes == ()


def test_a_change_names_provider_model_field_before_and_after() -> None:
    (change,) = changes(row("m"), row("m", prices("1", "5")))
    assert change == PriceChange("maker", "m", "sync output", Decimal(4), Decimal(5))
    assert str(change) == "maker/m sync output: $4 -> $5"


def test_input_that_changes_takes_the_cache_prices_that_follow_it_along() -> None:
    fields = {change.field for change in changes(row("m"), row("m", prices("2")))}
    assert fields == {"sync input", "sync cache read", "sync cache write"}


def test_a_boundary_that_moves_or_appears_is_seen() -> None:
    def tiered(start: int) -> ModelInfo:
        return row("m", prices("1", TieredPrices(Decimal(4), [Tier(start, Decimal(8))])))

    (change,) = changes(row("m"), tiered(100_000))
    assert (change.field, change.before_usd, change.after_usd) == ("sync output above 100,000", 4, 8)
    (change,) = changes(tiered(200_000), tiered(100_000))
    assert (change.field, change.before_usd, change.after_usd) == ("sync output above 100,000", 4, 8)


def test_service_classes_are_compared_and_one_that_ends_is_news() -> None:
    def batch(price_of: ModelPrice | None) -> ModelInfo:
        variants = [PriceVariant({"processing": "batch"}, price_of)] if price_of else None
        return row("m", price_variants=variants)

    found = changes(batch(prices("0.5", "2")), batch(prices("0.6", "2")))
    assert {each.field for each in found} == {"batch input", "batch cache read", "batch cache write"}
    found = changes(batch(prices("0.5", "2")), batch(None))
    assert {(each.field, each.after_usd) for each in found} >= {("batch input", None), ("batch output", None)}
    assert not any(each.refused for each in found)


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (prices("10", "4"), ""),
        (prices("10.01", "4"), "more than 10 times apart"),
        (prices("0.1", "4"), ""),
        (prices("0.099", "4"), "more than 10 times apart"),
        (prices("0", "4"), "free all at once"),
        (prices("-1", "4"), "must be a finite amount of 0 or more"),
        (prices(Decimal("NaN"), "4"), "must be a finite amount of 0 or more"),
        (ModelPrice(output_mtok=Decimal(4)), "lost its price"),
        (None, "the model is gone"),
    ],
)
def test_what_is_absurd_is_refused_and_the_old_price_stays(after: ModelPrice | None, why: str) -> None:
    other_before, other_after = row("other", prices("1", "1")), row("other", prices("2", "1"))
    fetched = snapshot(*([row("m", after)] if after else []), other_after)
    review = reviewed(snapshot(row("m"), other_before), fetched, [seller("m", "other")], NOW)
    if why:
        assert any(why in each.refused for each in review.refused)
        assert {each.model for each in review.refused} == {"m"}
    else:
        assert review.refused == ()
        assert after is not None
    catalog = Catalog([seller("m", "other")], snapshot=lambda: review.snapshot)
    (m,), (other,) = catalog.offers(["m"], NOW), catalog.offers(["other"], NOW)
    expected = Decimal(1) if why or after is None else after.input_mtok
    assert price(m, Usage(1_000_000, 0)) == expected
    assert price(other, Usage(1_000_000, 0)) == 2  # the rest is taken


def test_a_free_model_may_begin_to_cost() -> None:
    found = changes(row("m", prices("0", "0")), row("m"))
    assert found
    assert not any(each.refused for each in found)


def test_a_price_that_begins_later_or_at_another_hour_is_looked_at_now() -> None:
    """An absurd price must not lie in wait for its date."""
    later = StartDateConstraint((NOW + timedelta(days=40)).date())
    night = TimeOfDateConstraint(time(2, 30), time(3))
    for constraint in (later, night):
        dear = row("m", [ConditionalPrice(prices=prices()), ConditionalPrice(constraint, prices=prices("1000", "4"))])
        assert any(each.refused for each in changes(row("m"), dear))
    past = StartDateConstraint(date(2020, 1, 1))
    dearer = row("m", [ConditionalPrice(prices=prices()), ConditionalPrice(past, prices=prices("2", "4"))])
    assert {each.after_usd for each in changes(row("m"), dearer)} == {Decimal(2)}


def test_a_refused_row_is_kept_for_its_own_list_alone() -> None:
    """A list that borrows the row of another is not to change the owner's price, nor to gain its batch price."""

    def both(input_mtok: str, own: bool) -> DataSnapshot:
        variants = [PriceVariant({"processing": "batch"}, prices("0.5", "2"))]
        owner = PriceList("owner", "O", "https://o", models=[row("m", prices(input_mtok), price_variants=variants)])
        borrower = PriceList("maker", "M", "https://m", models=[row("m")] if own else [])
        borrower.fallback_model_providers = ["owner"]
        return DataSnapshot([borrower, owner], from_auto_update=True, timestamp=NOW)

    sellers = [seller("m"), replace(seller("m"), name="owner")]
    review = reviewed(both("60", True), both("60", False), sellers, NOW)
    assert {each.provider for each in review.refused} == {"maker"}
    catalog = Catalog(sellers, snapshot=lambda: review.snapshot)
    found = [
        (each.provider, each.processing, each.tiers[0].input_usd.scaleb(6))
        for each in catalog.offers(["m"], NOW, ["sync", "batch"])
    ]
    assert found == [("maker", "sync", 1), ("owner", "sync", 60), ("owner", "batch", Decimal("0.5"))]


def test_a_list_that_is_gone_is_kept_for_the_configured_models() -> None:
    current = snapshot(row("m"), ModelInfo("n", ClauseStartsWith("n"), prices=prices()))
    review = reviewed(current, DataSnapshot([], from_auto_update=True), [seller("m")], NOW)
    assert [each.id for each in review.snapshot.providers] == ["maker"]
    catalog = Catalog([seller("m", "n")], snapshot=lambda: review.snapshot)
    assert catalog.offers(["m"], NOW)
    with pytest.raises(UnknownModel):
        catalog.offers(["n"], NOW)


def test_stated_prices_are_nobodys_to_change() -> None:
    stated = seller("m", prices={"input_mtok": 1, "output_mtok": 1})
    assert reviewed(snapshot(row("m")), snapshot(row("m", prices("2"))), [stated], NOW).changes == ()


def test_without_providers_every_model_is_compared() -> None:
    review = reviewed(snapshot(row("a"), row("b")), snapshot(row("a"), row("b", prices("0"))), [], NOW)
    assert {each.model for each in review.refused} == {"b"}


def test_the_new_snapshot_is_a_new_one_and_the_fetched_one_is_not_edited() -> None:
    fetched = snapshot(row("m", prices("0")))
    before = deepcopy(fetched.providers)
    reviewed(snapshot(row("m")), fetched, [seller("m")], NOW)
    assert fetched.providers == before


@dataclass(frozen=True)
class Line:
    full_tokens: int = 10_000

    def coverage(self, budget_tokens: int) -> float:
        return min(1.0, budget_tokens / self.full_tokens)

    def budget_for(self, coverage: float) -> int:
        return round(coverage * self.full_tokens)

    def steps(self) -> range:
        return range(1, self.full_tokens + 1)


def test_a_price_jump_plans_the_next_request_anew_and_the_receipts_version_says_so() -> None:
    old = snapshot(row("a", prices("1", "1")), row("b", prices("2", "1")), fresh=False)
    new = snapshot(row("a", prices("5", "1")), row("b", prices("2", "1")))
    refresh = PriceRefresh([seller("a", "b")], lambda: new, lambda: NOW)
    refresh._snapshot = old
    catalog = Catalog([seller("a", "b")], snapshot=refresh.current)

    def chosen() -> tuple[str, str]:
        made = plan(curve=Line(), needs=Needs(10, 10), offers=catalog.offers(["a", "b"], NOW))
        return made.chosen.offer.model, made.prices_version

    assert chosen() == ("a", PRICES_VERSION)
    refresh.refresh()
    assert chosen() == ("b", f"{PRICES_VERSION}, updated 2026-11-24 12:00 UTC")


def test_a_refresh_logs_every_change_and_leaves_genai_prices_own_snapshot_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trimtab.prices")
    fetched = iter([snapshot(row("m"), row("n")), snapshot(row("m", prices("0")), row("n", prices("1", "5")))])
    refresh = PriceRefresh([seller("m", "n")], lambda: next(fetched), lambda: NOW)
    assert refresh.current() is get_snapshot()
    refresh.refresh()
    caplog.clear()
    assert refresh.refresh()
    levels = {entry.getMessage(): entry.levelname for entry in caplog.records}
    assert levels["maker/n sync output: $4 -> $5"] == "INFO"
    assert levels["maker/m sync input: $1 -> $0 (refused: free all at once)"] == "WARNING"
    assert get_snapshot().from_auto_update is False


def test_a_fetch_that_fails_changes_nothing_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tried, done = iter([ConnectionError("sk-secret"), ValueError("bad"), None]), threading.Event()
    good = snapshot(row("m"))

    def fetch() -> DataSnapshot:
        error = next(tried)
        if error is not None:
            raise error
        done.set()
        return good

    refresh = PriceRefresh([seller("m")], fetch, lambda: NOW)
    with pytest.raises(ConnectionError):
        refresh.refresh()
    assert refresh.current() is get_snapshot()
    refresh.start(1e-6)
    refresh.start(1e-6)
    try:
        assert done.wait(10)
    finally:
        refresh.stop()
    assert "prices were not refreshed (ValueError); they stay as they are" in caplog.text
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize("hours", [0, -1, float("nan")])
def test_hours_that_are_none(hours: float) -> None:
    with pytest.raises(ValueError, match="hours must be above 0"):
        PriceRefresh().start(hours)


@pytest.fixture
def served() -> Iterator[tuple[str, list[Any]]]:
    """A server that answers with the last item of the list: JSON, or a status."""
    answers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[-1]
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            self.wfile.write(b"" if isinstance(answer, int) else json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Nothing into the tests' output."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data.json", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_price_lists_over_http_in_genai_prices_own_format(served: tuple[str, list[Any]]) -> None:
    url, answers = served
    model = {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 3, "output_mtok": 7}}
    answers.append([{"id": "maker", "name": "Maker", "api_pattern": "https://maker", "models": [model]}])
    refresh = PriceRefresh([seller("m")], lambda: fetched_from(url), lambda: NOW)
    refresh.refresh()
    (offer,) = Catalog([seller("m")], snapshot=refresh.current).offers(["m"], NOW)
    assert price(offer, Usage(1_000_000, 1_000_000)) == 10
    assert offer.prices_version.startswith(f"{PRICES_VERSION}, updated 20")
    for bad, error in (([], ValueError), ({"a": 1}, ValueError), ([{"id": 3}], ValueError), (503, ConnectionError)):
        answers.append(bad)
        with pytest.raises(error):
            refresh.refresh()
    assert Catalog([seller("m")], snapshot=refresh.current).offers(["m"], NOW) == (offer,)

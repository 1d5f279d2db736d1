"""The views between figures and pages: addresses, facets, health in words, price lists, and texts in pieces."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.catalog import Catalog
from routing.health import Breaker
from routing.standing import Standing
from tests.trimtab.ledger.made import NOW, made
from trimtab.caller import Caller
from trimtab.dashboard import charts, shown
from trimtab.dashboard.asked import SPANS, Asked, Span
from trimtab.dashboard.market import healths, new_prices
from trimtab.dashboard.one_request import OPEN_TEXTS, one_request, pieces_of
from trimtab.dashboard.overview import PAGE, Deferred, Figures, overview, read
from trimtab.database import Database
from trimtab.deferred import job
from trimtab.deferred.job import NewJob, Outcome
from trimtab.deferred.jobs import Jobs
from trimtab.ledger.entries import TABLES
from trimtab.ledger.figures import FILTERS, Line, Part, PriceList, Seller, Totals

texts = st.text(max_size=8)


@given(
    st.sampled_from(SPANS),
    st.dictionaries(st.sampled_from(FILTERS), texts.filter(bool)),
    st.none() | st.integers(0, 10**17),
)
def test_an_address_says_all_that_was_asked(span: Span, filters: dict[str, str], before: int | None) -> None:
    asked = Asked(span, tuple((name, filters[name]) for name in FILTERS if name in filters), before)
    try:
        url = asked.url()
    except UnicodeEncodeError:
        return
    assert Asked.of(dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))) == asked


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.sampled_from(SPANS))
def test_steps_are_whole_and_the_one_under_way_is_the_last(naive: datetime, span: Span) -> None:
    now = naive.replace(tzinfo=UTC)
    starts = span.starts(now)
    step_ms = span.step_ms
    assert {start % step_ms for start in starts} == {0}
    assert [b - a for a, b in pairwise(starts)] == [step_ms] * (len(starts) - 1)
    assert starts[-1] <= now.timestamp() * 1000 < starts[-1] + step_ms


def figures_of(**more: object) -> Figures:
    empty: dict[str, tuple[Part, ...]] = dict.fromkeys(FILTERS, ())
    nothing = Figures(Totals(), empty, {}, 0, (), {}, (), (), (), (), Deferred(), 1)
    return replace(nothing, **more)  # type: ignore[arg-type]


def part(name: str, spent: str = "1") -> Part:
    return Part(name, 1, 1, Decimal(spent), Decimal(1), 0, 0, 0)


def test_a_filter_can_be_set_to_anything_the_others_leave_and_to_what_it_is_set_to() -> None:
    by = dict.fromkeys(FILTERS, ()) | {"model": (part("b"), part(""), part("a")), "team": (part(""),)}
    view = overview(Asked(filters=(("model", "gone"),)), NOW, figures_of(by=by), (), {})
    assert view.options["model"] == ("=", "a", "b", "gone")
    assert view.options["team"] == ()  # no choice
    assert view.breakdowns == ()  # nothing agrees with "gone"


def test_a_breakdown_is_of_what_agrees_with_its_own_filter_too() -> None:
    by = dict.fromkeys(FILTERS, ()) | {"model": (part("b", "3"), part("a", "2")), "route": (part(""),)}
    everything = overview(Asked(), NOW, figures_of(by=by), (), {})
    assert [(each.name, len(each.rows), each.most_usd) for each in everything.breakdowns] == [("model", 2, 3)]
    one = overview(Asked(filters=(("model", "a"),)), NOW, figures_of(by=by), (), {})
    assert [(each.name, each.rows[0].name, each.most_usd) for each in one.breakdowns] == [("model", "a", 2)]


@pytest.mark.parametrize(("lines", "more"), [(PAGE, False), (PAGE + 1, True)])
def test_there_is_an_older_page_only_if_there_is_one(lines: int, more: bool) -> None:
    found = tuple(Line(100 - number, entry) for number, entry in enumerate(made(lines)))
    view = overview(Asked(), NOW, figures_of(lines=found), (), {})
    assert len(view.lines) == PAGE
    assert view.older_url == (f"/?before={100 - PAGE + 1}" if more else None)


@pytest.mark.parametrize(
    ("breaker", "standing", "state", "tone"),
    [
        ("closed", Standing(), "answers", "good"),
        ("open", Standing(available=False), "circuit breaker open", "bad"),
        ("half-open", Standing(), "circuit breaker half-open", "warn"),
        ("closed", Standing(available=False), "rests: it asked us to wait", "warn"),
        ("closed", Standing(success=0.5), "often fails", "warn"),
    ],
)
def test_health_is_told_in_words(breaker: Breaker, standing: Standing, state: str, tone: str) -> None:
    rows = healths(("a", "b"), {("b", "m", "sync"): (breaker, standing)})
    assert [(row.provider, row.state, row.tone) for row in rows] == [("a", "not called yet", ""), ("b", state, tone)]


def test_a_price_list_is_new_where_the_seller_had_another_before() -> None:
    seller, other = Seller("a", "m", "sync"), Seller("a", "m", "batch")
    at = [NOW - timedelta(days=days) for days in range(4)]
    lists = (
        PriceList(seller, "3", at[0], at[0], 1, Decimal(1)),
        PriceList(other, "2", at[1], at[0], 1, Decimal(1)),
        PriceList(seller, "2", at[2], at[1], 1, Decimal(1)),
    )
    assert [(each.seen, each.before) for each in new_prices(lists)] == [(lists[0], "2")]


@given(st.text(alphabet="ab\n🙂", max_size=40), st.lists(st.integers(0, 50), max_size=8, unique=True))
def test_pieces_are_the_text_and_exactly_the_spans_are_kept(text: str, ends: list[int]) -> None:
    ends = sorted(ends)[: len(ends) // 2 * 2]
    spans = list(zip(ends[::2], ends[1::2], strict=True))
    pieces = pieces_of(text, spans)
    assert "".join(piece.text for piece in pieces) == text
    kept = "".join("k" if any(a <= at < b for a, b in spans) else "d" for at in range(len(text)))
    assert "".join(("k" if piece.kept else "d") * len(piece.text) for piece in pieces) == kept


def test_one_request_without_any_detail_has_a_page() -> None:
    entry = replace(made(1)[0], detail={})
    page = one_request(entry, lambda _: None)
    assert (page.texts, page.curve, page.candidates, page.attempts) == ((), None, (), ())


def test_texts_of_which_something_is_left_are_open() -> None:
    entry = made(1)[0]
    cut = entry.detail["cut"][0]
    cuts = [{**cut, "tokens_after": left} for left in (0, 5, 0, 5, 5, 5)]
    page = one_request(replace(entry, detail={**entry.detail, "cut": cuts}), lambda _: None)
    assert [each.open for each in page.texts] == [False, True, False, True, True, False]
    assert sum(each.open for each in page.texts) == OPEN_TEXTS
    none = one_request(replace(entry, detail={**entry.detail, "cut": cuts[:1] * 2}), lambda _: None)
    assert [each.open for each in none.texts] == [True, False]


def test_the_chosen_point_is_on_the_curves_chart() -> None:
    chart = charts.curve([[0, 0.0], [50, 0.6], [100, 1.0]], (70, 0.8))
    assert [[cell.value for cell in row] for row in chart.rows] == [
        ["0", "0.0", ""],
        ["50", "0.6", ""],
        ["70", "", "0.8"],
        ["100", "1.0", ""],
    ]


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_the_deferred_lane_is_counted(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    database = Database(file if engine == "sqlite" else request.getfixturevalue("postgres_url"))
    for tables in (TABLES, job.METADATA):
        tables.drop_all(database.engine)
        database.create(tables)
    jobs = Jobs(database)
    now, now_s = NOW, NOW.timestamp()
    caller = Caller("t", "web", "search")

    def accepted(many: int, at_s: float = now_s, by: Caller = caller) -> list[str]:
        new = [NewJob(by, "/v1/chat/completions", b"{}", at_s + 86_400) for _ in range(many)]
        return [each.id for each in jobs.accept(new, at_s)]

    done, failed = accepted(5), accepted(2)
    jobs.finish([Outcome(each, job.COMPLETED, 200, b"{}", lane="batch") for each in done[:3]], now_s)
    jobs.finish([Outcome(each, job.COMPLETED, 200, b"{}", lane="sync") for each in done[3:]], now_s)
    jobs.finish([Outcome(failed[0], job.FAILED), Outcome(failed[1], job.EXPIRED)], now_s)
    accepted(4)
    assert len(jobs.claim("worker", now_s, 60.0, 3)) == 3
    jobs.cancel(accepted(1)[0], caller.tenant, now_s)
    old = accepted(2, now_s - 40 * 86_400, Caller("t", "other", ""))
    jobs.finish([Outcome(old[0], job.COMPLETED, 200, b"{}", lane="batch")], now_s)

    found = read(database, Asked(), now, Catalog()).deferred
    assert found == Deferred(waiting=2, running=3, done=5, promoted=2, failed=2, cancelled=1)
    later = read(database, Asked(), now + timedelta(seconds=61), Catalog()).deferred
    assert (later.waiting, later.running) == (5, 0)
    narrowed = read(database, Asked(filters=(("key", "web"),)), now, Catalog()).deferred
    assert (narrowed.waiting, narrowed.done) == (1, 5)
    for tables in (TABLES, job.METADATA):
        tables.drop_all(database.engine)
    database.close()


@given(st.decimals(-(10**9), 10**9, places=12), st.none() | st.integers(0, 8))
def test_dollars_are_never_rounded_to_nothing_or_across_zero(amount: Decimal, digits: int | None) -> None:
    text = shown.dollars(amount, digits)
    read = Decimal(text.replace("$", "").replace(",", "").replace(shown.MINUS, "-"))
    step = Decimal(1).scaleb(-(len(text.partition(".")[2])))
    assert abs(read - amount) <= step / 2
    assert read * amount >= 0
    assert digits is not None or (read == 0) == (amount == 0)

"""The dashboard in a real browser: its figures, live updates under load, phone width, keyboard, and axe in both themes.

One Chromium for the module, closed at its end: while Playwright's synchronous interface is open, no other test of this
thread could run an event loop.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from tests.loopback import LoopbackProvider, status
from tests.trimtab.asking import CONTEXTS, KEY_ENV, QUESTION, provider, serving
from tests.trimtab.dashboard.test_pages import HOSTILE, hostile
from tests.trimtab.ledger.made import made, written
from trimtab.dashboard.overview import PAGE
from trimtab.dashboard.shown import one_line
from trimtab.database import Database
from trimtab.ledger.entries import ENTRIES, Entry, entry_of

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt install chromium")

ASKED = {
    "model": "m",
    "messages": [{"role": "user", "content": QUESTION}],
    "trimtab": {"contexts": CONTEXTS, "ratio": 0.5, "route": "faq"},
}
WAIT_MS = 60_000
"""Of what must come; a machine may be busy."""


class Site:
    """A served dashboard, its provider, and its database."""

    def __init__(self, client: httpx.Client, loop: LoopbackProvider, database: Database) -> None:
        self.url = str(client.base_url).rstrip("/")
        self.client, self.loop, self.database = client, loop, database

    def ask(self, **more: Any) -> dict[str, Any]:
        receipt: dict[str, Any] = self.client.post("/v1/chat/completions", json=ASKED | more).json()["trimtab"]
        return receipt

    def entries(self) -> list[Entry]:
        """Every line of the ledger, read as it stands in the table."""
        with self.database.read() as connection:
            return [entry_of(row) for row in connection.execute(sa.select(ENTRIES)).mappings()]


@contextmanager
def site_of(folder: Path, entries: list[Entry], **settings: Any) -> Iterator[Site]:
    with LoopbackProvider() as loop, serving(provider("loop", loop), data_dir=folder, **settings) as client:
        database = Database(f"sqlite:///{folder / 'trimtab.sqlite'}")
        written(database, entries)
        yield Site(client, loop, database)
        database.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    entries = made(120, now=datetime.now(UTC), days=0.9, seed=1)
    entries[-1] = hostile(entries[-1])
    entries[-2] = replace(entries[-2], boundary_tokens=100_000, over_boundary_tokens=50)
    with site_of(tmp_path_factory.mktemp("site"), entries) as made_up:
        yield made_up


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


Open = Callable[..., Any]

_EXPECTED = "the server responded with a status of 40"  # a page that is not there is an error to Chromium

_TELL_VIOLATIONS = (
    "document.addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective))"
)


@pytest.fixture
def open_page(browser: Any, site: Site) -> Iterator[Open]:
    """Opens pages; at the end, none may have said anything on its console or asked another host."""
    contexts, said, strangers = [], [], []

    def opened(url: str, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        if options.get("java_script_enabled", True):
            page.add_init_script(_TELL_VIOLATIONS)
        page.on("console", lambda each: _EXPECTED in each.text or said.append(f"{each.type}: {each.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        own = urlsplit(url).netloc
        page.on("request", lambda asked: urlsplit(asked.url).netloc == own or strangers.append(asked.url))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said
    assert not strangers


def total(amounts: list[Decimal | None]) -> Decimal:
    return sum((each for each in amounts if each is not None), Decimal(0))


def check_figures(page: Any, entries: list[Entry]) -> None:
    """What the page says, against sums over the ledger's lines, made here."""
    compared = [each for each in entries if each.saved_usd is not None]
    exact = {
        "#totals .first data": total([each.saved_usd for each in entries]),
        "#spent data": total([each.cost_usd for each in entries]),
        "#requests-count data": Decimal(len(entries)),
    }
    for selector, expected in exact.items():
        assert Decimal(page.locator(selector).first.get_attribute("value")) == expected, selector
    untouched = total([each.baseline_usd for each in compared])
    assert untouched in [Decimal(each) for each in values(page, "#totals dd.note data")]
    for column in ("provider", "model", "route", "user"):
        rows = page.locator(f"section[aria-labelledby=by-{column}] tbody tr")
        names = {getattr(each, column) for each in entries}
        assert rows.count() == len(names)
        for row in rows.all():
            name = row.locator("th").inner_text()
            own = [each for each in entries if one_line(getattr(each, column) or "none", 60) == name]
            found = [Decimal(each.get_attribute("value")) for each in row.locator("data").all()]
            assert found == [len(own), total([e.cost_usd for e in own]), total([e.saved_usd for e in own])], name
    hours: dict[int, list[Entry]] = {}
    for each in entries:
        hours.setdefault(int(each.at.timestamp()) // 3600 * 3600, []).append(each)
    rows = charted(page, "Spent, by the hour")
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert len(rows) == 24
    for hour, spent, _ in rows:
        assert Decimal(spent) == total([each.cost_usd for each in hours.get(int(hour), [])])
    for hour, after, before in charted(page, "Context tokens before and after, by the hour"):
        cut = hours.get(int(hour), [])
        assert (int(after), int(before)) == (
            sum(e.tokens_after or 0 for e in cut),
            sum(e.tokens_before or 0 for e in cut),
        )


def values(page: Any, selector: str) -> list[str]:
    return [each.get_attribute("value") for each in page.locator(selector).all()]


def charted(page: Any, title: str) -> list[list[str]]:
    """The rows of a chart's table, as programs read them."""
    rows: list[list[str]] = page.locator("figure", has_text=title).first.evaluate(
        "figure => [...figure.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.dataset.v))"
    )
    return rows


def test_figures_are_the_ledgers_and_stay_so_under_load(open_page: Open, site: Site) -> None:
    page = open_page(site.url)
    check_figures(page, site.entries())
    before = len(site.entries())
    page.locator("[data-live-state][data-state=live]").wait_for(timeout=WAIT_MS)
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda _: site.ask(), range(60)))
    page.locator(f'#requests-count data[value="{before + 60}"]').wait_for(timeout=WAIT_MS)
    page.locator("[data-live-told]", has_text="60 new requests").wait_for(timeout=WAIT_MS)
    entries = site.entries()
    assert {each["id"] for each in receipts} <= {each.receipt_id for each in entries}
    check_figures(page, entries)


def test_a_breaker_that_opens_is_seen_live(open_page: Open, site: Site) -> None:
    site.ask()
    page = open_page(site.url)
    row = page.locator("#providers tbody tr", has_text="loop")
    row.get_by_text("answers", exact=True).wait_for(timeout=WAIT_MS)
    page.locator("[data-live-state][data-state=live]").wait_for(timeout=WAIT_MS)
    site.loop.then(*[status(503)] * 40)
    for _ in range(3):
        site.client.post("/v1/chat/completions", json=ASKED)
    row.get_by_text("circuit breaker open").wait_for(timeout=WAIT_MS)
    site.loop._script.clear()


def test_what_is_open_and_focused_stays_so_when_the_page_is_renewed(open_page: Open, site: Site) -> None:
    page = open_page(site.url)
    page.locator("[data-live-state][data-state=live]").wait_for(timeout=WAIT_MS)
    page.locator("#money details summary").first.click()
    page.locator("#requests a[id]").nth(1).focus()
    focused = page.evaluate("document.activeElement.id")
    many = len(site.entries())
    site.client.post("/v1/chat/completions", json=ASKED)
    page.locator(f'#requests-count data[value="{many + 1}"]').wait_for(timeout=WAIT_MS)
    assert page.locator("#money details[open]").count() == 1
    assert page.evaluate("document.activeElement.id") == focused


def test_charts_draw_their_tables(open_page: Open, site: Site) -> None:
    page = open_page(site.url)
    assert page.locator("figure canvas").count() == page.locator("figure[data-chart]").count() == 4
    figure = page.locator("figure", has_text="Spent, by the hour").first
    figure.scroll_into_view_if_needed()
    box = figure.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = figure.locator(".tip").inner_text()
    texts = figure.evaluate(
        "f => [...f.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent.trim()))"
    )
    assert tip in {f"{hour} · Spent {spent} · Untouched {untouched}" for hour, spent, untouched in texts}


def test_losses_are_told_by_more_than_a_colour(open_page: Open, site: Site) -> None:
    loser = next(each for each in site.entries() if each.saved_usd is not None and each.saved_usd < 0)
    page = open_page(f"{site.url}/requests/{loser.receipt_id}")
    shown = page.locator(".tiles .first")
    assert re.match(r"dearer −\$", shown.inner_text())
    red = shown.locator(".bad").evaluate("each => getComputedStyle(each).color")
    assert red == "rgb(179, 38, 30)"


def test_without_a_script_all_figures_are_there(open_page: Open, site: Site) -> None:
    page = open_page(site.url, java_script_enabled=False)
    assert page.locator("#spent data").is_visible()
    figure = page.locator("figure").first
    assert not figure.locator(".plot").is_visible()
    figure.locator("summary").click()
    assert figure.locator("tbody tr").count() == 24
    page.get_by_label("7 d").check(force=True)
    page.get_by_role("button", name="Show").click()
    assert page.locator("figure").first.locator("tbody tr").count() == 24 * 7


def test_filters_narrow_what_is_shown(open_page: Open, site: Site) -> None:
    page = open_page(site.url)
    page.get_by_label("Model", exact=True).select_option("gpt-5-mini")
    page.get_by_role("button", name="Show").click()
    own = [each for each in site.entries() if each.model == "gpt-5-mini"]
    assert values(page, "#requests-count data") == [str(len(own))]
    assert page.get_by_label("Model", exact=True).input_value() == "gpt-5-mini"
    page.get_by_role("link", name="Clear").click()
    assert values(page, "#requests-count data") == [str(len(site.entries()))]


def test_older_requests_are_a_page_away(open_page: Open, site: Site) -> None:
    page = open_page(f"{site.url}/?team=search")
    seen: list[str] = []
    while True:
        seen += [each.get_attribute("href") for each in page.locator("#requests tbody a").all()]
        older = page.get_by_role("link", name="Older requests")
        if not older.count():
            break
        older.click()
    assert seen == [f"/requests/{each.receipt_id}" for each in reversed(site.entries()) if each.team == "search"]
    assert len(seen) > PAGE


def test_strangers_texts_are_texts(open_page: Open, site: Site) -> None:
    receipt_id = next(each.receipt_id for each in site.entries() if each.user == HOSTILE)
    page = open_page(f"{site.url}/requests/{receipt_id}")
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("img").count() == 1
    page = open_page(site.url)
    assert page.get_by_text(HOSTILE).count() >= 4


def paths(site: Site) -> list[str]:
    of = site.entries()
    kept = next(each.receipt_id for each in reversed(of) if each.provider == "loop" and each.answered)
    strange = next(each.receipt_id for each in of if each.user == HOSTILE)
    return ["/", f"/requests/{kept}", f"/requests/{strange}"]


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_one_way_only(open_page: Open, site: Site, width: int) -> None:
    for path in paths(site):
        page = open_page(site.url + path, viewport={"width": width, "height": 740}, has_touch=True, is_mobile=True)
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_keyboard_reaches_everything_and_shows_where_it_is(open_page: Open, site: Site) -> None:
    for path in paths(site)[:2]:
        page = open_page(site.url + path)
        wanted = page.evaluate(
            """() => { const all = [...document.querySelectorAll('a[href], button, select, summary, input, [tabindex="0"]')]
                .filter(each => each.checkVisibility() && !(each.type === 'radio' && !each.checked));
                all.forEach((each, at) => { each.dataset.stop = at; }); return all.length; }"""
        )
        reached, unseen = set(), []
        for _ in range(wanted + 5):
            page.keyboard.press("Tab")
            stop, shown = page.evaluate(
                """() => { const each = document.activeElement;
                    const style = getComputedStyle(each.type === 'radio' ? each.nextElementSibling : each);
                    return [each.dataset.stop, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]; }"""
            )
            if stop is not None:
                reached.add(int(stop))
                unseen += [] if shown else [stop]
        assert reached == set(range(wanted)), path
        assert not unseen
    page = open_page(site.url)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def faults(page: Any, *rules: str) -> list[str]:
    """What axe calls serious or critical; by all its rules where none are named."""
    only = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    found = axe.Axe().run(page, options={"resultTypes": ["violations"], **only}).response["violations"]
    return [
        f"{each['id']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def test_axe_finds_no_serious_fault(open_page: Open, site: Site) -> None:
    for path in (*paths(site)[:2], "/requests/rcpt_nobody"):
        page = open_page(site.url + path, color_scheme="light")
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert faults(page) == [], path
        page.emulate_media(color_scheme="dark")
        assert faults(page, "color-contrast") == [], path  # of all its rules, the one that a theme is asked about


def test_whoever_comes_from_elsewhere_reads_what_to_set(open_page: Open, site: Site) -> None:
    by_a_proxy = {"x-forwarded-for": "203.0.113.9"}
    page = open_page(site.url, extra_http_headers=by_a_proxy, viewport={"width": 320, "height": 740})
    assert "dashboard_key_env" in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert faults(page) == []
    page.emulate_media(color_scheme="dark")
    assert faults(page, "color-contrast") == []


def test_the_theme_can_be_chosen_and_is_kept(open_page: Open, site: Site) -> None:
    page = open_page(site.url, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    assert faults(page, "color-contrast") == []
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(ground) == light


def test_a_newcomer_sees_how_to_begin_and_then_the_first_request(open_page: Open, tmp_path: Path) -> None:
    with site_of(tmp_path, []) as new:
        page = open_page(new.url)
        assert f'base_url="{new.url}/v1"' in page.locator("#start").inner_text()
        assert faults(page) == []
        page.emulate_media(color_scheme="dark")
        assert faults(page, "color-contrast") == []
        page.locator("[data-live-state][data-state=live]").first.wait_for(timeout=WAIT_MS)
        receipt = new.ask()
        page.locator("#spent data").wait_for(timeout=WAIT_MS)
        page.locator(f'a[href="/requests/{receipt["id"]}"]').click()
        page.locator("h1", has_text="m").wait_for()


def test_the_door(open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "the key")
    with site_of(tmp_path, [], dashboard_key_env=KEY_ENV) as locked:
        page = open_page(locked.url)
        assert faults(page) == []
        page.emulate_media(color_scheme="dark")
        assert faults(page, "color-contrast") == []
        page.get_by_label("The dashboard's key").fill("the key")
        page.keyboard.press("Enter")
        page.locator("#start").wait_for()
        page.locator("[data-live-state][data-state=live]").first.wait_for(
            timeout=WAIT_MS
        )  # the stream has the session too
        page.get_by_role("link", name="Sign out").click()
        page.get_by_role("heading", name="Sign in").wait_for()
        page.goto(locked.url)
        page.get_by_role("heading", name="Sign in").wait_for()

"""Pages without a browser: the door, the headers, and texts of strangers, which are shown as texts."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import CONTEXTS, QUESTION, provider, serving
from tests.trimtab.ledger.made import made, written
from trimtab.dashboard.access import COOKIE
from trimtab.dashboard.pages import POLICY
from trimtab.database import Database
from trimtab.ledger.entries import ENTRIES, Entry

KEY_ENV = "TRIMTAB_TEST_DASHBOARD_KEY"
KEY = "a long and random text, said to nobody"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'{{7*7}}"


def hostile(entry: Entry) -> Entry:
    detail = json.loads(json.dumps(entry.detail))
    detail["metadata"] = {HOSTILE: HOSTILE}
    detail["notes"] = [HOSTILE]
    detail["coverage_basis"] = HOSTILE
    detail["cut"][0]["id"] = HOSTILE
    detail["attempts"][0] |= {"detail": HOSTILE, "model": HOSTILE}
    detail["plan"]["runners_up"][0] |= {"why": HOSTILE, "model": HOSTILE}
    detail["plan"]["refused"] = [{"provider": HOSTILE, "model": HOSTILE, "processing": "sync", "why": HOSTILE}]
    texts = dict.fromkeys(
        ("model_asked", "model", "provider", "user", "route", "team", "key", "prices_version"), HOSTILE
    )
    return replace(entry, **texts, request_id=HOSTILE, baseline_model=HOSTILE, answered=True, detail=detail)


class Site:
    """A served dashboard over a ledger with entries of the last day."""

    def __init__(self, client: httpx.Client, database: Database, entries: list[Entry]) -> None:
        self.client, self.database, self.entries = client, database, entries


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("pages")
    entries = made(60, now=datetime.now(UTC), days=0.9)
    entries[-1] = hostile(entries[-1])
    with LoopbackProvider() as loop, serving(provider("loop", loop), data_dir=folder) as client:
        database = Database(f"sqlite:///{folder / 'trimtab.sqlite'}")
        written(database, entries)
        yield Site(client, database, entries)
        database.close()


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_harmless(page: str) -> Tags:
    """No tag or attribute that a stranger's text could have made, and none that the policy would have to stop."""
    tags = Tags(page)
    scripts = [attributes for tag, attributes in tags.tags if tag == "script"]
    assert [str(each.get("src")).partition("?")[0] for each in scripts] == [
        "/assets/uplot.min.js",
        "/assets/charts.js",
        "/assets/dashboard.js",
    ]
    assert [str(a["src"]).partition("?")[0] for tag, a in tags.tags if tag == "img"] == ["/assets/icon.svg"]
    for tag, attributes in tags.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        assert not str(attributes.get("href", "")).lower().startswith(("javascript:", "data:"))
    return tags


def test_what_strangers_wrote_is_text(site: Site) -> None:
    overview = check_harmless(site.client.get("/").text)
    assert overview.text.count(HOSTILE) >= 4
    own = check_harmless(site.client.get(f"/requests/{site.entries[-1].receipt_id}").text)
    assert own.text.count(HOSTILE) >= 10


def test_filters_carry_hostile_texts_unharmed(site: Site) -> None:
    page = site.client.get("/", params={"model": HOSTILE})
    tags = check_harmless(page.text)
    options = [a for tag, a in tags.tags if tag == "option" and "selected" in a]
    assert [each["value"] for each in options] == [HOSTILE]
    links = [str(a["href"]) for tag, a in tags.tags if tag == "a" and str(a.get("href", "")).startswith("/?")]
    for link in links:
        assert site.client.get(link).status_code == 200


def test_no_template_lets_a_text_through_unescaped() -> None:
    for template in (files("trimtab.dashboard") / "templates").iterdir():
        source = template.read_text("utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup|style=|\son\w+=|<script(?! defer src)", source), (
            template.name
        )


@pytest.mark.parametrize("path", ["/", "/requests/nobody", "/?range=forever", "/?before=x"])
def test_every_page_is_closed_to_scripts_and_frames_of_others(site: Site, path: str) -> None:
    response = site.client.get(path)
    assert response.headers["content-security-policy"] == POLICY
    assert "'unsafe-inline'" not in POLICY
    assert "http" not in POLICY
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/requests/rcpt_nobody", 404, "no request of that id"),
        ("/requests/%00%3Cscript%3E", 404, "no request of that id"),
        ("/?range=1y", 400, "range: must be one of 24h, 7d, 30d"),
        ("/?before=9999999999999999999", 400, "before: must be a number"),
        ("/?model=%00", 200, "No request in this range"),
        ("/?before=1", 200, "Latest requests"),
    ],
)
def test_what_is_not_there_is_said(site: Site, path: str, status: int, words: str) -> None:
    response = site.client.get(path)
    assert (response.status_code, words in response.text) == (status, True)


def test_a_name_that_points_here_reads_nothing(site: Site) -> None:
    """DNS rebinding: another site's name, resolved to 127.0.0.1, in a browser on this machine."""
    for path in ("/", f"/requests/{site.entries[0].receipt_id}", "/events", "/sign-in"):
        response = site.client.get(path, headers={"host": "evil.example"})
        assert response.status_code == 403, path
        assert "rcpt_" not in response.text
        assert "localhost" in response.text


def test_the_pages_are_no_part_of_the_api_document(site: Site) -> None:
    paths = site.client.get("/openapi.json").json()["paths"]
    assert not {"/", "/events", "/sign-in", "/requests/{receipt_id}"} & set(paths)


def test_the_operator_sees_every_tenant(site: Site) -> None:
    database = site.database
    entries = made(2, seed=5, now=datetime.now(UTC), days=0.01, tenants=("one", "two"))
    written(database, entries)
    for each in entries:
        page = site.client.get(f"/requests/{each.receipt_id}")
        assert page.status_code == 200
        assert '"tenant"' not in page.text


def test_a_database_that_fails_is_said_and_requests_go_on(tmp_path: Path) -> None:
    with LoopbackProvider() as loop, serving(provider("loop", loop), data_dir=tmp_path) as client:
        assert client.get("/").status_code == 200
        database = Database(f"sqlite:///{tmp_path / 'trimtab.sqlite'}")
        with database.begin() as connection:
            connection.execute(sa.text(f"DROP TABLE {ENTRIES.name}"))
        database.close()
        page = client.get("/")
        assert (page.status_code, "The ledger cannot be read" in page.text) == (503, True)
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200


def test_texts_that_were_cut_are_shown_to_the_operator_while_they_are_kept(site: Site) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": QUESTION}],
        "trimtab": {"contexts": CONTEXTS, "ratio": 0.4},
    }
    headers = {"authorization": "Bearer somebody's"}
    receipt = site.client.post("/v1/chat/completions", json=body, headers=headers).json()["trimtab"]
    page = _once_written(site.client, receipt["id"])
    assert {each["id"] for each in receipt["cut"]} <= {each["id"] for each in CONTEXTS}
    for each in receipt["cut"]:
        original = next(c for c in CONTEXTS if c["id"] == each["id"])
        title = original["title"].replace("&", "&amp;")
        runs = re.search(rf"<summary>{re.escape(title)}: .*?<div[^>]*>(.*?)</div>", page, re.DOTALL)
        assert runs is not None
        assert Tags(runs[1]).text == original["text"]
        assert ("<mark>" in runs[1]) == (each["tokens_after"] > 0)
        assert "<del>" in runs[1]
    gone = site.client.get(f"/requests/{site.entries[0].receipt_id}").text
    assert "no longer kept" in gone


def _once_written(client: httpx.Client, receipt_id: str) -> str:
    for _ in range(400):
        page = client.get(f"/requests/{receipt_id}")
        if page.status_code == 200:
            return page.text
        threading.Event().wait(0.05)
    raise AssertionError("the ledger never had it")


# --- with a key ---


@pytest.fixture(scope="module")
def locked() -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch, LoopbackProvider() as loop:
        patch.setenv(KEY_ENV, KEY)
        with serving(provider("loop", loop), dashboard_key_env=KEY_ENV) as client:
            yield client


def test_a_key_is_asked_for(locked: httpx.Client) -> None:
    for path in ("/", "/requests/rcpt_x", "/events"):
        response = locked.get(path)
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    page = locked.get("/sign-in")
    assert page.status_code == 200
    check_harmless(page.text)


def test_signing_in_and_out(locked: httpx.Client) -> None:
    wrong = locked.post("/sign-in", data={"key": KEY + "x"})
    assert (wrong.status_code, "not the key" in wrong.text, "set-cookie" in wrong.headers) == (403, True, False)
    answer = locked.post("/sign-in", data={"key": KEY})
    cookie = answer.headers["set-cookie"]
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=strict"} <= {each.strip().lower() for each in cookie.split(";")}
    assert KEY not in cookie
    session = {"cookie": cookie.partition(";")[0]}
    locked.cookies.clear()
    assert locked.get("/", headers=session).status_code == 200
    # any name: the cookie is bound to the one that it was given under
    assert locked.get("/", headers={**session, "host": "trimtab.example"}).status_code == 200
    assert locked.get("/sign-in", headers=session).headers["location"] == "/"
    out = locked.get("/sign-out", headers=session)
    assert f'{COOKIE}=""' in out.headers["set-cookie"]


def test_a_form_that_is_too_large_is_not_read(locked: httpx.Client) -> None:
    assert locked.post("/sign-in", data={"key": "x" * 5_000}).status_code == 413


def test_a_key_that_is_not_set_shuts_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENV, raising=False)
    with LoopbackProvider() as loop, serving(provider("loop", loop), dashboard_key_env=KEY_ENV) as client:
        page = client.get("/")
        assert (page.status_code, "dashboard_key_env" in page.text) == (403, True)
        assert KEY_ENV not in page.text  # somebody may have put the key itself there


# --- live ---


def test_what_another_process_answers_is_seen_too(tmp_path: Path) -> None:
    """Two servers over one database, as two workers are: the page is watched at one, the request goes to the other."""
    with (
        LoopbackProvider() as loop,
        serving(provider("loop", loop), data_dir=tmp_path) as watched,
        serving(provider("loop", loop), data_dir=tmp_path) as asked,
        watched.stream("GET", "/events", params={"after": "0"}) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        receipt = asked.post("/v1/chat/completions", json=body).json()["trimtab"]
        told = next(line for line in lines if line.startswith("data: "))
        assert json.loads(told.removeprefix("data: ")) == {"requests": 1}
        assert receipt["id"] in watched.get("/").text


# --- the end ---


def test_the_server_ends_while_pages_watch(tmp_path: Path) -> None:
    """Without being told, it would wait for streams that never end."""
    first, ended = threading.Event(), threading.Event()

    def watch(url: str) -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as own, own.stream("GET", "/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for _ in stream.iter_lines():
                first.set()
        ended.set()

    with LoopbackProvider() as loop, serving(provider("loop", loop), data_dir=tmp_path) as client:
        watching = threading.Thread(target=watch, args=(str(client.base_url),), daemon=True)
        watching.start()
        assert first.wait(20)
    assert ended.wait(20)
    watching.join()

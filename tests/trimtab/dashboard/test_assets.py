"""Assets: what the pages load is in the package, is kept by browsers, and is asked for again only when it changes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import pytest
from starlette.requests import Request

from trimtab.dashboard.assets import PATH, Assets
from trimtab.errors import BadRequest

NAMES = sorted(each.name for each in (files("trimtab.dashboard") / "assets").iterdir())
ASSETS = Assets()


def request(url: str, headers: Mapping[str, str] | None = None) -> Request:
    path, _, query = url.partition("?")
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": raw})


@pytest.mark.parametrize("name", NAMES)
def test_a_browser_may_keep_an_address_with_the_digest_for_ever(name: str) -> None:
    url = ASSETS.url(name)
    assert url.startswith(PATH)
    response = ASSETS.response(request(url), name)
    assert response.status_code == 200
    assert "immutable" in response.headers["cache-control"]
    assert response.body == (files("trimtab.dashboard") / "assets" / name).read_bytes()


@pytest.mark.parametrize("url", ["/assets/dashboard.css", "/assets/dashboard.css?v=0123456789abcdef"])
def test_any_other_address_is_asked_for_again(url: str) -> None:
    response = ASSETS.response(request(url), "dashboard.css")
    assert response.headers["cache-control"] == "no-cache"
    etag = response.headers["etag"]
    for sent in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = ASSETS.response(request(url, {"if-none-match": sent}), "dashboard.css")
        assert (again.status_code, bytes(again.body)) == (304, b"")
    assert ASSETS.response(request(url, {"if-none-match": '"other"'}), "dashboard.css").status_code == 200


@pytest.mark.parametrize("name", ["../access.py", "", "nothing.css", "dashboard.css\0"])
def test_nothing_else_is_served(name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ASSETS.response(request("/assets/x"), name)
    assert refused.value.status == 404


def test_they_are_light_and_bring_their_licence() -> None:
    sizes = {name: len((files("trimtab.dashboard") / "assets" / name).read_bytes()) for name in NAMES}
    assert sum(sizes.values()) < 100_000
    assert "uplot.LICENSE.txt" in sizes


def test_no_asset_names_another_host() -> None:
    for name in NAMES:
        text = (files("trimtab.dashboard") / "assets" / name).read_text("utf-8")
        allowed = text.replace("http://www.w3.org/2000/svg", "").replace("https://github.com/leeoniya/uPlot", "")
        assert "http" not in allowed or name == "uplot.LICENSE.txt", name

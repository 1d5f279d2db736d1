"""The HTML report in a real browser: readable by everyone, at every width, and alone in the world."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from routing.catalog import Catalog
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.analysis.traffic import PLANTED, START, traffic
from trimtab.analysis import Prices, Recording, reported, studied
from trimtab.analysis.page import page
from trimtab.analysis.shapes import bodies

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requests = [
        request
        for n, entry in enumerate(traffic(1, 0, planted=(*PLANTED[:5], *PLANTED[7:12])).entries)
        if (request := bodies.read(entry, f"line {n}")) is not None
    ]
    study, _ = studied(requests, Prices(Catalog(), START), WordEncoder, lambda: None)
    made = reported(
        study, Recording(requests=requests, problems=["line 9: is not JSON"]), "a-file-with-a-long-name" * 5
    )
    assert len(made.rows) == 10
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page(made), encoding="utf-8")
    return file


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_everyone_can_read_it(report: Path, scheme: str, width: int) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 800},
            bypass_csp=True,  # axe is a script, and the page allows none
        )
        tab = context.new_page()
        asked: list[str] = []
        said: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(report.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("[...document.querySelectorAll('article')].length") == 10
        found = Axe().run(tab)
        assert found.violations_count == 0, found.generate_report()
        assert asked == [report.as_uri()]
        assert said == []
        browser.close()

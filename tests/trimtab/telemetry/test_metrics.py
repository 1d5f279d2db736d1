"""Metrics: the figures are the receipts', labels are bounded, workers add up, and not everybody may read them."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.loopback import LoopbackProvider, status
from tests.trimtab.asking import CONTEXTS, chat, provider, serving, serving_of, without_receipt
from trimtab import Trimtab
from trimtab.telemetry.metrics import FOLDER_VARIABLE, shared_figures

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def figures(text: str) -> Figures:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Figures, name: str, **labels: str) -> float:
    """The sum over all samples of that name with these labels."""
    wanted = set(labels.items())
    return sum(value for (each, has), value in found.items() if each == f"trimtab_{name}" and wanted <= set(has))


def scraped(client: httpx.Client) -> Figures:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return figures(answer.text)


def test_the_figures_are_the_receipts() -> None:
    with LoopbackProvider() as server, serving(provider("a", server)) as client:
        receipts: list[dict[str, Any]] = []
        for ratio in (0.4, 0.7, 1.0):
            body = chat(trimtab={"contexts": CONTEXTS, "ratio": ratio})
            receipts.append(without_receipt(client.post("/v1/chat/completions", json=body).content)[1])
        client.post("/v1/chat/completions", json=chat() | {"model": "nobody-sells-this"})
        found = scraped(client)
    saved = [Decimal(each["saved_usd"]) for each in receipts]
    assert any(saved)
    assert of(found, "requests_total", provider="a", model="m", status="200") == 3
    assert of(found, "http_requests_total", route="/v1/chat/completions", status="404") == 1
    assert of(found, "context_tokens_total", when="before") == sum(each["tokens_before"] for each in receipts)
    assert of(found, "context_tokens_total", when="after") == sum(each["tokens_after"] for each in receipts)
    assert of(found, "billed_tokens_total", kind="input") == sum(each["input_tokens_billed"] for each in receipts)
    assert of(found, "cost_usd_total") == pytest.approx(
        float(sum(Decimal(each["billed_cost_usd"]) for each in receipts))
    )
    net = of(found, "saved_usd_total") - of(found, "lost_usd_total")
    assert net == pytest.approx(float(sum(saved)))
    assert net == pytest.approx(of(found, "baseline_usd_total") - of(found, "cost_usd_total"))
    assert of(found, "coverage_estimate_count") == 3
    for stage in ("parse", "rank", "plan", "cut", "provider"):
        spent_s = sum(each["ms"][stage] for each in receipts) / 1000
        assert of(found, "stage_seconds_sum", stage=stage) == pytest.approx(spent_s)
    assert of(found, "vector_cache_passages_total") > 0
    assert of(found, "vector_cache_passages_total", result="hit") > 0  # the second request's contexts were the first's
    assert of(found, "breaker_state", provider="a", model="m", processing="sync") == 0
    assert of(found, "requests_in_flight") == 1
    assert of(found, "build_info") == 1
    assert ("process_resident_memory_bytes", ()) in found


def test_what_made_a_request_dearer_is_counted_as_lost() -> None:
    with LoopbackProvider() as one, LoopbackProvider() as other:
        dear = provider("dear", other, prices={"input_mtok": "200", "output_mtok": "900"})
        with serving(provider("a", one), dear) as client:
            one.then(status(500), status(500), status(500))
            body = chat(trimtab={"candidates": ["m"], "order": ["a", "dear"]})
            receipt = without_receipt(client.post("/v1/chat/completions", json=body).content)[1]
            found = scraped(client)
    assert Decimal(receipt["saved_usd"]) < 0
    assert of(found, "lost_usd_total") == pytest.approx(-float(receipt["saved_usd"]))
    assert of(found, "saved_usd_total") == 0
    assert of(found, "attempts_total", provider="a", outcome="server_error") == 1
    assert of(found, "attempts_total", provider="dear", outcome="ok") == 1


def test_a_request_that_failed_cost_nothing_and_opened_a_breaker() -> None:
    with LoopbackProvider() as server, serving(provider("a", server), max_attempts=1) as client:
        for _ in range(5):
            server.then(status(500))
            assert client.post("/v1/chat/completions", json=chat()).status_code == 500
        found = scraped(client)
    assert of(found, "cost_usd_total") == of(found, "saved_usd_total") == of(found, "baseline_usd_total") == 0
    assert of(found, "requests_total", status="500") == 5
    assert of(found, "breaker_state", provider="a") == 2


def test_a_callers_words_never_become_labels() -> None:
    with LoopbackProvider() as server, serving(provider("a", server, "any-*", "m")) as client:
        before = len(scraped(client))
        for number in range(30):
            client.post("/v1/chat/completions", json=chat() | {"model": f"any-{number}"})
            client.get(f"/made/up/{number}")
            client.get(f"/v1/contexts/{number}")
            client.request(f"VERB{number}", "/healthz")
        found = scraped(client)
        labels = {value for _, has in found for _, value in has}
    assert of(found, "requests_total", model="other") == 30
    assert of(found, "http_requests_total", route="/v1/contexts/{digest}") == 30
    assert not [each for each in labels if "any-" in each or "made" in each or "VERB" in each]
    assert len(found) - before < 400


def test_open_metrics_are_spoken_to_whoever_asks_for_them() -> None:
    with serving_of(Trimtab()) as client:
        asked = {"accept": "application/openmetrics-text; version=1.0.0; charset=utf-8"}
        answer = client.get("/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert len(list(open_metrics(answer.text))) > 10


def test_metrics_are_this_machines_without_a_key() -> None:
    with serving_of(Trimtab()) as client:
        assert client.get("/metrics", headers={"host": "localhost:1"}).status_code == 200
        rebound = client.get("/metrics", headers={"host": "evil.example"})  # as after DNS rebinding
    assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "metrics_closed")
    assert "metrics_key_env" in rebound.json()["error"]["message"]


def test_metrics_with_a_key_are_whoever_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trimtab = Trimtab(metrics_key_env="TRIMTAB_TEST_METRICS")
    with serving_of(trimtab) as client:
        assert client.get("/metrics").status_code == 403  # closed, and not open, while the variable is not set
        monkeypatch.setenv("TRIMTAB_TEST_METRICS", "s3cret-key")
        for wrong in (
            {},
            {"authorization": "Bearer s3cret"},
            {"authorization": "s3cret-key"},
            {"authorization": "Basic x"},
        ):
            answer = client.get("/metrics", headers=wrong)
            assert answer.status_code == 401
            assert "s3cret" not in answer.text
        right = {"authorization": "Bearer s3cret-key", "host": "trimtab.example"}
        assert client.get("/metrics", headers=right).status_code == 200


def test_others_may_show_gauges_of_their_own() -> None:
    from trimtab.telemetry.metrics import Metrics

    metrics, depth = Metrics(Trimtab(), {}), [3.0]
    metrics.gauge("deferred_jobs", "Jobs that wait.", lambda: depth[0])
    metrics.sample()
    assert of(figures(metrics.page("")[0].decode()), "deferred_jobs") == 3
    depth[0] = 1.0
    metrics.sample()
    assert of(figures(metrics.page("")[0].decode()), "deferred_jobs") == 1


WORKER = """
import sys
from trimtab import Trimtab
from trimtab.telemetry.exchange import Exchange
from trimtab.telemetry.metrics import Metrics
metrics = Metrics(Trimtab())
metrics.gauge("queue", "Depth.", lambda: 2.0)
for _ in range(int(sys.argv[1])):
    metrics.exchanged(Exchange("id", "GET", "/v1/models", route="/v1/models", status=200, seconds=0.5))
metrics.sample()
print(metrics.page("")[0].decode() + "END", flush=True)
sys.stdin.read()
"""


def test_workers_add_up_whoever_is_scraped() -> None:
    environ = dict(os.environ)
    with shared_figures(environ):
        folder = Path(environ[FOLDER_VARIABLE])
        begin = [sys.executable, "-c", WORKER]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ}
        workers, pages = [], []
        for times in ("3", "4"):
            workers.append(subprocess.Popen([*begin, times], **pipes))
            pages.append("".join(iter(workers[-1].stdout.readline, "END\n")))
        for worker in workers:
            worker.communicate("", timeout=30)
        ran = subprocess.run([*begin, "0"], env=environ, input="", capture_output=True, text=True, check=True)
    assert not folder.exists()
    assert FOLDER_VARIABLE not in environ
    assert of(figures(pages[0]), "queue") == 2
    assert of(figures(pages[1]), "queue") == 4
    assert of(figures(pages[1]), "http_requests_total", route="/v1/models", status="200") == 7
    found = figures(ran.stdout.removesuffix("END\n"))
    assert of(found, "http_requests_total", route="/v1/models", status="200") == 7  # of workers that are gone
    assert of(found, "http_request_seconds_sum") == pytest.approx(3.5)
    assert of(found, "queue") == 2  # of those that live
    assert of(found, "build_info") == 1

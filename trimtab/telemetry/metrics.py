"""Metrics: what Prometheus scrapes, in a registry of this app's own.

What happens is counted when a request is over (`concluded`, `exchanged`); what is, such as a breaker's state, is looked at
by `sample`, when it is scraped and every few seconds besides.

With several workers each scrape reaches one of them. So they write their figures into files of one folder, and whoever is
scraped adds them up: prometheus-client's own way, which it takes where PROMETHEUS_MULTIPROC_DIR is set before it is first
imported. `shared_figures` sets it for the workers to come. A port of its own for each worker was the other way: every
restart would change what has to be scraped.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from routing.attempts import OUTCOMES
from routing.receipt import Receipt
from trimtab.api_docs import VERSION
from trimtab.conclusion import Conclusion
from trimtab.pipeline import Trimtab
from trimtab.telemetry.exchange import Exchange

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
OTHER: Final = "other"
"""The label of what is not in the catalog: a caller's words never become labels, or anybody could make any number of them."""

_BREAKERS: Final = {"closed": 0, "half-open": 1, "open": 2}
_COVERAGES: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)
_SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
)
_LAGS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

GaugeMode = Literal["livesum", "livemax"]


class Metrics:
    """The figures of one app. `environ` says whether they are shared with other workers (`shared_figures`)."""

    def __init__(self, trimtab: Trimtab, environ: Mapping[str, str] = os.environ) -> None:
        self._trimtab = trimtab
        self._folder = environ.get(FOLDER_VARIABLE)
        self._registry = registry = CollectorRegistry()
        self._read: list[tuple[Gauge, Callable[[], float]]] = []
        self._models = frozenset(each.model for each in trimtab.catalog.models())
        self._passages_seen = (0, 0)

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"trimtab_{name}", documentation, labels, registry=registry)

        def histogram(name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"trimtab_{name}", documentation, labels, buckets=buckets, registry=registry)

        self._http = counter("http_requests", "Answers, by the path as declared.", "route", "method", "status")
        self._http_seconds = histogram(
            "http_request_seconds", "From a request's head to its answer's end.", _SECONDS, "route"
        )
        self._first_byte = histogram(
            "first_byte_seconds", "From a request's head to its answer's first byte.", _SECONDS, "route"
        )
        self._requests = counter("requests", "Requests that were planned.", "surface", "status", "provider", "model")
        self._context = counter("context_tokens", "Tokens of context before and after the cut.", "when")
        self._billed = counter("billed_tokens", "Tokens as billed.", "kind", "provider", "model")
        self._cost = counter(
            "cost_usd", "Dollars of answered requests; estimated where no bill came.", "basis", "provider", "model"
        )
        self._baseline = counter("baseline_usd", "Dollars of the same requests without trimtab.")
        self._saved = counter("saved_usd", "Dollars saved by the requests that became cheaper.")
        self._lost = counter("lost_usd", "Dollars lost by the requests that became dearer.")
        self._coverage = histogram("coverage_estimate", "Expected share of the evidence that was kept.", _COVERAGES)
        self._stages = histogram("stage_seconds", "Time spent in each stage of a request.", _SECONDS, "stage")
        self._attempts = counter("attempts", "Calls of providers, by how they ended.", "provider", "model", "outcome")
        self._attempt_seconds = histogram("attempt_seconds", "Length of calls of providers.", _SECONDS, "provider")
        self._passages = counter("vector_cache_passages", "Passages whose vectors were asked for.", "result")
        self._lag = histogram("event_loop_lag_seconds", "How much later than due the event loop runs.", _LAGS)
        breaker = "Circuit breaker of an offer that was called: 0 closed, 1 half-open, 2 open."
        self._breakers = Gauge(
            "trimtab_breaker_state",
            breaker,
            ("provider", "model", "processing"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        build = Gauge("trimtab_build_info", "1.", ("version", "python"), registry=registry, multiprocess_mode="livemax")
        build.labels(VERSION, platform.python_version()).set(1)
        if self._folder is None:
            ProcessCollector(registry=registry)  # of the one process that there is

    def gauge(self, name: str, documentation: str, read: Callable[[], float], mode: GaugeMode = "livesum") -> None:
        """Show what `read` gives as `trimtab_<name>`: a queue's depth, say. It is called on the event loop, and must not
        block. `mode` says how the figures of several workers become one."""
        made = Gauge(f"trimtab_{name}", documentation, registry=self._registry, multiprocess_mode=mode)
        self._read.append((made, read))

    def exchanged(self, exchange: Exchange) -> None:
        """Count an HTTP request that is over."""
        route = exchange.route or OTHER
        method = exchange.method if exchange.method in _METHODS else OTHER
        self._http.labels(route, method, str(exchange.status)).inc()
        self._http_seconds.labels(route).observe(exchange.seconds)
        if exchange.first_byte_s is not None:
            self._first_byte.labels(route).observe(exchange.first_byte_s)

    def concluded(self, conclusion: Conclusion) -> None:
        """Count a planned request that is over (a listener, see `trimtab.conclusion`)."""
        receipt = conclusion.receipt
        provider, model = receipt.provider or OTHER, self._model(receipt.model)
        self._requests.labels(conclusion.prepared.request.api.name, str(conclusion.status), provider, model).inc()
        self._context.labels("before").inc(receipt.tokens_before or 0)
        self._context.labels("after").inc(receipt.tokens_after or 0)
        if receipt.coverage_estimate is not None:
            self._coverage.observe(receipt.coverage_estimate)
        for stage, spent_ms in receipt.stage_ms:
            self._stages.labels(stage).observe(spent_ms / 1000)
        for attempt in receipt.attempts:
            outcome = attempt.outcome if attempt.outcome in OUTCOMES else OTHER
            self._attempts.labels(attempt.provider, self._model(attempt.model), outcome).inc()
            self._attempt_seconds.labels(attempt.provider).observe(attempt.latency_ms / 1000)
        kinds = ("input", "output", "cache_read", "cache_write")
        for kind in kinds:
            tokens = getattr(receipt, f"{kind}_tokens_billed")
            if tokens:
                self._billed.labels(kind, provider, model).inc(tokens)
        if 200 <= conclusion.status < 300:  # what failed was billed by nobody, and saved nothing
            self._money(receipt, provider, model)

    def _money(self, receipt: Receipt, provider: str, model: str) -> None:
        saved = receipt.saved_usd
        cost, basis = receipt.billed_cost_usd, "billed"
        if cost is None:
            cost, basis = receipt.expected_cost_usd, "estimated"
        if cost is None or saved is None:
            return
        self._cost.labels(basis, provider, model).inc(float(cost))
        self._baseline.inc(float(cost + saved))
        # Two counters and not one gauge: a counter that goes down reads as a restart, and a gauge has no rate.
        (self._saved if saved >= 0 else self._lost).inc(float(abs(saved)))

    def lagged(self, seconds: float) -> None:
        """Note how much later than due the event loop ran."""
        self._lag.observe(seconds)

    def sample(self) -> None:
        """Look at what is. On the event loop."""
        self._models = frozenset(each.model for each in self._trimtab.catalog.models())  # "*" follows the price list
        for gauge, read in self._read:
            gauge.set(read())
        for (provider, model, processing), state in self._trimtab.experience.health.breakers().items():
            self._breakers.labels(provider, self._model(model), processing).set(_BREAKERS[state])
        encoder = self._trimtab.encoder
        asked, encoded = encoder.asked_passages, encoder.encoded_passages
        before_asked, before_encoded = self._passages_seen
        self._passages.labels("miss").inc(encoded - before_encoded)
        self._passages.labels("hit").inc(max(0, asked - before_asked - (encoded - before_encoded)))
        self._passages_seen = (asked, encoded)

    def page(self, accept: str) -> tuple[bytes, str]:
        """What is scraped, and its content type, as the Accept header asks. Reads files where workers share figures."""
        registry = self._registry
        if self._folder is not None:
            _bury_the_dead(Path(self._folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _model(self, model: str | None) -> str:
        return model if model is not None and model in self._models else OTHER


@contextmanager
def shared_figures(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """For whoever starts workers, around their life: what they count is added up. A folder that the environment already
    names is used, and stays."""
    if FOLDER_VARIABLE in environ:
        yield
        return
    folder = tempfile.mkdtemp(prefix="trimtab-metrics-")
    environ[FOLDER_VARIABLE] = folder
    try:
        yield
    finally:
        del environ[FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)


def _bury_the_dead(folder: Path) -> None:
    """Forget the live figures of workers that are gone; what they counted stays."""
    for file in folder.glob("gauge_live*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _lives(int(pid)):
            with suppress(OSError):  # another worker may be at it too
                mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

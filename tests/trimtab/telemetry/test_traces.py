"""Traces: the spans and metrics of the GenAI conventions, from receipts; and sent to a collector by `trimtab serve`."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from tests.loopback import LoopbackProvider, status
from tests.trimtab.asking import CONTEXTS, QUESTION, chat, provider, serving_of
from trimtab import Trimtab
from trimtab.telemetry.traces import CAPTURE, Traces

SECRET = "sk-proj-Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA"
ROOT = Path(__file__).parents[3]
CONVENTIONS = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}


class Watched:
    """What a Trimtab tells an SDK."""

    def __init__(self, trimtab: Trimtab, **environ: str) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        trimtab.listeners.append(Traces(trimtab.catalog, environ, tracers, self._meters).concluded)

    def spans(self) -> dict[str, ReadableSpan]:
        found = {span.name: span for span in self._exporter.get_finished_spans()}
        self._exporter.clear()
        return found

    def points(self, name: str) -> list[Any]:
        data: Any = self._reader.get_metrics_data()
        self._meters.shutdown()
        metrics = [each for one in data.resource_metrics for scope in one.scope_metrics for each in scope.metrics]
        return [point for each in metrics if each.name == name for point in each.data.data_points]


def test_a_request_is_a_span_with_a_child_for_each_stage_and_attempt() -> None:
    with LoopbackProvider() as one, LoopbackProvider() as other:
        trimtab = Trimtab(providers=[provider("a", one), provider("b", other)])
        watched = Watched(trimtab)
        with serving_of(trimtab) as client:
            one.then(status(500))
            body = chat(f"{QUESTION}", trimtab={"contexts": CONTEXTS, "ratio": 0.5}, temperature=0.2, max_tokens=99)
            receipt = client.post("/v1/chat/completions", json=body).json()["trimtab"]
    spans = watched.spans()
    assert set(spans) == {"chat m", "parse", "rank", "plan", "cut", "attempt a", "attempt b"}
    top = spans["chat m"]
    said = dict(top.attributes or {})
    assert top.kind is SpanKind.CLIENT
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "b"
    assert (said["gen_ai.request.model"], said["gen_ai.response.model"]) == ("m", "m")
    assert said["gen_ai.usage.input_tokens"] == receipt["input_tokens_billed"]
    assert said["gen_ai.usage.output_tokens"] == receipt["output_tokens_billed"]
    assert said["gen_ai.request.temperature"] == 0.2
    assert said["gen_ai.request.max_tokens"] == 99
    assert said["server.address"] == "127.0.0.1"
    assert said["trimtab.receipt_id"] == receipt["id"]
    assert said["trimtab.saved_usd"] == receipt["saved_usd"]
    assert "error.type" not in said
    assert top.status.status_code is StatusCode.UNSET
    assert top.start_time is not None
    assert top.end_time is not None
    for name, span in spans.items():
        if span is top:
            continue
        assert span.parent is not None
        assert top.context is not None
        assert span.parent.span_id == top.context.span_id, name
        assert span.start_time is not None
        assert span.end_time is not None
        assert top.start_time <= span.start_time <= span.end_time
    failed, answered = spans["attempt a"], spans["attempt b"]
    assert dict(failed.attributes or {})["error.type"] == "server_error"
    assert dict(failed.attributes or {})["http.response.status_code"] == 500
    assert failed.status.status_code is StatusCode.ERROR
    assert dict(answered.attributes or {})["http.request.resend_count"] == 1
    assert (failed.end_time or 0) <= (answered.start_time or 0)
    assert dict(spans["cut"].attributes or {})["trimtab.context_tokens.after"] == receipt["tokens_after"]


def test_every_gen_ai_name_is_one_of_the_conventions() -> None:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("a", server)])
        watched = Watched(trimtab, **{CAPTURE: "SPAN_ONLY"})
        with serving_of(trimtab) as client:
            client.post("/v1/chat/completions", json=chat(stream=True, stream_options={"include_usage": True}, top_p=1))
    for span in watched.spans().values():
        for name in span.attributes or {}:
            if name.startswith("gen_ai."):
                assert name in CONVENTIONS


def test_a_stream_says_when_it_began_and_a_failure_why() -> None:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("a", server)], max_attempts=1)
        watched = Watched(trimtab)
        with serving_of(trimtab) as client:
            client.post("/v1/chat/completions", json=chat(stream=True))
            streamed = dict(watched.spans()["chat m"].attributes or {})
            server.then(status(503))
            client.post("/v1/chat/completions", json=chat())
            failed = watched.spans()["chat m"]
    assert streamed["gen_ai.request.stream"] is True
    assert 0 < float(str(streamed["gen_ai.response.time_to_first_chunk"])) < 20
    assert dict(failed.attributes or {})["error.type"] == "server_error"
    assert "gen_ai.response.model" not in (failed.attributes or {})
    assert failed.status.status_code is StatusCode.ERROR


def test_the_metrics_have_the_conventions_buckets() -> None:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("a", server)])
        watched = Watched(trimtab)
        with serving_of(trimtab) as client:
            receipt = client.post("/v1/chat/completions", json=chat()).json()["trimtab"]
            client.post("/v1/chat/completions", json=chat())
    reader = watched._reader.get_metrics_data()
    found = {m.name: m for r in reader.resource_metrics for s in r.scope_metrics for m in s.metrics}  # type: ignore[union-attr]
    watched._meters.shutdown()
    tokens, seconds = found["gen_ai.client.token.usage"], found["gen_ai.client.operation.duration"]
    assert (tokens.unit, seconds.unit) == ("{token}", "s")
    points: Any = {dict(p.attributes)["gen_ai.token.type"]: p for p in tokens.data.data_points}
    assert points["input"].sum == 2 * receipt["input_tokens_billed"]
    assert points["output"].sum == 2 * receipt["output_tokens_billed"]
    # https://github.com/open-telemetry/semantic-conventions-genai, gen-ai-metrics
    assert list(points["input"].explicit_bounds) == [
        *(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
    ]
    (duration,) = list(seconds.data.data_points)
    assert duration.count == 2  # type: ignore[union-attr]
    assert list(duration.explicit_bounds) == [  # type: ignore[union-attr]
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
    ]


@pytest.mark.parametrize(("value", "told"), [("", False), ("NO_CONTENT", False), ("EVENT_ONLY", False), ("true", True)])
def test_a_prompt_is_told_only_where_it_is_asked_for(value: str, told: bool) -> None:
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("a", server)])
        watched = Watched(trimtab, **{CAPTURE: value})
        with serving_of(trimtab) as client:
            body = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, *chat()["messages"]]}
            client.post("/v1/chat/completions", json=body)
    spans = watched.spans()
    written = json.dumps([dict(span.attributes or {}) for span in spans.values()])
    assert (QUESTION in written) is told
    if told:
        messages = json.loads(str((spans["chat m"].attributes or {})["gen_ai.input.messages"]))
        assert messages[-1] == {"role": "user", "parts": [{"type": "text", "content": QUESTION}]}
        assert messages[0]["role"] == "system"


@contextmanager
def collecting() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP collector on loopback, and what it was sent."""
    sent: list[Any] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kinds = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
            message = kinds[self.path]()
            message.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
            sent.append(message)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_serve_sends_to_a_collector_and_passes_the_trace_on(tmp_path: Path) -> None:
    with LoopbackProvider() as provider_server, collecting() as (collector, sent):
        config = tmp_path / "trimtab.toml"
        config.write_text(
            f'cache_dir = "{tmp_path}"\ndata_dir = "{tmp_path}"\npass_trace = true\n[[providers]]\nname = "a"\n'
            f'kind = "openai"\nbase_url = "{provider_server.base_url}"\nmodels = ["m"]\n'
            "prices = { input_mtok = 1, output_mtok = 2 }\n"
        )
        environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
        arguments = ["serve", "--config", str(config), "--port", "0", "--log-format", "json"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from trimtab.cli import main; main()", *arguments],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(json.loads(line))
                if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail(str(lines))
            parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            with httpx.Client(base_url=found[1], trust_env=False, timeout=60) as client:
                headers = {"traceparent": parent, "x-request-id": "traced-1"}
                assert client.post("/v1/chat/completions", json=chat(), headers=headers).status_code == 200
                client.get("/healthz")
                client.get(f"/nowhere/{SECRET}/x", params={"key": SECRET, "page": "2"})
            process.terminate()
            _, rest = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        forwarded = provider_server.requests[-1].headers["traceparent"]
    traces = [each for each in sent if isinstance(each, ExportTraceServiceRequest)]
    spans = {
        span.name: span
        for each in traces
        for one in each.resource_spans
        for scope in one.scope_spans
        for span in scope.spans
    }
    written = str(list(sent))
    assert SECRET not in written
    assert QUESTION not in written
    assert "page=2" in written
    server, chat_span = spans["POST /v1/chat/completions"], spans["chat m"]
    del spans["GET"]  # of the address that is nowhere
    assert {span.trace_id.hex() for span in spans.values()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    assert chat_span.parent_span_id == server.span_id
    assert spans["attempt a"].parent_span_id == chat_span.span_id
    assert {each.key: each.value.string_value for each in server.attributes}["trimtab.request_id"] == "traced-1"
    assert forwarded == f"00-4bf92f3577b34da6a3ce929d0e0e4736-{server.span_id.hex()}-01"
    resource = {each.key: each.value.string_value for each in traces[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "trimtab"
    metrics = {
        metric.name
        for each in sent
        if isinstance(each, ExportMetricsServiceRequest)
        for one in each.resource_metrics
        for scope in one.scope_metrics
        for metric in scope.metrics
    }
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage", "http.server.request.duration"} <= metrics
    access = next(each for each in map(json.loads, rest.splitlines()) if each["logger"] == "trimtab.access")
    assert (access["request_id"], access["trace_id"]) == ("traced-1", "4bf92f3577b34da6a3ce929d0e0e4736")


def test_a_trace_goes_to_no_provider_unless_it_is_said() -> None:
    with LoopbackProvider() as server, serving_of(Trimtab(providers=[provider("a", server)])) as client:
        client.post(
            "/v1/chat/completions", json=chat(), headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
        )
        assert "traceparent" not in server.requests[-1].headers

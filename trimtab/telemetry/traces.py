"""Traces: a request's spans and the GenAI metrics, by OpenTelemetry's semantic conventions.

FastAPI makes the span of the HTTP request and reads `traceparent`. Below it: `chat MODEL` from a request's first step to
its answer's end, one child for each call of a provider, one for each stage of ours. They are made when the request is over,
of the moments in its receipt: the hot path measures nothing twice, and without an SDK nothing is built at all.

The conventions: https://github.com/open-telemetry/semantic-conventions-genai (gen-ai-spans, gen-ai-metrics), as the
package opentelemetry-semantic-conventions 0.66b2 names them. They are not stable, so the names stand here as texts: the
package is no dependency of the API.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from compressor.prompts import EMBEDDINGS
from routing.attempts import Attempt
from routing.catalog import Catalog, Provider
from routing.offers import plain
from trimtab.api_docs import VERSION
from trimtab.conclusion import Conclusion
from trimtab.request import max_output_tokens
from trimtab.telemetry import request_ids

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURING: Final = ("true", "span_only", "span_and_event")

_TOKEN_BUCKETS: Final = tuple(4**n for n in range(14))
_SECOND_BUCKETS: Final = tuple(round(0.01 * 2**n, 2) for n in range(14))

_BY_HOST: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "api.mistral.ai": "mistral_ai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
    "api.cohere.com": "cohere",
}
_BY_HOST_END: Final = {
    ".openai.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.inference",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    ".amazonaws.com": "aws.bedrock",
}
_NS_IN_MS: Final = 1_000_000

_UNCONFIGURED: Final = ("ProxyTracerProvider", "NoOpTracerProvider", "_ProxyMeterProvider", "NoOpMeterProvider")
"""What the API gives while nobody has set up an SDK. By name, as the one for meters is nowhere exported."""

Attributes = dict[str, Any]


class Traces:
    """Tells OpenTelemetry of every request that is over. `environ` says whether prompts may be told too: never, unless
    OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT asks for them on spans."""

    def __init__(
        self,
        catalog: Catalog,
        environ: Mapping[str, str],
        tracers: trace.TracerProvider | None = None,
        meters: metrics.MeterProvider | None = None,
    ) -> None:
        """`tracers` and `meters` stand in for the process's own, whoever sets those and whenever."""
        self._catalog = catalog
        self._capturing = environ.get(CAPTURE, "").strip().lower() in _CAPTURING
        self._tracers, self._meters = tracers, meters
        self._tracer = trace.get_tracer("trimtab", VERSION, tracers)
        meter = metrics.get_meter("trimtab", VERSION, meters)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECOND_BUCKETS,
        )

    def concluded(self, conclusion: Conclusion) -> None:
        """A listener, see `trimtab.conclusion`."""
        tracing = type(self._tracers or trace.get_tracer_provider()).__name__ not in _UNCONFIGURED
        metering = type(self._meters or metrics.get_meter_provider()).__name__ not in _UNCONFIGURED
        if not (metering or tracing):
            return
        began_ns, ended_ns = _moments(conclusion)
        said = self._said(conclusion)
        if tracing:
            self._trace(conclusion, said, began_ns, ended_ns)
        if metering:
            self._meter(conclusion, said, (ended_ns - began_ns) / 1e9)

    def _said(self, conclusion: Conclusion) -> Attributes:
        """What both spans and metrics say."""
        receipt = conclusion.receipt
        embeds = conclusion.prepared.request.api is EMBEDDINGS
        said: Attributes = {
            "gen_ai.operation.name": "embeddings" if embeds else "chat",
            "gen_ai.provider.name": receipt.provider or "",
            "gen_ai.request.model": receipt.model_asked,
            **_address(self._catalog.provider(receipt.provider or "")),
        }
        if 200 <= conclusion.status < 300:
            said["gen_ai.response.model"] = receipt.model or ""
        if error := _error(conclusion):
            said["error.type"] = error
        return said

    def _trace(self, conclusion: Conclusion, said: Attributes, began_ns: int, ended_ns: int) -> None:
        name = f"{said['gen_ai.operation.name']} {said['gen_ai.request.model']}"
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=said, start_time=began_ns)
        if span.is_recording():
            span.set_attributes(dict(_details(conclusion)))
            if self._capturing:
                span.set_attributes(_content(conclusion))
            if "error.type" in said:
                span.set_status(StatusCode.ERROR)
            forwarded_ns = self._stages(conclusion, span, began_ns)
            self._attempts(conclusion, span, forwarded_ns)
        span.end(ended_ns)

    def _stages(self, conclusion: Conclusion, parent: Span, at_ns: int) -> int:
        """A span for each stage before the forwarding, one after the other; gives when the last one ended."""
        within = trace.set_span_in_context(parent)
        receipt = conclusion.receipt
        for stage, spent_ms in receipt.stage_ms:
            if stage == "provider":
                continue
            attributes = {"trimtab.stage": stage}
            if stage == "cut":
                attributes |= _set(
                    {
                        "trimtab.context_tokens.before": receipt.tokens_before,
                        "trimtab.context_tokens.after": receipt.tokens_after,
                        "trimtab.coverage_estimate": receipt.coverage_estimate,
                    }
                )
            span = self._tracer.start_span(stage, within, attributes=attributes, start_time=at_ns)
            at_ns += int(spent_ms * _NS_IN_MS)
            span.end(at_ns)
        return at_ns

    def _attempts(self, conclusion: Conclusion, parent: Span, from_ns: int) -> None:
        within = trace.set_span_in_context(parent)
        over_ns = from_ns
        for number, attempt in enumerate(conclusion.receipt.attempts):
            began_ns = from_ns + int(attempt.started_ms * _NS_IN_MS)
            if began_ns < over_ns:  # of a later round, whose clock begins anew
                began_ns += over_ns - from_ns
            over_ns = began_ns + int(attempt.latency_ms * _NS_IN_MS)
            attributes = self._of_attempt(attempt, number)
            span = self._tracer.start_span(
                f"attempt {attempt.provider}", within, SpanKind.CLIENT, attributes, start_time=began_ns
            )
            if attempt.outcome != "ok":
                span.set_status(StatusCode.ERROR, attempt.outcome)
            span.end(over_ns)

    def _of_attempt(self, attempt: Attempt, number: int) -> Attributes:
        return _set(
            {
                "trimtab.provider": attempt.provider,
                "trimtab.outcome": attempt.outcome,
                "gen_ai.request.model": attempt.model,
                "trimtab.processing": attempt.processing,
                **_address(self._catalog.provider(attempt.provider)),
                "http.request.method": "POST" if attempt.outcome != "unsupported" else None,
                "http.request.resend_count": number or None,
                "http.response.status_code": attempt.status,
                "error.type": None if attempt.outcome == "ok" else attempt.outcome,
            }
        )

    def _meter(self, conclusion: Conclusion, said: Attributes, seconds: float) -> None:
        self._seconds.record(seconds, said)
        receipt = conclusion.receipt
        billed = {"input": receipt.input_tokens_billed, "output": receipt.output_tokens_billed}
        without_error = {name: value for name, value in said.items() if name != "error.type"}
        for kind, tokens in billed.items():
            if tokens is not None:
                self._tokens.record(tokens, without_error | {"gen_ai.token.type": kind})


def _moments(conclusion: Conclusion) -> tuple[int, int]:
    """When the request began and ended, in nanoseconds since 1970."""
    ended_ns, at = time.time_ns(), conclusion.receipt.at
    return (ended_ns if at is None else min(ended_ns, int(at.timestamp() * 1e9))), ended_ns


def _address(provider: Provider | None) -> Attributes:
    """Whose API a provider's is, in the conventions' words, and where; another's by the name that it has here."""
    if provider is None:
        return {}
    url = urlsplit(provider.base_url)
    host = url.hostname or ""
    known = _BY_HOST.get(host) or next((name for end, name in _BY_HOST_END.items() if host.endswith(end)), None)
    port = url.port or (443 if url.scheme == "https" else 80)
    return {"gen_ai.provider.name": known or provider.name, "server.address": host, "server.port": port}


def _error(conclusion: Conclusion) -> str | None:
    """What went wrong, as one of few words: the last attempt's outcome, or the status."""
    attempts = conclusion.receipt.attempts
    if attempts and attempts[-1].outcome != "ok":
        return attempts[-1].outcome
    return None if conclusion.status < 400 else str(conclusion.status)


def _details(conclusion: Conclusion) -> Iterator[tuple[str, Any]]:
    receipt, asked = conclusion.receipt, conclusion.prepared.request.asked
    yield from _set(
        {
            "trimtab.request_id": request_ids.current() or None,
            "trimtab.receipt_id": receipt.id,
            "trimtab.surface": conclusion.prepared.request.api.name,
            "trimtab.provider": receipt.provider,
            "trimtab.processing": receipt.processing,
            "trimtab.attempts": len(receipt.attempts),
            "trimtab.context_tokens.before": receipt.tokens_before,
            "trimtab.context_tokens.after": receipt.tokens_after,
            "trimtab.coverage_estimate": receipt.coverage_estimate,
            "trimtab.billed_usd": None if receipt.billed_cost_usd is None else plain(receipt.billed_cost_usd),
            "trimtab.saved_usd": None if receipt.saved_usd is None else plain(receipt.saved_usd),
            "gen_ai.request.stream": conclusion.stream or None,
            "gen_ai.usage.input_tokens": receipt.input_tokens_billed,
            "gen_ai.usage.output_tokens": receipt.output_tokens_billed,
            "gen_ai.usage.cache_read.input_tokens": receipt.cache_read_tokens_billed,
            "gen_ai.usage.cache_creation.input_tokens": receipt.cache_write_tokens_billed,
            "gen_ai.request.temperature": _number(asked.get("temperature")),
            "gen_ai.request.top_p": _number(asked.get("top_p")),
            "gen_ai.request.max_tokens": max_output_tokens(asked, 1),
        }
    ).items()
    first = next((each.first_byte_ms for each in receipt.attempts if each.first_byte_ms is not None), None)
    if first is not None:
        yield "gen_ai.response.time_to_first_chunk", first / 1000


def _content(conclusion: Conclusion) -> Attributes:
    """The messages that were sent, in the conventions' form. The answer passed through and was not kept."""
    api, body = conclusion.prepared.request.api, conclusion.prepared.body
    turns = body.get(api.turns)
    messages = [_message(each) for each in turns] if isinstance(turns, list) else [_message({"content": turns})]
    told = {"gen_ai.input.messages": json.dumps(messages, ensure_ascii=False)}
    system = body.get("system") or body.get("instructions")
    if system:
        told["gen_ai.system_instructions"] = json.dumps(_parts(system), ensure_ascii=False)
    return told


def _message(turn: Any) -> Attributes:
    turn = turn if isinstance(turn, Mapping) else {"content": turn}
    return {"role": str(turn.get("role") or "user"), "parts": _parts(turn.get("content"))}


def _parts(content: Any) -> list[Attributes]:
    pieces = content if isinstance(content, list) else [content]
    return [_part(each) for each in pieces if each is not None]


def _part(piece: Any) -> Attributes:
    if isinstance(piece, str):
        return {"type": "text", "content": piece}
    if isinstance(piece, Mapping) and isinstance(piece.get("text"), str):
        return {"type": "text", "content": piece["text"]}
    # Other parts (images, tool calls) by their kind alone: what they hold may be megabytes.
    return {"type": str(piece.get("type", "unknown")) if isinstance(piece, Mapping) else "unknown"}


def _set(attributes: Mapping[str, Any]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

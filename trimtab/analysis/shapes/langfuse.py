"""Langfuse: observations as its API and its exports write them (langfuse.com, "Model Usage & Cost Tracking").

The buckets of `usageDetails` stand side by side: every name with "input" in it is input, cached or not, and all of them add
up to `total`. A recorder that put the cached tokens into `input` too is told by its total.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routing.offers import Usage
from trimtab.analysis.recorded import Beside, Recorded, moment, recorded, signs_in
from trimtab.analysis.shapes.bodies import opened
from trimtab.analysis.shapes.counts import count, usage

_KINDS = ("GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL")


def recognises(entry: Mapping[str, Any]) -> bool:
    kind = str(entry.get("type", "")).upper()
    return kind in _KINDS and any(name in entry for name in ("traceId", "trace_id", "startTime", "start_time"))


def read(entry: Mapping[str, Any], where: str) -> Recorded | None:
    if str(entry.get("type")).upper() != "GENERATION" or str(entry.get("level")).upper() == "ERROR":
        return None
    body = _body(entry)
    if body is None:
        raise ValueError("has an input that is no conversation")
    output = opened(entry.get("output"))
    metadata = opened(entry.get("metadata"))
    beside = Beside(
        id=str(entry.get("id") or ""),
        at=moment(entry.get("startTime") or entry.get("start_time")),
        answer=output if isinstance(output, Mapping) else {"output": output} if output else None,
        usage=_usage(entry),
        signs=(*signs_in(entry.get("name")), *signs_in(opened(entry.get("tags"))), *signs_in(metadata)),
        conversation=str(entry.get("sessionId") or entry.get("session_id") or ""),
    )
    return recorded(body, where, beside)


def _body(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    given = opened(entry.get("input")) if not isinstance(entry.get("input"), str) else _conversation(entry["input"])
    parameters = opened(entry.get("modelParameters") or entry.get("model_parameters"))
    model = next(
        (
            entry[name]
            for name in ("providedModelName", "provided_model_name", "model", "internalModelId")
            if entry.get(name)
        ),
        None,
    )
    known = {**(parameters if isinstance(parameters, Mapping) else {}), "model": model}
    if isinstance(given, list):
        return {**known, "messages": given}
    if isinstance(given, Mapping) and ("messages" in given or "input" in given):
        return {**known, **given, "model": model or given.get("model")}
    return None


def _conversation(text: str) -> object:
    """A text is JSON, or else what the user said."""
    value = opened(text)
    return value if isinstance(value, list | Mapping) else [{"role": "user", "content": text}]


def _usage(entry: Mapping[str, Any]) -> Usage | None:
    for name in ("usageDetails", "usage_details", "usage"):
        table = opened(entry.get(name))
        if isinstance(table, Mapping) and table:
            return _read(table)
    return usage(count(entry, "promptTokens", "inputUsage"), count(entry, "completionTokens", "outputUsage"))


def _read(table: Mapping[str, Any]) -> Usage | None:
    read_tokens = count(table, "cache_read_input_tokens", "input_cached_tokens", "input_cache_read") or 0
    write_tokens = count(table, "cache_creation_input_tokens", "input_cache_creation") or 0
    plain, output = count(table, "input", "prompt_tokens"), count(table, "output", "completion_tokens")
    if plain is None or output is None:
        return None
    # what is written apart of the output (reasoning) is billed as output too
    output += count(table, "output_reasoning_tokens", "output_reasoning") or 0
    total = count(table, "total", "total_tokens")
    within = total is not None and total == plain + output
    return usage(plain if within else plain + read_tokens + write_tokens, output, read_tokens, write_tokens)

"""OpenAI's own server, as a loopback provider is one: chat completions, the Responses API and embeddings.

It refuses fields that are not known, and answers a pure function of the request and the step, as in `tests.loopback`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.loopback import CREATED, OPENAI, Request, Step, Tongue, parts_of

_FIELDS: Final = frozenset(
    (
        *("model", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls"),
        *(
            "previous_response_id",
            "prompt",
            "prompt_cache_key",
            "reasoning",
            "safety_identifier",
            "service_tier",
            "store",
        ),
        *(
            "stream",
            "stream_options",
            "temperature",
            "text",
            "tool_choice",
            "tools",
            "top_logprobs",
            "top_p",
            "truncation",
        ),
        *("user", "background", "conversation", "include", "context_management"),
    )
)


def _complaint(request: Request) -> tuple[int, bytes] | None:
    if request.path.endswith("/responses") and (unknown := sorted(request.json.keys() - _FIELDS)):
        error = {"message": f"Unknown parameter: '{unknown[0]}'.", "type": "invalid_request_error"}
        return 400, json.dumps({"error": {**error, "param": unknown[0], "code": "unknown_parameter"}}).encode()
    return None


def _prompt(asked: Mapping[str, Any]) -> str:
    items = asked.get("input", "")
    if isinstance(items, str):
        return items
    found = []
    for item in items:
        content = item.get("content") or item.get("output") or item.get("arguments") or ""
        parts = [{"text": content}] if isinstance(content, str) else content
        found.append(" ".join(part.get("text", f"[{part.get('type')}]") for part in parts))
    return "\n".join(found)


def _items(request: Request, step: Step) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if step.thinking:
        items.append({"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": step.thinking}]})
    text = _prompt(request.json) if step.text is None and not step.tool_calls else step.text
    if text:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        items.append({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content})
    for at, call in enumerate(step.tool_calls):
        named = {"call_id": call["id"], **call["function"]}
        items.append({"id": f"fc_{at}", "type": "function_call", "status": "completed", **named})
    return items


def _response(request: Request, step: Step) -> dict[str, Any]:
    asked, items = request.json, _items(request, step)
    read, written = len(_prompt(asked).split()), len(json.dumps(items).split())
    usage = step.usage or {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": len(step.thinking.split())},
        "total_tokens": read + written,
    }
    failed = step.finish == "failed"
    return {
        "id": "resp_loopback",
        "object": "response",
        "created_at": CREATED,
        "status": step.finish or "completed",
        "error": {"code": "server_error", "message": "scripted failure"} if failed else None,
        "incomplete_details": {"reason": "max_output_tokens"} if step.finish == "incomplete" else None,
        "instructions": asked.get("instructions"),
        "model": asked["model"],
        "output": items,
        "parallel_tool_calls": True,
        "temperature": asked.get("temperature", 1.0),
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools", []),
        "top_p": 1.0,
        "usage": usage,
        "metadata": asked.get("metadata", {}),
    }


def responses_events(request: Request, step: Step) -> list[bytes]:
    """The events of a streamed response, each with its blank line."""
    response = _response(request, step)
    begun = {
        **response,
        "status": "in_progress",
        "output": [],
        "usage": None,
        "error": None,
        "incomplete_details": None,
    }
    events = [{"type": f"response.{state}", "response": begun} for state in ("created", "in_progress")]
    for at, item in enumerate(response["output"]):
        where = {"item_id": item["id"], "output_index": at}
        empty = {**item, "status": "in_progress", "content": []} if item["type"] == "message" else item
        events.append({"type": "response.output_item.added", "output_index": at, "item": empty})
        if item["type"] == "message":
            (part,) = item["content"]
            where["content_index"] = 0
            events.append({"type": "response.content_part.added", **where, "part": {**part, "text": ""}})
            more = {"logprobs": []}
            kind = "response.output_text.delta"
            events += [{"type": kind, **where, "delta": delta, **more} for delta in parts_of(part["text"])]
            events.append({"type": "response.output_text.done", **where, "text": part["text"], **more})
            events.append({"type": "response.content_part.done", **where, "part": part})
        elif item["type"] == "function_call":
            kind = "response.function_call_arguments"
            events += [{"type": f"{kind}.delta", **where, "delta": delta} for delta in parts_of(item["arguments"])]
            events.append({"type": f"{kind}.done", **where, "arguments": item["arguments"]})
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    events.append({"type": f"response.{response['status']}", "response": response})
    return [_event({**event, "sequence_number": number}) for number, event in enumerate(events)]


def _event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _embeddings(asked: Mapping[str, Any]) -> dict[str, Any]:
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    rows = [{"object": "embedding", "index": at, "embedding": [float(len(text)), 0.5]} for at, text in enumerate(texts)]
    tokens = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": asked["model"], "usage": usage}


def _whole(request: Request, step: Step) -> bytes:
    if request.path.endswith("/embeddings"):
        return json.dumps(_embeddings(request.json)).encode()
    if request.path.endswith("/responses"):
        return json.dumps(_response(request, step)).encode()
    return OPENAI.whole(request, step)


def _events(request: Request, step: Step) -> list[bytes] | None:
    if request.path.endswith("/responses"):
        return responses_events(request, step) if request.json.get("stream") else None
    return None if request.path.endswith("/embeddings") else OPENAI.events(request, step)


OPENAI_OWN = Tongue(
    kind="openai",
    root="/v1",
    serves=lambda path: path.endswith(("/chat/completions", "/responses", "/embeddings")),
    complaint=_complaint,
    whole=_whole,
    events=_events,
)

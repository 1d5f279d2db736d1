"""The wires of Anthropic and Gemini as a loopback provider speaks them.

    with LoopbackProvider([ok("Paris.")], tongue=ANTHROPIC) as provider:
        client = anthropic.Anthropic(base_url=provider.base_url, api_key="any")

They refuse what the real servers refuse, in their words: fields that are not known, turns that do not alternate, results
of calls that nobody made. So a conversion that makes such a request is found out here. Answers are a pure function of the
request and the step, as in `tests.loopback`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.loopback import Request, Step, Tongue, parts_of

Complaint = tuple[int, bytes] | None

# --- Anthropic ----------------------------------------------------------------------------------------------------

_ANTHROPIC_FIELDS = frozenset(
    (
        *("model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "output_config"),
        *("stop_sequences", "metadata", "stream", "service_tier", "cache_control"),
        *("container", "diagnostics", "inference_geo", "speed"),
    )
)
_SAMPLING = frozenset(("temperature", "top_p", "top_k"))
_BLOCKS = {
    "text": {"text", "cache_control", "citations"},
    "image": {"source", "cache_control"},
    "document": {"source", "title", "context", "citations", "cache_control"},
    "search_result": {"source", "title", "content", "citations", "cache_control"},
    "tool_use": {"id", "name", "input", "cache_control"},
    "tool_result": {"tool_use_id", "content", "is_error", "cache_control"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
}


def anthropic_error(code: int, kind: str, message: str = "scripted failure") -> Step:
    """An error in Anthropic's shape, with its status."""
    return Step(status=code, body=_anthropic_error(kind, message))


def _anthropic_error(kind: str, message: str) -> bytes:
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_loopback"}
    return json.dumps(error).encode()


def anthropic_error_event(kind: str, message: str = "scripted failure") -> bytes:
    return _anthropic_event({"type": "error", "error": {"type": kind, "message": message}})


def _anthropic_complaint(request: Request) -> Complaint:
    if not request.headers.get("x-api-key") and not request.headers.get("authorization", "").startswith("Bearer "):
        return 401, _anthropic_error("authentication_error", "x-api-key header is required")
    body = {"max_tokens": 1, **request.json} if request.path == _COUNTING else request.json
    said = anthropic_complaint(body, request.headers.get("anthropic-version"))
    return None if said is None else (400, _anthropic_error("invalid_request_error", said))


def anthropic_complaint(body: Mapping[str, Any], version: str | None) -> str | None:
    """What the Messages API has against this body; None if it takes it."""
    if version not in ("2023-06-01", "2026-10-21"):
        return "anthropic-version: header is required"
    known = _ANTHROPIC_FIELDS | (_SAMPLING if version == "2023-06-01" else frozenset())
    if unknown := sorted(body.keys() - known):
        return f"{unknown[0]}: Extra inputs are not permitted"
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        return "max_tokens: Field required"
    thinking = body.get("thinking") or {"type": "disabled"}
    if thinking["type"] == "enabled" and not 1_024 <= thinking["budget_tokens"] < body["max_tokens"]:
        return "thinking.enabled.budget_tokens: must be at least 1024 and less than max_tokens"
    if thinking["type"] in ("enabled", "adaptive") and (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        return "Thinking may not be enabled when tool_choice forces tool use."
    if not body.get("messages"):
        return "messages: at least one message is required"
    return _turns_complaint(body["messages"]) or _tools_complaint(body)


def _turns_complaint(messages: list[Any]) -> str | None:
    before: list[Any] = []
    for at, message in enumerate(messages):
        role, blocks = message["role"], message["content"]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
        last_role = messages[at - 1]["role"] if at else None
        if role not in ("user", "assistant", "system") or not blocks:
            return f"messages.{at}: a role and content are required"
        if role == "system" and (
            last_role != "user" or (at + 1 < len(messages) and messages[at + 1]["role"] == "user")
        ):
            return f"messages.{at}: a system message may not stand here"
        for block in blocks:
            if block["type"] not in _BLOCKS or block.keys() - _BLOCKS[block["type"]] - {"type"}:
                return f"messages.{at}: Extra inputs are not permitted"
            if block["type"] == "text" and not block["text"].strip():
                return f"messages.{at}: text content blocks must contain non-whitespace text"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        calls = [block["id"] for block in before if block["type"] == "tool_use"]
        if role == "user" and not set(results) <= set(calls):
            return f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks"
        before = before if role == "system" else blocks
    return None


def _tools_complaint(body: Mapping[str, Any]) -> str | None:
    for tool in body.get("tools", ()):
        if tool.get("type", "custom") != "custom":
            continue  # one that runs at Anthropic
        if tool["input_schema"].get("type") != "object":
            return "tools.0.custom.input_schema.type: Field required"
        if tool.keys() - {"type", "name", "description", "input_schema", "strict", "cache_control"}:
            return "tools.0: Extra inputs are not permitted"
    if "tool_choice" in body and not body.get("tools"):
        return "tool_choice: may only be specified while providing tools."
    return None


def _anthropic_message(request: Request, step: Step) -> dict[str, Any]:
    asked = request.json
    blocks: list[dict[str, Any]] = []
    if step.thinking:
        blocks.append({"type": "thinking", "thinking": step.thinking, "signature": "c2lnbmVk"})
    text = _anthropic_prompt(asked) if step.text is None and not step.tool_calls else step.text
    if text:
        blocks.append({"type": "text", "text": text, "citations": None})
    for call in step.tool_calls:
        arguments = json.loads(call["function"]["arguments"])
        blocks.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments})
    usage = step.usage or {
        "input_tokens": len(_anthropic_prompt(asked).split()),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": len(json.dumps(blocks).split()),
        "service_tier": "standard",
    }
    return {
        "id": "msg_loopback",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": blocks,
        "stop_reason": step.finish or ("tool_use" if step.tool_calls else "end_turn"),
        "stop_sequence": None,
        "stop_details": _refused() if step.finish == "refusal" else None,
        "usage": usage,
    }


_COUNTING = "/v1/messages/count_tokens"


def _anthropic_answer(request: Request, step: Step) -> dict[str, Any]:
    if request.path == _COUNTING:
        return {"input_tokens": len(_anthropic_prompt(request.json).split())}
    return _anthropic_message(request, step)


def _refused() -> dict[str, Any]:
    return {"type": "refusal", "category": "bio", "explanation": "This could enable harm."}


def _anthropic_events(request: Request, step: Step) -> list[bytes] | None:
    return anthropic_events(request, step) if request.json.get("stream") else None


def anthropic_events(request: Request, step: Step) -> list[bytes]:
    """The events of a streamed message, each with its blank line; the second one is a ping, as at Anthropic."""
    message = _anthropic_message(request, step)
    blocks = message["content"]
    start = {**message, "content": [], "stop_reason": None, "stop_details": None}
    start["usage"] = {**message["usage"], "output_tokens": 1}
    start["usage"].pop("output_tokens_details", None)
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for at, block in enumerate(blocks):
        empty, deltas = _anthropic_deltas(block)
        events.append({"type": "content_block_start", "index": at, "content_block": empty})
        events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": at})
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    usage = {name: value for name, value in message["usage"].items() if name.startswith("output_tokens")}
    events += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    return [_anthropic_event(event) for event in events]


def _anthropic_deltas(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": part} for part in parts_of(block["text"])]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": part} for part in parts_of(block["thinking"])]
        return {**block, "thinking": "", "signature": ""}, [
            *deltas,
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    text = json.dumps(block["input"]) if block["input"] else ""
    # The first delta of a call's input is empty at Anthropic too.
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in ("", *parts_of(text))]
    return {**block, "input": {}}, deltas


def _anthropic_event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _anthropic_prompt(asked: Mapping[str, Any]) -> str:
    system = asked.get("system", "")
    lines = [system if isinstance(system, str) else " ".join(block["text"] for block in system)]
    for message in asked["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        lines.append(" ".join(block["text"] if block["type"] == "text" else f"[{block['type']}]" for block in blocks))
    return "\n".join(line for line in lines if line)


ANTHROPIC = Tongue(
    kind="anthropic",
    root="",
    serves=lambda path: path in ("/v1/messages", _COUNTING),
    complaint=_anthropic_complaint,
    whole=lambda request, step: json.dumps(_anthropic_answer(request, step)).encode(),
    events=_anthropic_events,
)

# --- Gemini -------------------------------------------------------------------------------------------------------

_GEMINI_PATH = re.compile(r"/v1(?:beta)?/models/([\w.-]+):(generateContent|streamGenerateContent\?alt=sse)")
_GEMINI_FIELDS = frozenset(
    ("contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "serviceTier")
)
_GENERATION_FIELDS = frozenset(
    (
        *("temperature", "topP", "topK", "candidateCount", "maxOutputTokens", "stopSequences", "presencePenalty"),
        *("frequencyPenalty", "seed", "responseLogprobs", "logprobs", "responseMimeType", "responseJsonSchema"),
        *("thinkingConfig", "mediaResolution"),
    )
)
_PARTS = frozenset(("text", "inlineData", "fileData", "functionCall", "functionResponse"))


def gemini_error(code: int, word: str, message: str = "scripted failure", *details: Mapping[str, Any]) -> Step:
    """An error in Google's shape, with its status."""
    return Step(status=code, body=_gemini_error(code, word, message, *details))


def _gemini_error(code: int, word: str, message: str, *details: Mapping[str, Any]) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message, "status": word}
    return json.dumps({"error": error | ({"details": details} if details else {})}).encode()


def gemini_error_event(code: int, word: str) -> bytes:
    return b"data: " + _gemini_error(code, word, "scripted failure") + b"\r\n\r\n"


def _gemini_complaint(request: Request) -> Complaint:
    if not request.headers.get("x-goog-api-key"):
        return 403, _gemini_error(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")
    said = gemini_complaint(request.json)
    return None if said is None else (400, _gemini_error(400, "INVALID_ARGUMENT", said))


def gemini_complaint(body: Mapping[str, Any]) -> str | None:
    """What generateContent has against this body; None if it takes it."""
    if unknown := sorted(body.keys() - _GEMINI_FIELDS):
        return f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.'
    generation = body.get("generationConfig", {})
    if unknown := sorted(generation.keys() - _GENERATION_FIELDS):
        return f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at 'generation_config'."
    if "responseJsonSchema" in generation and generation.get("responseMimeType") != "application/json":
        return "response_json_schema requires response_mime_type application/json"
    if not body.get("contents"):
        return "* GenerateContentRequest.contents: contents is not specified"
    called: set[str] = set()
    for at, content in enumerate(body["contents"]):
        if content.get("role") not in ("user", "model") or not content.get("parts"):
            return f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty."
        for part in content["parts"]:
            if len(part.keys() & _PARTS) != 1 or part.keys() - _PARTS - {
                "thoughtSignature",
                "mediaResolution",
                "thought",
            }:
                return f"* GenerateContentRequest.contents[{at}].parts: required oneof field 'data' must be set"
            called |= {part["functionCall"]["name"]} if "functionCall" in part else set()
            if "functionResponse" in part and part["functionResponse"]["name"] not in called:
                return "Please ensure that function response turn comes immediately after a function call turn."
    return None


def _gemini_parts(request: Request, step: Step) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if step.thinking:
        parts.append({"text": step.thinking, "thought": True})
    text = _gemini_prompt(request.json) if step.text is None and not step.tool_calls else step.text
    if text:
        parts.append({"text": text})
    for at, call in enumerate(step.tool_calls):
        made = {"id": call["id"], "name": call["function"]["name"], "args": json.loads(call["function"]["arguments"])}
        parts.append({"functionCall": made} | ({} if at else {"thoughtSignature": "c2lnbmVk"}))
    return parts


def _gemini_frame(request: Request, step: Step, parts: list[dict[str, Any]]) -> dict[str, Any]:
    usage = step.usage or {
        "promptTokenCount": len(_gemini_prompt(request.json).split()),
        "candidatesTokenCount": len(json.dumps(parts).split()),
        "thoughtsTokenCount": len(step.thinking.split()),
    }
    found = _GEMINI_PATH.fullmatch(request.path)
    assert found is not None
    return {"usageMetadata": usage, "modelVersion": found[1], "responseId": "resp_loopback"}


def _gemini_candidates(request: Request, parts: list[dict[str, Any]], finish: str | None) -> list[dict[str, Any]]:
    number = request.json.get("generationConfig", {}).get("candidateCount", 1)
    candidates: list[dict[str, Any]] = []
    for at in range(number):
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": at}
        candidates.append(candidate | ({} if finish is None else {"finishReason": finish}))
    return candidates


def _gemini_whole(request: Request, step: Step) -> bytes:
    parts = _gemini_parts(request, step)
    candidates = _gemini_candidates(request, parts, step.finish or "STOP")
    return json.dumps({"candidates": candidates, **_gemini_frame(request, step, parts)}).encode()


def _gemini_events(request: Request, step: Step) -> list[bytes] | None:
    return gemini_events(request, step) if "streamGenerateContent" in request.path else None


def gemini_events(request: Request, step: Step) -> list[bytes]:
    """The events of a streamed answer, ended by CRLF as Google ends them; the last one has the finish reason."""
    whole = _gemini_parts(request, step)
    pieces: list[list[dict[str, Any]]] = []
    for part in whole:
        split = [{**part, "text": text} for text in parts_of(part["text"])] if "text" in part else [part]
        pieces += [[piece] for piece in split]
    pieces = pieces or [[{"text": ""}]]
    frame = _gemini_frame(request, step, whole)
    events = []
    for at, piece in enumerate(pieces):
        finish = (step.finish or "STOP") if at + 1 == len(pieces) else None
        event = {"candidates": _gemini_candidates(request, piece, finish), **frame}
        events.append(f"data: {json.dumps(event)}\r\n\r\n".encode())
    return events


def _gemini_prompt(asked: Mapping[str, Any]) -> str:
    contents = [asked.get("systemInstruction", {"parts": []}), *asked["contents"]]
    lines = (" ".join(part.get("text", f"[{next(iter(part))}]") for part in content["parts"]) for content in contents)
    return "\n".join(line for line in lines if line)


GEMINI = Tongue(
    kind="gemini",
    root="",
    serves=lambda path: _GEMINI_PATH.fullmatch(path) is not None,
    complaint=_gemini_complaint,
    whole=_gemini_whole,
    events=_gemini_events,
)

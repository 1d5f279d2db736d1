"""Replay: a stream put together as the whole answer that is kept, and a kept one told as a stream. Pure.

One function each way for each surface, in that surface's own events. A stream that holds what is not known here is not put
together, and so not kept. Ids and times stay the provider's: it is that answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from routing.chat_answer import DONE, to_event
from routing.conversion import wants_usage
from routing.streams import EventSplitter, Garbage, parse_object
from routing.tongues import messages_answer, responses_answer

Answer = Mapping[str, Any]

_CHOICE: Final = ("index", "delta", "finish_reason", "logprobs")
_DELTAS: Final = ("role", "content", "refusal", "tool_calls", "reasoning_content", "reasoning")
_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")


def folded(tongue: str, stream: bytes) -> Answer | None:
    """The whole answer that the events of a stream make; None where that is not known for certain."""
    fold = _FOLDS.get(tongue)
    if fold is None:
        return None
    splitter = EventSplitter()
    try:
        datas = [data for _, data in splitter.feed(stream) if data]
        if rest := splitter.rest()[1]:
            datas.append(rest)
        return fold([parse_object(data) for data in datas if data.strip() != b"[DONE]"])
    except (Garbage, KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None  # another shape than the wire's: every one of them means that it was not understood


def told(tongue: str, answer: Answer, body: Mapping[str, Any]) -> Iterator[bytes]:
    """The whole answer as the stream that `body` asks for. The last item is what ends it."""
    return _TELLS[tongue](answer, body)


def streams(tongue: str) -> bool:
    """Whether the surface has streams."""
    return tongue in _TELLS


# --- chat completions ---------------------------------------------------------------------------------------------------


def _fold_chat(chunks: list[dict[str, Any]]) -> Answer | None:
    frame: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        if chunk.get("error"):
            return None
        frame |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        for piece in chunk["choices"]:
            if any(value and name not in _CHOICE for name, value in piece.items()):
                return None
            choice = choices.setdefault(
                piece["index"], {"message": {"content": None}, "finish_reason": None, "logprobs": None}
            )
            if not _add_delta(choice["message"], piece.get("delta") or {}):
                return None
            choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
            for name, more in (piece.get("logprobs") or {}).items():
                choice["logprobs"] = choice["logprobs"] or {}
                choice["logprobs"][name] = [*(choice["logprobs"].get(name) or []), *(more or [])] or None
    made = [{"index": index, **choices[index]} for index in sorted(choices)]
    return {**frame, "object": "chat.completion", "choices": made} if made else None


def _add_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> bool:
    """Whether all of the delta is known here."""
    for name, value in delta.items():
        if value is None or value == []:
            continue
        if name not in _DELTAS:
            return False
        if name in _TEXTS:
            message[name] = (message.get(name) or "") + value
        elif name == "role":
            message[name] = value
        else:
            calls = message.setdefault("tool_calls", [])
            for piece in value:
                while len(calls) <= piece["index"]:
                    calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
                call, function = calls[piece["index"]], piece.get("function") or {}
                call["id"] = piece.get("id") or call["id"]
                call["function"]["name"] += function.get("name") or ""
                call["function"]["arguments"] += function.get("arguments") or ""
    return True


def _tell_chat(answer: Answer, body: Mapping[str, Any]) -> Iterator[bytes]:
    frame = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    frame["object"] = "chat.completion.chunk"
    with_usage = wants_usage(body)
    none_yet = {"usage": None} if with_usage else {}
    for choice in answer["choices"]:
        said = {name: value for name, value in choice["message"].items() if value is not None}
        calls = said.pop("tool_calls", None) or []
        deltas: list[dict[str, Any]] = [{"content": None, **said}]
        deltas += [{"tool_calls": [{"index": index, **call}]} for index, call in enumerate(calls)]
        for number, delta in enumerate(deltas):
            logprobs = None if number else choice.get("logprobs")
            piece = {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": None}
            yield to_event({**frame, "choices": [piece], **none_yet})
        end = {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
        yield to_event({**frame, "choices": [end], **none_yet})
    if with_usage and answer.get("usage") is not None:
        yield to_event({**frame, "choices": [], "usage": answer["usage"]})
    yield DONE


# --- messages -----------------------------------------------------------------------------------------------------------

_GROWS: Final = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def _fold_messages(events: list[dict[str, Any]]) -> Answer | None:
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for event in events:
        kind = event["type"]
        if kind == "message_start":
            message = copy.deepcopy(event["message"])
        elif kind == "content_block_start":
            if event["index"] != len(message["content"]):
                return None
            message["content"].append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
            elif delta["type"] == "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
            else:
                name = _GROWS[delta["type"]]
                block[name] = (block.get(name) or "") + delta[name]
        elif kind == "message_delta":
            message |= event["delta"]
            told = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
            message["usage"] = {**(message.get("usage") or {}), **told}
        elif kind not in ("content_block_stop", "message_stop", "ping"):
            return None
    for index, text in inputs.items():
        message["content"][index]["input"] = orjson.loads(text) if text else {}
    return message or None


def _tell_messages(answer: Answer, _: Mapping[str, Any]) -> Iterator[bytes]:
    event = messages_answer.event
    start = {**answer, "content": [], "stop_reason": None, "stop_sequence": None}
    yield event({"type": "message_start", "message": start})
    for index, block in enumerate(answer["content"]):
        opened, deltas = _opened(block)
        yield event({"type": "content_block_start", "index": index, "content_block": opened})
        for delta in deltas:
            yield event({"type": "content_block_delta", "index": index, "delta": delta})
        yield event({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": answer.get("stop_reason"), "stop_sequence": answer.get("stop_sequence")}
    yield event({"type": "message_delta", "delta": ended, "usage": answer.get("usage") or {}})
    yield event({"type": "message_stop"})


def _opened(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and the deltas that make it what it is."""
    kind = block.get("type")
    if kind in ("tool_use", "server_tool_use"):
        said = orjson.dumps(block.get("input") or {}).decode()
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": said}]
    if kind == "text":
        cited = [{"type": "citations_delta", "citation": each} for each in block.get("citations") or ()]
        opened = {**block, "text": ""} | ({"citations": []} if cited else {})
        return opened, [*cited, {"type": "text_delta", "text": block.get("text") or ""}]
    if kind == "thinking":
        signed = block.get("signature") or ""
        deltas = [{"type": "thinking_delta", "thinking": block.get("thinking") or ""}]
        return {**block, "thinking": "", "signature": ""}, [*deltas, {"type": "signature_delta", "signature": signed}]
    return dict(block), []


# --- responses ----------------------------------------------------------------------------------------------------------


def _fold_responses(events: list[dict[str, Any]]) -> Answer | None:
    ended = [event for event in events if event["type"] == "response.completed"]
    return ended[-1]["response"] if ended else None  # it holds all that was told before


def _tell_responses(answer: Answer, _: Mapping[str, Any]) -> Iterator[bytes]:
    for number, (kind, data) in enumerate(_response_events(answer)):
        yield responses_answer.event({"type": f"response.{kind}", "sequence_number": number, **data})


def _response_events(answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = {**answer, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    yield "created", {"response": begun}
    yield "in_progress", {"response": begun}
    for index, item in enumerate(answer.get("output") or ()):
        at = {"item_id": item.get("id"), "output_index": index}
        empty: dict[str, Any] = {**item, "status": "in_progress"} if "status" in item else dict(item)
        if isinstance(item.get("content"), list):
            empty["content"] = []
        if item.get("type") == "function_call":
            empty["arguments"] = ""
        yield "output_item.added", {"output_index": index, "item": empty}
        for place, part in enumerate(item.get("content") or ()):
            yield from _part_events({**at, "content_index": place}, part)
        if item.get("type") == "function_call":
            yield "function_call_arguments.delta", {**at, "delta": item["arguments"]}
            yield "function_call_arguments.done", {**at, "arguments": item["arguments"], "name": item["name"]}
        yield "output_item.done", {"output_index": index, "item": item}
    yield "completed", {"response": answer}


def _part_events(at: Mapping[str, Any], part: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = part.get("type")
    name = "refusal" if kind == "refusal" else "text"
    text = part.get(name)
    if kind not in ("output_text", "reasoning_text", "refusal") or not isinstance(text, str):
        yield "content_part.added", {**at, "part": part}
        yield "content_part.done", {**at, "part": part}
        return
    more = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
    yield "content_part.added", {**at, "part": {**part, name: ""} | ({"annotations": []} if more else {})}
    yield f"{kind}.delta", {**at, "delta": text, **more}
    for number, annotation in enumerate(part.get("annotations") or ()):
        yield f"{kind}.annotation.added", {**at, "annotation_index": number, "annotation": annotation}
    yield f"{kind}.done", {**at, name: text, **more}
    yield "content_part.done", {**at, "part": part}


_FOLDS: Final[Mapping[str, Callable[[list[dict[str, Any]]], Answer | None]]] = {
    "chat": _fold_chat,
    "messages": _fold_messages,
    "responses": _fold_responses,
}
_TELLS: Final[Mapping[str, Callable[[Answer, Mapping[str, Any]], Iterator[bytes]]]] = {
    "chat": _tell_chat,
    "messages": _tell_messages,
    "responses": _tell_responses,
}

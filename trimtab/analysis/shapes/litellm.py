"""LiteLLM: rows of its spend logs, and the StandardLoggingPayload that its loggers write (litellm 1.110, `types/utils.py`
and `proxy/_types.py`). Columns of JSON may be texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.offers import Usage
from trimtab.analysis.recorded import Beside, Recorded, moment, recorded, signs_in
from trimtab.analysis.shapes.bodies import opened
from trimtab.analysis.shapes.counts import count, usage

_CHATS: Final = ("completion", "anthropic_messages", "responses", "text_completion")


def recognises(entry: Mapping[str, Any]) -> bool:
    return "call_type" in entry and "model" in entry and ("prompt_tokens" in entry or "messages" in entry)


def read(entry: Mapping[str, Any], where: str) -> Recorded | None:
    kind = str(entry.get("call_type")).removeprefix("a")
    if not any(kind.startswith(name.removeprefix("a")) for name in _CHATS) or entry.get("status") == "failure":
        return None
    if str(entry.get("cache_hit")).lower() == "true":  # its own cache answered: nobody billed it
        return None
    metadata = opened(entry.get("metadata"))
    metadata = metadata if isinstance(metadata, Mapping) else {}
    answer = opened(entry.get("response"))
    body = _body(entry)
    model = str(entry.get("model") or entry.get("model_group") or "")
    beside = Beside(
        id=str(entry.get("request_id") or entry.get("id") or ""),
        model=model,
        at=moment(entry.get("startTime")),
        answer=answer if isinstance(answer, Mapping) and answer else None,
        usage=_usage(entry, metadata, answer),
        streamed=entry.get("stream") is True,
        signs=(
            *signs_in(opened(entry.get("request_tags"))),
            *signs_in(entry.get("user_agent") or metadata.get("user_agent")),
            *signs_in(metadata.get("requester_metadata")),
            *signs_in(entry.get("end_user")),
        ),
        seller=str(entry.get("custom_llm_provider") or ""),
        conversation=str(entry.get("session_id") or ""),
    )
    if body is None:
        if beside.usage is None or not model:
            raise ValueError("has neither messages nor token counts")
        return Recorded(
            beside.id or where, where, model, {}, None, beside.at, beside.usage, streamed=beside.streamed,
            signs=beside.signs, seller=beside.seller, conversation=beside.conversation,
        )  # fmt: skip
    return recorded(body, where, beside)


def _body(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The request's body, or one made of the messages and the parameters; None where neither was stored."""
    request = opened(entry.get("proxy_server_request"))
    if isinstance(request, Mapping) and isinstance(request.get("body"), Mapping):
        request = request["body"]
    if isinstance(request, Mapping) and (request.get("messages") or request.get("input")):
        return request
    messages, parameters = opened(entry.get("messages")), opened(entry.get("model_parameters"))
    if isinstance(messages, Mapping):
        messages = messages.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    known = parameters if isinstance(parameters, Mapping) else {}
    return {**known, "model": entry.get("model"), "messages": messages}


def _usage(entry: Mapping[str, Any], metadata: Mapping[str, Any], answer: object) -> Usage | None:
    """LiteLLM's prompt tokens count the cached ones, whoever the provider is."""
    told = answer.get("usage") if isinstance(answer, Mapping) else None
    tables = [each for each in (metadata.get("usage_object"), told) if isinstance(each, Mapping)]
    read_tokens = write_tokens = 0
    for table in tables:
        details = table.get("prompt_tokens_details")
        details = details if isinstance(details, Mapping) else {}
        read_tokens = read_tokens or count(table, "cache_read_input_tokens") or count(details, "cached_tokens") or 0
        write_tokens = write_tokens or count(table, "cache_creation_input_tokens") or 0
    return usage(count(entry, "prompt_tokens"), count(entry, "completion_tokens"), read_tokens, write_tokens)

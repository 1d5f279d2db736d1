"""Whatever is sent to a surface, over whatever wire: an answer or a refusal, and never a defect of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.loopback import LoopbackProvider, Tongue
from tests.trimtab.asking import KEY, KEY_ENV, provider, serving

ANSWERS: dict[str, Any] = {
    "openai": {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
    },
    "anthropic": {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hi."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "gemini": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi."}]}, "finishReason": "STOP", "index": 0}],
        "modelVersion": "m",
        "responseId": "x",
    },
}
ROOTS = {"openai": "/v1", "anthropic": "", "gemini": ""}
PATHS = ("/v1/messages", "/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/messages/count_tokens")


def anything(kind: Literal["openai", "anthropic", "gemini"]) -> Tongue:
    """A server that answers whatever it is asked."""
    body = json.dumps(ANSWERS[kind]).encode()
    return Tongue(kind, ROOTS[kind], lambda _: True, lambda _: None, lambda *_: body, lambda *_: None)


@pytest.fixture(scope="module")
def trimtab() -> Iterator[httpx.Client]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=anything("openai")) as a,
        LoopbackProvider(tongue=anything("anthropic")) as b,
        LoopbackProvider(tongue=anything("gemini")) as c,
        serving(
            *(provider(each.tongue.kind, each, each.tongue.kind, api_key_env=KEY_ENV) for each in (a, b, c))
        ) as http,
    ):
        patch.setenv(KEY_ENV, KEY)
        yield http


NAMES = st.sampled_from(
    [
        *("type", "text", "content", "source", "data", "title", "citations", "enabled", "cache_control", "role"),
        *("output", "results", "id", "name", "input", "arguments", "call_id", "tool_use_id", "is_error", "messages"),
        *("system", "tools", "tool_choice", "input_schema", "function", "parameters", "format", "schema", "effort"),
        *("stream_options", "max_tokens", "temperature", "stop_sequences", "metadata", "instructions", "reasoning"),
        *("include", "store", "trimtab", "contexts", "ratio", "query", "thinking", "output_config", "text"),
    ]
)
WORDS = st.sampled_from(
    [
        *("text", "document", "search_result", "tool_result", "tool_use", "content", "function_call_output", "message"),
        *("function_call", "file_search_call", "user", "assistant", "system", "tool", "base64", "url", "image"),
        *("input_text", "input_image", "function", "auto", "any", "none", "json_schema", "enabled", "adaptive"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(st.characters(codec="utf-8"), max_size=4) | WORDS
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=20
)
TURNS = st.lists(TREES | st.fixed_dictionaries({"role": WORDS, "content": TREES}), max_size=3)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PATHS), st.sampled_from(list(ROOTS)), st.dictionaries(NAMES, TREES, max_size=4), TURNS)
def test_no_body_makes_a_server_error(
    trimtab: httpx.Client, path: str, kind: str, more: dict[str, Any], turns: list[Any]
) -> None:
    field = "messages" if "messages" in path or "chat" in path else "input"
    answer = trimtab.post(path, json={"model": kind, "max_tokens": 9, **more, field: turns})
    assert answer.status_code in (200, 400, 404, 422), answer.text
    error = answer.json().get("error")
    assert answer.status_code == 200 or error["message"]

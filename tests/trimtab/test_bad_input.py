"""Whatever is sent, the answer is a 4xx that names the field, the reason and the fix, in OpenAI's error shape.

Never a 5xx, never a trace of the stack, and nothing in the server's log.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import CALLERS_KEY, KEY, KEY_ENV, chat, provider, serving
from trimtab.errors import problem_of

MIB = 2**20
SECRET = "the-prompt-is-a-secret"


class Edge(NamedTuple):
    client: httpx.Client
    server: LoopbackProvider


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def module_edge() -> Iterator[Edge]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider() as server,
        serving(provider("a", server, "m", api_key_env=KEY_ENV)) as client,
    ):
        patch.setenv(KEY_ENV, KEY)
        client.headers["authorization"] = f"Bearer {CALLERS_KEY}"
        yield Edge(client, server)


@pytest.fixture
def edge(module_edge: Edge) -> Iterator[Edge]:
    """Fails where anything is logged, a provider is asked, or the server is not well afterwards."""
    log, asked = Log(), len(module_edge.server.requests)
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "trimtab", "asyncio")]
    for each in loggers:
        each.addHandler(log)
    yield module_edge
    for each in loggers:
        each.removeHandler(log)
    assert log.lines == []
    assert len(module_edge.server.requests) == asked
    assert module_edge.client.get("/readyz").json() == {"status": "ready"}


def told(answer: httpx.Response, status: int, param: str | None) -> str:
    """The message of an error that is in the right shape and gives nothing away."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param is None or error["message"].startswith(param) or status == 404
    for hidden in ("Traceback", 'File "', ".py", "pydantic", KEY, CALLERS_KEY, SECRET):
        assert hidden not in answer.text
    message: str = error["message"]
    return message


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


Q, C = {"query": "q"}, {"contexts": ["a"]}
COMPRESS: list[tuple[Any, str | None, str]] = [
    ({}, "query", "missing"),
    (C, "query", "missing"),
    ({"query": "", **C}, "query", "blank"),
    ({"query": " \t\n", **C}, "query", "blank"),
    ({"query": None, **C}, "query", "text"),
    ({"query": 5, **C}, "query", "text"),
    ({"query": ["q"], **C}, "query", "text"),
    (Q, "contexts", "missing"),
    ({**Q, "contexts": []}, "contexts", "at least 1"),
    ({**Q, "contexts": None}, "contexts", "list"),
    ({**Q, "contexts": "a"}, "contexts", "list"),
    ({**Q, "contexts": {"text": "a"}}, "contexts", "list"),
    ({**Q, "contexts": ["a", None]}, "contexts.1", "text"),
    ({**Q, "contexts": [["a"]]}, "contexts.0", "text"),
    ({**Q, "contexts": [{}]}, "contexts.0.text", "missing"),
    ({**Q, "contexts": [{"text": None}]}, "contexts.0.text", "text"),
    ({**Q, "contexts": [{"text": "a", "id": 5}]}, "contexts.0.id", "text"),
    ({**Q, "contexts": [{"text": "a", "title": [SECRET]}]}, "contexts.0.title", "text"),
    ({**Q, **C, "ratio": 0}, "ratio", "greater than 0"),
    ({**Q, **C, "ratio": -0.5}, "ratio", "greater than 0"),
    ({**Q, **C, "ratio": 7}, "ratio", "less than or equal to 1"),
    ({**Q, **C, "ratio": SECRET}, "ratio", "number"),
    ({**Q, **C, "ratio": "0.5"}, "ratio", "number"),
    ({**Q, **C, "ratio": True}, "ratio", "number"),
    ({**Q, **C, "ratio": [0.5]}, "ratio", "number"),
    ({**Q, **C, "min_coverage": 1.01}, "min_coverage", "less than or equal to 1"),
    ({**Q, **C, "min_coverage": True}, "min_coverage", "number"),
    ({**Q, **C, "budget_tokens": -1}, "budget_tokens", "greater than or equal to 0"),
    ({**Q, **C, "budget_tokens": 1.5}, "budget_tokens", "integer"),
    ({**Q, **C, "budget_tokens": "10"}, "budget_tokens", "integer"),
    ({**Q, **C, "budget_tokens": True}, "budget_tokens", "integer"),
    ({**Q, **C, "budget_tokens": 10, "ratio": 0.5}, None, "give ratio or budget_tokens, not both"),
    ({**Q, **C, "model": 5}, "model", "text"),
    ({**Q, **C, "rato": 0.5}, "rato", "check its spelling"),
    ({**Q, **C, SECRET[:3]: 0.5}, SECRET[:3], "no such field"),
]


@pytest.mark.parametrize(("body", "param", "says"), COMPRESS, ids=repr)
def test_compress(edge: Edge, body: Any, param: str | None, says: str) -> None:
    assert says in told(edge.client.post("/v1/compress", json=body), 400, param)


CHAT: list[tuple[Any, int, str | None, str]] = [
    ({}, 400, "model", "must name a model"),
    ({"messages": [{"role": "user", "content": "q"}]}, 400, "model", "must name a model"),
    (chat() | {"model": None}, 400, "model", "must name a model"),
    (chat() | {"model": ["m"]}, 400, "model", "must name a model"),
    (chat() | {"model": "no-such-model"}, 404, "model", "GET /v1/models"),
    (chat() | {"model": "a/no-such-model"}, 404, "model", "does not list"),
    (chat() | {"model": "x" * 100_000}, 404, "model", "..."),
    ({"model": "m"}, 400, "messages", "list"),
    ({"model": "m", "messages": []}, 400, "messages", "at least one"),
    ({"model": "m", "messages": {"role": "user"}}, 400, "messages", "list"),
    ({"model": "m", "messages": ["hello"]}, 400, "messages.0", "role"),
    ({"model": "m", "messages": [{"role": "user", "content": "q"}, {"content": "q"}]}, 400, "messages.1", "role"),
    ({"model": "m", "messages": [{"role": 5, "content": "q"}]}, 400, "messages.0", "role"),
    (chat(trimtab=[]), 400, "trimtab", "object"),
    (chat(trimtab="ratio"), 400, "trimtab", "object"),
    (chat(trimtab=False), 400, "trimtab", "object"),
    (chat(trimtab={"ratio": 7}), 400, "trimtab.ratio", "less than or equal"),
    (chat(trimtab={"ratio": True}), 400, "trimtab.ratio", "number"),
    (chat(trimtab={"ratio": 0.5, "budget_tokens": 5}), 400, "trimtab", "not both"),
    (chat(trimtab={"budget_tokens": -1}), 400, "trimtab.budget_tokens", "greater than"),
    (chat(trimtab={"contexts": []}), 400, "trimtab.contexts", "at least 1"),
    (chat(trimtab={"contexts": [{"text": 5}]}), 400, "trimtab.contexts.0.text", "text"),
    (chat(trimtab={"query": " ", "contexts": ["a"]}), 400, "trimtab.query", "blank"),
    (chat("", trimtab={"contexts": ["a"]}), 400, "trimtab.query", "is missing"),
    (chat(trimtab={"candidates": "m"}), 400, "trimtab.candidates", "list"),
    (chat(trimtab={"candidates": [5]}), 400, "trimtab.candidates.0", "text"),
    (chat(trimtab={"candidates": ["m", "no-such-model"]}), 404, "trimtab.candidates.1", "GET /v1/models"),
    (chat(trimtab={"candidates": ["m"] * 101}), 400, "trimtab.candidates", "at most 100"),
    (chat(trimtab={"max_cost_usd": -1}), 400, "trimtab.max_cost_usd", "greater than"),
    (chat(trimtab={"max_cost_usd": "NaN"}), 400, "trimtab.max_cost_usd", "finite"),
    (chat(trimtab={"max_cost_usd": True}), 400, "trimtab.max_cost_usd", "decimal"),
    (chat(trimtab={"max_latency_ms": 0}), 400, "trimtab.max_latency_ms", "greater than 0"),
    (chat(trimtab={"max_latency_ms": True}), 400, "trimtab.max_latency_ms", "number"),
    (chat(trimtab={"max_latency": 5}), 400, "trimtab.max_latency", "check its spelling"),
    (chat(trimtab={"max_cost_usd": 0}), 422, "trimtab", "max_cost_usd is $0"),
]


@pytest.mark.parametrize("path", ["/v1/plan", "/v1/chat/completions"])
@pytest.mark.parametrize(("body", "status", "param", "says"), CHAT, ids=lambda value: repr(value)[:60])
def test_chat_and_plan(edge: Edge, path: str, body: Any, status: int, param: str | None, says: str) -> None:
    message = told(edge.client.post(path, json=body), status, param) if status != 422 else None
    if message is None:
        message = edge.client.post(path, json=body).json()["error"]["message"]
    assert says in message
    assert len(message) < 1_000


@pytest.mark.parametrize("stream", ["true", 1, [], {"a": 1}])
def test_stream_is_true_or_false(edge: Edge, stream: Any) -> None:
    answer = edge.client.post("/v1/chat/completions", json=chat(stream=stream))
    assert "true or false" in told(answer, 400, "stream")


BODIES: list[tuple[bytes, str, str]] = [
    (b"", "invalid_json", "not JSON"),
    (b"{", "invalid_json", "not JSON"),
    (b'{"query": "q",}', "invalid_json", "at character 1"),
    (b"[]", "invalid_json", "must be a JSON object"),
    (b'"query"', "invalid_json", "must be a JSON object"),
    (b"null", "invalid_json", "must be a JSON object"),
    (b'{"query": "q", "contexts": ["a"], "ratio": NaN}', "invalid_json", "not JSON"),
    (b'{"query": "q", "contexts": ["a"], "ratio": Infinity}', "invalid_json", "not JSON"),
    (b'{"query": "\xff", "contexts": ["a"]}', "invalid_encoding", "not UTF-8 (byte 11)"),
    ('{"query": "é"}'.encode("utf-16"), "invalid_encoding", "not UTF-8"),
    (b'{"query": "\xed\xa0\x80", "contexts": ["a"]}', "invalid_encoding", "not UTF-8"),
    (b'{"query": "\\ud800", "contexts": ["a"]}', "invalid_json", "surrogate"),
    (b'{"query": "q", "contexts": ["\\udc00"]}', "invalid_json", "surrogate"),
    (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud83d"}]}', "invalid_json", "surrogate"),
    (nested(100_000), "invalid_json", "depth"),
    (b'{"messages": ' + nested(100_000) + b"}", "invalid_json", "depth"),
    (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "invalid_json", "depth"),
    (b"\0" * 1000, "invalid_json", "not JSON"),
]


@pytest.mark.parametrize("path", ["/v1/compress", "/v1/plan", "/v1/chat/completions"])
@pytest.mark.parametrize(("content", "code", "says"), BODIES, ids=lambda value: repr(value)[:40])
def test_what_is_no_json_object(edge: Edge, path: str, content: bytes, code: str, says: str) -> None:
    answer = edge.client.post(path, content=content, headers={"content-type": "application/json"})
    assert says in told(answer, 400, None)
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize("levels", range(900, 1001, 20))
@pytest.mark.parametrize("at", ["metadata", "messages"])
def test_nesting_just_within_the_parsers_limit(module_edge: Edge, levels: int, at: str) -> None:
    """Between what one JSON library reads and another writes."""
    body = chat(metadata=0) if at == "metadata" else chat([{"type": "text", "text": "q", "deep": 0}])
    content = json.dumps(body).encode().replace(b": 0", b": " + nested(levels))
    headers = {"content-type": "application/json"}
    answer = module_edge.client.post("/v1/chat/completions", content=content, headers=headers)
    if answer.status_code != 200:
        assert "levels" in told(answer, 400, None)


@pytest.mark.parametrize(
    "said", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_another_content_type(edge: Edge, said: str | None) -> None:
    headers = {} if said is None else {"content-type": said}
    answer = edge.client.post("/v1/compress", content=b'{"query": "q", "contexts": ["a"]}', headers=headers)
    assert "send content-type: application/json" in told(answer, 415, None)


@pytest.mark.parametrize("said", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"])
def test_json_by_any_name(edge: Edge, said: str) -> None:
    content = b'{"query": "q", "contexts": ["a"]}'
    assert edge.client.post("/v1/compress", content=content, headers={"content-type": said}).status_code == 200


def test_a_body_that_says_it_is_too_large_is_not_read(edge: Edge) -> None:
    head = "POST /v1/compress HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 52428800\r\n\r\n"
    with socket.create_connection((edge.client.base_url.host, edge.client.base_url.port or 0), timeout=5) as caller:
        caller.sendall(head.encode() + b'{"query": "')
        answer = caller.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "request_too_large"
    assert "max_body_bytes" in error["message"]


def test_a_body_that_turns_out_to_be_too_large_is_read_no_further(edge: Edge) -> None:
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(50):
            sent += MIB
            yield b" " * MIB

    answer = edge.client.post("/v1/compress", content=parts(), headers={"content-type": "application/json"})
    assert "33,554,432 bytes" in told(answer, 413, None)


def test_fifty_megabytes_from_the_official_client(edge: Edge) -> None:
    base_url = f"{str(edge.client.base_url).rstrip('/')}/v1"
    with (
        openai.OpenAI(base_url=base_url, api_key=CALLERS_KEY, max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as error,
    ):
        client.chat.completions.create(**chat("x" * (50 * MIB)))
    assert error.value.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/v1/completions", 404),
        ("GET", "/v1/../etc/passwd", 404),
        ("GET", "/v1/compress", 405),
        ("DELETE", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
    ],
)
def test_paths_and_methods_that_there_are_not(edge: Edge, method: str, path: str, status: int) -> None:
    answer = edge.client.request(method, path, follow_redirects=False)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert "GET /openapi.json" in error["message"]
    if status == 405:
        assert answer.headers["allow"] in ("GET", "POST")


def test_a_caller_who_hangs_up_while_sending_leaves_no_trace(edge: Edge) -> None:
    head = "POST /v1/compress HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n"
    with socket.create_connection((edge.client.base_url.host, edge.client.base_url.port or 0), timeout=5) as caller:
        caller.sendall(head.encode() + b'{"query": "')


def test_a_defect_of_ours_is_no_answer_to_a_request() -> None:
    assert problem_of(ZeroDivisionError(SECRET)) is None

"""httpx's and httpx2's clients with our transport: the context is cut on its way, and nothing else is touched."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest

from compressor.payload import BadPayload
from routing.errors import NoOffer
from tests.loopback import LoopbackProvider, ok, raw, status
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.payloads import CHUNKS, EVIDENCE, QUESTION, asking, stuffed
from trimtab import Trimtab, TrimtabTransport, trimming
from trimtab.bills import Bill, surface_at
from trimtab.conversations import chain
from trimtab.errors import BadRequest
from trimtab.surfaces import CHAT, MESSAGES, RESPONSES
from trimtab.trimming import trim

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as server:
        yield server


def sent_text(body: dict[str, Any]) -> str:
    return "".join(each["content"] for each in body["messages"])


@LIBRARIES
def test_a_request_is_trimmed_on_its_way(library: Any, provider: LoopbackProvider, trimtab: Trimtab) -> None:
    with library.Client(transport=TrimtabTransport(library.HTTPTransport(), trimtab)) as client:
        response = client.post(f"{provider.base_url}/chat/completions", json=asking(model="gpt-5-mini", seed=2**70))
    sent = provider.requests[-1]
    assert sent.json["seed"] == 2**70
    assert sent.headers["content-length"] == str(len(sent.body))
    assert len(sent_text(sent.json)) < 0.7 * len(stuffed())
    assert EVIDENCE in sent_text(sent.json)
    assert sent_text(sent.json).endswith(QUESTION)
    receipt = response.extensions["trimtab"]
    assert receipt.tokens_after < 0.7 * receipt.tokens_before
    assert receipt.input_tokens_billed == response.json()["usage"]["prompt_tokens"]
    assert receipt.provider == "127.0.0.1"
    assert receipt.billed_cost_usd > 0
    assert receipt.saved_usd == receipt.baseline_cost_usd - receipt.billed_cost_usd
    assert dict(receipt.stage_ms).keys() == {"parse", "rank", "plan", "cut", "provider"}


@LIBRARIES
def test_the_same_asynchronously(library: Any, provider: LoopbackProvider, trimtab: Trimtab) -> None:
    async def ask() -> Any:
        transport = TrimtabTransport(library.AsyncHTTPTransport(), trimtab)
        async with library.AsyncClient(transport=transport) as client:
            return await client.post(f"{provider.base_url}/chat/completions", json=asking())

    receipt = asyncio.run(ask()).extensions["trimtab"]
    assert receipt.tokens_after < receipt.tokens_before
    assert receipt.output_tokens_billed > 0
    assert receipt.billed_cost_usd is receipt.baseline_cost_usd is receipt.expected_cost_usd is None  # "m" has no price


@LIBRARIES
def test_a_stream_comes_as_it_is_sent(library: Any, provider: LoopbackProvider, trimtab: Trimtab) -> None:
    body = asking(stream=True, stream_options={"include_usage": True})
    url = f"{provider.base_url}/chat/completions"
    with library.Client() as plain, plain.stream("POST", url, json=body) as response:
        expected = b"".join(response.iter_raw())
    transport = TrimtabTransport(library.HTTPTransport(), trimtab)
    with library.Client(transport=transport) as client, client.stream("POST", url, json=body) as response:
        assert response.extensions["trimtab"].output_tokens_billed is None
        chunks = list(response.iter_raw())
    # but for the prompt's tokens, which are fewer
    told = [json.loads(line[6:]) for line in b"".join(chunks).splitlines() if line.startswith(b"data: {")]
    before = [json.loads(line[6:]) for line in expected.splitlines() if line.startswith(b"data: {")]
    usage = told[-1].pop("usage")
    assert usage["prompt_tokens"] < before[-1].pop("usage")["prompt_tokens"]
    assert [{**each, "id": ""} for each in told] == [{**each, "id": ""} for each in before]
    assert response.extensions["trimtab"].input_tokens_billed == usage["prompt_tokens"]


def test_a_stream_that_is_left_has_a_receipt(provider: LoopbackProvider, trimtab: Trimtab) -> None:
    body = asking(stream=True, stream_options={"include_usage": True})
    url = f"{provider.base_url}/chat/completions"
    transport = TrimtabTransport(trimtab=trimtab)
    with httpx.Client(transport=transport) as client, client.stream("POST", url, json=body) as response:
        next(response.iter_raw())
    receipt = response.extensions["trimtab"]
    assert receipt.output_tokens_billed is None
    assert dict(receipt.stage_ms)["provider"] > 0


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/v1/chat/completions", "application/json"),
        ("POST", "/v1/embeddings", "application/json"),
        ("POST", "/v1/messages/count_tokens", "application/json"),
        ("POST", "/v1/chat/completions", "multipart/form-data; boundary=x"),
        ("POST", "/v1/chat/completions", ""),
    ],
)
def test_all_else_passes_unread(method: str, path: str, kind: str) -> None:
    """A body that would be read here, and not streamed, raises."""
    seen: list[httpx.Request] = []

    class Inner(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(204)

    def content() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    request = httpx.Request(method, f"http://h{path}", content=content(), headers={"content-type": kind})
    response = TrimtabTransport(Inner()).handle_request(request)
    assert seen == [request]
    assert seen[0] is request
    assert "trimtab" not in response.extensions


@pytest.mark.parametrize("content", [b"no json", b"[1]", b'"text"', b"{", b""])
def test_what_is_no_object_passes_as_it_is(content: bytes, trimtab: Trimtab) -> None:
    with httpx.Client(transport=TrimtabTransport(httpx.MockTransport(echoing), trimtab)) as client:
        response = client.post("http://h/chat/completions", content=content, headers=JSON)
    assert response.content == content
    assert "trimtab" not in response.extensions


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "m"},
        {"model": "m", "messages": "text"},
        {"model": 3, "messages": [{"role": "user", "content": "hi"}]},
        {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    ],
)
def test_a_request_that_is_not_understood_or_needs_no_cut_is_sent_byte_for_byte(
    body: dict[str, Any], trimtab: Trimtab
) -> None:
    content = json.dumps(body, indent=2).encode()
    with httpx.Client(transport=TrimtabTransport(httpx.MockTransport(echoing), trimtab)) as client:
        response = client.post("http://h/chat/completions", content=content, headers=JSON)
    assert response.content == content
    assert response.extensions["trimtab"].tokens_after in (None, 0)


JSON = {"content-type": "application/json; charset=utf-8"}


def echoing(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=request.content)


def test_options_are_taken_out_and_obeyed(provider: LoopbackProvider, trimtab: Trimtab) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": QUESTION}],
        "trimtab": {"contexts": CHUNKS, "budget_tokens": 200},
    }
    with httpx.Client(transport=TrimtabTransport(trimtab=trimtab)) as client:
        receipt = client.post(f"{provider.base_url}/chat/completions", json=body).extensions["trimtab"]
    sent = provider.requests[-1].json
    assert sent.keys() == {"model", "messages"}
    assert EVIDENCE in sent["messages"][0]["content"]
    assert sent["messages"][1:] == body["messages"]
    assert receipt.tokens_after <= 200


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ratio": 2}, BadRequest, "trimtab.ratio"),
        ({"rato": 0.5}, BadRequest, "trimtab.rato: no such field"),
        ({"candidates": ["gpt-5-mini"]}, BadRequest, "trimtab.candidates: needs a trimtab server"),
        ({"max_latency_ms": 5.0}, BadRequest, "trimtab.max_latency_ms: needs a trimtab server"),
        ({"deadline": "20m"}, BadRequest, "trimtab.deadline: needs a trimtab server"),
        ({"min_quality": 0.9}, BadRequest, "trimtab.min_quality: needs a trimtab server"),
        ({"max_cost_usd": "1"}, BadRequest, "trimtab.max_cost_usd: cannot be held"),
        ({"wrong_answer_usd": "1"}, BadRequest, "trimtab.wrong_answer_usd: cannot be held"),
        ({"budget_tokens": 1, "min_coverage": 0.9}, NoOffer, "Raise budget_tokens"),
    ],
)
def test_options_that_cannot_be_had_are_an_error(
    options: dict[str, Any], error: type[Exception], words: str, trimtab: Trimtab
) -> None:
    transport = TrimtabTransport(httpx.MockTransport(echoing), trimtab)
    with httpx.Client(transport=transport) as client, pytest.raises(error, match=words):
        client.post("http://h/chat/completions", json=asking(trimtab=options))


def test_a_hard_limit_in_dollars_is_kept_where_there_is_a_price(trimtab: Trimtab) -> None:
    with pytest.raises(NoOffer, match="max_cost_usd"):
        trim(trimtab, asking(model="gpt-5-mini", trimtab={"max_cost_usd": "0.000001"}))
    limit = Decimal("0.01")
    sent = trim(trimtab, asking(model="gpt-5-mini", trimtab={"max_cost_usd": str(limit)}))
    assert sent.receipt.expected_cost_usd is not None
    assert sent.receipt.expected_cost_usd <= limit


def broken(*_: Any) -> Any:
    raise RuntimeError("a defect")


def test_a_defect_costs_no_answer(provider: LoopbackProvider, trimtab: Trimtab, monkeypatch: Any) -> None:
    monkeypatch.setattr(trimtab, "prepare", broken)
    body = asking()
    with httpx.Client(transport=TrimtabTransport(trimtab=trimtab)) as client:
        response = client.post(f"{provider.base_url}/chat/completions", json={**body, "trimtab": {"ratio": 0.1}})
    assert response.status_code == 200
    assert provider.requests[-1].json == body
    assert response.extensions["trimtab"].notes == ("trimming failed (RuntimeError); the original request was sent",)


def test_contexts_that_stand_nowhere_else_are_not_lost_to_a_defect(trimtab: Trimtab, monkeypatch: Any) -> None:
    monkeypatch.setattr(trimtab, "prepare", broken)
    with pytest.raises(RuntimeError):
        trim(trimtab, asking(trimtab={"contexts": CHUNKS}))


def test_a_defect_in_the_ranking_sends_given_contexts_whole(trimtab: Trimtab, monkeypatch: Any) -> None:
    monkeypatch.setattr(trimtab, "ranks", SimpleNamespace(rank=broken))
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
    sent = trim(trimtab, {**body, "trimtab": {"contexts": CHUNKS}})
    assert all(each["text"] in sent.body["messages"][0]["content"] for each in CHUNKS)
    assert "trimming failed (RuntimeError)" in sent.receipt.notes[0]


def test_a_message_that_breaks_the_api_is_told_to_who_gave_options(trimtab: Trimtab) -> None:
    with pytest.raises(BadPayload, match="messages"):
        trim(trimtab, {"model": "m", "messages": [], "trimtab": {}})


def test_a_body_beyond_the_limit_is_not_read(provider: LoopbackProvider) -> None:
    with httpx.Client(transport=TrimtabTransport(trimtab=Trimtab(max_body_bytes=100))) as client:
        response = client.post(f"{provider.base_url}/chat/completions", json=asking())
    assert "trimtab" not in response.extensions
    assert provider.requests[-1].json == asking()


def test_anthropics_wire(trimtab: Trimtab) -> None:
    """A document block is cut; a prefix that is to be cached, and the question, stay."""
    cached = {"type": "text", "text": stuffed(), "cache_control": {"type": "ephemeral"}}
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": CHUNKS[0]["text"] * 9},
    }
    content = [cached, document, {"type": "text", "text": QUESTION}]
    body = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    with LoopbackProvider(tongue=ANTHROPIC) as server:
        with httpx.Client(transport=TrimtabTransport(trimtab=trimtab), headers=headers) as client:
            whole = client.post(f"{server.base_url}/v1/messages", json=body)
            assert whole.status_code == 200, whole.text
            with client.stream("POST", f"{server.base_url}/v1/messages", json={**body, "stream": True}) as streamed:
                streamed.read()
        sent = server.requests[0].json["messages"][0]["content"]
    assert sent[0] == cached
    assert sent[-1] == content[-1]
    for response in (whole, streamed):
        receipt = response.extensions["trimtab"]
        assert 0 < receipt.tokens_after < receipt.tokens_before
        assert receipt.input_tokens_billed > 0
        assert receipt.output_tokens_billed > 0
        assert receipt.billed_cost_usd > 0


def test_the_responses_wire(trimtab: Trimtab) -> None:
    usage = {"input_tokens": 90, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 40}, "total_tokens": 93}
    done = {"type": "response.completed", "response": {"id": "r", "usage": usage}}
    events = (
        b'data: {"type":"response.created","response":{"usage":null}}\n\ndata: ' + json.dumps(done).encode() + b"\n\n"
    )
    for step in (raw(json.dumps({"usage": usage}).encode(), content_type="application/json"), raw(events)):
        sent: list[bytes] = []

        def answer(request: httpx.Request, step: Any = step, sent: list[bytes] = sent) -> httpx.Response:
            sent.append(request.content)
            return httpx.Response(200, content=step.body, headers={"content-type": step.content_type})

        with httpx.Client(transport=TrimtabTransport(httpx.MockTransport(answer), trimtab)) as client:
            response = client.post("http://h/v1/responses", json={"model": "gpt-5-mini", "input": stuffed()})
        assert len(json.loads(sent[0])["input"]) < len(stuffed())
        receipt = response.extensions["trimtab"]
        assert (receipt.input_tokens_billed, receipt.output_tokens_billed) == (90, 3)
        assert receipt.cache_read_tokens_billed == 40


def test_a_packed_answer_passes_and_is_not_billed(trimtab: Trimtab) -> None:
    """From a server that packs it although asked not to."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        content = gzip.compress(b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}')
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        return httpx.Response(200, headers=headers, stream=Whole(content))

    with httpx.Client(transport=TrimtabTransport(httpx.MockTransport(answer), trimtab)) as client:
        response = client.post("http://h/chat/completions", json=asking())
    assert response.json()["usage"]["prompt_tokens"] == 1
    assert response.extensions["trimtab"].input_tokens_billed is None
    assert asked == ["identity"]


class Whole(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content


@pytest.mark.parametrize(
    "chunks",
    [
        [b"no json"],
        [b"[]"],
        [b'{"usage": 3}'],
        [b'{"usage": {"prompt_tokens": true, "completion_tokens": 1}}'],
        [b'{"usage": {"prompt_tokens": -1, "completion_tokens": 1}}'],
        [b'data: {"usage": nonsense}\n\n', b'data: {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\n'],
        [b""],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("surface", [CHAT, MESSAGES, RESPONSES], ids=lambda surface: surface.path)
def test_a_bill_that_makes_no_sense_is_none(surface: Any, chunks: list[bytes], stream: bool) -> None:
    bill = Bill(surface, stream=stream)
    for chunk in chunks:
        bill.feed(chunk)
    assert bill.usage is None


def test_only_three_addresses_are_ours() -> None:
    assert surface_at("/openai/deployments/d/chat/completions") is CHAT
    assert surface_at("/v1/completions") is None
    assert surface_at("/v1/responses/r_1/cancel") is None


def test_whoever_names_no_trimtab_shares_one(monkeypatch: Any) -> None:
    trimming.default_trimtab.cache_clear()
    assert trimming.default_trimtab() is trimming.default_trimtab()


def test_closing_closes_what_it_sends_with() -> None:
    class Inner(httpx.BaseTransport, httpx.AsyncBaseTransport):
        closed = 0

        def close(self) -> None:
            self.closed += 1

        async def aclose(self) -> None:
            self.closed += 1

    def count(use: Callable[[httpx.BaseTransport], Any]) -> int:
        inner = Inner()
        use(TrimtabTransport(inner))
        return inner.closed

    async def enter(transport: Any) -> None:
        async with httpx.AsyncClient(transport=transport):
            pass

    assert count(lambda transport: httpx.Client(transport=transport).close()) == 1
    assert count(lambda transport: httpx.Client(transport=transport).__enter__().__exit__()) == 1
    assert count(lambda transport: asyncio.run(enter(transport))) == 1


def test_a_body_that_is_streamed_asynchronously_is_trimmed_too(provider: LoopbackProvider, trimtab: Trimtab) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield json.dumps(asking()).encode()

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=TrimtabTransport(trimtab=trimtab)) as client:
            url = f"{provider.base_url}/chat/completions"
            return await client.post(url, content=content(), headers={"content-type": "application/json"})

    provider.then(ok("Yes."))
    response = asyncio.run(ask())
    assert response.json()["choices"][0]["message"]["content"] == "Yes."
    assert len(sent_text(provider.requests[-1].json)) < len(stuffed())


def test_turns_that_come_back_are_sent_as_they_were(provider: LoopbackProvider) -> None:
    """What a provider has read stays in its prompt cache only if the next turn begins with it, byte for byte."""
    rules = "Answer from the documents alone, and say so where they do not tell. " * 120
    first = asking(model="gpt-5-mini")
    first["messages"] = [{"role": "system", "content": rules}, *first["messages"]]
    turns = [*first["messages"], {"role": "assistant", "content": "So it is."}]
    second = {**first, "messages": [*turns, {"role": "user", "content": "And who may raise it?"}]}
    with httpx.Client(transport=TrimtabTransport(httpx.HTTPTransport(), Trimtab())) as client:
        for body in (first, second):
            client.post(f"{provider.base_url}/chat/completions", json=body)
    before, after = (request.json["messages"] for request in provider.requests[-2:])
    assert before != first["messages"]
    assert after[: len(before)] == before


def test_a_request_that_was_refused_teaches_nothing(provider: LoopbackProvider) -> None:
    """A provider that refused a request has not read its prefix: nothing of it is in a prompt cache."""
    trimtab = Trimtab()
    with httpx.Client(transport=TrimtabTransport(httpx.HTTPTransport(), trimtab)) as client:
        body = asking(model="gpt-5-mini")
        goes_on = [{"role": "assistant", "content": "So it is."}, {"role": "user", "content": "And then?"}]
        later = {**body, "messages": [*body["messages"], *goes_on]}
        for answer, known in ((status(400), 0), (ok(), len(body["messages"]))):
            provider.then(answer)
            client.post(f"{provider.base_url}/chat/completions", json=body)
            assert trimtab.conversations.resumed(CHAT.api, later, chain(CHAT.api, later))[1] == known

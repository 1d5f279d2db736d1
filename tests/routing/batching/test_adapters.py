"""The three adapters against the providers' batch APIs, one life of a batch after the other."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from routing.batching import BatchAdapter, BatchFailed, BatchLine, BatchResult, adapter_of, prepared, told
from routing.batching.exchange import Shape, spooled
from routing.batching.seam import BatchLimits, BatchUnclear, Intent, Prepared
from routing.catalog import Catalog, Provider
from routing.errors import UnsupportedParameter
from routing.offers import Offer, Usage, price
from routing.tongues import CHAT, MESSAGES, RESPONSES, Tongue
from routing.wires import MissingKey
from tests.loopback import Step, ok, status
from tests.loopback_batches import Batch, BatchProvider, Trouble
from tests.loopback_tongues import anthropic_error, gemini_error
from tests.routing.batching.clock import Clock

KEY = "sk-test-0123456789"
KINDS = ("openai", "anthropic", "gemini")
AUTHORITIES = ssl.create_default_context()
CREATE = {"openai": "/v1/batches", "anthropic": "/v1/messages/batches", "gemini": "/v1beta/models/"}
REFUSAL = {
    "openai": status(400, "no", error_type="invalid_request_error"),
    "anthropic": anthropic_error(400, "invalid_request_error", "no"),
    "gemini": gemini_error(400, "INVALID_ARGUMENT", "no"),
}
OVERLOAD = {
    "openai": status(503, f"busy, dear {KEY}"),
    "anthropic": anthropic_error(529, "overloaded_error", f"busy, dear {KEY}"),
    "gemini": gemini_error(503, "UNAVAILABLE", f"busy, dear {KEY}"),
}


def provider_of(server: BatchProvider, **more: Any) -> Provider:
    kind: Any = server.tongue.kind
    return Provider(kind, kind, server.base_url, "TEST_KEY", ("m",), **{"batches": True, **more})


def line(server: BatchProvider, at: int, text: str = "", tongue: Tongue = CHAT, **fields: Any) -> BatchLine:
    offer = Offer(server.tongue.kind, "m", "batch", (), None, "test")
    content = text or f"Question {at}"
    body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": content}], **fields}
    if tongue is RESPONSES:
        body = {"model": "auto", "input": content}
    return BatchLine(f"line-{at}", {**body, "stream": True}, offer, tongue)


def run(server: BatchProvider, use: Callable[[BatchAdapter, Provider], Awaitable[Any]], key: str = KEY) -> Any:
    async def once() -> Any:
        provider = provider_of(server)
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=AUTHORITIES)) as client:
            adapter = adapter_of(provider, client, {"TEST_KEY": key})
            assert adapter is not None
            return await use(adapter, provider)

    return asyncio.run(once())


async def results_of(
    adapter: BatchAdapter, provider: Provider, batch_id: str, lines: list[BatchLine]
) -> dict[str, BatchResult]:
    by_id = {each.custom_id: each for each in lines}
    found = [told(provider, arrived, by_id[arrived.custom_id]) async for arrived in adapter.collect(batch_id)]
    assert len({each.custom_id for each in found}) == len(found)
    return {each.custom_id: each for each in found}


@pytest.mark.parametrize("kind", KINDS)
def test_a_life(kind: Any) -> None:
    """Answers in the caller's shape, failures of single lines, usage as it is billed, and nothing of our key."""
    steps = {1: REFUSAL[kind], 2: OVERLOAD[kind]}
    clock = Clock()
    script = Batch(delay_s=3_600, line=lambda at, body: steps.get(at, ok(f"Answer {at}. ü")), reversed=True)

    async def use(adapter: BatchAdapter, provider: Provider) -> None:
        lines = [line(server, at) for at in range(4)]
        batch_id = await adapter.submit([prepared(provider, each) for each in lines], "k1")
        state = await adapter.poll(batch_id)
        assert (state.status, state.total, state.ended) == ("working", 4, False)
        clock.now_s += 3_600
        state = await adapter.poll(batch_id)
        assert (state.status, state.succeeded, state.failed) == ("ended", 2, 2)
        for _ in range(2):  # it can be collected again
            found = await results_of(adapter, provider, batch_id, lines)
            assert {each: found[each].outcome for each in sorted(found)} == {
                "line-0": "ok",
                "line-1": "caller_error",
                "line-2": "server_error",
                "line-3": "ok",
            }
        answer = json.loads(found["line-0"].body)
        assert answer["choices"][0]["message"]["content"] == "Answer 0. ü"
        assert answer["object"] == "chat.completion"
        assert json.loads(found["line-1"].body)["error"]["message"] == "no"
        assert (found["line-1"].status, found["line-1"].usage) == (400, None)
        assert KEY.encode() not in found["line-2"].body
        assert b"[key]" in found["line-2"].body
        billed = {each.custom_id.rpartition("_")[2]: each for each in server.bill if each.custom_id}
        assert billed.keys() == {"line-0", "line-3"}
        for custom_id, bill in billed.items():
            usage = found[custom_id].usage
            assert usage is not None
            assert (usage.input_tokens, usage.output_tokens) == (bill.input_tokens, bill.output_tokens)

    with BatchProvider(kind, [script], clock=clock) as server:
        run(server, use)
        for request in server.requests:
            assert KEY in " ".join(request.headers.values())
            assert "idempotency-key" not in request.headers


@pytest.mark.parametrize("tongue", [MESSAGES, RESPONSES], ids=lambda tongue: tongue.name)
@pytest.mark.parametrize("kind", KINDS)
def test_every_tongue(kind: Any, tongue: Tongue) -> None:
    """The same conversions as a call's: a Message is answered by OpenAI, a Response by Anthropic."""

    async def use(adapter: BatchAdapter, provider: Provider) -> None:
        lines = [line(server, 0, tongue=tongue, **({"max_tokens": 64} if tongue is MESSAGES else {}))]
        batch_id = await adapter.submit([prepared(provider, each) for each in lines], "k1")
        found = (await results_of(adapter, provider, batch_id, lines))["line-0"]
        answer = json.loads(found.body)
        texts = answer["content"] if tongue is MESSAGES else answer["output"][0]["content"]
        assert texts[0]["text"] == "Paris."
        assert found.usage is not None

    with BatchProvider(kind, [Batch(line=lambda at, body: ok("Paris."))]) as server:
        run(server, use)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cancel", [False, True])
def test_a_batch_that_does_not_finish(kind: Any, cancel: bool) -> None:
    clock = Clock()

    async def use(adapter: BatchAdapter, provider: Provider) -> None:
        lines = [line(server, at) for at in range(3)]
        batch_id = await adapter.submit([prepared(provider, each) for each in lines], "k1")
        if cancel:
            await adapter.cancel(batch_id)
            assert (await adapter.poll(batch_id)).status in ("cancelling", "working")  # Gemini's does not say so
        clock.now_s += 11 if cancel else 86_400
        assert (await adapter.poll(batch_id)).status == "ended"
        await adapter.cancel(batch_id)  # once more does no harm
        found = await results_of(adapter, provider, batch_id, lines)
        fate = "canceled" if cancel else "expired"
        assert [found[f"line-{at}"].outcome for at in range(3)] == ["ok", fate, fate]
        assert found["line-1"].body == b""

    with BatchProvider(kind, [Batch(ends="never", answered=1)], clock=clock) as server:
        run(server, use)
        assert len(server.bill) == 1


@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_a_batch_that_is_refused_whole(kind: Any) -> None:
    async def use(adapter: BatchAdapter, provider: Provider) -> None:
        batch_id = await adapter.submit([prepared(provider, line(server, 0))], "k1")
        state = await adapter.poll(batch_id)
        assert (state.status, state.ended) == ("refused", True)
        assert state.detail in ("token_limit_exceeded", "RESOURCE_EXHAUSTED")
        assert [each async for each in adapter.collect(batch_id)] == []

    with BatchProvider(kind, [Batch(ends="failed")]) as server:
        run(server, use)
        assert server.bill == []


@pytest.mark.parametrize("kind", KINDS)
def test_found_again_after_a_lost_answer(kind: Any) -> None:
    """A submission whose answer never came is unsure, and is found by its key; one that never left is not there."""
    clock = Clock()

    async def use(adapter: BatchAdapter, provider: Provider) -> None:
        ready = [prepared(provider, line(server, at)) for at in range(2)]
        at = datetime.fromtimestamp(clock(), UTC)
        others = [await adapter.submit(ready[:number], f"other{number}") for number in (1, 2)]
        server.troubles.append(Trouble("POST", CREATE[kind]))
        with pytest.raises(BatchFailed) as failed:
            await adapter.submit(ready, "k1")
        assert failed.value.unsure
        assert failed.value.retryable
        assert failed.value.outcome == "connection_lost"
        intent = Intent("k1", at, 2, known=frozenset(others[:1]))
        if kind == "anthropic":  # which names a batch by its results only
            with pytest.raises(BatchUnclear):
                await adapter.find(intent)
            assert await adapter.find(replace(intent, requests=7)) is None
        clock.now_s += 600
        found = await adapter.find(intent)
        assert found == list(server.held)[-1]
        assert await adapter.find(replace(intent, key="k2")) is None
        lines = [line(server, at) for at in range(2)]
        assert len(await results_of(adapter, provider, found, lines)) == 2

    scripts = [Batch(), Batch(), Batch(delay_s=600)]
    with BatchProvider(kind, scripts, clock=clock) as server:
        run(server, use)


@pytest.mark.parametrize("kind", KINDS)
def test_failures_are_told_apart(kind: Any) -> None:
    expected = [(429, "rate_limited", True, False), (503, "server_error", True, True), (401, "rejected", False, False)]

    async def use(adapter: BatchAdapter, provider: Provider) -> None:
        ready = [prepared(provider, line(server, 0))]
        for code, outcome, retryable, unsure in expected:
            server.troubles.append(Trouble("POST", CREATE[kind], code, (("retry-after", "7"),)))
            with pytest.raises(BatchFailed) as failed:
                await adapter.submit(ready, "k1")
            error = failed.value
            assert (error.outcome, error.retryable, error.unsure) == (outcome, retryable, unsure)
            assert error.retry_after_ms == 7_000.0
            assert KEY not in str(error)
            assert "127.0.0.1" not in str(error)
        with pytest.raises(BatchFailed) as failed:
            await adapter.poll("batches/unknown" if kind == "gemini" else "unknown")
        assert failed.value.outcome == "rejected"
        with pytest.raises(BatchFailed):
            await adapter.poll("../../v1/models")

    with BatchProvider(kind) as server:
        run(server, use)
        assert server.held == {}
        with pytest.raises(MissingKey):
            run(server, use, key="")

    async def nobody(adapter: BatchAdapter, provider: Provider) -> None:
        with pytest.raises(BatchFailed) as failed:
            await adapter.submit([prepared(provider, line(server, 0))], "k1")
        assert (failed.value.outcome, failed.value.unsure) == ("connect_failed", False)

    run(server, nobody)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_a_batch(kind: Any) -> None:
    async def use(adapter: BatchAdapter, provider: Provider) -> None:
        one = prepared(provider, line(server, 0))
        other = replace(one, custom_id="b", model="another")
        for bad, said in (([], "needs a line"), ([one, one], "twice"), ([one, other], "two groups")):
            with pytest.raises(ValueError, match=said):
                await adapter.submit(bad, "k1")
        with pytest.raises(ValueError, match="key of a batch"):
            await adapter.submit([one], "no_joint")
        with pytest.raises(ValueError, match="custom_id"):
            line(server, 0).__class__("a.b", {}, line(server, 0).offer)

    with BatchProvider(kind) as server:
        run(server, use)
        assert server.requests == []


def test_what_is_too_much_for_a_batch() -> None:
    with BatchProvider("openai") as server:
        one = prepared(provider_of(server), line(server, 0))
    shape = Shape(lambda each: each.content, before=b"[", between=b",", after=b"]")
    lines = [replace(one, custom_id=str(at)) for at in range(3)]
    size_bytes = 4 + 3 * len(one.content)

    async def size_of(requests: int, content_bytes: int) -> int:
        upload, _ = await spooled(iter(lines), "k1", BatchLimits(requests, content_bytes, 1.0, 1.0), shape)
        with upload.file:
            assert len(upload.file.read()) == upload.size_bytes
        return upload.size_bytes

    assert asyncio.run(size_of(3, size_bytes)) == size_bytes
    for requests, content_bytes in ((2, size_bytes), (3, size_bytes - 1)):
        with pytest.raises(ValueError, match="may hold"):
            asyncio.run(size_of(requests, content_bytes))


def test_a_line_that_a_provider_cannot_be_asked() -> None:
    with BatchProvider("anthropic") as server, pytest.raises(UnsupportedParameter, match="seed"):
        prepared(provider_of(server), line(server, 0, seed=3))


def test_who_sells_batches() -> None:
    async def once() -> None:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=AUTHORITIES)) as client:
            own = Provider("openai", "openai", "https://api.openai.com/v1", None, ("m",))
            copy = replace(own, base_url="https://api.example.com/v1")
            assert adapter_of(own, client) is not None
            assert adapter_of(copy, client) is None
            assert adapter_of(replace(copy, batches=True), client) is not None
            assert adapter_of(replace(own, batches=False), client) is None
            with pytest.raises(ValueError, match="batches of provider 'openai'"):
                replace(own, batches="yes")  # type: ignore[arg-type]

    asyncio.run(once())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # dollars a million tokens of a batch: input, cache reads, output
        ("anthropic/claude-sonnet-5-5", ("1", "0.05", "5")),  # all at half of a call's
        ("openai/gpt-4.1", ("1", "0.5", "4")),  # cache reads cost what they cost a call
    ],
)
def test_cached_tokens_of_a_batch_have_a_price_of_their_own(model: str, expected: tuple[str, str, str]) -> None:
    """Neither the input's nor always half of a call's: the row of the batch offer says."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 0, "output_tokens": 5}

    async def use(adapter: BatchAdapter, provider: Provider) -> Usage | None:
        lines = [line(server, 0)]
        batch_id = await adapter.submit([prepared(provider, lines[0])], "k1")
        return (await results_of(adapter, provider, batch_id, lines))["line-0"].usage

    with BatchProvider("anthropic", [Batch(line=lambda at, body: Step(usage=usage))]) as server:
        found = run(server, use)
        assert [(each.input_tokens, each.cached_tokens) for each in server.bill] == [(100, 90)]
    assert found == Usage(100, 5, cache_read_tokens=90)
    (offer,) = Catalog().offers([model], datetime(2026, 11, 24, tzinfo=UTC), ("batch",))
    into, read, out = (Decimal(each).scaleb(-6) for each in expected)
    assert price(offer, found) == 10 * into + 90 * read + 5 * out


def test_groups_keep_apart_what_one_batch_cannot_hold() -> None:
    """Anthropic's versions are headers, so a request with a temperature is of another batch."""
    with BatchProvider("anthropic") as server:
        provider = provider_of(server)

        def group(model: str, **fields: Any) -> Prepared:
            made = line(server, 0, **fields)
            return prepared(provider, replace(made, offer=replace(made.offer, model=model)))

        assert group("claude-haiku-4-5").group != group("claude-haiku-4-5", temperature=0.5).group
        assert group("claude-haiku-4-5").group != group("claude-sonnet-4-5").group
        assert group("claude-haiku-4-5").group == group("claude-haiku-4-5", max_tokens=9).group

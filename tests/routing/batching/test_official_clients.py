"""The official packages run against the fakes: what the adapters are tested with is what the providers' own clients take."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.loopback import Step, ok
from tests.loopback_batches import Batch, BatchProvider, Trouble
from tests.loopback_tongues import anthropic_error, gemini_error
from tests.routing.batching.clock import Clock


def failing_second(failure: Step) -> Any:
    return lambda at, body: failure if at == 1 else ok(f"Answer {at}.")


def test_openai() -> None:
    clock = Clock()
    script = Batch(
        delay_s=600, line=failing_second(Step(status=400, body=b'{"error": {"message": "no", "code": "bad"}}'))
    )
    with (
        BatchProvider("openai", [script], clock=clock) as server,
        openai.OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0) as client,
    ):
        rows = [
            {"custom_id": f"line-{at}", "method": "POST", "url": "/v1/chat/completions", "body": _chat(f"Say {at}")}
            for at in range(3)
        ]
        content = b"\n".join(json.dumps(row).encode() for row in rows)
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        assert file.bytes == len(content)
        assert client.files.content(file.id).content == content
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"night": "3"},
        )
        assert batch.status == "in_progress"
        clock.now_s += 600
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert batch.metadata == {"night": "3"}
        counts = batch.request_counts
        assert counts is not None
        assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
        assert batch.output_file_id is not None
        assert batch.error_file_id is not None
        good = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
        assert [row["custom_id"] for row in good] == ["line-0", "line-2"]
        answer = good[0]["response"]["body"]["choices"][0]["message"]["content"]
        assert (good[0]["response"]["status_code"], answer) == (200, "Answer 0.")
        bad = json.loads(client.files.content(batch.error_file_id).text)
        assert (bad["custom_id"], bad["response"]["status_code"]) == ("line-1", 400)
        assert [each.id for each in client.batches.list(limit=1)] == [batch.id]
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)
    assert [(each.processing, each.custom_id) for each in server.bill] == [("batch", "line-0"), ("batch", "line-2")]


def test_openai_refuses_a_bad_file_and_cancels() -> None:
    clock = Clock()
    with (
        BatchProvider("openai", [Batch(), Batch(delay_s=600, answered=1)], clock=clock) as server,
        openai.OpenAI(base_url=server.base_url, api_key="sk-test", max_retries=0) as client,
    ):
        row = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": _chat("Hi")})
        other = row.replace('"a"', '"b"')
        for content, codes in (
            (f"{row}\n{{\n{row}", ["invalid_json_line", "duplicate_custom_id"]),
            (f"{row}\n{other}", []),
        ):
            file = client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            assert [each.code for each in (batch.errors.data or [] if batch.errors else [])] == codes
        assert client.batches.cancel(batch.id).status == "cancelling"
        clock.now_s += 10
        ended = client.batches.retrieve(batch.id)
        assert ended.status == "cancelled"
        assert ended.error_file_id is not None
        left = json.loads(client.files.content(ended.error_file_id).text)
        assert left["error"]["code"] == "batch_cancelled"
    assert len(server.bill) == 1


def test_anthropic() -> None:
    clock = Clock()
    script = Batch(delay_s=600, line=failing_second(anthropic_error(400, "invalid_request_error", "no")))
    with (
        BatchProvider("anthropic", [script, Batch(ends="never", answered=1)], clock=clock) as server,
        anthropic.Anthropic(base_url=server.base_url, api_key="test", max_retries=0) as client,
    ):
        requests: list[Any] = [
            {"custom_id": f"line-{at}", "params": {**_chat(f"Say {at}"), "max_tokens": 16}} for at in range(3)
        ]
        batch = client.messages.batches.create(requests=requests)
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 3)
        clock.now_s += 600
        batch = client.messages.batches.retrieve(batch.id)
        assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 2)
        results = {row.custom_id: row.result for row in client.messages.batches.results(batch.id)}
        first, second = results["line-0"], results["line-1"]
        assert first.type == "succeeded"
        assert first.message.content[0].type == "text"
        assert first.message.content[0].text == "Answer 0."
        assert second.type == "errored"
        assert second.error.error.type == "invalid_request_error"
        late = client.messages.batches.create(requests=requests)
        clock.now_s += 86_400
        kinds = [row.result.type for row in client.messages.batches.results(late.id)]
        assert kinds == ["succeeded", "expired", "expired"]
        assert [each.id for each in client.messages.batches.list(limit=1)] == [late.id, batch.id]
        assert client.messages.batches.delete(late.id).id == late.id
        with pytest.raises(anthropic.BadRequestError, match="custom_id"):
            client.messages.batches.create(requests=[{**requests[0], "custom_id": "no dots.here"}])
    assert len(server.bill) == 3


def test_gemini() -> None:
    clock = Clock()
    script = Batch(delay_s=600, line=failing_second(gemini_error(429, "RESOURCE_EXHAUSTED", "slow down")))
    with BatchProvider("gemini", [script, Batch(delay_s=600)], clock=clock) as server:
        options = types.HttpOptions(base_url=server.base_url)
        with genai.Client(api_key="test", http_options=options) as client:
            requests: Any = [
                {"contents": [{"role": "user", "parts": [{"text": f"Say {at}"}]}], "metadata": {"key": f"line-{at}"}}
                for at in range(3)
            ]
            job = client.batches.create(model="gemini-3.8-flash", src=requests, config={"display_name": "night"})
            assert (job.state, job.display_name) == (types.JobState.JOB_STATE_RUNNING, "night")
            assert job.name is not None
            clock.now_s += 600
            job = client.batches.get(name=job.name)
            assert job.state == types.JobState.JOB_STATE_SUCCEEDED
            assert job.dest is not None
            assert job.dest.inlined_responses is not None
            first, second, _ = job.dest.inlined_responses
            assert first.response is not None
            assert first.response.text == "Answer 0."
            assert first.metadata == {"key": "line-0"}
            assert second.error is not None
            assert second.error.code == 8
            other = client.batches.create(model="gemini-3.8-flash", src=requests, config={"display_name": "day"})
            assert other.name is not None
            client.batches.cancel(name=other.name)
            clock.now_s += 10
            assert client.batches.get(name=other.name).state == types.JobState.JOB_STATE_CANCELLED
            names = [each.display_name for each in client.batches.list(config={"page_size": 1})]
            assert names == ["day", "night"]
    assert len(server.bill) == 2


def test_troubles() -> None:
    with (
        BatchProvider("anthropic") as server,
        anthropic.Anthropic(base_url=server.base_url, api_key="test", max_retries=0) as client,
    ):
        requests: list[Any] = [{"custom_id": "a", "params": {**_chat("Hi"), "max_tokens": 16}}]
        server.troubles += [Trouble("POST", "/v1/messages/batches", 429), Trouble("POST", "/v1/messages/batches")]
        with pytest.raises(anthropic.RateLimitError):
            client.messages.batches.create(requests=requests)
        assert server.held == {}
        with pytest.raises(anthropic.APIConnectionError):
            client.messages.batches.create(requests=requests)
        assert len(server.held) == 1
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi you"}])
    assert [(each.processing, each.input_tokens) for each in server.bill] == [("sync", 2)]


def _chat(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}

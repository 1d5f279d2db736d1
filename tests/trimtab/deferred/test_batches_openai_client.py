"""OpenAI's own client, with its own batch flow unchanged: upload, create, poll, download, cancel, list, delete."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.loopback import LoopbackProvider, bad_request, echo, hang, ok
from tests.loopback_batches import Batch as Scripted
from tests.loopback_batches import BatchProvider
from tests.loopback_responses import OPENAI_OWN
from tests.trimtab.asking import CONTEXTS, KEY, KEY_ENV, QUESTION, provider, serving
from tests.trimtab.deferred.batch_rig import CHAT, jsonl, line
from trimtab.database import Database
from trimtab.deferred import batch_endpoints, shipping
from trimtab.webhooks import Outbox

OVER = ("completed", "failed", "expired", "cancelled")
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@contextmanager
def client_of(http: httpx.Client, key: str = "sk-one") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def upstream() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(tongue=OPENAI_OWN) as server:
        yield server


@pytest.fixture
def http(upstream: LoopbackProvider, tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(provider("p", upstream), data_dir=tmp_path) as made:
        yield made


@pytest.fixture
def client(http: httpx.Client) -> Iterator[openai.OpenAI]:
    with client_of(http) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[httpx.Client]:
    """One server for the tests that script nothing; each is a tenant of its own."""
    with LoopbackProvider(tongue=OPENAI_OWN) as server, serving(provider("p", server), data_dir=folder) as made:
        yield made


@pytest.fixture
def anyone(shared: httpx.Client) -> Iterator[openai.OpenAI]:
    with client_of(shared, f"sk-{uuid.uuid4().hex}") as made:
        yield made


def names(folder: Path) -> set[str]:
    return {each.name for each in (folder / "files").iterdir()}


def uploaded(client: openai.OpenAI, content: bytes, name: str = "in.jsonl") -> openai.types.FileObject:
    return client.files.create(file=(name, content), purpose="batch")


def created(client: openai.OpenAI, content: bytes, endpoint: Any = CHAT, **more: Any) -> openai.types.Batch:
    file = uploaded(client, content)
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def over(client: openai.OpenAI, batch: openai.types.Batch, wait_s: float = 30.0) -> openai.types.Batch:
    until = time.monotonic() + wait_s
    while (batch := client.batches.retrieve(batch.id)).status not in OVER:
        assert time.monotonic() < until, batch
        time.sleep(0.05)
    return batch


def lines(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(each) for each in client.files.content(file_id).text.splitlines()]


def with_contexts(custom_id: str) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
    return line(custom_id, body={**body, "trimtab": {"contexts": CONTEXTS, "ratio": 0.5}})


def test_the_whole_flow(client: openai.OpenAI, upstream: LoopbackProvider) -> None:
    upstream.then(bad_request("no such tool"), *(echo() for _ in range(3)))
    file = uploaded(client, jsonl(line("plain"), line("plain 2"), "nonsense", with_contexts("rag"), line("plain 3")))
    assert (file.purpose, file.status, file.filename) == ("batch", "processed", "in.jsonl")
    assert client.files.wait_for_processing(file.id) == file
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"night": "1"}
    )
    assert (batch.object, batch.status, batch.metadata) == ("batch", "validating", {"night": "1"})
    assert batch.expires_at == batch.created_at + 86_400
    done = over(client, batch)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 5, "completed": 3, "failed": 2}
    answers, errors = lines(client, done.output_file_id), lines(client, done.error_file_id)
    assert sorted(each["custom_id"] or "" for each in answers + errors) == ["", "plain", "plain 2", "plain 3", "rag"]
    assert [each["custom_id"] for each in answers] == sorted(
        (each["custom_id"] for each in answers), key=["plain", "plain 2", "rag", "plain 3"].index
    )
    for each in answers:
        assert (each["error"], each["response"]["status_code"]) == (None, 200)
        openai.types.chat.ChatCompletion.model_validate(each["response"]["body"])
    rejected, unread = sorted(errors, key=lambda each: each["custom_id"] is None)
    assert (rejected["error"], rejected["response"]["status_code"]) == (None, 400)
    assert rejected["response"]["body"]["error"]["message"] == "no such tool"
    assert (unread["response"], unread["error"]["code"]) == (None, "invalid_json_line")
    receipts = [each["response"]["body"]["trimtab"] for each in answers]
    billed = sum(Decimal(each["billed_cost_usd"]) for each in receipts)
    totals = done.model_dump()["trimtab"]
    assert Decimal(totals["billed_usd"]) == billed > 0
    assert Decimal(totals["saved_usd"]) == Decimal(totals["baseline_usd"]) - billed
    trimmed = [each for each in receipts if each["tokens_before"]]
    assert all(each["tokens_after"] < each["tokens_before"] == totals["tokens_before"] for each in trimmed)
    assert done.usage is not None
    assert done.usage.input_tokens == sum(each["input_tokens_billed"] for each in receipts)
    # four requests, and none of them twice
    assert len(upstream.requests) == 4


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/responses", {"model": "m", "input": "Hi."}),
        ("/v1/embeddings", {"model": "m", "input": ["Hi.", "Ho."]}),
        ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}),
    ],
)
def test_every_surface(anyone: openai.OpenAI, endpoint: str, body: dict[str, Any]) -> None:
    done = over(anyone, created(anyone, jsonl(line("a", url=endpoint, body=body)), endpoint))
    assert (done.status, done.error_file_id) == ("completed", None)
    (answer,) = lines(anyone, done.output_file_id)
    kinds = {"/v1/responses": "response", "/v1/embeddings": "list", "/v1/messages": None}
    assert answer["response"]["body"].get("object") == kinds[endpoint]
    assert answer["response"]["body"].get("type") == ("message" if endpoint == "/v1/messages" else None)
    assert answer["response"]["body"]["trimtab"]["provider"] == "p"


def test_lines_land_where_they_are_cheapest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model through a provider's own batch, at half the price; another where nobody sells batches."""
    monkeypatch.setattr(shipping, "GATHER_S", (0.1, 0.1))
    monkeypatch.setattr(shipping, "POLL_S", (0.1, 0.1))
    monkeypatch.setenv(KEY_ENV, KEY)
    with (
        BatchProvider("openai", [Scripted()]) as batches,
        LoopbackProvider() as calls,
        serving(
            provider("b", batches, "gpt-5-mini", batches=True, prices="openai", api_key_env=KEY_ENV),
            provider("c", calls, "at-once"),
            data_dir=tmp_path,
        ) as http,
        client_of(http) as client,
    ):
        content = jsonl(
            *(line(str(n), body={**line(n)["body"], "model": "gpt-5-mini"}) for n in range(3)),
            line("x", body={**line("x")["body"], "model": "at-once"}),
        )
        done = over(client, created(client, content), 60)
        assert done.request_counts is not None
        assert done.request_counts.completed == 4
        bought = {(each["provider"], each["processing"]): each for each in done.model_dump()["trimtab"]["bought"]}
        assert {name: each["lines"] for name, each in bought.items()} == {("b", "batch"): 3, ("c", "sync"): 1}
        assert sorted(each.processing for each in batches.bill) == ["batch"] * 3
        totals = done.model_dump()["trimtab"]
        assert Decimal(totals["billed_usd"]) < Decimal(totals["at_once_usd"]) <= Decimal(totals["baseline_usd"])


def test_lists_in_pages(anyone: openai.OpenAI) -> None:
    made = [created(anyone, jsonl(line("a"))) for _ in range(5)]
    for each in made:
        over(anyone, each)
    assert [each.id for each in anyone.batches.list(limit=2)] == [each.id for each in reversed(made)]
    page = anyone.batches.list(limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    assert anyone.batches.list(after=made[0].id).data == []
    inputs = [each.input_file_id for each in made]
    assert [each.id for each in anyone.files.list(purpose="batch", limit=2, order="asc")] == inputs
    outputs = {over(anyone, each).output_file_id for each in made}
    assert {each.id for each in anyone.files.list(purpose="batch_output")} == outputs


def test_cancelled(client: openai.OpenAI, upstream: LoopbackProvider) -> None:
    upstream.then(ok(delay_s=1), *(hang() for _ in range(50)))
    batch = created(client, jsonl(*(line(str(n)) for n in range(40))))
    until = time.monotonic() + 20
    while client.batches.retrieve(batch.id).request_counts.completed < 1:  # type: ignore[union-attr]
        assert time.monotonic() < until
        time.sleep(0.05)
    cancelled = client.batches.cancel(batch.id)
    assert cancelled.status == "cancelling"
    done = over(client, batch)
    assert done.status == "cancelled"
    answers, errors = lines(client, done.output_file_id), lines(client, done.error_file_id)
    assert len(answers) == 1
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}
    assert len(errors) == 39


def test_what_is_over_cannot_be_cancelled(anyone: openai.OpenAI) -> None:
    done = over(anyone, created(anyone, jsonl(line("a"))))
    with pytest.raises(openai.ConflictError, match="completed cannot be cancelled"):
        anyone.batches.cancel(done.id)


def test_a_deadline_that_passes(client: openai.OpenAI, upstream: LoopbackProvider) -> None:
    upstream.then(*(hang() for _ in range(9)))
    batch = created(client, jsonl(line("a"), line("b")), extra_body={"trimtab": {"deadline": "2s"}})
    assert batch.expires_at == batch.created_at + 2
    done = over(client, batch)
    assert done.status == "expired"
    assert done.expired_at is not None
    assert [each["error"]["code"] for each in lines(client, done.error_file_id)] == ["batch_expired"] * 2


def test_a_restart_in_the_middle(upstream: LoopbackProvider, tmp_path: Path) -> None:
    upstream.then(*(ok(delay_s=0.3) for _ in range(60)))
    with serving(provider("p", upstream), data_dir=tmp_path) as http, client_of(http) as client:
        batch = created(client, jsonl(*(line(str(n)) for n in range(60))))
        while client.batches.retrieve(batch.id).status == "validating":
            time.sleep(0.02)
    with serving(provider("p", upstream), data_dir=tmp_path) as http, client_of(http) as client:
        done = over(client, batch)
        assert done.request_counts is not None
        assert done.request_counts.model_dump() == {"total": 60, "completed": 60, "failed": 0}
        assert [each["custom_id"] for each in lines(client, done.output_file_id)] == [str(n) for n in range(60)]


def test_another_tenant_finds_nothing(http: httpx.Client, client: openai.OpenAI) -> None:
    batch = over(client, created(client, jsonl(line("a"))))
    with client_of(http, "sk-two") as other:
        for ask in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError, match="there is no file"):
                ask(batch.input_file_id)
        for about in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError, match="there is no batch"):
                about(batch.id)
        with pytest.raises(openai.BadRequestError, match="input_file_id: there is no file"):
            other.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
        assert list(other.files.list()) == list(other.batches.list()) == []
    assert client.files.retrieve(batch.input_file_id)


def test_the_same_idempotency_key_makes_one_batch(anyone: openai.OpenAI) -> None:
    file = uploaded(anyone, jsonl(line("a")))
    order: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    key = {"Idempotency-Key": "one"}
    first, second = (anyone.batches.create(**order, extra_headers=key) for _ in range(2))
    assert first.id == second.id
    with pytest.raises(openai.UnprocessableEntityError):
        anyone.batches.create(**order, metadata={"other": "1"}, extra_headers=key)


BAD_ORDERS = {
    "no such file": ({"input_file_id": "file-none"}, "input_file_id: there is no file"),
    "no file": ({"input_file_id": ""}, "input_file_id"),
    "another endpoint": ({"endpoint": "/v1/completions"}, "endpoint: must be one of /v1/chat/completions"),
    "another window": ({"completion_window": "1h"}, "completion_window: input should be '24h'"),
    "a number in metadata": ({"metadata": {"a": 1}}, "metadata.a"),
    "much metadata": ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    "a short expiry": (
        {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
        "output_expires_after.seconds",
    ),
    "an unknown field": ({"extra_body": {"deadline": "6h"}}, "deadline: no such field"),
    "an unknown option": ({"extra_body": {"trimtab": {"dealine": "6h"}}}, "trimtab.dealine: no such field"),
    "a deadline of old": (
        {"extra_body": {"trimtab": {"deadline": "2020-01-01T00:00:00Z"}}},
        "trimtab.deadline: has passed",
    ),
    "a deadline without end": ({"extra_body": {"trimtab": {"deadline": "31d"}}}, "trimtab.deadline: must be within"),
    "a callback without a secret": (
        {"extra_body": {"trimtab": {"callback_url": "https://example.com/"}}},
        "trimtab.callback_url",
    ),
}


@pytest.mark.parametrize("name", BAD_ORDERS)
def test_a_bad_order_is_refused(anyone: openai.OpenAI, name: str) -> None:
    changes, told = BAD_ORDERS[name]
    order: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **changes}
    order.setdefault("input_file_id", uploaded(anyone, jsonl(line("a"))).id)
    with pytest.raises(openai.BadRequestError) as refused:
        anyone.batches.create(**order)
    assert told in refused.value.message
    assert list(anyone.batches.list()) == []


def test_outputs_are_no_inputs(anyone: openai.OpenAI) -> None:
    done = over(anyone, created(anyone, jsonl(line("a"))))
    with pytest.raises(openai.BadRequestError, match="is a file of purpose batch_output"):
        anyone.batches.create(input_file_id=str(done.output_file_id), endpoint=CHAT, completion_window="24h")


def test_who_is_told_when_it_is_over(
    upstream: LoopbackProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_WEBHOOK_SECRET", SECRET)
    url = "http://127.0.0.1:9/told"  # nobody listens there
    with (
        serving(provider("p", upstream), data_dir=tmp_path, callback_networks=["127.0.0.1"]) as http,
        client_of(http) as client,
    ):
        done = over(client, created(client, jsonl(line("a")), extra_body={"trimtab": {"callback_url": url}}))
    database = Database(f"sqlite:///{tmp_path / 'trimtab.sqlite'}")
    (delivery,) = Outbox(database).list()
    database.close()
    assert (delivery.type, delivery.subject, delivery.url) == ("batch.completed", done.id, url)
    told = json.loads(delivery.body)["data"]
    assert told["output_file_id"] == done.output_file_id
    assert told["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert told["result_url"] == f"/v1/batches/{done.id}"


# --- files ---------------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_went(anyone: openai.OpenAI, folder: Path, tmp_path: Path) -> None:
    content = b"--boundary\r\n" * 3 + bytes(range(256)) * 2_000 + b"\r\n--"
    path = tmp_path / "Zürich \U0001f600.jsonl"
    path.write_bytes(content)
    file = anyone.files.create(file=path, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3_600})
    assert file.bytes == len(content)
    assert file.filename == path.name
    assert file.expires_at == file.created_at + 3_600
    assert anyone.files.content(file.id).read() == content
    with anyone.files.with_streaming_response.content(file.id) as response:
        assert b"".join(response.iter_bytes()) == content
        assert response.headers["content-type"] == "application/octet-stream"
    assert anyone.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        anyone.files.content(file.id)
    assert file.id not in names(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "a\0b", "", "x" * 9_000])
def test_a_callers_name_is_no_path(anyone: openai.OpenAI, folder: Path, name: str) -> None:
    before = names(folder)
    try:
        file = uploaded(anyone, b"{}", name)
    except openai.APIStatusError as refused:
        assert refused.status_code == 400  # noqa: PT017 (either is right)
        return
    assert names(folder) - before == {file.id}
    assert "/" not in file.filename
    assert "\\" not in file.filename
    assert 0 < len(file.filename) < 256


@pytest.mark.parametrize("purpose", ["fine-tune", "assistants", "vision", "user_data", "evals", "batch_output", "x"])
def test_other_purposes_are_refused(anyone: openai.OpenAI, purpose: Any) -> None:
    with pytest.raises(openai.BadRequestError, match='is not supported here; send "batch"'):
        anyone.files.create(file=("a", b"{}"), purpose=purpose)
    assert list(anyone.files.list()) == []


@pytest.mark.parametrize("seconds", [3_599, 2_592_001, -1])
def test_a_lifetime_out_of_bounds_is_refused(anyone: openai.OpenAI, seconds: int) -> None:
    with pytest.raises(openai.BadRequestError, match=r"expires_after\.seconds"):
        anyone.files.create(
            file=("a", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
        )


def part(name: str, value: str, filename: str | None = None) -> bytes:
    more = "" if filename is None else f'; filename="{filename}"'
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'.encode()


FILE = part("file", "{}", "a.jsonl")
PURPOSE = part("purpose", "batch")
BAD_FORMS: dict[str, tuple[bytes, str, int]] = {
    "no purpose": (FILE + b"--b--", "purpose", 400),
    "no file": (PURPOSE + b"--b--", "file", 400),
    "a file without a name": (PURPOSE + part("file", "{}") + b"--b--", "file", 400),
    "a file of another name": (PURPOSE + part("document", "{}", "a") + b"--b--", "file", 400),
    "two files": (PURPOSE + FILE + FILE + b"--b--", "file", 400),
    "no last boundary": (PURPOSE + FILE, "ends before its last boundary", 400),
    "half a header": (b"--b\r\nContent-Dis", "ends before", 400),
    "no form": (b'{"purpose": "batch"}', "not multipart/form-data", 400),
    "nothing": (b"", "ends before", 400),
    "an endless field": (part("purpose", "b" * 5_000) + FILE + b"--b--", "purpose", 400),
    "endless fields": (b"".join(part(str(n), "") for n in range(30)) + PURPOSE + FILE + b"--b--", "fields", 400),
    "endless headers": (b"--b\r\n" + b"X-A: b\r\n" * 2_000 + b"\r\n", "not multipart/form-data", 400),
}


@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_bad_form_is_refused(shared: httpx.Client, folder: Path, name: str) -> None:
    content, told, status = BAD_FORMS[name]
    before = names(folder)
    answer = shared.post("/v1/files", content=content, headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == status
    assert told in answer.json()["error"]["message"]
    assert names(folder) == before


def test_only_a_form_and_only_from_here(shared: httpx.Client) -> None:
    for kind in ("application/json", "multipart/form-data", "text/plain"):
        assert shared.post("/v1/files", content=b"x", headers={"content-type": kind}).status_code == 415
    long = shared.post(
        "/v1/files", content=b"x", headers={"content-type": f"multipart/form-data; boundary={'b' * 300}"}
    )
    assert long.status_code == 400
    form = {"content-type": "multipart/form-data; boundary=b", "sec-fetch-site": "cross-site"}
    refused = shared.post("/v1/files", content=PURPOSE + FILE + b"--b--", headers=form)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site")


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_is_too_large(
    shared: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(batch_endpoints, "MAX_BYTES", 100_000)
    before = names(folder)
    headers = {"content-type": "multipart/form-data; boundary=b"}

    def sent(size_bytes: int) -> httpx.Response:
        content = PURPOSE + part("file", "x" * size_bytes, "a") + b"--b--"
        chunks = (content[start : start + 10_000] for start in range(0, len(content), 10_000))
        return shared.post("/v1/files", content=content if known else chunks, headers=headers)

    assert sent(100_000).json()["bytes"] == 100_000
    for size_bytes in (100_001, 500_000):
        refused = sent(size_bytes)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "file_too_large")
    assert len(names(folder) - before) == 1


def test_a_key_of_a_provider_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with (
        LoopbackProvider() as upstream,
        serving(provider("p", upstream, api_key_env=KEY_ENV), data_dir=tmp_path) as http,
        client_of(http, "sk-callers-own-0123456789") as client,
    ):
        done = over(client, created(client, jsonl(line("a"))))
        told = done.model_dump_json() + client.files.content(str(done.output_file_id)).text
        kept = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    for secret in (KEY, "sk-callers-own-0123456789"):
        assert secret not in told
        assert secret.encode() not in kept

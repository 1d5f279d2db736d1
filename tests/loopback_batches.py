"""The batch APIs of OpenAI, Anthropic and Gemini, as a loopback provider serves them beside its calls.

    with BatchProvider("anthropic", [Batch(delay_s=60, line=lambda at, body: status(500) if at == 3 else ok("Paris."))],
                       clock=clock) as provider:
        client = anthropic.Anthropic(base_url=provider.base_url, api_key="any")
        batch = client.messages.batches.create(requests=[...])

The batches answer the submissions in their order; after the last one every batch is done at once, and every line is
answered by its prompt. Nothing runs by itself: how far a batch has come is worked out from `clock` when it is asked for.
`bill` holds what was answered, by batch or by call, as a provider would charge it. `troubles` spoil calls: a status
instead of an answer, or a connection that is reset when the work was done.

Written against the official packages (openai 2, anthropic 2, google-genai 1), which are run against it in
`tests/routing/batching/test_official_clients.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from tests import loopback
from tests.loopback import LoopbackProvider, Request, Step, echo
from tests.loopback_responses import OPENAI_OWN
from tests.loopback_tongues import ANTHROPIC, GEMINI

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Batch:
    """How one batch goes. It is worked on for `delay_s`, and ends then as `ends` says ("never": it runs into its window);
    `answered` lines are done by the time it expires or is cancelled, None for none in that case. `line(at, body)` answers
    the line at that place, a step with a status being a failure of that line alone."""

    delay_s: float = 0.0
    ends: Literal["completed", "failed", "never"] = "completed"
    answered: int | None = None
    line: Callable[[int, Mapping[str, Any]], Step] = lambda at, body: echo()
    reversed: bool = False


@dataclass(frozen=True, slots=True)
class Billed:
    """One answer, as it is charged. `custom_id` is None for a call."""

    processing: Literal["batch", "sync"]
    model: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    custom_id: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """The next call whose method and path these are is answered by `status` and `headers` without being heard, or, with
    `status` None, done, and its connection reset."""

    method: str
    path: str
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Held:
    """A batch as the provider holds it. `ended_at` is when it did; `results` are (custom_id, fate, status, answer)."""

    id: str
    script: Batch
    made_at: float
    lines: Sequence[tuple[str, str, Mapping[str, Any]]]  # (custom_id, path, body)
    about: Mapping[str, Any]
    cancelled_at: float | None = None
    ended_at: float | None = None
    end: str = ""
    results: list[tuple[str, str, int, Any]] = field(default_factory=list)

    def count(self, *fates: str) -> int:
        return sum(fate in fates for _, fate, _, _ in self.results)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"


def reply(body: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode())


class BatchProvider(LoopbackProvider):
    """The server. `script` answers calls, as in LoopbackProvider; `batches` the batches."""

    def __init__(
        self,
        kind: Literal["openai", "anthropic", "gemini"],
        batches: Sequence[Batch] = (),
        *,
        script: Sequence[Step] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(script, tongue={"openai": OPENAI_OWN, "anthropic": ANTHROPIC, "gemini": GEMINI}[kind])
        self.held: dict[str, Held] = {}
        self.bill: list[Billed] = []
        self.troubles: list[Trouble] = []
        self.clock = clock
        self.cancelling_s = 10.0
        self._batches = list(batches)
        self._api: _Api = {"openai": _OpenAI, "anthropic": _Anthropic, "gemini": _Gemini}[kind](self)

    def then_batches(self, *batches: Batch) -> None:
        """Add to the script of the batches."""
        self._batches.extend(batches)

    def quicken(self) -> None:
        """Every batch to come is done at once."""
        self._batches.clear()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        trouble = next(
            (each for each in self.troubles if each.method == request.method and request.path.startswith(each.path)),
            None,
        )
        if trouble is not None:
            self.troubles.remove(trouble)
            if trouble.status is not None:
                body = self._api.error(trouble.status, "scripted trouble").body
                return await loopback._send(writer, trouble.status, "application/json", body, trouble.headers)
        answer = self._api.refused(request) or self._api.answer(request)
        if answer is None:
            self._bill_call(request)
            return await super()._answer(request, writer)
        if trouble is not None:
            raise loopback._Reset
        return await loopback._send(writer, answer.status, answer.content_type, answer.body)

    def _bill_call(self, request: Request) -> None:
        step = self._script[0] if self._script else loopback.ok()
        tongue = self.tongue
        if not tongue.serves(request.path) or tongue.complaint(request) or step.body is not None or step.fault:
            return
        answer = json.loads(tongue.whole(request, step))
        self.bill.append(Billed("sync", self._api.model_of(request.path, request.json), *self._api.tokens(answer)))

    def hold(self, lines: Sequence[tuple[str, str, Mapping[str, Any]]], about: Mapping[str, Any]) -> Held:
        script = self._batches.pop(0) if self._batches else Batch()
        number = len(self.held) + 1
        held = Held(self._api.id_of(number), script, self.clock(), lines, about)
        self.held[held.id] = held
        return held

    def settle(self, held: Held) -> Held:
        """Bring it to where it is by now. Who cancels hears of the end `cancelling_s` later."""
        now = self.clock()
        script = held.script
        expires_at = held.made_at + DAY_S
        cancelled_at = None if held.cancelled_at is None else held.cancelled_at + self.cancelling_s
        done_at = expires_at + 1.0 if script.ends == "never" else held.made_at + script.delay_s
        ends_at = min(each for each in (done_at, expires_at, cancelled_at) if each is not None)
        if held.ended_at is not None or now < ends_at:
            return held
        held.ended_at = ends_at
        held.end = "expired" if ends_at == expires_at else "cancelled" if ends_at != done_at else script.ends
        if held.end == "failed":
            return held
        answered = len(held.lines) if held.end == "completed" else (script.answered or 0)
        for at, (custom_id, path, body) in enumerate(held.lines):
            if at < answered:
                held.results.append(self._line_run(at, custom_id, path, body, script))
            else:
                held.results.append((custom_id, held.end, 0, None))
        if script.reversed:
            held.results.reverse()
        return held

    def _line_run(
        self, at: int, custom_id: str, path: str, body: Mapping[str, Any], script: Batch
    ) -> tuple[str, str, int, Any]:
        inner = Request("POST", path, self._api.inner_headers, json.dumps(body).encode())
        step = script.line(at, body)
        if refused := self.tongue.complaint(inner):
            return custom_id, "failed", refused[0], json.loads(refused[1])
        if step.body is not None:
            return custom_id, "failed", step.status, json.loads(step.body)
        answer = json.loads(self.tongue.whole(inner, step))
        tokens = self._api.tokens(answer)
        self.bill.append(Billed("batch", self._api.model_of(path, body), *tokens, custom_id))
        return custom_id, "succeeded", 200, answer


class _Api:
    """One provider's batch API."""

    def __init__(self, provider: BatchProvider) -> None:
        self.provider = provider
        self.inner_headers: Mapping[str, str] = {"x-api-key": "inner", "x-goog-api-key": "inner"}
        """Of a line, when it is run."""

    @abstractmethod
    def answer(self, request: Request) -> Answer | None:
        """None for what is no part of the batch API."""

    @abstractmethod
    def refused(self, request: Request) -> Answer | None: ...

    @abstractmethod
    def error(self, status: int, message: str) -> Answer: ...

    @abstractmethod
    def id_of(self, number: int) -> str: ...

    @abstractmethod
    def tokens(self, answer: Mapping[str, Any]) -> tuple[int, int, int]:
        """(input with what was cached, output, cached) of an answer."""

    def model_of(self, path: str, body: Mapping[str, Any]) -> str:
        return str(body.get("model"))

    def found(self, batch_id: str) -> Held | None:
        held = self.provider.held.get(batch_id)
        return None if held is None else self.provider.settle(held)

    def newest(self) -> list[Held]:
        return [self.provider.settle(held) for held in reversed(self.provider.held.values())]


# --- OpenAI -------------------------------------------------------------------------------------------------------

_ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")


class _OpenAI(_Api):
    def __init__(self, provider: BatchProvider) -> None:
        super().__init__(provider)
        self.files: dict[str, tuple[dict[str, Any], bytes]] = {}

    def id_of(self, number: int) -> str:
        return f"batch_{number:024x}"

    def tokens(self, answer: Mapping[str, Any]) -> tuple[int, int, int]:
        usage = answer["usage"]
        into = usage.get("prompt_tokens", usage.get("input_tokens"))
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        return into, usage.get("completion_tokens", usage.get("output_tokens", 0)), details.get("cached_tokens", 0)

    def error(self, status: int, message: str) -> Answer:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return reply({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)

    def refused(self, request: Request) -> Answer | None:
        ours = re.match(r"/v1/(files|batches)", request.path)
        if ours and not request.headers.get("authorization", "").startswith("Bearer "):
            return self.error(401, "You didn't provide an API key.")
        return None

    def answer(self, request: Request) -> Answer | None:
        url = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match [request.method, *url.path.removeprefix("/v1/").split("/")]:
            case ["POST", "files"]:
                return self._upload(request)
            case ["GET", "files"]:
                data = [about for about, _ in reversed(self.files.values())]
                return reply({"object": "list", "data": data, "has_more": False})
            case [("GET" | "DELETE"), "files", file_id, *more]:
                return self._file(request.method, file_id, more)
            case ["POST", "batches"]:
                return self._create(request.json)
            case ["GET", "batches"]:
                return reply(self._page(query))
            case ["GET", "batches", batch_id]:
                held = self.found(batch_id)
                return self.error(404, f"No batch found with id '{batch_id}'.") if held is None else self._shown(held)
            case ["POST", "batches", batch_id, "cancel"]:
                return self._cancel(batch_id)
        return None

    def _upload(self, request: Request) -> Answer:
        head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
        form = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + request.body).iter_parts():  # type: ignore[attr-defined]
            form[part.get_param("name", header="content-disposition")] = (
                part.get_filename(),
                part.get_payload(decode=True),
            )
        purpose = form["purpose"][1].decode()
        return reply(self.keep(form["file"][0], purpose, form["file"][1]))

    def keep(self, filename: str, purpose: str, content: bytes) -> dict[str, Any]:
        about = {
            "id": f"file-{len(self.files) + 1:024x}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(self.provider.clock()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
        }
        self.files[about["id"]] = (about, content)
        return about

    def _file(self, method: str, file_id: str, more: Sequence[str]) -> Answer:
        if file_id not in self.files:
            return self.error(404, f"No such File object: {file_id}")
        if method == "DELETE":
            del self.files[file_id]
            return reply({"id": file_id, "object": "file", "deleted": True})
        about, content = self.files[file_id]
        return Answer(200, content, "application/octet-stream") if more == ["content"] else reply(about)

    def _create(self, asked: Mapping[str, Any]) -> Answer:
        if asked.get("endpoint") not in _ENDPOINTS:
            return self.error(400, f"Invalid value: '{asked.get('endpoint')}'.")
        if asked.get("completion_window") != "24h" or asked.get("input_file_id") not in self.files:
            return self.error(400, "Invalid completion_window or input_file_id.")
        about, content = self.files[asked["input_file_id"]]
        if about["purpose"] != "batch":
            return self.error(400, "Invalid file purpose.")
        lines, wrong = _lines_of(content, asked["endpoint"])
        return self._shown(self.provider.hold(lines, {**asked, "wrong": wrong}))

    def _cancel(self, batch_id: str) -> Answer:
        held = self.found(batch_id)
        if held is None:
            return self.error(404, f"No batch found with id '{batch_id}'.")
        if held.ended_at is not None:
            return self.error(409, f"Cannot cancel a batch with status '{held.end}'.")
        held.cancelled_at = held.cancelled_at or self.provider.clock()
        return self._shown(held)

    def _page(self, query: Mapping[str, str]) -> dict[str, Any]:
        batches = self.newest()
        after = [held.id for held in batches].index(query["after"]) + 1 if "after" in query else 0
        limit = int(query.get("limit", "20"))
        data = [json.loads(self._shown(held).body) for held in batches[after : after + limit]]
        ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return {"object": "list", "data": data, **ids, "has_more": after + limit < len(batches)}

    def _shown(self, held: Held) -> Answer:
        wrong = held.about["wrong"]
        if wrong and held.ended_at is None:
            held.ended_at, held.end = held.made_at, "failed"
        files: dict[str, str] = held.about.setdefault("files", {}) if isinstance(held.about, dict) else {}
        if held.ended_at is not None and not files:
            for name, fates in (
                ("output_file_id", ("succeeded",)),
                ("error_file_id", ("failed", "expired", "cancelled")),
            ):
                rows = [_openai_row(held.id, *row) for row in held.results if row[1] in fates]
                if rows:
                    kept = self.keep(f"{held.id}_{name[:-8]}.jsonl", "batch_output", b"".join(rows))
                    files[name] = kept["id"]
        at = int(held.ended_at or 0)
        status = held.end or ("in_progress" if held.cancelled_at is None else "cancelling")
        return reply(
            {
                "id": held.id,
                "object": "batch",
                "endpoint": held.about["endpoint"],
                "errors": {"object": "list", "data": wrong or [_WHOLE_FAILED]} if held.end == "failed" else None,
                "input_file_id": held.about["input_file_id"],
                "completion_window": "24h",
                "status": status,
                "output_file_id": files.get("output_file_id"),
                "error_file_id": files.get("error_file_id"),
                "created_at": int(held.made_at),
                "in_progress_at": int(held.made_at),
                "expires_at": int(held.made_at + DAY_S),
                "finalizing_at": at or None,
                "completed_at": at if held.end == "completed" else None,
                "failed_at": at if held.end == "failed" else None,
                "expired_at": at if held.end == "expired" else None,
                "cancelling_at": int(held.cancelled_at) if held.cancelled_at else None,
                "cancelled_at": at if held.end == "cancelled" else None,
                "request_counts": {
                    "total": 0 if wrong else len(held.lines),
                    "completed": held.count("succeeded"),
                    "failed": held.count("failed", "expired"),
                },
                "metadata": held.about.get("metadata"),
            }
        )


_WHOLE_FAILED = {
    "code": "token_limit_exceeded",
    "message": "Enqueued token limit reached.",
    "param": None,
    "line": None,
}
_NOT_RUN = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}


def _lines_of(content: bytes, endpoint: str) -> tuple[list[tuple[str, str, Mapping[str, Any]]], list[dict[str, Any]]]:
    lines, wrong, seen = [], [], set()
    models = set()
    for number, row in enumerate(content.splitlines(), start=1):
        try:
            line = json.loads(row)
            custom_id, url, body = line["custom_id"], line["url"], line["body"]
        except (ValueError, KeyError, TypeError):
            wrong.append(_wrong("invalid_json_line", "This line is not parseable as valid JSON.", number))
            continue
        models.add(body.get("model"))
        if custom_id in seen:
            wrong.append(_wrong("duplicate_custom_id", f"The custom_id '{custom_id}' is duplicated.", number))
        if url != endpoint:
            wrong.append(_wrong("mismatched_endpoint", "The URL does not match the batch's endpoint.", number))
        seen.add(custom_id)
        lines.append((custom_id, url, body))
    if len(models) > 1:
        wrong.append(_wrong("mismatched_model", "All requests of a batch must have one model.", 1))
    if not lines and not wrong:
        wrong.append(_wrong("empty_file", "The input file is empty.", 1))
    return lines, wrong


def _wrong(code: str, message: str, line: int) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _openai_row(batch_id: str, custom_id: str, fate: str, status: int, body: Any) -> bytes:
    response = {"status_code": status, "request_id": "req_loopback", "body": body} if status else None
    code, message = _NOT_RUN.get(fate, ("", ""))
    error = {"code": code, "message": message} if code else None
    row = {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(row).encode() + b"\n"


# --- Anthropic ----------------------------------------------------------------------------------------------------

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_BATCHES = "/v1/messages/batches"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class _Anthropic(_Api):
    def id_of(self, number: int) -> str:
        return f"msgbatch_{number:024d}"

    def tokens(self, answer: Mapping[str, Any]) -> tuple[int, int, int]:
        usage = answer["usage"]
        cached = usage.get("cache_read_input_tokens") or 0
        written = usage.get("cache_creation_input_tokens") or 0
        return usage["input_tokens"] + cached + written, usage["output_tokens"], cached

    def error(self, status: int, message: str) -> Answer:
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}
        kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
        said = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_loopback"}
        return reply(said, status)

    def refused(self, request: Request) -> Answer | None:
        if not request.path.startswith(_BATCHES):
            return None
        bearer = request.headers.get("authorization", "").startswith("Bearer ")
        if not request.headers.get("x-api-key") and not bearer:
            return self.error(401, "x-api-key header is required")
        if not request.headers.get("anthropic-version"):
            return self.error(400, "anthropic-version: header is required")
        return None

    def answer(self, request: Request) -> Answer | None:
        url = urlsplit(request.path)
        if not url.path.startswith(_BATCHES):
            return None
        rest = [part for part in url.path.removeprefix(_BATCHES).split("/") if part]
        if not rest:
            return self._create(request) if request.method == "POST" else self._page(parse_qs(url.query))
        held = self.found(rest[0])
        if held is None:
            return self.error(404, f"{rest[0]}: not found")
        match [request.method, *rest[1:]]:
            case ["GET"]:
                return reply(self._shown(held))
            case ["GET", "results"]:
                if held.ended_at is None:
                    return self.error(404, "The results are not available yet.")
                rows = (json.dumps(_anthropic_row(*row)).encode() + b"\n" for row in held.results)
                return Answer(200, b"".join(rows), "application/x-jsonl")
            case ["POST", "cancel"]:
                if held.ended_at is None:
                    held.cancelled_at = held.cancelled_at or self.provider.clock()
                return reply(self._shown(held))
            case ["DELETE"]:
                del self.provider.held[held.id]
                return reply({"id": held.id, "type": "message_batch_deleted"})
        return self.error(404, "Not Found")

    def _create(self, request: Request) -> Answer:
        lines: list[tuple[str, str, Mapping[str, Any]]] = []
        for at, each in enumerate(request.json["requests"]):
            if each.keys() != {"custom_id", "params"}:
                return self.error(400, f"requests.{at}: Extra inputs are not permitted")
            if not _CUSTOM_ID.fullmatch(each["custom_id"]):
                return self.error(
                    400, f"requests.{at}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
                )
            if each["params"].get("stream"):
                return self.error(400, f"requests.{at}.params.stream: streaming is not supported in batches")
            lines.append((each["custom_id"], "/v1/messages", each["params"]))
        if not lines or len({line[0] for line in lines}) < len(lines):
            return self.error(400, "requests: custom_id must be unique, and there must be one")
        self.inner_headers = {**self.inner_headers, "anthropic-version": request.headers["anthropic-version"]}
        return reply(self._shown(self.provider.hold(lines, {})))

    def _page(self, query: Mapping[str, list[str]]) -> Answer:
        batches = self.newest()
        after = query.get("after_id")
        start = [held.id for held in batches].index(after[0]) + 1 if after else 0
        limit = int(query.get("limit", ["20"])[0])
        data = [self._shown(held) for held in batches[start : start + limit]]
        ids = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return reply({"data": data, **ids, "has_more": start + limit < len(batches)})

    def _shown(self, held: Held) -> dict[str, Any]:
        over = held.ended_at is not None
        address = f"{self.provider.base_url}{_BATCHES}/{held.id}/results"
        return {
            "id": held.id,
            "type": "message_batch",
            "processing_status": "ended" if over else "in_progress" if held.cancelled_at is None else "canceling",
            "request_counts": {
                "processing": 0 if over else len(held.lines),
                "succeeded": held.count("succeeded"),
                "errored": held.count("failed"),
                "canceled": held.count("cancelled"),
                "expired": held.count("expired"),
            },
            "created_at": _time(held.made_at),
            "expires_at": _time(held.made_at + DAY_S),
            "ended_at": _time(held.ended_at),
            "cancel_initiated_at": _time(held.cancelled_at),
            "archived_at": None,
            "results_url": address if over else None,
        }


def _anthropic_row(custom_id: str, fate: str, status: int, body: Any) -> dict[str, Any]:
    results: dict[str, dict[str, Any]] = {
        "succeeded": {"type": "succeeded", "message": body},
        "failed": {"type": "errored", "error": body},
        "cancelled": {"type": "canceled"},
        "expired": {"type": "expired"},
    }
    return {"custom_id": custom_id, "result": results[fate]}


# --- Gemini -------------------------------------------------------------------------------------------------------

_BATCH = re.compile(r"/v1(?:beta)?/(models/[\w.-]+):batchGenerateContent")
_RPC = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14, 504: 4}


class _Gemini(_Api):
    def id_of(self, number: int) -> str:
        return f"batches/{number:032x}"

    def tokens(self, answer: Mapping[str, Any]) -> tuple[int, int, int]:
        usage = answer["usageMetadata"]
        output = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
        return usage["promptTokenCount"], output, usage.get("cachedContentTokenCount", 0)

    def model_of(self, path: str, body: Mapping[str, Any]) -> str:
        return path.rpartition("models/")[2].partition(":")[0]

    def error(self, status: int, message: str) -> Answer:
        words = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        said = {"code": status, "message": message, "status": words.get(status, "UNAVAILABLE")}
        return reply({"error": said}, status)

    def refused(self, request: Request) -> Answer | None:
        if "atch" in request.path and not request.headers.get("x-goog-api-key"):
            return self.error(403, "Method doesn't allow unregistered callers.")
        return None

    def answer(self, request: Request) -> Answer | None:
        url = urlsplit(request.path)
        if (made := _BATCH.fullmatch(url.path)) and request.method == "POST":
            return self._create(made[1], request.json["batch"])
        rest = re.sub("^/v1(beta)?/", "", url.path)
        if not rest.startswith("batches"):
            return None
        if rest == "batches":
            return self._page(parse_qs(url.query))
        held = self.found(rest.removesuffix(":cancel"))
        if held is None:
            return self.error(404, "Requested entity was not found.")
        if request.method == "POST" and rest.endswith(":cancel"):
            if held.ended_at is not None:
                return self.error(400, "The batch is not cancellable.")
            held.cancelled_at = held.cancelled_at or self.provider.clock()
            return reply({})
        if request.method == "DELETE":
            del self.provider.held[held.id]
            return reply({})
        return reply(self._shown(held))

    def _create(self, model: str, batch: Mapping[str, Any]) -> Answer:
        lines: list[tuple[str, str, Mapping[str, Any]]] = []
        if unknown := sorted(batch.keys() - {"displayName", "inputConfig", "priority", "model"}):
            return self.error(400, f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at 'batch'.")
        for at, each in enumerate(batch["inputConfig"]["requests"]["requests"]):
            if each.keys() - {"request", "metadata"}:
                return self.error(400, "Invalid JSON payload received. Unknown name.")
            request = {name: value for name, value in each["request"].items() if name != "model"}
            key = each.get("metadata", {}).get("key", f"request-{at}")
            lines.append((key, f"/v1beta/{model}:generateContent", request))
        return reply(self._shown(self.provider.hold(lines, {"model": model, "displayName": batch.get("displayName")})))

    def _page(self, query: Mapping[str, list[str]]) -> Answer:
        batches = self.newest()
        start = int(query.get("pageToken", ["0"])[0])
        size = int(query.get("pageSize", ["50"])[0])
        page: dict[str, Any] = {"operations": [self._shown(held) for held in batches[start : start + size]]}
        more = {"nextPageToken": str(start + size)} if start + size < len(batches) else {}
        return reply(page | more)

    def _shown(self, held: Held) -> dict[str, Any]:
        word = {"": "RUNNING", "completed": "SUCCEEDED"}.get(held.end, held.end.upper())
        stats = {
            "requestCount": str(len(held.lines)),
            "successfulRequestCount": str(held.count("succeeded")),
            "failedRequestCount": str(held.count("failed", "expired", "cancelled")),
            "pendingRequestCount": str(0 if held.ended_at is not None else len(held.lines)),
        }
        kind = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"
        metadata = {
            "@type": kind,
            "name": held.id,
            "model": held.about["model"],
            "displayName": held.about["displayName"],
            "createTime": _time(held.made_at),
            "updateTime": _time(held.ended_at or held.made_at),
            "batchStats": {name: count for name, count in stats.items() if count != "0"},
            "state": f"BATCH_STATE_{word}",
        }
        shown: dict[str, Any] = {"name": held.id, "metadata": metadata}
        if held.ended_at is None:
            return shown
        metadata["endTime"] = _time(held.ended_at)
        shown["done"] = True
        if held.end == "failed":
            return shown | {"error": {"code": 8, "message": "Resource has been exhausted (e.g. check quota)."}}
        rows = {"inlinedResponses": [_gemini_row(*row) for row in held.results]}
        metadata["output"] = {"inlinedResponses": rows}
        return shown | {"response": {"@type": f"{kind}Output", "inlinedResponses": rows}}


def _gemini_row(custom_id: str, fate: str, status: int, body: Any) -> dict[str, Any]:
    metadata = {"metadata": {"key": custom_id}}
    if fate == "succeeded":
        return {"response": body, **metadata}
    if fate == "failed":
        return {"error": {"code": _RPC.get(status, 2), "message": body["error"]["message"]}, **metadata}
    return {"error": {"code": 4 if fate == "expired" else 1, "message": f"The request was {fate}."}, **metadata}

"""Logs: one line a record, nothing secret in it, no prompt in it, and one line for every request."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.loopback import LoopbackProvider, cut, raw
from tests.trimtab.asking import CALLERS_KEY, CONTEXTS, KEY, KEY_ENV, QUESTION, chat, provider, serving_of
from trimtab import Trimtab
from trimtab.settings import Settings
from trimtab.telemetry.logs import FIELDS, LogFormat, LogLevel, configure_logging, secret_variables

SECRET = "sk-proj-Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA"
PLAIN_SECRET = "correct horse battery"
PROMPT = "Mr Blenkinsop's blood pressure is 180 over 110."


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "asyncio", "hpack", "urllib3")}
    yield
    root.handlers[:], root.level = before, level
    root.setLevel(level)
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)


def logging_to(form: LogFormat = "json", level: LogLevel = "info") -> io.StringIO:
    stream = io.StringIO()
    environ = {KEY_ENV: KEY, "SOME_PASSWORD": PLAIN_SECRET}
    configure_logging(form, level, secrets_from=[KEY_ENV], environ=environ, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Leaky:
    def __repr__(self) -> str:
        return f"Leaky(api_key={SECRET!r}, other={PLAIN_SECRET!r})"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_secret_is_written_whatever_a_record_is_made_of(form: LogFormat, level: LogLevel) -> None:
    stream = logging_to(form, level)
    log = logging.getLogger("some.library")
    log.warning(f"key {SECRET} and {PLAIN_SECRET}")
    log.warning("headers %s", {"authorization": f"Bearer {SECRET}", "x-api-key": PLAIN_SECRET})
    log.warning("headers %r", [(b"authorization", f"Bearer {SECRET}".encode())])
    log.warning("HTTP Request: GET https://h/v1?key=%s&q=correct%%20horse%%20battery", SECRET)
    log.warning("%s", Leaky())
    log.warning("body", extra={FIELDS: {"body": json.dumps({"api_key": SECRET}), "nested": {"deep": Leaky()}}})
    log.warning("settings %r", Settings(database_url=f"postgresql://u:{PLAIN_SECRET}@h/d"))
    try:
        try:
            raise ConnectionError(f"refused with {SECRET} {PLAIN_SECRET}")
        except ConnectionError as cause:
            raise ExceptionGroup("several", [ValueError(SECRET), OSError(PLAIN_SECRET)]) from cause
    except ExceptionGroup:
        log.exception("failed with %s", PLAIN_SECRET)
    written = stream.getvalue()
    assert written.count("some.library") == 8
    assert SECRET not in written
    assert SECRET[10:] not in written
    assert PLAIN_SECRET not in written
    assert "horse" not in written


def test_an_exception_keeps_its_place_and_not_its_text() -> None:
    def broken() -> None:
        raise KeyError(PROMPT)

    def log_it() -> None:
        try:
            try:
                broken()
            except KeyError as error:
                raise RuntimeError(f"while reading {PROMPT}") from error
        except RuntimeError:
            logging.getLogger("x").exception("a defect")
        try:
            raise ValueError(PROMPT)
        except ValueError as error:
            error.add_note(PROMPT)
            logging.getLogger("x").error("again", exc_info=True)
        try:
            raise PermissionError(13, "Permission denied", "/var/cache/trimtab")
        except PermissionError:
            logging.getLogger("x").exception("the disk")

    stream = logging_to()
    log_it()
    first, second, third = lines(stream)
    assert "Blenkinsop" not in stream.getvalue()
    assert "in broken" in first["exception"]
    assert "KeyError: [" in first["exception"]
    assert "RuntimeError: [" in first["exception"]
    assert first["exception"].index("KeyError") < first["exception"].index("RuntimeError")
    assert f"ValueError: [{len(PROMPT)} characters, told at level debug]" in second["exception"]
    assert "PermissionError: [Errno 13] Permission denied: '/var/cache/trimtab'" in third["exception"]
    at_debug = logging_to("json", "debug")
    log_it()
    assert "Blenkinsop" in at_debug.getvalue()


def test_an_exception_that_nobody_fetched_is_told_without_its_text() -> None:
    import asyncio
    import gc

    async def scenario() -> None:
        async def broken() -> None:
            raise KeyError(PROMPT)

        task = asyncio.create_task(broken())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    stream = logging_to()
    asyncio.run(scenario())
    gc.collect()
    assert "never retrieved" in stream.getvalue()
    assert "Blenkinsop" not in stream.getvalue()


def test_a_line_is_a_line() -> None:
    text = logging_to("text")
    logging.getLogger("x").info(
        "GET /a\nERROR x: forged\r\x1b[31m", extra={FIELDS: {"path": "a b\nc", "none": None, "n": 3}}
    )
    assert text.getvalue().count("\n") == 1
    assert "\x1b" not in text.getvalue()
    assert text.getvalue().endswith('path="a b\\\\nc" n=3\n')
    as_json = logging_to("json")
    logging.getLogger("x").info("GET /a\nforged")
    assert lines(as_json)[0]["message"] == "GET /a\nforged"


def test_libraries_that_tell_every_call_are_quiet() -> None:
    stream = logging_to()
    logging.getLogger("httpx").info("HTTP Request: POST https://api.openai.com")
    logging.getLogger("httpcore.http11").debug("send_request_headers.started")
    logging.getLogger("httpx").warning("heard")
    assert [each["message"] for each in lines(stream)] == ["heard"]


def test_a_request_leaves_one_line_with_its_figures_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    stream = logging_to(level="debug")
    refusal = json.dumps({"error": {"message": f"bad key {KEY} for {PROMPT}", "type": "t", "code": None}}).encode()
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("a", server, api_key_env=KEY_ENV)], max_attempts=1)
        with serving_of(trimtab) as client:
            headers = {"authorization": f"Bearer {CALLERS_KEY}", "cookie": f"a={SECRET}"}
            body = chat(f"{PROMPT} {QUESTION}", trimtab={"contexts": CONTEXTS, "ratio": 0.5})
            answer = client.post("/v1/chat/completions", params={"key": SECRET}, json=body, headers=headers)
            assert answer.status_code == 200
            server.then(raw(refusal, content_type="application/json", status=401))
            assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 502
            server.then(cut(2))
            client.post("/v1/chat/completions", json=body | {"stream": True}, headers=headers)
            client.post(
                "/v1/chat/completions", content=f'{{"{PROMPT}", {SECRET}', headers={"content-type": "application/json"}
            )
            client.get(f"/nowhere/{SECRET}/x")
    told = [each for each in lines(stream) if each["logger"] == "trimtab.access" and each.get("route") != "/readyz"]
    assert len(told) == 5
    first = next(each for each in told if each["request_id"] == answer.headers["x-trimtab-request-id"])
    refused, malformed, nowhere = (next(each for each in told if each["status"] == code) for code in (502, 400, 404))
    broken = next(each for each in told if each.get("stream"))  # its line comes when its last byte is gone, or later
    receipt = answer.json()["trimtab"]
    assert first["message"] == "POST /v1/chat/completions 200"
    assert {name: first[name] for name in ("status", "provider", "model", "attempts", "outcome", "stream")} == {
        **{"status": 200, "provider": "a", "model": "m", "attempts": 1, "outcome": "ok", "stream": False}
    }
    assert first["receipt"] == receipt["id"]
    assert first["input_tokens"] == receipt["input_tokens_billed"]
    assert first["cost_usd"] == receipt["billed_cost_usd"]
    assert first["saved_usd"] == receipt["saved_usd"]
    assert first["context_tokens_after"] == receipt["tokens_after"]
    assert first["ms"] >= first["first_byte_ms"] > 0
    assert (refused["status"], refused["outcome"], "saved_usd" in refused) == (502, "rejected", False)
    assert (broken["status"], broken["outcome"], broken["stream"]) == (200, "cut_off", True)
    assert (malformed["status"], "provider" in malformed) == (400, False)
    assert (nowhere["status"], "route" in nowhere) == (404, False)
    written = stream.getvalue()
    for secret in (KEY, CALLERS_KEY, SECRET, "Blenkinsop", "An upload may be", QUESTION):
        assert secret not in written, secret


def test_a_virtual_key_is_named_and_those_who_watch_are_not_told_of() -> None:
    stream = logging_to()
    with serving_of(Trimtab()) as client:
        client.get("/healthz")
        client.get("/metrics")
        client.get("/v1/models")
        client.get("/metrics", headers={"host": "evil.example"})
    told = [each["message"] for each in lines(stream) if each["logger"] == "trimtab.access"]
    assert told == ["GET /v1/models 200", "GET /metrics 403"]


def test_the_variables_that_settings_name_are_secret() -> None:
    with LoopbackProvider() as server:
        settings = Settings.of(
            {"providers": [provider("a", server, api_key_env="ODD_NAME")], "metrics_key_env": "SCRAPE_ME"}
        )
    assert {"ODD_NAME", "SCRAPE_ME"} <= set(secret_variables(settings))


def test_httpx_at_debug_tells_no_key() -> None:
    stream = logging_to("text", "debug")
    with LoopbackProvider() as server, httpx.Client(trust_env=False, verify=False) as client:
        client.get(f"{server.base_url}/models?key={SECRET}", headers={"authorization": f"Bearer {PLAIN_SECRET}"})
    assert "HTTP Request: GET" in stream.getvalue()
    assert SECRET not in stream.getvalue()

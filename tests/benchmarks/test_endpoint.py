"""Endpoints as readers and judges, against a provider on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import reader
from benchmarks.endpoint import Endpoint, EndpointFailed
from benchmarks.questions import selfwritten
from benchmarks.reader import NOT_STATED, UNANSWERABLE, RemoteReader
from benchmarks.sections import silent
from tests.loopback import LoopbackProvider, Step, html, ok, status

DATA = selfwritten()


def test_the_key_comes_from_the_environment_and_nothing_limits_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with LoopbackProvider(script=[ok("21 days")]) as provider:
        assert Endpoint(provider.base_url, "m", "SOME_KEY").ask("Be brief.", "How long?") == "21 days"
        request = provider.requests[0]
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert [message["role"] for message in request.json["messages"]] == ["system", "user"]
    assert not {"max_tokens", "max_completion_tokens"} & set(request.json)


def test_a_model_that_takes_no_temperature_is_asked_without() -> None:
    with LoopbackProvider(script=[status(400), ok("yes")]) as provider:
        assert Endpoint(provider.base_url, "m").ask("", "?") == "yes"
        assert ["temperature" in request.json for request in provider.requests] == [True, False]


@pytest.mark.parametrize(
    ("step", "said"),
    [(status(401), "answered 401"), (html(), "no chat completion|answered 50")],
)
def test_a_failure_is_one_line_without_key_or_prompt(step: Step, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with LoopbackProvider(script=[step]) as provider, pytest.raises(EndpointFailed, match=said) as failed:
        Endpoint(provider.base_url, "m", "SOME_KEY").ask("Be brief.", "A private question")
    assert "\n" not in str(failed.value)
    assert "sk-secret" not in str(failed.value)
    assert "private" not in str(failed.value)


def test_an_endpoint_that_is_not_there_is_one_line() -> None:
    with pytest.raises(EndpointFailed, match=r"127\.0\.0\.1:9.* cannot be reached \(ConnectError\)"):
        Endpoint("http://127.0.0.1:9/v1", "m").ask("", "?")


def test_a_remote_reader_is_asked_what_has_no_answer_too_and_is_judged(tmp_path: Path) -> None:
    answers, verdicts = [ok(NOT_STATED)] * 40, [ok("Yes.")] * 40
    with LoopbackProvider(script=answers) as reads, LoopbackProvider(script=verdicts) as judges:
        section = reader.run(
            DATA,
            2,
            1,
            tmp_path,
            remote=RemoteReader(Endpoint(reads.base_url, "far-away")),
            judge=Endpoint(judges.base_url, "judge"),
            progress=silent,
        )
        asked = judges.requests[0].json["messages"][1]["content"]
    assert "Right answers, any of: " in asked or "Right answers, all of: " in asked
    assert f"Given answer: {NOT_STATED}" in asked
    assert section.tables[0].headers[-1] == "judged right"
    assert all(row[-1].startswith("1.00") for row in section.tables[0].rows)
    assert all(row[4].startswith("0.00") for row in section.tables[0].rows)
    kinds = {row[0]: row[2:] for row in section.tables[1].rows}
    assert set(kinds[UNANSWERABLE]) == {"1.00"}
    assert len({record["question"] for record in section.records}) == 3

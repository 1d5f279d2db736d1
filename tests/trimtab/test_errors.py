"""Every error that is raised on purpose has an answer, and none of them is a 500."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import routing.forwarding  # noqa: F401 (defines the errors of wires)
from compressor.payload import BadPayload
from routing.attempts import Attempt
from routing.batching import BatchFailed
from routing.errors import NoOffer, ProvidersFailed, RoutingError, UnknownModel, UnsupportedParameter
from trimtab import BadRequest
from trimtab.errors import problem_of


def _all_routing_errors(root: type[RoutingError] = RoutingError) -> Iterator[type[RoutingError]]:
    yield root
    for each in root.__subclasses__():
        yield from _all_routing_errors(each)


def _made(kind: type[RoutingError]) -> RoutingError:
    if kind is UnknownModel:
        return UnknownModel("m", "no such model")
    if kind is NoOffer:
        return NoOffer("too dear", ())
    if kind is UnsupportedParameter:
        return UnsupportedParameter("n", "must be 1")
    if kind is ProvidersFailed:
        return ProvidersFailed("nobody", (), 502, None)
    if kind is BatchFailed:
        return BatchFailed("a reason", "server_error")
    return kind("a reason")


@pytest.mark.parametrize("kind", sorted(set(_all_routing_errors()), key=lambda kind: kind.__name__))
def test_the_map_of_routings_errors_is_complete(kind: type[RoutingError]) -> None:
    problem = problem_of(_made(kind))
    assert problem is not None
    assert problem.status in (400, 404, 422, 502, 503)
    assert problem.message


@pytest.mark.parametrize(
    ("error", "status", "param"),
    [
        (BadRequest("ratio", "too large"), 400, "ratio"),
        (BadRequest(None, "too large", "request_too_large", status=413), 413, None),
        (BadPayload("messages", "must be a list"), 400, "messages"),
        (UnsupportedParameter("n", "must be 1"), 400, "n"),
        (TimeoutError(), 504, "trimtab.max_latency_ms"),
        (RecursionError(), 400, None),
    ],
)
def test_the_status_and_the_field(error: Exception, status: int, param: str | None) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.status, problem.param) == (status, param)
    assert problem.message


@pytest.mark.parametrize(
    ("status", "body", "answered", "passed_on"),
    [
        (500, b'{"error": {}}', 500, True),
        (429, b'{"error": {}}', 429, True),
        (529, b'{"error": {}}', 529, True),
        (500, b"<html>", 500, False),
        (500, b"[]", 500, False),
        (500, b"", 500, False),
        (504, None, 504, False),
        (401, b'{"error": {}}', 502, False),
        (402, b'{"error": {}}', 502, False),
        (403, b'{"error": {}}', 502, False),
        (404, b'{"error": {}}', 502, False),
    ],
)
def test_whose_answer_a_failure_is(status: int, body: bytes | None, answered: int, passed_on: bool) -> None:
    problem = problem_of(ProvidersFailed("nobody answered", (), status, body))
    assert problem is not None
    assert problem.status == answered
    assert (problem.raw == body) is passed_on or body is None
    assert problem.body["error"]


@pytest.mark.parametrize(("wait_ms", "header"), [(None, None), (0.0, "0"), (1.0, "1"), (41_001.0, "42")])
def test_the_last_providers_wait_is_passed_on(wait_ms: float | None, header: str | None) -> None:
    attempt = Attempt("a", "m", "sync", 0.0, 1.0, 429, "rate_limited", "HTTP 429", wait_ms)
    problem = problem_of(ProvidersFailed("nobody answered", (attempt,), 429, None))
    assert problem is not None
    assert problem.headers.get("retry-after") == header

"""The table of wires: what goes out, and what is read out of an answer."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routing.wires
from routing.catalog import Provider
from routing.offers import Offer, Usage
from routing.wires import (
    WIRES,
    MissingKey,
    body_for,
    error_code,
    error_status,
    idempotency_key_for,
    read_chat_usage,
    read_key,
    retry_after_ms,
)

OFFER = Offer("a", "m", "sync", (), None, "test")


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(routing.wires).failed == 0
    assert doctest.testmod(routing.wires).attempted > 0


@pytest.mark.parametrize(
    ("usage", "expected", "reasoning_tokens"),
    [
        # OpenAI: reasoning within completion_tokens, cached within prompt_tokens.
        (
            {
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0},
            },
            Usage(2006, 300, cache_read_tokens=1920),
            192,
        ),
        # xAI: reasoning beside completion_tokens (figures from sub2api#5771, checked there against the bill).
        (
            {
                "prompt_tokens": 10120,
                "completion_tokens": 1499,
                "total_tokens": 14428,
                "prompt_tokens_details": {"cached_tokens": 128},
                "completion_tokens_details": {"reasoning_tokens": 2809},
            },
            Usage(10120, 1499 + 2809, cache_read_tokens=128),
            2809,
        ),
        # DeepSeek
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, "prompt_cache_hit_tokens": 64},
            Usage(100, 5, cache_read_tokens=64),
            0,
        ),
        # OpenRouter
        (
            {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cache_write_tokens": 90}},
            Usage(100, 5, cache_write_tokens=90),
            0,
        ),
        # Groq and others: details there, and null
        (
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": None},
            Usage(1, 2),
            0,
        ),
    ],
)
def test_usage_of_each_dialect(usage: dict[str, object], expected: Usage, reasoning_tokens: int) -> None:
    reported = read_chat_usage({"usage": usage})
    assert reported is not None
    assert reported.usage == expected
    assert reported.reasoning_tokens == reasoning_tokens


@pytest.mark.parametrize(
    "usage",
    [None, [], 7, {}, {"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": 1, "completion_tokens": -1}],
)
def test_what_is_no_usage_is_none(usage: object) -> None:
    assert read_chat_usage({"usage": usage}) is None
    assert read_chat_usage({}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
NAMES = st.sampled_from(
    [
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "error",
        "code",
    ]
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.dictionaries(NAMES, JSON) | JSON) | JSON))
def test_no_answer_at_all_makes_a_reader_raise(answer: dict[str, object]) -> None:
    reported = read_chat_usage(answer)
    if reported is not None:
        assert min(reported.usage.input_tokens, reported.usage.output_tokens, reported.usage.cache_read_tokens) >= 0
    assert error_status(answer) in (None, *range(400, 600))


def test_a_body_that_is_not_json_is_refused_and_half_a_surrogate_is_not() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        body_for(WIRES["openai"], {"temperature": math.nan}, OFFER, False)
    assert body_for(WIRES["openai"], {"user": "\ud800"}, OFFER, False) == b'{"user":"\\ud800","model":"m"}'


@pytest.mark.parametrize("value", ["", "  \n", "sk-ключ", "sk-a\x00b", "sk-a\r\nx: y"])
def test_a_key_that_cannot_be_one_names_the_variable_and_not_the_value(value: str) -> None:
    provider = Provider("a", "openai", "http://x.test/v1", "SOME_KEY", ("m",))
    with pytest.raises(MissingKey, match="SOME_KEY") as missing:
        read_key(provider, {"SOME_KEY": value})
    assert "sk-" not in str(missing.value)


@pytest.mark.parametrize(
    ("headers", "expected_ms"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1_500.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 250.0),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1_000.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 10_000.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "٣"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected_ms: float | None) -> None:
    assert retry_after_ms(headers, 1_445_412_470.0) == expected_ms


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_retry_after_at_all_makes_it_raise(value: str) -> None:
    found = retry_after_ms({"retry-after": value, "retry-after-ms": value}, 0.0)
    assert found is None or found >= 0.0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"code":"rate_limit_exceeded","type":"requests"}}', "rate_limit_exceeded"),
        (b'{"error":{"code":429,"type":"tokens"}}', "tokens"),
        (b'{"error":{"code":"sk-abc123","type":null}}', ""),
        (b'{"error":"text"}', ""),
        (b"not json", ""),
        (b"[]", ""),
    ],
)
def test_of_an_error_body_only_a_plain_word_is_shown(body: bytes, expected: str) -> None:
    assert error_code(body) == expected


def test_idempotency_keys() -> None:
    other = Offer("a", "n", "sync", (), None, "test")
    assert idempotency_key_for("s", OFFER, b"") == idempotency_key_for("s", OFFER, b"")
    keys = {
        idempotency_key_for("s", OFFER, b""),
        idempotency_key_for("t", OFFER, b""),
        idempotency_key_for("s", other, b""),
        idempotency_key_for("s", OFFER, b"{}"),
        idempotency_key_for("\ud800", OFFER, b""),
    }
    assert len(keys) == 5

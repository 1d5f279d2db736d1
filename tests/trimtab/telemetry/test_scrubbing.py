"""Scrubbing: secrets go wherever they stand, and what is no secret stays."""

from __future__ import annotations

import json
import timeit
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.telemetry.scrubbing import HIDDEN, Scrubber, secrets_in

MADE_UP = (
    "sk-proj-Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA",
    "sk-ant-api03-abcDEF123456789_-xyzXYZ",
    "tt-0123456789abcdef0123",
    "gsk_abcdefghijklmnop12345678",
    "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
)
PLACES = (
    "{}",
    "the key {} is bad",
    "Incorrect API key provided: {}. You can find your key at https://x.example.",
    "Authorization: Bearer {}",
    "{{'authorization': 'Bearer {}', 'accept': '*/*'}}",
    "[(b'x-api-key', b'{}'), (b'host', b'h')]",
    '{{"error": {{"message": "no such key: {}"}}}}',
    "GET https://generativelanguage.googleapis.com/v1beta/models?key={}&alt=sse",
    "postgresql://user:{}@db.example/trimtab",
    "Provider(name='a', api_key='{}')",
    "ValueError({!r})",
)


@pytest.mark.parametrize("secret", MADE_UP)
@pytest.mark.parametrize("place", PLACES)
def test_what_looks_like_a_secret_goes(secret: str, place: str) -> None:
    told = Scrubber()(place.format(secret))
    assert secret not in told
    assert secret[8:] not in told
    assert HIDDEN in told


# A word that looks like nothing: only where it stands, or that it is known, can tell.
@pytest.mark.parametrize(
    "text",
    [
        "x-api-key: hunter2hunter2",
        "Authorization: Basic aHVudGVyMmh1bnRlcjI=",
        "authorization=hunter2hunter2",
        "https://user:hunter2hunter2@host/path",
        "?api_key=hunter2hunter2&model=m",
        '{"client_secret": "hunter2hunter2", "a": 1}',
        '{\\"api_key\\": \\"hunter2hunter2\\"}',
        "password='hunter2hunter2'",
        "Cookie: hunter2hunter2",
        "b'X-Goog-Api-Key', b'hunter2hunter2'",
        "access_token=hunter2hunter2",
    ],
)
def test_what_stands_where_secrets_stand_goes(text: str) -> None:
    told = Scrubber()(text)
    assert "hunter2" not in told
    assert "aHVudGVy" not in told


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=6, max_size=40))
def test_a_known_secret_goes_in_every_form(secret: str) -> None:
    if len(secret.strip()) < 6:
        return
    scrub, core = Scrubber([secret]), secret.strip()
    for form in (core, quote(core), quote(core, safe=""), repr(core)[1:-1]):
        assert scrub(f"<{form}>") in (f"<{HIDDEN}>", "<[secret]>")
    assert core not in scrub(f"before {core} after")
    assert core not in scrub("https://h/p?" + urlencode({"q": core}, quote_via=quote))


def test_what_is_no_secret_stays() -> None:
    for text in (
        "POST /v1/chat/completions 200",
        "the model gpt-6.1-sol answered 40 tokens in 12 ms for $0.0001",
        "task-force-one is no secret, neither is a risk-based approach",
        "Uvicorn running on http://127.0.0.1:8400 (Press CTRL+C to quit)",
        "min_coverage=0.95 keyboard=us monkey=1 max_tokens=100 input_tokens=40",
        "sk-1 and tt-2 are short",
        "request_id=req_0b8e6f7c0b8e6f7c0b8e6f7c0b8e6f7c receipt=rcpt_0b8e6f7c0b8e6f7c0b8e6f7c0b8e6f7c",
        "4bf92f3577b34da6a3ce929d0e0e4736 is a digest, and /v1/contexts/4bf92f3577b34da6a3ce929d0e0e4736 its path",
    ):
        assert Scrubber()(text) == text


def test_secrets_are_found_in_an_environment_by_name_and_by_mention() -> None:
    environ = {
        "OPENAI_API_KEY": "one",
        "DB_PASSWORD": "two",
        "AWS_SECRET_ACCESS_KEY": "three",
        "GITHUB_TOKEN": "four",
        "PATH": "/bin",
        "KEYBOARD": "us",
        "MY_ODD_NAME": "five",
    }
    assert sorted(secrets_in(environ, ["MY_ODD_NAME", "NOT_THERE"])) == sorted(["one", "two", "three", "four", "five"])


def test_a_short_value_is_no_secret_that_would_be_found_everywhere() -> None:
    assert Scrubber(["us", "1", ""])("us and 1") == "us and 1"


def test_json_stays_json() -> None:
    line = json.dumps({"a": "x-api-key: hunter2hunter2", "b": "Bearer abcdefgh1234"})
    assert json.loads(Scrubber()(line))["b"] == f"Bearer {HIDDEN}"


@pytest.mark.parametrize(
    "part", ["secret-", "a.", "api_key", "bearer ", "a://", "sk-", "eyJ", "key ", "'", " = ", "token=", "\\"]
)
def test_the_time_is_linear_in_what_a_caller_sends(part: str) -> None:
    scrub = Scrubber(["a known secret"])
    times = []
    for size in (4_000, 64_000):
        text = part * (size // len(part))
        times.append(min(timeit.repeat(lambda text=text: scrub(text), number=1, repeat=3)))  # type: ignore[misc]
    assert times[1] < 0.5 + 60 * times[0]  # 16 times the text; a quadratic one takes 256 times as long, and seconds

"""Secrets: strong ones are made and taken, weak ones refused, and none is kept or quoted."""

from __future__ import annotations

import secrets
import string
import uuid

import pytest

from trimtab.access.secrets import LEAST_BITS, check_strong, digest_of, estimated_bits, hint_of, new_secret
from trimtab.errors import BadRequest
from trimtab.telemetry.scrubbing import Scrubber

WEAK = (
    "short",
    "a" * 64,
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "passwordpasswordpasswordpassword",
    "correct-horse-battery-staple-again-and-again",
    "qwertyuiopasdfghjklzxcvbnm1234567890",
    "tt-test-key-for-the-billing-application",
    "ab12ab12ab12ab12ab12ab12ab12ab12",
    "with space " + "x9Kq" * 8,
)


@pytest.mark.parametrize("weak", WEAK)
def test_a_weak_key_is_refused_and_not_quoted(weak: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_strong(weak)
    assert refused.value.code == "weak_key"
    assert weak not in str(refused.value)


def test_keys_that_are_made_and_random_ones_are_strong() -> None:
    alphabet = string.ascii_letters + string.digits
    for _ in range(300):
        check_strong(new_secret())
        check_strong(uuid.uuid4().hex + uuid.uuid4().hex)
        check_strong("".join(secrets.choice(alphabet) for _ in range(40)))
    assert estimated_bits(new_secret()) > LEAST_BITS


def test_a_key_has_256_bits_and_its_digest_and_hint_do_not_give_it_away() -> None:
    secret = new_secret()
    assert secret.startswith("tt-")
    assert len(secret) == 46
    assert new_secret() != secret
    assert secret not in digest_of(secret)
    assert len(hint_of(secret)) == 7
    assert secret not in Scrubber()(f"Authorization: {secret} and {secret}")

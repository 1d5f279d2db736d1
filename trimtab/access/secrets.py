"""Secrets: how a key is made, told from a weak one, and recognised without being kept.

A key is kept as its SHA-256. A slow hash (bcrypt, argon2) protects what can be guessed, as passwords can; 256 random bits
cannot, however fast the hash is, and every request has to be looked up. That is also why a weak key of one's own choice is
refused: nothing would protect it.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from typing import Final

from trimtab.errors import BadRequest

PREFIX: Final = "tt-"
RANDOM_BYTES: Final = 32
LEAST_CHARACTERS, MOST_CHARACTERS = 24, 256
LEAST_BITS: Final = 72.0
_BITS_OF_A_WORDS_LETTER: Final = 1.5
"""Of English, by Shannon's measurement (Prediction and Entropy of Printed English, 1951), rounded up."""
_A_WORD: Final = 3
_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def new_secret() -> str:
    """A new key: "tt-" and 256 random bits."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(secret: str) -> str:
    """What is kept of a key, and what it is looked up by.

    The look-up is an index's, whose time may tell how far two digests agree. Nobody can steer a digest, so that tells
    nothing of a key.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hint_of(secret: str) -> str:
    """What may be shown of a key that we made: enough to tell it from others. Of 256 bits it gives away 24."""
    return secret[: len(PREFIX) + 4]


def check_strong(secret: str, param: str = "key") -> None:
    """Raises BadRequest for a key that could be guessed. The message does not quote it."""
    if not LEAST_CHARACTERS <= len(secret) <= MOST_CHARACTERS:
        reason = f"must have {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters; leave it out to have one made"
        raise BadRequest(param, reason, "weak_key")
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        raise BadRequest(param, "must be of printable ASCII characters without spaces", "weak_key")
    if (bits := estimated_bits(secret)) < LEAST_BITS:
        reason = f"could be guessed (about {bits:.0f} bits where {LEAST_BITS:.0f} are asked for); leave it out"
        raise BadRequest(param, f"{reason} to have one made", "weak_key")


def estimated_bits(secret: str) -> float:
    """A low estimate of how hard a key is to guess, in bits: words, rows of the keyboard, sequences and what is said twice
    count for little.

    >>> estimated_bits("a" * 60) < 20, estimated_bits("correct-horse-battery-staple-again") < 72
    (True, True)
    """
    kinds = len(set(secret))
    each = math.log2(kinds) if kinds > 1 else 0.0
    bits = 0.0
    for at, letter in enumerate(secret):
        if at and (_follows(secret, at) or (secret[at - 2 : at + 1] in secret[: at - 2] and at > 4)):
            continue
        bits += min(each, _BITS_OF_A_WORDS_LETTER) if letter.isalpha() and _in_word(secret, at) else each
    return bits


def _follows(secret: str, at: int) -> bool:
    """Whether a character is the next in a sequence: the same again, its neighbour, or the next key of the keyboard."""
    before, letter = secret[at - 1].lower(), secret[at].lower()
    return abs(ord(letter) - ord(before)) <= 1 or any(before + letter in row or letter + before in row for row in _ROWS)


def _in_word(secret: str, at: int) -> bool:
    """Whether a letter stands among so many of one case that they look like a word."""
    same = str.islower if secret[at].islower() else str.isupper
    first, last = at, at
    while first > 0 and same(secret[first - 1]):
        first -= 1
    while last + 1 < len(secret) and same(secret[last + 1]):
        last += 1
    return last + 1 - first >= _A_WORD

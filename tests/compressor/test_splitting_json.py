"""Splitting JSON: whatever a cut keeps of a value parses, and is a part of it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from compressor.splitting import split
from tests.compressor.made import WORDS, made, words
from tests.compressor.test_splitting import assert_sound, cuts_of, kinds_of, texts_of


def json_value(rng: random.Random, depth: int = 0) -> Any:
    roll = rng.random()
    if depth < 4 and roll < 0.35:
        return {f"{rng.choice(WORDS)}_{n}": json_value(rng, depth + 1) for n in range(rng.randint(0, 8))}
    if depth < 4 and roll < 0.6:
        return [json_value(rng, depth + 1) for _ in range(rng.randint(0, 10))]
    return rng.choice(
        [words(rng, 20), 'a "quoted", [x] {y}', "é\\n", rng.randint(-9, 10**9), rng.random(), True, None, ""]
    )


def json_document(rng: random.Random) -> str:
    value = {f"k{n}": json_value(rng) for n in range(rng.randint(2, 12))}
    return json.dumps(value, indent=rng.choice([None, 1, 4]), ensure_ascii=rng.random() < 0.5)


def is_part(part: Any, whole: Any) -> bool:
    """Whether `part` is `whole` with members left out, order kept."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return [k for k in whole if k in part] == list(part) and all(is_part(v, whole[k]) for k, v in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        rest = iter(whole)
        return all(any(is_part(v, w) for w in rest) for v in part)
    return bool(part == whole)


@pytest.mark.parametrize("text", made(json_document))
def test_json_parses_and_is_a_part_of_what_it_was(text: str) -> None:
    assert_sound(text)
    for kept in cuts_of(text):
        assert is_part(json.loads(kept), json.loads(text))


def test_json_lines_stay_json_lines() -> None:
    for seed, text in enumerate(made(lambda rng: "\n".join(json.dumps(json_value(rng, 2)) for _ in range(30)))):
        text = "\n".join(line for line in text.split("\n") if line[0] in "{[" and len(line) > 2)
        if text.count("\n") < 2:
            continue
        assert kinds_of(text) <= {"json", "json-open", "json-close"}
        originals = [json.loads(line) for line in text.split("\n")]
        for kept in cuts_of(text, seed):
            lines = iter(originals)
            assert all(any(is_part(json.loads(line), original) for original in lines) for line in kept.split("\n"))


def test_a_small_element_of_an_array_is_one_piece() -> None:
    records = [{"id": n, "name": "n" * 100, "tags": ["a", "b"], "note": "x" * 120} for n in range(5)]
    assert [json.loads(text) for text in texts_of(json.dumps(records))[1:-1]] == records


def test_numbers_in_an_array_stand_together() -> None:
    assert len(split(json.dumps(list(range(1000))))) < 60


def test_json_in_prose_is_told_from_brackets_in_prose() -> None:
    text = 'It said:\n{"a": 1, "b": 2}\nand [1] was cited.\n[2] See below.'
    assert [text[p.start : p.end] for p in split(text) if p.kind == "json"] == ['{"a": 1, "b": 2}']

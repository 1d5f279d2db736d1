"""What may be prepared on the event loop: as `prepare` prepares it, and nothing that takes long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trimtab import Trimtab

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How large may an upload be?"}]}
PROVIDER = {
    "name": "p",
    "kind": "openai",
    "base_url": "http://127.0.0.1:9/v1",
    "models": ["m", "gpt-4"],
    "prices": {"input_mtok": "1", "output_mtok": "1"},
}


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab(providers=[PROVIDER])


def test_it_is_what_prepare_makes(trimtab: Trimtab) -> None:
    at_once, usual = trimtab.prepared_at_once(BODY), trimtab.prepare(BODY)
    assert at_once is not None
    same = {"id": "", "at": None, "stage_ms": ()}
    assert replace(at_once.receipt, **same) == replace(usual.receipt, **same)
    assert (at_once.body, at_once.offers, at_once.chain) == (usual.body, usual.offers, usual.chain)


@pytest.mark.parametrize(
    "more",
    [
        {"trimtab": {"contexts": ["An upload may be 5 GB."]}},
        {"model": "gpt-4"},  # another tokenizer, which may not be loaded
        {"messages": [{"role": "user", "content": f"<document>{'Data is encrypted. ' * 40}</document>\n\nHow so?"}]},
    ],
)
def test_what_may_take_long_is_left_to_a_thread(trimtab: Trimtab, more: dict[str, Any]) -> None:
    assert trimtab.prepared_at_once({**BODY, **more}) is None

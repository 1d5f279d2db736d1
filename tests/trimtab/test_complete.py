"""`Trimtab.complete`: the whole way in one Python call."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from routing.errors import ProvidersFailed, UnknownModel
from tests.loopback import LoopbackProvider, ok, raw, status
from tests.trimtab.asking import CONTEXTS, QUESTION, chat, provider
from trimtab import BadRequest, Trimtab


def trimtab_of(server: LoopbackProvider, tmp_path: Path) -> Trimtab:
    return Trimtab(providers=[provider("local", server)], cache_dir=tmp_path, max_attempts=1)


def test_an_answer_comes_with_its_receipt(tmp_path: Path) -> None:
    with LoopbackProvider(script=[ok("5 GB.")]) as server:
        done = trimtab_of(server, tmp_path).complete(chat(trimtab={"contexts": CONTEXTS, "ratio": 0.5}))
    assert done.status == 200
    assert done.answer["choices"][0]["message"]["content"] == "5 GB."
    assert done.receipt.tokens_after is not None
    assert done.receipt.tokens_before is not None
    assert 0 < done.receipt.tokens_after <= done.receipt.tokens_before / 2
    assert done.receipt.billed_cost_usd is not None
    sent = server.requests[0].json["messages"]
    assert [m["content"] for m in sent][-1] == QUESTION
    assert "5 GB" in sent[-2]["content"]


def test_connections_may_be_kept_between_calls(tmp_path: Path) -> None:
    async def twice(trimtab: Trimtab) -> list[int]:
        async with trimtab.router() as router:
            return [(await trimtab.acomplete(chat(), router)).status for _ in range(2)]

    with LoopbackProvider() as server:
        assert asyncio.run(twice(trimtab_of(server, tmp_path))) == [200, 200]


def test_an_error_page_of_the_provider_is_told_in_our_shape(tmp_path: Path) -> None:
    with LoopbackProvider(script=[raw(b"<h1>no</h1>", content_type="text/html", status=422)]) as server:
        done = trimtab_of(server, tmp_path).complete(chat())
    assert done.status == 422
    assert done.answer["error"]["message"] == "<h1>no</h1>"


def test_what_cannot_be_answered_is_raised(tmp_path: Path) -> None:
    with LoopbackProvider(script=[status(500)]) as server:
        trimtab = trimtab_of(server, tmp_path)
        with pytest.raises(ProvidersFailed):
            trimtab.complete(chat())
        with pytest.raises(UnknownModel):
            trimtab.complete(chat(model="nobody-sells-this"))
        with pytest.raises(BadRequest, match="model"):
            trimtab.complete({"messages": []})

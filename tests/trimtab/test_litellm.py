"""LiteLLM itself, before a loopback provider: its asynchronous SDK, its router, and its proxy's hook."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing it fetches a file

import httpx
import litellm
import pytest
from litellm.proxy.types_utils.utils import get_instance_fn

from tests.loopback import LoopbackProvider
from tests.trimtab.payloads import EVIDENCE, QUESTION, asking, stuffed
from trimtab import Trimtab, TrimtabTransport
from trimtab.litellm import TrimtabHandler, trimtab_handler

# litellm's own types, as pydantic reads them when litellm imports a module of its at the first call
pytestmark = pytest.mark.filterwarnings("ignore:Items? .* `ReadOnly` qualifier:UserWarning")


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as server:
        yield server


@pytest.fixture
def handler(trimtab: Trimtab, monkeypatch: pytest.MonkeyPatch) -> TrimtabHandler:
    made = TrimtabHandler(trimtab)
    monkeypatch.setattr(litellm, "callbacks", [made])
    return made


def sent_text(provider: LoopbackProvider) -> str:
    assert provider.requests[-1].json.keys() == {"model", "messages"}
    return "".join(each["content"] for each in provider.requests[-1].json["messages"])


def test_the_sdk_sends_less(provider: LoopbackProvider, handler: TrimtabHandler) -> None:
    options = {"model": "openai/gpt-5-mini", "api_base": provider.base_url, "api_key": "k"}
    answer = asyncio.run(litellm.acompletion(**asking(**options), trimtab={"ratio": 0.3}))
    assert answer.choices[0].message.content == "Hello from loopback."
    assert EVIDENCE in sent_text(provider)
    assert len(sent_text(provider)) < 0.5 * len(stuffed())


def test_a_router_sends_less(provider: LoopbackProvider, handler: TrimtabHandler) -> None:
    params = {"model": "openai/gpt-5-mini", "api_base": provider.base_url, "api_key": "k"}
    router = litellm.Router([{"model_name": "mini", "litellm_params": params}])
    asyncio.run(router.acompletion("mini", asking()["messages"]))
    assert EVIDENCE in sent_text(provider)
    assert len(sent_text(provider)) < 0.7 * len(stuffed())


def test_options_that_cannot_be_are_a_bad_request(provider: LoopbackProvider, handler: TrimtabHandler) -> None:
    options = {"model": "openai/m", "api_base": provider.base_url, "api_key": "k", "trimtab": {"ratio": 2}}
    with pytest.raises(litellm.BadRequestError, match=r"trimtab\.ratio"):
        asyncio.run(litellm.acompletion(**asking(**options)))
    assert provider.requests == []


def test_the_synchronous_sdk_by_way_of_the_transport(
    provider: LoopbackProvider, trimtab: Trimtab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with httpx.Client(transport=TrimtabTransport(trimtab=trimtab)) as session:
        monkeypatch.setattr(litellm, "client_session", session)
        options = {"model": "openai/gpt-5-mini", "api_base": provider.base_url, "api_key": "k-of-this-test"}
        litellm.completion(**asking(**options))
    assert EVIDENCE in sent_text(provider)
    assert len(sent_text(provider)) < 0.7 * len(stuffed())


@pytest.mark.parametrize(("call", "place"), [("completion", "metadata"), ("anthropic_messages", "litellm_metadata")])
def test_the_proxys_hook(handler: TrimtabHandler, call: str, place: str) -> None:
    """What it gets and gives, as litellm/proxy/utils.py calls it; the SDK's hook then leaves it alone."""
    metadata = {"user_api_key": "hash"}
    data = {**asking(), place: metadata, "trimtab": {"ratio": 0.3}, "user": "ada"}

    async def both() -> tuple[Any, Any]:
        first = await handler.async_pre_call_hook(None, None, data, call)
        text = first["messages"][0]["content"]
        return text, (await handler.async_pre_call_deployment_hook(first, call))["messages"][0]["content"]

    text, again = asyncio.run(both())
    assert text == again
    assert EVIDENCE in text
    assert text.endswith(QUESTION)
    assert len(text) < 0.5 * len(stuffed())
    assert data.keys() == {"model", "messages", "user", place}
    assert data[place] is metadata
    assert metadata["user_api_key"] == "hash"
    assert metadata["trimtab"]["tokens_after"] < metadata["trimtab"]["tokens_before"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("call", "data"),
    [("embeddings", {"model": "m", "input": stuffed()}), ("moderation", asking()), ("completion", {"model": "m"})],
)
def test_other_calls_are_left_alone(handler: TrimtabHandler, call: str, data: dict[str, Any]) -> None:
    before = {**data}
    assert asyncio.run(handler.async_pre_call_hook(None, None, data, call)) == before


def test_a_defect_costs_no_answer(handler: TrimtabHandler, trimtab: Trimtab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(trimtab, "prepare", broken)
    data = asyncio.run(handler.async_pre_call_hook(None, None, asking(), "completion"))
    assert data["messages"] == asking()["messages"]
    assert "the original request was sent" in data["metadata"]["trimtab"]["notes"][0]


def test_a_proxys_config_can_name_it(tmp_path: Any) -> None:
    config = tmp_path / "config.yaml"
    config.touch()
    assert get_instance_fn("trimtab.litellm.trimtab_handler", str(config)) is trimtab_handler

"""What LiteLLM itself hands to its loggers is read as what was asked."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing it fetches a file

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger

from tests.loopback import LoopbackProvider
from trimtab.analysis import read

# litellm's own types, as pydantic reads them when litellm imports a module of its at the first call
pytestmark = pytest.mark.filterwarnings("ignore:Items? .* `ReadOnly` qualifier:UserWarning")

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How large may a file be?"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


class Logger(CustomLogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.payloads: list[Any] = []
        self.told = asyncio.Event()

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        if kwargs["messages"] == MESSAGES:  # LiteLLM tells late of calls that other tests made
            self.payloads.append(kwargs["standard_logging_object"])
            self.told.set()


def test_a_payload_of_litellm_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def payload() -> Any:
        logger = Logger()
        monkeypatch.setattr(litellm, "callbacks", [logger])
        with LoopbackProvider() as provider:
            await litellm.acompletion(
                model="openai/gpt-5-mini", messages=MESSAGES, tools=[TOOL], max_tokens=50, metadata={"tags": ["nightly-job"]},
                api_base=provider.base_url, api_key="sk-secret-0123456789abcdef",
            )  # fmt: skip
            await asyncio.wait_for(logger.told.wait(), 30)
        return logger.payloads[0]

    file = tmp_path / "litellm.jsonl"
    told = asyncio.run(payload())
    file.write_text(json.dumps(told, default=str) + "\n")
    (request,) = read(file, 10).requests
    assert (request.model, request.seller) == ("gpt-5-mini", "openai")
    assert request.body["messages"] == MESSAGES
    assert request.body["tools"] == [TOOL]
    assert request.usage is not None
    assert (request.usage.input_tokens, request.usage.output_tokens) == (
        told["prompt_tokens"],
        told["completion_tokens"],
    )
    assert request.at is not None
    assert "nightly-job" in request.signs
    assert "sk-secret" not in repr(request)

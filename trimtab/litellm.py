"""LiteLLM: a callback for its proxy and its SDK. `pip install 'trimtab[litellm]'`.

    litellm_settings:                            # the proxy's config.yaml
      callbacks: trimtab.litellm.trimtab_handler

    litellm.callbacks = [trimtab_handler]        # the SDK: acompletion(..., messages=...), and a Router's

LiteLLM shows its hooks only what is given by name. Its synchronous `completion` has no hook that could change a request;
there, the transport does it:
`litellm.client_session = httpx.Client(transport=TrimtabTransport())`.
"""

from __future__ import annotations

from typing import Any, Final

import anyio.to_thread

from compressor.payload import BadPayload
from routing.errors import RoutingError
from trimtab.errors import TrimtabError
from trimtab.pipeline import Trimtab
from trimtab.trimming import default_trimtab, trim

try:
    import litellm
    from litellm.integrations.custom_logger import CustomLogger
except ImportError as error:
    raise ImportError("trimtab.litellm needs LiteLLM: pip install 'trimtab[litellm]'") from error

_CALLS: Final = frozenset(("completion", "acompletion", "anthropic_messages"))
_READ: Final = ("model", "messages", "tools", "response_format", "max_tokens", "max_completion_tokens", "n", "trimtab")
_METADATA: Final = {"anthropic_messages": "litellm_metadata"}
"""Where LiteLLM keeps its own metadata of a call: `metadata` is a field of Anthropic's there."""


class TrimtabHandler(CustomLogger):
    """Trims the messages of a chat call before LiteLLM sends it, whichever provider it chooses.

    A `trimtab` object beside `messages` holds options, and does not reach the provider. The receipt, as far as it is known
    before the answer, is `metadata["trimtab"]`, from where LiteLLM's own logs take it. Raises litellm.BadRequestError
    where the options ask for what cannot be had; whatever else fails, the original messages are sent.
    """

    def __init__(self, trimtab: Trimtab | None = None) -> None:
        super().__init__()
        self._trimtab = trimtab

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """The proxy's hook, before a deployment is chosen, so that its limits count the tokens that are sent."""
        return await self._trimmed(data, call_type)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any]:
        """The SDK's hook. What the proxy's hook has trimmed already comes here too, and is left alone."""
        return await self._trimmed(kwargs, call_type)

    async def _trimmed(self, data: dict[str, Any], call_type: Any) -> dict[str, Any]:
        call = str(getattr(call_type, "value", call_type))
        place = _METADATA.get(call, "metadata")
        metadata = data.get(place) or {}
        if call not in _CALLS or not isinstance(data.get("messages"), list) or "trimtab" in metadata:
            return data
        # LiteLLM shows its hooks no positional argument: without the model's name, tokens are counted as by default
        body = {"model": "unknown"} | {name: data[name] for name in _READ if data.get(name) is not None}
        try:
            trimmed = await anyio.to_thread.run_sync(lambda: trim(self._trimtab or default_trimtab(), body))
        except (TrimtabError, RoutingError, BadPayload) as error:
            raise litellm.BadRequestError(str(error), model=str(data.get("model")), llm_provider="trimtab") from None
        # in place: LiteLLM's logging holds the same tables
        data.pop("trimtab", None)
        data["messages"] = trimmed.body["messages"]
        metadata["trimtab"] = trimmed.receipt.to_dict()
        data[place] = metadata
        return data


trimtab_handler = TrimtabHandler()

"""The adapters by the kind of provider, as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import httpx

from routing.batching.anthropic_batches import AnthropicBatches
from routing.batching.exchange import Exchange
from routing.batching.gemini_batches import GeminiBatches
from routing.batching.openai_batches import OpenAIBatches
from routing.batching.seam import BatchAdapter

if TYPE_CHECKING:
    from routing.catalog import Provider

ADAPTERS: Final[Mapping[str, Callable[[Exchange], BatchAdapter]]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
    "gemini": GeminiBatches,
}


def adapter_of(
    provider: Provider, client: httpx.AsyncClient, environ: Mapping[str, str] = os.environ
) -> BatchAdapter | None:
    """The provider's batch API over `client`; None where it has none (see `Provider.batches`)."""
    return ADAPTERS[provider.kind](Exchange(provider, client, environ)) if provider.serves_batches else None

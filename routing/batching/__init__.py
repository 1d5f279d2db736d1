"""Providers' batch APIs (OpenAI's, Anthropic's, Gemini's) behind one seam: see `seam` for the order of use."""

from routing.batching.adapters import adapter_of
from routing.batching.lines import prepared, told
from routing.batching.seam import BatchAdapter, BatchFailed, BatchLine, BatchResult, BatchState

__all__ = [
    "BatchAdapter",
    "BatchFailed",
    "BatchLine",
    "BatchResult",
    "BatchState",
    "adapter_of",
    "prepared",
    "told",
]

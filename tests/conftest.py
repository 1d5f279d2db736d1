"""What the tests share: one real encoder for a whole run, because loading the model takes seconds."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for a model hub, whatever it asks for

import tempfile

# Rich takes it for good when a console is made: a test that names a width of its own would not be heard.
os.environ.pop("COLUMNS", None)
# Nothing that a test leaves behind may land among the files of whoever runs it.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="trimtab-tests-")

import pytest
from hypothesis import settings

from retrieval import SentenceTransformerEncoder
from tests.servers import postgres_url, valkey_url  # noqa: F401 (fixtures of all tests)

# The same examples in every run, so that a red run means a change: `make fuzz` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def encoder() -> SentenceTransformerEncoder:
    """The default encoder: real weights, loaded at its first use."""
    return SentenceTransformerEncoder()


@pytest.fixture(autouse=True)
def each_library_has_its_own_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM points tiktoken at its own files when it is imported, and LlamaIndex then does not find those that it brings."""
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)

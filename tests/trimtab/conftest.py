"""What the tests of `trimtab` share: every Trimtab of theirs has the one real encoder, and a cache of the run's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from retrieval import SentenceTransformerEncoder
from trimtab import pipeline


@pytest.fixture(scope="session", autouse=True)
def one_encoder(encoder: SentenceTransformerEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    def make(model: str | None = None) -> SentenceTransformerEncoder:
        return encoder if model is None else SentenceTransformerEncoder(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "SentenceTransformerEncoder", make)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield

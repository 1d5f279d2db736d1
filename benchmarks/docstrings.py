"""A question set built at run time from the Python standard library's own docstrings: no file, no licence, no network.

Every answer is a sentence of a docstring about one parameter, a return value or an exception; the payload is that
docstring among its neighbours from the same module and from others. The text is hard-wrapped, full of names, and
never seen by whoever chose a weight. It changes with the Python version, so compare runs of equal digests.
"""

from __future__ import annotations

import ast
import inspect
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.questions import Dataset, Evidence, Question, digest_of
from compressor import Source

# fmt: off
MODULES = (
    "argparse", "ast", "asyncio/streams", "asyncio/tasks", "bisect", "calendar", "cmd", "codecs",
    "collections/__init__", "concurrent/futures/_base", "configparser", "contextlib", "copy", "csv", "datetime",
    "decimal", "difflib", "email/message", "fractions", "ftplib", "functools", "gettext", "glob", "gzip", "heapq",
    "http/client", "http/cookies", "imaplib", "importlib/util", "inspect", "ipaddress", "json/__init__",
    "linecache", "logging/__init__", "mailbox", "mimetypes", "multiprocessing/pool", "numbers", "operator", "os",
    "pathlib", "pickle", "platform", "plistlib", "posixpath", "pprint", "random", "sched", "selectors", "shelve",
    "shlex", "shutil", "smtplib", "socket", "sqlite3/dump", "statistics", "string", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "tokenize", "traceback", "typing", "unittest/case", "unittest/mock",
    "urllib/parse", "urllib/request", "uuid", "weakref", "webbrowser", "wsgiref/util", "xml/etree/ElementTree",
    "zipfile",
)
# fmt: on
QUESTIONS_PER_KIND = 15
CONTEXTS = 20
SEED = 20  # of the set itself: it is the same set whatever --seed says

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`(])|\n\s*\n")
_RAISES = re.compile(r"\b(?:raises?|raised)\b.*?\b([A-Z]\w*(?:Error|Exception|Warning|Stop\w+))")
_RETURNS = re.compile(r"^(?:Returns?|The return value)\b")


@dataclass(frozen=True, slots=True)
class _Documented:
    """A function or method with its docstring: `name` is dotted, module first."""

    module: str
    name: str
    parameters: tuple[str, ...]
    text: str

    @property
    def source(self) -> Source:
        return Source(self.name, self.text, self.name)


def stdlib_docstrings() -> Dataset:
    """Up to 45 questions of the kinds parameter, returns and raises, over 20 docstrings each."""
    # one of each text: an inherited docstring would be evidence and distractor at once
    documented = list({each.text: each for module in MODULES for each in _documented(module)}.values())
    dice = random.Random(SEED)
    questions = tuple(
        _question(kind, each, query, sentence, documented, dice)
        for kind in ("parameter", "returns", "raises")
        for each, query, sentence in _drawn(kind, documented, dice)
    )
    return Dataset("stdlib-docstrings", _digest(questions), questions)


def _documented(module: str) -> Iterator[_Documented]:
    file = Path(sysconfig.get_paths()["stdlib"]) / f"{module}.py"
    if not file.exists():  # a later Python may have moved it
        return
    dotted = module.replace("/", ".").removesuffix(".__init__")
    stack: list[tuple[str, ast.AST]] = [(dotted, ast.parse(file.read_text(encoding="utf-8")))]
    while stack:
        prefix, node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                stack.append((f"{prefix}.{child.name}", child))
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith("_"):
                text = inspect.cleandoc(ast.get_docstring(child) or "")
                names = tuple(a.arg for a in (*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs))
                if len(text) > 120:
                    yield _Documented(dotted, f"{prefix}.{child.name}", names, text)


def _drawn(kind: str, documented: list[_Documented], dice: random.Random) -> list[tuple[_Documented, str, str]]:
    found = [(each, *asked) for each in documented for asked in _askable(kind, each)[:1]]
    return dice.sample(found, min(QUESTIONS_PER_KIND, len(found)))


def _askable(kind: str, each: _Documented) -> list[tuple[str, str]]:
    """Questions of one kind that one docstring answers, each with the sentence that does. The first sentence, which
    every compressor keeps for its likeness to the name, is never it."""
    name = each.name.removeprefix(f"{each.module}.")
    out: list[tuple[str, str]] = []
    for sentence in [s.strip() for s in _SENTENCE_END.split(each.text)][1:]:
        if not 30 <= len(sentence) <= 400 or ">>>" in sentence:
            continue
        if kind == "raises" and (error := _RAISES.search(sentence)):
            out.append((f"When does {name} raise {error.group(1)}?", sentence))
        elif kind == "returns" and _RETURNS.match(sentence):
            out.append((f"What does {name} in the module {each.module} give back?", sentence))
        elif kind == "parameter":
            meant = next((p for p in each.parameters if len(p) > 3 and re.search(rf"\b{p}\b", sentence)), None)
            if meant:
                out.append((f"What is the argument {meant} of {name} for?", sentence))
    return out


def _question(
    kind: str, each: _Documented, query: str, sentence: str, documented: list[_Documented], dice: random.Random
) -> Question:
    near = [d for d in documented if d.module == each.module and d.text != each.text]
    far = [d for d in documented if d.module != each.module and d.text != each.text]
    others = dice.sample(near, min(len(near), CONTEXTS // 2))
    others += dice.sample(far, CONTEXTS - 1 - len(others))
    place = dice.randrange(CONTEXTS)
    dice.shuffle(others)
    contexts = [d.source for d in (*others[:place], each, *others[place:])]
    return Question(f"{kind}:{each.name}", query, tuple(contexts), (Evidence(place, sentence),), (), kind)


def _digest(questions: tuple[Question, ...]) -> str:
    rows = [[q.query, [c.text for c in q.contexts], [e.text for e in q.evidence]] for q in questions]
    return digest_of(json.dumps(rows).encode())

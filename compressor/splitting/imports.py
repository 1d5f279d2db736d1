"""Imports: what brings a name into a file of Python or JavaScript stays with what uses the name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from compressor.splitting.languages import PYTHON, SCRIPT, Language
from compressor.splitting.pieces import Piece

_PYTHON_IMPORT = re.compile(r"import\s+(?P<modules>[^#;]+)|from\s+\S+\s+import\s+(?P<names>[^;]+)")
_SCRIPT_IMPORT = re.compile(
    r"import\s+(?:type\s+)?(?P<names>[^'\"]+?)\s+from\b|(?:const|let|var)\s+(?P<modules>[^=]+?)\s*=\s*require\s*\("
)
_REMARK = re.compile(r"#[^\n]*|//[^\n]*|/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_$][\w$]*")
_MAX_IMPORT_CHARS = 4000


def imported_names(statement: str, language: Language) -> frozenset[str]:
    """The names that an import binds; none where the statement is no import.

    >>> sorted(imported_names("import os.path, numpy as np", PYTHON))
    ['np', 'os']
    """
    pattern = {PYTHON.name: _PYTHON_IMPORT, SCRIPT.name: _SCRIPT_IMPORT}.get(language.name)
    found = pattern.match(statement[:_MAX_IMPORT_CHARS]) if pattern else None
    if found is None:
        return frozenset()
    bound = _REMARK.sub("", found["modules"] or found["names"])
    parts = [(part, _WORD.findall(part)) for part in re.split(r"[,{}()]", bound)]
    # "numpy as np" and "{ a: b }" bind the last word, "os.path" the first
    return frozenset(words[0] if "." in part and "as" not in words else words[-1] for part, words in parts if words)


def with_imports(text: str, pieces: Sequence[Piece], language: Language) -> list[Piece]:
    """The pieces, each with the imports of the names in it, and in its skeleton, added to its skeleton."""
    bringing: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        if not piece.skeleton:
            for name in imported_names(text[piece.start : piece.end], language):
                bringing.setdefault(name, number)
    if not bringing:
        return list(pieces)
    imports = set(bringing.values())
    used = [{bringing[w] for w in set(_WORD.findall(text[p.start : p.end])) & bringing.keys()} for p in pieces]
    out = []
    for number, piece in enumerate(pieces):
        if number in imports:
            out.append(replace(piece, stub=""))
            continue
        needed = used[number].union(*(used[s] for s in piece.skeleton)) - {number}
        out.append(replace(piece, skeleton=(*piece.skeleton, *needed)) if needed else piece)
    return out

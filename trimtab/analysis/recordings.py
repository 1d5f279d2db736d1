"""Recordings: files of requests, read entry by entry, whatever recorder wrote them. A line that cannot be read is counted
and named, and costs no other."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from trimtab.analysis.recorded import Recorded
from trimtab.analysis.shapes import SHAPES, shape_of
from trimtab.errors import TrimtabError

MAX_DOCUMENT_BYTES: Final = 512 * 2**20
"""Of a file that is one JSON value and so is held whole; lines of JSON may be of any number."""

MAX_LINE_CHARS: Final = 64 * 2**20
ENDINGS: Final = (".json", ".jsonl", ".ndjson", ".har", ".json.gz", ".jsonl.gz", ".ndjson.gz", ".har.gz")


class BadRecording(TrimtabError, ValueError):
    """A file that cannot be analysed. The message names the file and the fix, and quotes nothing of it."""


@dataclass(slots=True)
class Recording:
    """What was read. `shapes` counts the entries of each; `passed` those that are no request to analyse; `problems` say of
    each other one where it stands and what is wrong. `more`: the limit was reached, and the rest was not read."""

    requests: list[Recorded] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    shapes: Tally[str] = field(default_factory=Tally)
    passed: int = 0
    more: bool = False


def read(source: Path, limit: int, told: Callable[[int], None] = lambda _: None) -> Recording:
    """The first `limit` requests of a file, or of all files in a folder. `told` hears how many bytes were read since it was
    told before. Raises BadRecording."""
    recording = Recording()
    files = recording_files(source)
    for file in files:
        name = f"{file.relative_to(source)} " if source.is_dir() else ""
        try:
            for place, entry in _entries(file, told):
                if len(recording.requests) >= limit:
                    recording.more = True
                    return recording
                _take(recording, entry, f"{name}{place}")
        except BadRecording as error:
            if not source.is_dir() and not recording.requests:
                raise
            recording.problems.append(str(error))
    if not recording.requests and not recording.passed and (recording.problems or not recording.shapes):
        known = "\n".join(f"  - {shape.name}" for shape in SHAPES)
        first = f" ({recording.problems[0]})" if recording.problems else ""
        raise BadRecording(
            f"{source.name}: holds no request of a known shape{first}. What can be read, as JSON or JSON lines:\n{known}"
        )
    return recording


def recording_files(source: Path) -> tuple[Path, ...]:
    """The file, or every file of a folder that may hold requests. Raises BadRecording."""
    if not source.exists():
        raise BadRecording(f"{source}: there is no such file or folder")
    if source.is_file():
        return (source,)
    files = tuple(sorted(each for each in source.rglob("*") if each.is_file() and each.name.lower().endswith(ENDINGS)))
    if not files:
        raise BadRecording(f"{source}: holds no file that ends in {', '.join(ENDINGS)}")
    return files


def _take(recording: Recording, entry: object, where: str) -> None:
    if isinstance(entry, _Broken):
        recording.problems.append(f"{where}: {entry.why}")
        return
    if not isinstance(entry, Mapping):
        recording.problems.append(f"{where}: is no JSON object")
        return
    shape = shape_of(entry)
    if shape is None:
        recording.problems.append(f"{where}: is of no known shape")
        return
    try:
        request = shape.read(entry, where)
    except ValueError as error:
        recording.problems.append(f"{where}: {error}")
        return
    if request is None:
        recording.passed += 1
    else:
        recording.shapes[shape.name] += 1
        recording.requests.append(request)


@dataclass(frozen=True, slots=True)
class _Broken:
    """An entry that cannot be read, and why."""

    why: str


def _entries(file: Path, told: Callable[[int], None]) -> Iterator[tuple[str, object]]:
    """Every entry with its place: the lines of a file of lines, else the elements of the one value that it is."""
    try:
        with _opened(file) as text:
            lines = _is_lines(file.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson")), text)
        yield from _from_lines(file, told) if lines else _from_document(file, told)
    except OSError as error:
        raise BadRecording(f"{file.name}: cannot be read ({error.strerror or 'damaged'})") from None
    except (EOFError, zlib.error):
        raise BadRecording(f"{file.name}: cannot be read to its end (damaged, or cut off)") from None


def _opened(file: Path) -> IO[str]:
    """As UTF-8. Bytes that are none become lone surrogates, by which `_parsed` knows them: one bad line costs no other."""
    if file.name.lower().endswith(".gz"):
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="surrogateescape")
    return file.open(encoding="utf-8-sig", errors="surrogateescape")


def _is_lines(named_so: bool, text: IO[str]) -> bool:
    """Whether each line is a value of its own. A document may be one line too, and lines may be broken; but a document that
    goes on begins with a bracket that its first line does not close, and indents what follows, or begins a list."""
    filled = (line.strip() for line in _bounded(text) if line.strip())
    first, second = next(filled, ""), next(filled, "")
    value = _parsed(first)
    if not isinstance(value, _Broken):
        return named_so or (isinstance(value, Mapping) and bool(second))
    return not first.startswith("[") and second.startswith("{")


def _from_lines(file: Path, told: Callable[[int], None]) -> Iterator[tuple[str, object]]:
    with _opened(file) as text:
        for number, line in enumerate(_bounded(text), 1):
            told(len(line))
            if line.strip():
                yield f"line {number}", _parsed(line)


def _bounded(text: IO[str]) -> Iterator[str]:
    while line := text.readline(MAX_LINE_CHARS):
        yield line


def _parsed(text: str) -> object:
    try:
        text.encode()
        return json.loads(text)
    except UnicodeEncodeError:
        return _Broken("is not UTF-8 text")
    except RecursionError:
        return _Broken("is nested too deeply")
    except ValueError:
        return _Broken("is not JSON")


def _from_document(file: Path, told: Callable[[int], None]) -> Iterator[tuple[str, object]]:
    if file.stat().st_size > MAX_DOCUMENT_BYTES:
        raise BadRecording(
            f"{file.name}: is one JSON value of more than {MAX_DOCUMENT_BYTES // 2**20} MB; write it as lines, one request each "
            "(jq -c '.[]')"
        )
    with _opened(file) as whole:
        text = whole.read()
    told(len(text))
    value = _parsed(text) if text.strip() else _Broken("is empty")
    if isinstance(value, _Broken):
        raise BadRecording(f"{file.name}: {value.why}{', neither as a whole nor line by line' if text.strip() else ''}")
    for number, entry in enumerate(_elements(value), 1):
        yield f"entry {number}", entry


_LISTS: Final = ("data", "observations", "logs", "requests", "entries", "results")


def _elements(value: Any) -> list[Any]:
    """The list that a document is or holds; a single request is a list of one."""
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        log = value.get("log")
        if isinstance(log, Mapping) and isinstance(log.get("entries"), list):
            return list(log["entries"])
        if shape_of(value) is None:
            for name in _LISTS:
                if isinstance(value.get(name), list):
                    return list(value[name])
    return [value]

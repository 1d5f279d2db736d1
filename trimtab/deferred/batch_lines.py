"""Lines: a batch's input, read line by line. What is wrong with a line is said of that line, and the rest is unharmed.

OpenAI fails a whole batch for one bad line. Here the good lines are processed, and a bad one comes back in the error file
under its `custom_id`: whoever sends 50,000 lines wants 49,999 answers, and a client that reads OpenAI's error file reads
this one. A file without a good line fails as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO, Final

import orjson

from trimtab.errors import BadRequest
from trimtab.options import Options, read_options
from trimtab.surfaces import SURFACES, Surface

MAX_LINES: Final = 50_000
"""OpenAI's limit."""
MAX_CUSTOM_ID_CHARACTERS: Final = 512

ENDPOINTS: Final = {surface.path: surface for surface in SURFACES}
"""What a batch may ask, by path."""

CheckUrl = Callable[[str, str], str]
"""Gives a callback's address as it is to be called. Raises BadRequest, naming the parameter, for one that may not be."""

_BOM: Final = b"\xef\xbb\xbf"
_SKIPPED_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """A request. `number` counts from 1; `body` is JSON, its `trimtab` object being the batch's and the line's own, and
    `options` the same, read. `callback_url` is as it is to be called."""

    number: int
    custom_id: str
    body: bytes
    options: Options
    callback_url: str | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is none, and why. `custom_id` is None where it has none that can be read."""

    number: int
    custom_id: str | None
    code: str
    message: str
    param: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As OpenAI lists the errors of a batch."""
        return {"code": self.code, "line": self.number, "message": self.message, "param": self.param}


class _Bad(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def count_lines(file: BinaryIO, stop_at: int) -> int:
    """How many lines of a file are not blank, counted up to `stop_at`."""
    count, blank = 0, True
    while part := file.readline(_SKIPPED_BYTES):
        blank = blank and not part.strip().removeprefix(_BOM)
        if part.endswith(b"\n"):
            count += not blank
            blank = True
        if count >= stop_at:
            return count
    return count + (not blank)


def read_lines(
    file: BinaryIO, surface: Surface, options: Mapping[str, Any], max_line_bytes: int, check_url: CheckUrl
) -> Iterator[Line | BadLine]:
    """The lines of a file in order, blank ones left out. Of lines with the same `custom_id` the first counts.

    `options` is a `trimtab` object for every line; what a line's own says goes before it. Holds one line in memory, and 16
    bytes of each `custom_id`.
    """
    known: set[bytes] = set()
    for number, raw in _numbered(file, max_line_bytes):
        custom_id = None
        try:
            if raw is None:
                raise _Bad("line_too_long", f"This line is longer than {max_line_bytes:,} bytes.")
            table = _table(raw)
            custom_id = _custom_id(table)
            digest = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if digest in known:
                reason = f"The custom_id {custom_id[:80]!r} was used by a line before; the first one counts."
                raise _Bad("duplicate_custom_id", reason, "custom_id")
            known.add(digest)
            body, read, callback_url = _body(table, surface, options, check_url)
        except _Bad as bad:
            yield BadLine(number, custom_id, bad.code, str(bad), bad.param)
        else:
            yield Line(number, custom_id, body, read, callback_url)


def _numbered(file: BinaryIO, max_line_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not blank, with their numbers; None for one that is too long to be held."""
    number = 0
    while raw := file.readline(max_line_bytes + 1):
        number += 1
        if len(raw) > max_line_bytes and not raw.endswith(b"\n"):
            while (rest := file.readline(_SKIPPED_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif content := (raw.removeprefix(_BOM) if number == 1 else raw).strip():
            yield number, content


def _table(raw: bytes) -> dict[str, Any]:
    try:
        table = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = f"This line is not parseable as valid JSON ({error.msg}, at character {error.pos:,})."
        raise _Bad("invalid_json_line", reason) from None
    if not isinstance(table, dict):
        raise _Bad("invalid_json_line", "This line is not a JSON object.")
    return table


def _custom_id(table: Mapping[str, Any]) -> str:
    custom_id = table.get("custom_id")
    if custom_id is None:
        raise _Bad("missing_custom_id", "This line has no custom_id; give each line one of its own.", "custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARACTERS or "\0" in custom_id:
        reason = f"The custom_id must be a text of 1 to {MAX_CUSTOM_ID_CHARACTERS} characters."
        raise _Bad("invalid_custom_id", reason, "custom_id")
    return custom_id


def _body(
    table: Mapping[str, Any], surface: Surface, options: Mapping[str, Any], check_url: CheckUrl
) -> tuple[bytes, Options, str | None]:
    if table.get("method") != "POST":
        raise _Bad("invalid_method", 'The method must be "POST".', "method")
    if table.get("url") != surface.path:
        reason = f"The url must be the batch's endpoint, {surface.path}; send other endpoints as batches of their own."
        raise _Bad("url_mismatch", reason, "url")
    body = table.get("body")
    if not isinstance(body, dict):
        raise _Bad("invalid_body", "The body must be a JSON object.", "body")
    if body.get("stream") not in (None, False):
        raise _Bad("stream_not_supported", "A batch cannot stream; leave stream out.", "body.stream")
    own = body.get("trimtab")
    if options and (own is None or isinstance(own, dict)):
        body = {**body, "trimtab": {**options, **(own or {})}}
    try:
        read = read_options(body)
        url = None if read.callback_url is None else check_url(read.callback_url, "trimtab.callback_url")
        # a copy, since what orjson writes keeps a buffer many times its length
        return bytes(memoryview(orjson.dumps(body))), read, url
    except BadRequest as error:
        raise _Bad(error.code, str(error), f"body.{error.param}" if error.param else "body") from None
    except TypeError:  # orjson writes fewer levels than it reads
        raise _Bad("invalid_body", "The body is nested too deeply; send it with fewer levels.", "body") from None

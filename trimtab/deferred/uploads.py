"""Uploads: a file as OpenAI's clients send it, multipart/form-data, on its way to disk. Never whole in memory.

python-multipart parses; Starlette's own form reader is not used because it spools to a folder of the system's, which may
be memory, from where a file would have to be copied, and it has no limit for a file's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from trimtab.deferred.files import KEPT_S, Writing
from trimtab.errors import BadRequest
from trimtab.http import in_thread

MAX_FIELD_BYTES: Final = 4096
MAX_FIELDS: Final = 20
MAX_FILENAME_CHARACTERS: Final = 255

_LIFETIME_S: Final = (3600, 30 * 24 * 3600)
"""OpenAI's least and most."""
_BESIDE_BYTES: Final = 64 * 1024
"""Room for what is in a form besides the file."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What came beside the bytes."""

    filename: str
    purpose: str
    lifetime_s: int


async def receive(request: Request, writing: Writing, max_bytes: int) -> Upload:
    """Write the file of a form to `writing`, and give what the form says of it. Raises BadRequest."""
    form = _Form(_boundary(request), max_bytes)
    if int(request.headers.get("content-length") or 0) > max_bytes + _BESIDE_BYTES:
        raise _too_large(max_bytes)  # before a byte of it is read
    async for chunk in request.stream():
        if parts := form.feed(chunk):
            await in_thread(partial(writing.write, b"".join(parts)))
    return form.end()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        reason = "a file is sent as multipart/form-data with a boundary, as OpenAI's clients do it"
        raise BadRequest(None, reason, "unsupported_media_type", status=415)
    # A web page can make its visitor's browser send a form anywhere without asking.
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise BadRequest(None, "another site's page may not upload files here", "cross_site", status=403)
    return options[b"boundary"]


@dataclass(slots=True)
class _Part:
    """One part of the form, as far as it has come."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    filename: str | None = None
    value: bytearray = field(default_factory=bytearray)


class _Form:
    """A parser with its callbacks: takes the request's chunks, gives the file's."""

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._fields: dict[str, str] = {}
        self._filename: str | None = None
        self._part = _Part()
        self._header = (bytearray(), bytearray())
        self._ready: list[bytes] = []
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._ends,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from None

    def feed(self, chunk: bytes) -> list[bytes]:
        """What is in `chunk` of the file. Raises BadRequest."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(error) from None
        ready, self._ready = self._ready, []
        return ready

    def end(self) -> Upload:
        if not self._ended:
            raise BadRequest(None, "the form ends before its last boundary; send it whole", "invalid_form")
        if self._filename is None:
            raise BadRequest("file", "is missing: send the file as a part with a filename")
        return Upload(self._filename, purpose_of(self._fields.get("purpose")), _lifetime_s(self._fields))

    def _part_begins(self) -> None:
        self._part = _Part()

    def _header_ends(self) -> None:
        name, value = self._header
        self._part.headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            return
        if self._part.name != "file" or self._filename is not None:
            raise BadRequest("file", "send one file, as the part called file", "invalid_form")
        self._part.filename = self._filename = _clean(options[b"filename"])

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = data[start:end]
        if self._part.filename is None:
            self._part.value += part
            if len(self._part.value) > MAX_FIELD_BYTES:
                raise BadRequest(
                    self._part.name[:100] or None, "is too long for a field of this form; send the file as a file"
                )
            return
        self._size_bytes += len(part)
        if self._size_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._ready.append(part)

    def _part_ends(self) -> None:
        if self._part.filename is None:
            self._fields[self._part.name] = self._part.value.decode("utf-8", "replace")
            if len(self._fields) > MAX_FIELDS:
                raise BadRequest(None, f"the form has more than {MAX_FIELDS} fields", "invalid_form")

    def _ends(self) -> None:
        self._ended = True


def purpose_of(said: str | None) -> str:
    """The purpose of an upload. Raises BadRequest for one that is not "batch"."""
    if said == "batch":
        return said
    if said is None:
        raise BadRequest("purpose", 'is missing; send "batch", the one purpose that is supported here')
    reason = f'{said[:40]!r} is not supported here; send "batch" (files of purpose batch_output are written by batches)'
    raise BadRequest("purpose", reason)


def lifetime_s(anchor: object, seconds: object, at: str) -> int:
    """The seconds of OpenAI's `expires_after`, whose path is `at`. Raises BadRequest."""
    least, most = _LIFETIME_S
    if anchor != "created_at":
        raise BadRequest(f"{at}.anchor", "must be created_at")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not least <= seconds <= most:
        raise BadRequest(f"{at}.seconds", f"must be a whole number from {least:,} to {most:,} (1 hour to 30 days)")
    return seconds


def _lifetime_s(fields: Mapping[str, str]) -> int:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return KEPT_S
    whole = seconds is not None and seconds.isascii() and seconds.isdigit() and len(seconds) < 10
    return lifetime_s(anchor, int(seconds) if whole and seconds else None, "expires_after")


def _clean(filename: bytes) -> str:
    """A caller's name for its file, for show: the last part of a path, no control characters, and not endless."""
    name = filename.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in name if each.isprintable())[:MAX_FILENAME_CHARACTERS] or "upload"


def _too_large(max_bytes: int) -> BadRequest:
    reason = f"is larger than {max_bytes:,} bytes, the most that a batch may have; send it as several"
    return BadRequest("file", reason, "file_too_large", status=413)


def _malformed(error: FormParserError) -> BadRequest:
    return BadRequest(None, f"the body is not multipart/form-data ({str(error)[:200]})", "invalid_form")

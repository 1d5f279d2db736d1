"""Logs: one handler for the records of every library in the process, as text or as JSON lines, without secrets.

What a handler writes is scrubbed after it is formatted: whatever a record is made of, headers, an exception, a repr, a
URL of another library, it has become that text. Nor is a prompt in it: ours is never logged, and what an exception says
is left out where it may quote one, unless the level is debug.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from opentelemetry import trace

from routing.errors import RoutingError
from trimtab.errors import BadSettings
from trimtab.settings import Settings
from trimtab.telemetry import request_ids
from trimtab.telemetry.scrubbing import Scrubber, secrets_in

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

FIELDS: Final = "fields"
"""The name under which a record may carry more: `logger.info("...", extra={FIELDS: {"status": 200}})`."""

_KNOWN_WORDS: Final = 1024
_WORD_CHARACTERS: Final = 64

_SAYS_NO_PROMPT: Final = (OSError, BadSettings, RoutingError)
"""Errors whose text is the system's or our own, and is of use to an operator."""

_CHATTY: Final = ("httpx", "httpcore", "hpack", "urllib3", "filelock", "asyncio", "multipart", "markdown_it", "numba")
"""Libraries that tell each call at info, or all they do at debug: they are heard from "warning" on, unless the level is debug
(then httpx and asyncio speak too; httpcore prints the headers of every call)."""


def configure_logging(
    form: LogFormat = "text",
    level: LogLevel = "info",
    *,
    secrets_from: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
    stream: TextIO | None = None,
) -> None:
    """Make the root logger write to `stream` (standard error), in place of whatever handlers it had.

    `secrets_from` are variables whose values must never be written, beside those whose names say that they are secret.
    """
    scrub = Scrubber(secrets_in(environ, secrets_from))
    with_exception_text = level == "debug"
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter((JsonLines if form == "json" else TextLines)(scrub, with_exception_text=with_exception_text))
    root = logging.getLogger()
    for before in tuple(root.handlers):
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _CHATTY:
        heard = logging.NOTSET if level == "debug" and name in ("httpx", "asyncio") else logging.WARNING
        logging.getLogger(name).setLevel(heard)


def secret_variables(settings: Settings) -> tuple[str, ...]:
    """The variables of the environment that hold what these settings need and nobody may see."""
    of_providers = [provider.api_key_env for provider in settings.providers]
    of_ours = [getattr(settings, each.name) for each in fields(settings) if each.name.endswith("_env")]
    return tuple(name for name in (*of_providers, *of_ours) if name)


class _Lines(logging.Formatter):
    """One record, one line, without secrets."""

    def __init__(self, scrub: Scrubber, *, with_exception_text: bool = False) -> None:
        super().__init__()
        self._scrub = scrub
        # Measured: scrubbing was two thirds of a line's cost, and most of its words are those of the line before.
        self._known_words = functools.lru_cache(_KNOWN_WORDS)(scrub)
        self._with_exception_text = with_exception_text

    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the line says, in order."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = record.getMessage()
        if record.name == "asyncio" and not self._with_exception_text:
            message = message.partition("\n")[0]  # what follows is the repr of a task, and its exception's text
        parts: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": message}
        if request_id := request_ids.current():
            parts["request_id"] = request_id
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            parts["trace_id"] = trace.format_trace_id(context.trace_id)
            parts["span_id"] = trace.format_span_id(context.span_id)
        more = getattr(record, FIELDS, None)
        if isinstance(more, Mapping):
            parts |= {name: value for name, value in more.items() if value is not None}
        if record.exc_info and record.exc_info[1] is not None:
            parts["exception"] = self._told(record.exc_info[1])
        return parts

    def _clean(self, text: str) -> str:
        return self._known_words(text) if len(text) <= _WORD_CHARACTERS else self._scrub(text)

    def _told(self, error: BaseException) -> str:
        """The traceback, with what each exception says only where that can quote no prompt."""
        if self._with_exception_text:
            return "".join(traceback.format_exception(error)).rstrip()
        return "\n".join(_silent(error, set()))


class JsonLines(_Lines):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        # Scrubbed value by value, so that no replacement can break the JSON.
        scrubbed = {name: self._value(value) for name, value in self.parts(record).items()}
        return json.dumps(scrubbed, ensure_ascii=False, default=lambda value: self._scrub(str(value)))

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self._clean(value)
        return _each(value, self._scrub)


def _each(value: object, change: Callable[[str], str]) -> object:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(name)): _each(one, change) for name, one in value.items()}
    return [_each(one, change) for one in value] if isinstance(value, (list, tuple)) else value


class TextLines(_Lines):
    """A record as a line to be read: time, level, logger, message, and name=value for all else."""

    def format(self, record: logging.LogRecord) -> str:
        parts = self.parts(record)
        head = f"{parts.pop('at')} {parts.pop('level').upper():<7} {parts.pop('logger')}: "
        message, exception = parts.pop("message"), parts.pop("exception", "")
        words = (_plain(message), *(f"{name}={_word(value)}" for name, value in parts.items()))
        line = head + " ".join(map(self._clean, words))  # word by word: no name and no value is broken at a space
        return f"{line}\n{self._scrub(exception)}" if exception else line


def _plain(text: str) -> str:
    """The text on one line: a line break in a path or a header must not begin a line of its own in the log."""
    if text.isprintable():  # nearly all of them
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _word(value: object) -> str:
    text = _plain(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text


def _silent(error: BaseException, seen: set[int]) -> list[str]:
    """A traceback's lines as Python writes them, those behind it first; what an exception says is counted only.

    Not traceback.TracebackException, which has no way but a private one to leave that out.
    """
    seen.add(id(error))
    lines: list[str] = []
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if behind is not None and id(behind) not in seen:
        lines += [*_silent(behind, seen), "", "and then:", ""]
    lines += ["Traceback (most recent call last):", *"".join(traceback.format_tb(error.__traceback__)).splitlines()]
    said = str(error)
    if said and not isinstance(error, _SAYS_NO_PROMPT):
        said = f"[{len(said):,} characters, told at level debug]"
    name = type(error).__qualname__
    lines.append(f"{name}: {said}" if said else name)
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        if id(each) not in seen:
            lines += [f"  | {line}" for line in _silent(each, seen)]
    return lines

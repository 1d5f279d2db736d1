"""Chat fields: a caller's JSON object, read a field at a time, so that nothing in it can be overlooked.

Pure. Every refusal is an UnsupportedParameter that names the field by its path and quotes none of its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.errors import UnsupportedParameter

_SHOWN_CHARACTERS: Final = 80
"""Of a field's name in a message; a caller can send names of any length."""


class Fields:
    """One JSON object at `path`. Each reader takes its field out, and `close()` refuses what nobody has taken.

    null counts as absent, as OpenAI has it. Every reader raises UnsupportedParameter for a value of another kind.

    >>> fields = Fields({"n": 2, "seed": None, "logit_bias": {}}, "")
    >>> fields.whole("n", least=1)
    2
    >>> fields.close()
    Traceback (most recent call last):
    ...
    routing.errors.UnsupportedParameter: logit_bias: is not known here, and nothing is dropped silently
    """

    __slots__ = ("_left", "_path")

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise UnsupportedParameter(path, "must be an object")
        self._path = path
        self._left: dict[str, Any] = {name: each for name, each in value.items() if each is not None}

    def path(self, name: str) -> str:
        shown = name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..."
        return f"{self._path}.{shown}" if self._path else shown

    def refuse(self, name: str, reason: str) -> UnsupportedParameter:
        """The error to raise for the field `name`."""
        return UnsupportedParameter(self.path(name), reason)

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def ignore(self, *names: str) -> None:
        """Take fields out that ask for nothing: each call says why in a comment."""
        for name in names:
            self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is None or isinstance(value, str):
            return value
        raise self.refuse(name, "must be a text")

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise self.refuse(name, "must be a text that is not empty")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.take(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.refuse(name, "must be true or false")

    def whole(self, name: str, *, least: int | None = None) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
            raise self.refuse(name, "must be a whole number" + ("" if least is None else f" of {least} or more"))
        return value

    def number(self, name: str, *, neutral: float) -> float | None:
        """A number; `neutral` is the value that asks for nothing, and counts as absent."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.refuse(name, "must be a number")
        return None if value == neutral else value

    def rows(self, name: str) -> tuple[Any, ...]:
        value = self.take(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise self.refuse(name, "must be an array")
        return tuple(value)

    def choice(self, name: str, *choices: str) -> str | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str) or value not in choices:
            raise self.refuse(name, f"must be one of {', '.join(choices)}")
        return value

    def only(self, name: str, *neutral: object) -> None:
        """Refuse any value but those that ask for nothing."""
        value = self.take(name)
        if value is not None and not any(value == each and type(value) is type(each) for each in neutral):
            raise self.refuse(name, "has no counterpart in this provider's API")

    def close(self) -> None:
        for name in self._left:
            raise self.refuse(name, "is not known here, and nothing is dropped silently")

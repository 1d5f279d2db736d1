"""Chat parts: the pieces of a message's content in OpenAI's shape: text, images, files and sound.

Pure. An address is passed on and never fetched here. What was sent as data: stays base64, checked and not unpacked.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from routing.chat_fields import Fields
from routing.errors import UnsupportedParameter

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)((?:;[\w=.+-]+)*);base64,", re.ASCII)
_WEB_URL: Final = re.compile(r"https?://[^\s]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message's content, at `path` in the caller's body.

    `text` for kind "text". For the others either `data` (base64, as it came) or `url`; `media_type` is None for a url.
    `detail` is an image's, `name` a file's.
    """

    kind: Literal["text", "image", "file", "audio"]
    path: str
    text: str = ""
    media_type: str | None = None
    data: str = ""
    url: str = ""
    detail: str | None = None
    name: str | None = None
    cache_control: Mapping[str, Any] | None = None

    @property
    def decoded(self) -> bytes:
        return b64decode(self.data, validate=True)


def read_parts(fields: Fields, path: str, role: str) -> tuple[Part, ...]:
    """The content of the message at `path`; nothing for content that is missing or empty."""
    content = fields.take("content")
    if content is None:
        return ()
    if isinstance(content, str):
        return (Part("text", f"{path}.content", content),) if content else ()
    if not isinstance(content, list | tuple):
        raise fields.refuse("content", "must be a text or an array")
    return tuple(_part(each, f"{path}.content[{at}]", role) for at, each in enumerate(content))


def _part(value: object, path: str, role: str) -> Part:
    fields = Fields(value, path)
    kinds = ("text", "image_url", "file", "input_audio") if role in ("user", "tool") else ("text", "refusal")
    kind = fields.choice("type", *kinds)
    cache_control = read_cache_control(fields)
    if kind == "text" or kind == "refusal":
        part = Part("text", path, fields.text(kind) or "", cache_control=cache_control)
    elif kind is None:
        raise fields.refuse("type", "is missing")
    else:
        part = _MEDIA[kind](Fields(fields.take(kind), f"{path}.{kind}"), f"{path}.{kind}", cache_control)
    fields.close()
    return part


def _image(fields: Fields, path: str, cache_control: Mapping[str, Any] | None) -> Part:
    url = fields.required_text("url")
    detail = fields.choice("detail", "auto", "low", "high", "original")
    fields.close()
    detail = None if detail == "auto" else detail
    if _WEB_URL.fullmatch(url):
        return Part("image", path, url=url, detail=detail, cache_control=cache_control)
    media_type, data = _data_url(url, f"{path}.url")
    return Part("image", path, media_type=media_type, data=data, detail=detail, cache_control=cache_control)


def _file(fields: Fields, path: str, cache_control: Mapping[str, Any] | None) -> Part:
    if fields.take("file_id") is not None:
        raise fields.refuse("file_id", "is a file of another provider's account")
    media_type, data = _data_url(fields.required_text("file_data"), f"{path}.file_data")
    name = fields.text("filename")
    fields.close()
    return Part("file", path, media_type=media_type, data=data, name=name or None, cache_control=cache_control)


def _audio(fields: Fields, path: str, cache_control: Mapping[str, Any] | None) -> Part:
    sound = fields.choice("format", "wav", "mp3")
    data = _base64(fields.required_text("data"), f"{path}.data")
    if sound is None:
        raise fields.refuse("format", "is missing")
    fields.close()
    return Part("audio", path, media_type=f"audio/{sound}", data=data, cache_control=cache_control)


_MEDIA: Final = {"image_url": _image, "file": _file, "input_audio": _audio}


def _data_url(url: str, path: str) -> tuple[str, str]:
    found = _DATA_URL.match(url)
    if found is None:
        raise UnsupportedParameter(path, "must be an http address or a base64 data: URL")
    return found[1].lower(), _base64(url[found.end() :], path)


def _base64(data: str, path: str) -> str:
    try:
        b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise UnsupportedParameter(path, "is not base64") from None
    return data


def read_cache_control(fields: Fields) -> Mapping[str, Any] | None:
    """Anthropic's mark for the end of a prefix that is to be cached."""
    value = fields.take("cache_control")
    if value is None:
        return None
    inner = Fields(value, fields.path("cache_control"))
    if inner.choice("type", "ephemeral") is None:
        raise inner.refuse("type", "must be ephemeral")
    inner.choice("ttl", "5m", "1h")
    inner.close()
    return dict(value)

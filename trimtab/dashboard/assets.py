"""Assets: the style sheet, the scripts and the icon, shipped in the package and served from memory.

An address with the content's digest in it never changes what it means, so a browser keeps it for a year; one without is
asked for again each time and answered 304 while it is the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from trimtab.errors import BadRequest

PATH: Final = "/assets/"

_KINDS: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "uplot.min.css": "text/css; charset=utf-8",
    "uplot.min.js": "text/javascript; charset=utf-8",
    "uplot.LICENSE.txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, and the first digits of its SHA-256."""

    content: bytes
    kind: str
    digest: str


class Assets:
    """All of them, read once."""

    def __init__(self) -> None:
        folder = files("trimtab.dashboard") / "assets"
        self._all: dict[str, Asset] = {}
        for name, kind in _KINDS.items():
            content = (folder / name).read_bytes()
            self._all[name] = Asset(content, kind, hashlib.sha256(content).hexdigest()[:16])

    def url(self, name: str) -> str:
        """The address of an asset that may be kept for ever."""
        return f"{PATH}{name}?v={self._all[name].digest}"

    def response(self, request: Request, name: str) -> Response:
        """Raises BadRequest with status 404 for a name that is none."""
        asset = self._all.get(name)
        if asset is None:
            raise BadRequest(None, f"there is no asset {name[:100]!r}", "not_found", status=404)
        etag = f'"{asset.digest}"'
        for_ever = request.query_params.get("v") == asset.digest
        headers = {
            "etag": etag,
            "cache-control": "public, max-age=31536000, immutable" if for_ever else "no-cache",
            "x-content-type-options": "nosniff",
        }
        asked = request.headers.get("if-none-match", "")
        if etag in (each.strip().removeprefix("W/") for each in asked.split(",")) or asked.strip() == "*":
            return Response(status_code=304, headers=headers)
        return Response(asset.content, headers=headers, media_type=asset.kind)

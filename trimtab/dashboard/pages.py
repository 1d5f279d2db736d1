"""Pages: templates filled in, and the headers that they go out with.

Every text is escaped where it is put in. Should one ever not be, the content security policy still runs no script but the
files that we serve, takes no style from an attribute, and talks to no other host.
"""

from __future__ import annotations

import json
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from routing.offers import plain
from trimtab.dashboard import shown
from trimtab.dashboard.asked import SPANS
from trimtab.dashboard.assets import Assets

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",  # what it shows is the operator's alone
}

_THEME: Final = "trimtab_theme"


class Pages:
    """The templates, compiled at their first use."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=PackageLoader("trimtab.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(asset=assets.url, spans=SPANS)
        self._environment.filters.update(
            dollars=shown.dollars,
            digits=shown.digits,
            count=shown.count,
            tokens=shown.tokens,
            share=shown.share,
            coverage=shown.coverage,
            span=shown.span,
            moment=shown.moment,
            one_line=shown.one_line,
            plain=plain,
            json=_json,
        )

    def page(self, request: Request, name: str, status: int = 200, **shown_on_it: Any) -> Response:
        """The template of that name as a whole page. `signed_in` says whether there is a session to end."""
        theme = request.cookies.get(_THEME)
        base_url = f"{request.url.scheme}://{request.url.netloc}"
        given = {
            "signed_in": False,
            **shown_on_it,
            "theme": theme if theme in ("light", "dark") else "",
            "base_url": base_url,
        }
        return HTMLResponse(self._environment.get_template(f"{name}.html").render(given), status, HEADERS)


def _json(value: object) -> str:
    """JSON to be read. Not Jinja's `tojson`, which writes for a script and spells every `<` as an escape."""
    return json.dumps(value, indent=2, ensure_ascii=False)

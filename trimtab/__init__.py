"""trimtab: trims the context of a request to a language model, plans the cheapest way to get it answered, and forwards it.

>>> from trimtab import Trimtab
>>> contexts = ["An upload may be 5 GB.", "Data is encrypted at rest.", "There are buckets in Oregon."]
>>> [kept.text for kept in Trimtab().compress("How large may an upload be?", contexts, ratio=0.4).contexts]
['An upload may be 5 GB.', '', '']

Names are loaded when they are first used, so that importing the package takes a millisecond and not half a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trimtab.asgi import TrimtabMiddleware
    from trimtab.compressed import Compressed
    from trimtab.errors import BadRequest, TrimtabError
    from trimtab.pipeline import Trimtab
    from trimtab.settings import Settings
    from trimtab.transport import TrimtabTransport
    from trimtab.wrapping import wrap

__version__ = "0.1.0"

__all__ = [
    "BadRequest",
    "Compressed",
    "Settings",
    "Trimtab",
    "TrimtabError",
    "TrimtabMiddleware",
    "TrimtabTransport",
    "wrap",
]

_HOMES: Final = {
    "BadRequest": "errors",
    "Compressed": "compressed",
    "Settings": "settings",
    "Trimtab": "pipeline",
    "TrimtabError": "errors",
    "TrimtabMiddleware": "asgi",
    "TrimtabTransport": "transport",
    "wrap": "wrapping",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value

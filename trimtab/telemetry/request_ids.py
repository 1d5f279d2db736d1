"""Request ids: one name for a request, in its answer's headers, its log lines, its spans and its receipt's line.

It is the caller's `x-request-id` where that is sane, else a new one. `current()` is the id of the request that this task
or thread works for: a context variable, which `asyncio.create_task` and `anyio.to_thread.run_sync` take along.
"""

from __future__ import annotations

import contextvars
import re
import uuid
from typing import Final

HEADER: Final = "x-request-id"
MAX_CHARACTERS: Final = 128

# Letters, digits and what UUIDs, ULIDs, trace ids and base64 are written with: nothing that a log, a URL, SQL or HTML
# would have to escape.
_SANE: Final = re.compile(rf"[A-Za-z0-9._:/+=@-]{{1,{MAX_CHARACTERS}}}")

_current: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("trimtab_request_id", default="")


def current() -> str:
    """The id of the request that is worked for; "" outside of one."""
    return _current.get()


def begin(request_id: str) -> None:
    """Say for which request this task works from now on."""
    _current.set(request_id)


def sane(given: str | None) -> str | None:
    """The caller's own id, if it may stand in headers, logs and tables as it is; else None.

    >>> sane("8c3f-77"), sane("two words"), sane("x" * 200), sane(None)
    ('8c3f-77', None, None, None)
    """
    return given if given is not None and _SANE.fullmatch(given) else None


def new_id() -> str:
    """A new one, such as "req_0b8e6f7c...": 128 random bits."""
    return f"req_{uuid.uuid4().hex}"

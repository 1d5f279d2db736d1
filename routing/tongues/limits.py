"""Limits: by which name a chat completion is told how long its answer may be.

OpenAI's own models since o1 and gpt-5 refuse the older name; servers that copy the API may know no other, and would
write on without an end if the newer one meant nothing to them.
"""

from __future__ import annotations

import re
from typing import Any, Final

_NEWER: Final = re.compile(r"(?:^|/)(?:o[0-9]|gpt-(?:[5-9]|[1-9][0-9]))")


def limit_of(model: object, max_tokens: int) -> dict[str, Any]:
    """The field that bounds the output.

    >>> limit_of("openai/gpt-6.1-sol", 9), limit_of("gpt-oss-20b", 9)
    ({'max_completion_tokens': 9}, {'max_tokens': 9})
    """
    newer = isinstance(model, str) and _NEWER.search(model) is not None
    return {"max_completion_tokens" if newer else "max_tokens": max_tokens}

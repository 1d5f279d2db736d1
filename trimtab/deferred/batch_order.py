"""The order of a batch: the body of `POST /v1/batches`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.deferred.batch_lines import ENDPOINTS, CheckUrl
from trimtab.deferred.batches import Order
from trimtab.deferred.files import KEPT_S
from trimtab.deferred.uploads import lifetime_s
from trimtab.errors import BadRequest
from trimtab.options import Options, checked, seconds_until

WINDOW_S: Final = 24 * 3600.0
"""OpenAI's completion window."""
LONGEST_S: Final = float(KEPT_S)
"""A deadline beyond it would outlive the batch's own files."""

_OF_THE_BATCH: Final = ("deadline", "callback_url")
"""Options that say something of the batch and not of each line."""


class ExpiresAfter(BaseModel):
    """OpenAI's expiry of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(strict=True)]


class BatchIn(BaseModel):
    """The body of `POST /v1/batches`, as OpenAI has it, and `trimtab` beside it (`extra_body` in OpenAI's clients).

    `trimtab` says until when all of it must be done (`deadline`), who is told (`callback_url`), and what else holds for
    every line; a line's own `trimtab` object goes before that.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "input_file_id": "file-065bff3ed5e0004f0c",
                    "endpoint": "/v1/chat/completions",
                    "completion_window": "24h",
                    "metadata": {"night": "2026-11-24"},
                    "trimtab": {"deadline": "6h", "min_coverage": 0.9},
                }
            ]
        },
    )

    input_file_id: Annotated[str, Field(min_length=1, max_length=100)]
    endpoint: Annotated[str, Field(json_schema_extra={"enum": list(ENDPOINTS)})]
    completion_window: Literal["24h"]
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None
    output_expires_after: ExpiresAfter | None = None
    trimtab: Options | None = None


def read_order(body: Mapping[str, Any], now: float, check_url: CheckUrl) -> tuple[Order, float]:
    """What is asked for, and when it expires. `check_url(url, param)` gives a callback's address as it is to be called, and
    raises BadRequest for one that may not be. Raises BadRequest."""
    asked = checked(BatchIn, body, None)
    if asked.endpoint not in ENDPOINTS:
        raise BadRequest("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    window_s, deadline, callback_url = WINDOW_S, None, None
    if asked.trimtab is not None:
        deadline, callback_url = asked.trimtab.deadline, asked.trimtab.callback_url
        if deadline is not None:
            window_s = seconds_until(deadline, datetime.fromtimestamp(now, UTC))
    if not 0 < window_s <= LONGEST_S:
        raise BadRequest("trimtab.deadline", "must be within the next 30 days")
    kept_s = KEPT_S
    if (expiry := asked.output_expires_after) is not None:
        kept_s = lifetime_s(expiry.anchor, expiry.seconds, "output_expires_after")
    order = Order(
        endpoint=asked.endpoint,
        input_file_id=asked.input_file_id,
        completion_window=asked.completion_window,
        deadline=deadline,
        metadata=asked.metadata,
        options={name: value for name, value in (body.get("trimtab") or {}).items() if name not in _OF_THE_BATCH},
        callback_url=None if callback_url is None else check_url(callback_url, "trimtab.callback_url"),
        output_lifetime_s=kept_s,
    )
    return order, now + window_s

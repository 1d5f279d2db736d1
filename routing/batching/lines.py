"""Lines: one request of a batch on its way in, and its answer on the way out.

Pure. Worded and judged by the very functions that word and judge a call, so that nobody can tell from an answer whether
it came out of a batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from routing.batching.seam import Arrived, BatchLine, BatchResult, Prepared
from routing.judgement import judge, retold
from routing.wires import Wire, wire_of
from routing.worded import worded

if TYPE_CHECKING:
    from routing.catalog import Provider

_OF_ONE_CALL: Final = frozenset(("idempotency-key", "x-client-request-id"))
_OF_STREAMS: Final = frozenset(("stream", "stream_options"))
_NOT_RUN: Final = {"expired": 504, "canceled": 499}


def prepared(provider: Provider, line: BatchLine) -> Prepared:
    """The line as `provider` takes it, which is the one of `line.offer`. That nobody waits for a stream is plain, so what
    asks for one is left out.

    Raises UnsupportedParameter for what would be lost in its tongue, UnsupportedWire for what it cannot be asked at all.
    """
    body = {name: value for name, value in line.body.items() if name not in _OF_STREAMS}
    # The batch is what makes it cheap: to the line itself no service class is said.
    made = worded(provider, replace(line.offer, processing="sync"), body, line.tongue, stream=False)
    return Prepared(
        custom_id=line.custom_id,
        provider=provider.name,
        model=line.offer.model,
        path=made.path,
        headers=tuple(sorted({**_shaping(made.wire, line), **dict(made.headers)}.items())),
        content=made.content,
    )


def _shaping(wire: Wire, line: BatchLine) -> dict[str, str]:
    """The headers that say what the body means: the wire's own, and the caller's where they may pass."""
    given = {name: line.headers[name] for name in wire.request_headers - _OF_ONE_CALL if name in line.headers}
    return dict(wire.headers) | {name: text for name, text in given.items() if text.isascii() and text.isprintable()}


def told(provider: Provider, arrived: Arrived, line: BatchLine) -> BatchResult:
    """What has become of `line`, in its caller's tongue."""
    if arrived.fate != "answered":
        detail = f"the batch {'ran out of time' if arrived.fate == 'expired' else 'was canceled'} before this line"
        return BatchResult(line.custom_id, arrived.fate, _NOT_RUN[arrived.fate], b"", detail=detail)
    wire = wire_of(provider, line.tongue)
    judged = judge(arrived.status, arrived.content, wire)
    if wire.tongue is not line.tongue and judged.body is not None:
        judged = retold(judged, line.tongue, line.body)
    reported = judged.reported
    return BatchResult(
        custom_id=line.custom_id,
        outcome=judged.outcome,
        status=judged.status,
        body=judged.body or b"",
        usage=None if reported is None else reported.usage,
        reasoning_tokens=0 if reported is None else reported.reasoning_tokens,
        detail=judged.detail,
    )

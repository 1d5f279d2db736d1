"""The seam for providers' batch APIs: what goes into one, what comes out, and how it fails.

A batch is many requests handed over at once, at a lower price, and answered within a window. The order of use:

    adapter = adapter_of(provider, client)               # None: sells no batches
    ready = prepared(provider, line)                     # pure; one line a request
    batch_id = await adapter.submit(lines, key)          # lines of one `group`, within `adapter.limits`
    state = await adapter.poll(batch_id)                 # until state.ended
    async for arrived in adapter.collect(batch_id):      # in any order, not always all
        result = told(provider, arrived, line)           # pure; in the caller's tongue

Knows nothing of deadlines, stores or prices.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from routing.attempts import Outcome
from routing.errors import RoutingError
from routing.offers import Offer, Usage
from routing.tongues import CHAT, Tongue

KEY: Final = re.compile(r"[A-Za-z0-9]{1,24}")
CUSTOM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,39}")
"""Together with a key and a joint they are the 64 characters that Anthropic takes, the strictest of the three."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold, as its provider states it. `window_s` is within what it ends, done or not; results can be
    fetched for `kept_s` after it was made."""

    requests: int
    content_bytes: int
    window_s: float
    kept_s: float


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request: the caller's `body` in `tongue`, for the model of `offer`. `custom_id` is ours (see CUSTOM_ID) and
    occurs once in a batch; ValueError for one that is not so made. `headers` are the caller's, in lower case; of them go
    along those that a call would take and that say what the body means."""

    custom_id: str
    body: Mapping[str, Any]
    offer: Offer
    tongue: Tongue = CHAT
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not CUSTOM_ID.fullmatch(self.custom_id):
            raise ValueError(f"custom_id must be 1 to 39 letters, digits, '_' and '-', not {self.custom_id!r}")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A line as its provider takes it: `content` is the JSON of the request, which a call would send to `path` with
    `headers`. Lines of one `group` may share a batch."""

    custom_id: str
    provider: str
    model: str
    path: str
    headers: tuple[tuple[str, str], ...]
    content: bytes

    @property
    def group(self) -> str:
        """Same provider, model (OpenAI takes one a file, Gemini one an address), path and headers."""
        headers = (f"{name}: {value}" for name, value in self.headers)
        return "\n".join((self.provider, self.model, self.path, *headers))


@dataclass(frozen=True, slots=True)
class Intent:
    """A submission that may or may not have reached the provider. `at` is when it was about to be sent, `requests` how
    many lines it had, `known` the provider's ids of other batches that are ours."""

    key: str
    at: datetime
    requests: int
    known: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class BatchState:
    """How far a batch has come. `status` "refused": the provider would not run it, nothing is billed, and nothing can be
    collected; `detail` says why in a word or two. Else what has been answered can be collected once it is `ended`, also
    after a cancel or an expiry. Counts are 0 where the provider does not say them yet."""

    status: Literal["working", "cancelling", "ended", "refused"]
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    expires_at: datetime | None = None
    detail: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ("ended", "refused")


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a provider says of one line, in its own wire: with the fate "answered" the `status` and `content` that a
    call would have got."""

    custom_id: str
    fate: Literal["answered", "expired", "canceled"] = "answered"
    status: int = 0
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One line's end. `outcome` is "ok" or why not, as for an attempt: after those of `attempts.RETRYABLE` it may be
    asked again, here or elsewhere; a "caller_error" it would get everywhere. One that "expired" or was "canceled" was
    never run, and costs nothing. `status` and `body` are what a caller is shown, in the tongue that asked (`body` is b""
    for one that was not run). `usage` is what is billed; None where the provider said nothing."""

    custom_id: str
    outcome: Outcome | Literal["expired", "canceled"]
    status: int
    body: bytes
    usage: Usage | None = None
    reasoning_tokens: int = 0
    detail: str = ""


class BatchFailed(RoutingError):
    """A call of a batch API failed. `outcome` as for an attempt.

    `retryable`: later may do; else this provider will not take it as it is. `unsure`: what was asked for may have
    happened all the same, so a submission must be looked for (`find`) before it is sent again.
    """

    def __init__(
        self,
        message: str,
        outcome: Outcome,
        status: int | None = None,
        retry_after_ms: float | None = None,
        *,
        unsure: bool = False,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.status = status
        self.retry_after_ms = retry_after_ms
        self.unsure = unsure

    @property
    def retryable(self) -> bool:
        return self.outcome not in ("rejected", "caller_error", "unsupported")


class BatchUnclear(BatchFailed):
    """A batch is there that may be the one looked for, and its provider will tell only when it has ended."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "timeout", unsure=True)


class BatchAdapter(Protocol):
    """One provider's batch API. Every method raises BatchFailed, and MissingKey where no key is set."""

    limits: BatchLimits

    async def submit(self, lines: Iterable[Prepared], key: str) -> str:
        """Hand the lines over, all of one group; the provider's id of the batch. `key` (see KEY) is ours, new for every
        batch, and kept with the provider for `find`. `lines` are read once, in a worker thread. Raises ValueError for
        lines that break that or the limits; nothing is sent then."""

    async def find(self, intent: Intent) -> str | None:
        """The id of the batch that was submitted under the key of `intent`; None if it never came to be. Raises
        BatchUnclear where that cannot be told yet."""

    async def poll(self, batch_id: str) -> BatchState: ...

    def collect(self, batch_id: str) -> AsyncGenerator[Arrived, None]:
        """What has become of each line of an ended batch, in any order, in constant memory. A line that is not among
        them was not run. Can be repeated. Close the iterator if it is left early."""

    async def cancel(self, batch_id: str) -> None:
        """Ask for the end of a batch: what is answered by then can be collected, and is billed. One that has ended
        stays as it is."""

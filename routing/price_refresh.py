"""Price refresh: newer price lists, taken only after they were compared with what is charged now.

`reviewed` is pure: two snapshots and the configured models go in, the snapshot to use and every change come out. An
absurd change is refused for its model alone, whose old row stays; the rest is taken, all at once. `PriceRefresh` is the
thin driver: it fetches, keeps what counts now, and reports. Off unless somebody starts it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ClauseEquals, ModelInfo
from genai_prices.types import Provider as PriceList
from genai_prices.update_prices import DEFAULT_UPDATE_URL, UpdatePrices

from routing.catalog import Provider
from routing.offers import AMOUNTS, Rates, plain
from routing.price_lists import list_of, moments_of, rates_of

logger = logging.getLogger("trimtab.prices")

SERVICES = ("sync", "flex", "priority", "batch")
MOST_TIMES = 10
"""A price that grows or falls by more than this is a slip until somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One figure that differs. `field` says which, as in "sync output above 100,000"; dollars are per million tokens
    (per call for "request"), None where there is no such price. `refused` says why it was not taken; empty if it was."""

    provider: str
    model: str
    field: str
    before_usd: Decimal | None
    after_usd: Decimal | None
    refused: str = ""

    def __str__(self) -> str:
        before, after = (
            "none" if usd is None else f"${plain(usd)}" if usd.is_finite() else f"{usd}"
            for usd in (self.before_usd, self.after_usd)
        )
        why = f" (refused: {self.refused})" if self.refused else ""
        return f"{self.provider}/{self.model} {self.field}: {before} -> {after}{why}"


@dataclass(frozen=True, slots=True)
class Review:
    """The snapshot to use from now on, and what it changes for the configured models, refused changes included."""

    snapshot: DataSnapshot
    changes: tuple[PriceChange, ...]

    @property
    def refused(self) -> tuple[PriceChange, ...]:
        return tuple(change for change in self.changes if change.refused)


def reviewed(current: DataSnapshot, fetched: DataSnapshot, providers: Sequence[Provider], now: datetime) -> Review:
    """`fetched`, with the rows of `current` in place of those that changed absurdly.

    Compared are the models of `providers` (without any: every model of `current`), in every service class and at every
    hour and date that a price of theirs begins or ends. Absurd is: a price below zero or not a number, zero where it
    was not, more than ten times or less than a tenth, a model that lost its price. A free model that is free no more,
    and a service class that is no longer sold, are news and not absurd.
    """
    lists = {each.id: each for each in fetched.providers}
    changes: list[PriceChange] = []
    for list_id, name in dict.fromkeys(_configured(providers, current)):
        found = list(dict.fromkeys(_differences(list_id, name, current, fetched, now)))
        changes += found
        if any(change.refused for change in found):
            _keep(list_id, name, current, lists)
    snapshot = DataSnapshot(list(lists.values()), fetched.from_auto_update, timestamp=fetched.timestamp)
    return Review(snapshot, tuple(changes))


class PriceRefresh:
    """The price lists that count now: the package's own until a fetch brings newer ones. Safe to share between threads.

    Give `current` to a `Catalog`, which asks it for every request. genai-prices' own process-wide snapshot is left
    alone: it belongs to the application that we are a part of.
    """

    def __init__(
        self,
        providers: Sequence[Provider] = (),
        fetch: Callable[[], DataSnapshot] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`fetch` raises OSError or ValueError where it has nothing; by default it asks genai-prices' own repository."""
        self._providers = tuple(providers)
        self._fetch = fetch or fetched_from
        self._clock = clock
        self._snapshot: DataSnapshot | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def current(self) -> DataSnapshot:
        return self._snapshot or get_snapshot()

    def refresh(self) -> tuple[PriceChange, ...]:
        """Fetch once, take what is not absurd, log every change, and give them all.

        Raises what `fetch` does; the prices are then what they were.
        """
        review = reviewed(self.current(), self._fetch(), self._providers, self._clock())
        self._snapshot = (
            review.snapshot
        )  # one assignment: a request sees the old lists or the new ones, never a mixture
        for change in review.changes:
            logger.log(logging.WARNING if change.refused else logging.INFO, "%s", change)
        return review.changes

    def start(self, hours: float) -> None:
        """Refresh now and then every so many hours, in a thread that ends with the process. Starting twice is once.

        A fetch that fails is logged, and tried again when the next is due. Raises ValueError for hours of 0 or less.
        """
        if not hours > 0:
            raise ValueError(f"hours must be above 0, not {hours}")
        if self._thread is None:
            # An event of its own: a thread that was stopped within a fetch must not go on because another one is started.
            self._stopping = threading.Event()
            work = (hours * 3600, self._stopping)
            self._thread = threading.Thread(target=self._run, args=work, name="trimtab-prices", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """No further refresh; one that is under way is finished and counts. The prices stay as they are."""
        self._stopping.set()
        self._thread = None

    def _run(self, every_s: float, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                self.refresh()
            except (OSError, ValueError) as error:
                logger.warning("prices were not refreshed (%s); they stay as they are", type(error).__name__)
            stopping.wait(every_s)


def fetched_from(url: str = DEFAULT_UPDATE_URL) -> DataSnapshot:
    """The price lists at `url`, in genai-prices' format. Raises OSError if it cannot be had, ValueError if it is none."""
    import httpx2  # genai-prices' own client, and only needed where prices are refreshed

    try:
        snapshot = UpdatePrices(url=url).fetch()
    except httpx2.HTTPError as error:
        raise ConnectionError(f"{url}: {type(error).__name__}") from None
    if snapshot is None or not snapshot.providers:
        raise ValueError(f"{url}: holds no price list")
    return snapshot


def _configured(providers: Iterable[Provider], current: DataSnapshot) -> Iterator[tuple[str, str]]:
    """(price list, model) of every model whose price comes from a list."""
    any_provider = False
    for provider in providers:
        any_provider = True
        if provider.prices is None or isinstance(provider.prices, str):
            for model in provider.models:
                yield provider.prices or provider.name, model
    if not any_provider:
        for price_list in current.providers:
            for row in price_list.models:
                yield price_list.id, row.id


def _differences(
    list_id: str, name: str, current: DataSnapshot, fetched: DataSnapshot, now: datetime
) -> Iterator[PriceChange]:
    old, new = _row(list_id, name, current), _row(list_id, name, fetched)
    rows = [row for _, row in filter(None, (old, new))]
    for at in sorted({at for row in rows for at in moments_of(row, now)}):
        for service in SERVICES:
            before, after = _tiers(old, service, at), _tiers(new, service, at)
            if isinstance(after, str):
                if not isinstance(before, str) and before is not None:
                    usd = before[0].input_usd.scaleb(6)
                    yield PriceChange(list_id, name, f"{service} input", usd, None, after)
            else:
                yield from _compared(list_id, name, service, None if isinstance(before, str) else before, after)


def _row(list_id: str, name: str, snapshot: DataSnapshot) -> tuple[PriceList, ModelInfo] | None:
    price_list = list_of(list_id, snapshot)
    row = price_list.find_model(name, all_providers=snapshot.providers) if price_list is not None else None
    return (price_list, row) if price_list is not None and row is not None else None


def _tiers(found: tuple[PriceList, ModelInfo] | None, service: str, at: datetime) -> tuple[Rates, ...] | str | None:
    """The rows; None where it is not sold in that class; a sentence where there is no price that could be charged."""
    if found is None:
        return "the model is gone"
    try:
        return rates_of(*found, service, at)
    except LookupError:
        return "the model has lost its price"
    except ValueError as error:
        return str(error)


def _compared(
    list_id: str, name: str, service: str, before: tuple[Rates, ...] | None, after: tuple[Rates, ...] | None
) -> Iterator[PriceChange]:
    for above_tokens in sorted({row.above_tokens for row in (*(before or ()), *(after or ()))}):
        old, new = _above(before, above_tokens), _above(after, above_tokens)
        for field in AMOUNTS:
            scale = 0 if field == "request_usd" else 6
            old_usd: Decimal | None = None if old is None else getattr(old, field).scaleb(scale)
            new_usd: Decimal | None = None if new is None else getattr(new, field).scaleb(scale)
            if old_usd != new_usd:
                what = f"{service} {field.removesuffix('_usd').replace('_', ' ')}"
                what += "" if above_tokens < 0 else f" above {above_tokens:,}"
                yield PriceChange(list_id, name, what, old_usd, new_usd, _absurd(old_usd, new_usd))


def _above(tiers: tuple[Rates, ...] | None, above_tokens: int) -> Rates | None:
    return [row for row in tiers if row.above_tokens <= above_tokens][-1] if tiers else None


def _absurd(before_usd: Decimal | None, after_usd: Decimal | None) -> str:
    """Why such a change is not believed; empty where it is."""
    if not before_usd or after_usd is None:
        return ""
    if after_usd == 0:
        return "free all at once"
    if not before_usd <= after_usd * MOST_TIMES or not after_usd <= before_usd * MOST_TIMES:
        return f"more than {MOST_TIMES} times apart"
    return ""


def _keep(list_id: str, name: str, current: DataSnapshot, lists: dict[str, PriceList]) -> None:
    """Put the current row of `name` before all others of its price list in `lists`, for that name only.

    Not in the place of the new row: that one may be another list's, which this one borrows from.
    """
    found = _row(list_id, name, current)
    if found is None:
        return
    price_list, row = found
    own = any(row is each for each in price_list.models)
    kept = replace(row, match=ClauseEquals(name), price_variants=row.price_variants if own else None)
    base = lists.get(list_id) or replace(price_list, models=[])
    lists[list_id] = replace(base, models=[kept, *base.models])

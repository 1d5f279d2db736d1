"""Study: a set of recorded requests, counted, grouped and priced, as every finding reads it."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, Protocol

from retrieval import Encoder
from routing.catalog import Catalog
from routing.errors import RoutingError
from routing.offers import Offer, Usage, price
from routing.prompt_cache import CacheRules, rules_of
from trimtab.analysis.anatomy import Anatomy, Counter, anatomy
from trimtab.analysis.changes import Bought, Change, applied
from trimtab.analysis.grouping import Group, grouped
from trimtab.analysis.recorded import Recorded
from trimtab.difficulty import DifficultyRouter

DAY: Final = timedelta(days=1)
Basis = Literal["measured", "estimated"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to restructure. `title` and `advice` quote no prompt; `excerpts` do, in short. `reckoned` says what the
    dollars rest on. `tokens` are those that go, or that would be read from a cache, over the whole recording."""

    kind: str
    title: str
    advice: str
    reckoned: str
    basis: Basis
    changes: tuple[Change, ...]
    tokens: int = 0
    excerpts: tuple[str, ...] = field(default=(), repr=False)


class Finder(Protocol):
    def __call__(self, study: Study) -> Iterable[Finding]: ...


class Prices:
    """What recorded requests cost at the prices of their moment. An unknown price is None, never 0."""

    def __init__(self, catalog: Catalog, now: datetime) -> None:
        self._catalogs = (catalog, Catalog()) if catalog.providers else (catalog,)
        self._now = now
        self._known: dict[tuple[str, str, str, str], Offer | None] = {}

    def offer(self, request: Recorded, model: str, processing: str) -> Offer | None:
        at = request.at or self._now
        key = (request.seller, model, processing, f"{at:%Y-%m-%d %H}")  # prices change on the hour
        if key not in self._known:
            self._known[key] = self._found(request.seller, model, processing, at)
        return self._known[key]

    def _found(self, seller: str, model: str, processing: str, at: datetime) -> Offer | None:
        names = (
            *((f"{seller}/{model}",) if seller else ()),
            model,
            *((model.rpartition("/")[2],) if "/" in model else ()),
        )
        for catalog in self._catalogs:
            for name in names:
                try:
                    offers = catalog.offers([name], at, [processing])
                except RoutingError:
                    continue
                if priced := [each for each in offers if each.tiers]:
                    return priced[0]
        return None


class Study:
    """`requests` with their anatomies and groups. Raises nothing: a request that cannot be priced costs None."""

    def __init__(
        self,
        requests: Sequence[Recorded],
        anatomies: Sequence[Anatomy],
        prices: Prices,
        encoder: Callable[[], Encoder],
        router: Callable[[], DifficultyRouter | None],
        considered: Sequence[str] = (),
    ) -> None:
        order = sorted(range(len(requests)), key=lambda i: (requests[i].at is None, requests[i].at or 0, i))
        self.requests = tuple(requests[i] for i in order)
        self.anatomies = tuple(anatomies[i] for i in order)
        self.prices = prices
        self.encoder = encoder
        self.router = router
        self.considered = tuple(considered)
        self.groups: tuple[Group, ...] = grouped(self.requests, self.anatomies)

        self._conversations = Tally(request.conversation for request in self.requests)

    def stands_alone(self, i: int) -> bool:
        """Whether no other request is of the same conversation, as far as the recorder says."""
        conversation = self.requests[i].conversation
        return not conversation or self._conversations[conversation] == 1

    def usage(self, i: int) -> Usage:
        """As billed; where that was not recorded, our count of the input, and no output."""
        return self.requests[i].usage or Usage(self.anatomies[i].input_tokens, 0)

    def measured(self, indices: Iterable[int]) -> bool:
        """Whether what these were billed is recorded."""
        return all(self.requests[i].usage is not None for i in indices)

    def bought(self, i: int) -> Bought:
        return Bought(self.requests[i].model, self.requests[i].processing, self.usage(i))

    def cost_usd(self, i: int, changes: Sequence[Change] = ()) -> Decimal | None:
        """What the request costs after `changes`; None where a price is unknown."""
        after = applied(self.bought(i), changes)
        offer = self.prices.offer(self.requests[i], after.model, after.processing)
        return None if offer is None else price(offer, after.usage)

    def saved_usd(self, changes: Iterable[Change]) -> Decimal:
        """What `changes` save over the recording, each request priced once with all of its own. May be negative."""
        by_request: dict[int, list[Change]] = {}
        for change in changes:
            by_request.setdefault(change.request, []).append(change)
        saved = Decimal(0)
        for i, own in by_request.items():
            before, after = self.cost_usd(i), self.cost_usd(i, own)
            if before is not None and after is not None:
                saved += before - after
        return saved

    def cache_rules(self, i: int) -> CacheRules:
        """How the provider of the request's model caches prefixes."""
        model = self.requests[i].model.rpartition("/")[2]
        kind = "anthropic" if "claude" in model else "gemini" if model.startswith("gemini") else "openai"
        return rules_of(kind, model)

    @property
    def window(self) -> tuple[datetime, datetime] | None:
        """The first and the last moment; None where a request has none."""
        moments = [request.at for request in self.requests if request.at is not None]
        return (min(moments), max(moments)) if moments and len(moments) == len(self.requests) else None

    @property
    def days(self) -> Decimal | None:
        """How long was recorded, at least one day: what an hour holds is not multiplied by 24."""
        if self.window is None:
            return None
        first, last = self.window
        return max(Decimal(1), Decimal(str((last - first) / DAY)))


def studied(
    requests: Iterable[Recorded],
    prices: Prices,
    encoder: Callable[[], Encoder],
    router: Callable[[], DifficultyRouter | None],
    considered: Sequence[str] = (),
) -> tuple[Study, tuple[str, ...]]:
    """A study of the requests that can be understood, and for each other one what is wrong with it."""
    counter = Counter()
    good: list[Recorded] = []
    anatomies: list[Anatomy] = []
    problems: list[str] = []
    for request in requests:
        try:
            found = anatomy(request, counter)
        except ValueError as error:
            problems.append(f"{request.where}: {error}")
        else:
            good.append(request)
            anatomies.append(found)
    return Study(good, anatomies, prices, encoder, router, considered), tuple(problems)

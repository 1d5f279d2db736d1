"""The catalog: who sells which model here, and at what price right now.

A price is the price list's, corrected by the overlay, or stated in the configuration; one that nobody knows is an
error, never a guess. Knows nothing of budgets or of the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo
from genai_prices.types import Provider as PriceList

from routing.errors import UnknownModel
from routing.offers import Offer, Rates
from routing.overlay import Entry, Overlay, shipped_overlay
from routing.price_lists import (
    PRICES_VERSION,
    dollars_a_token,
    list_of,
    maker_of,
    near,
    prices_version,
    rates_of,
    shown,
)

__all__ = ["DATA_POLICIES", "OPENROUTER_FIELDS", "PRICES_VERSION", "STATED_PRICES", "Catalog", "Listing", "Provider"]

STATED_PRICES = "stated in the configuration"
"""The `prices_version` of an offer whose provider states its own prices."""

DATA_POLICIES = ("zdr", "no_training")
"""What a provider may promise of the data it is sent: to retain none of it, and to train on none of it."""

OPENROUTER_FIELDS = ("provider", "models")
"""The fields of a body that OpenRouter has beside the API's own. They mean nothing to anybody else."""

_KINDS = ("openai", "anthropic", "gemini")
_BATCH_HOSTS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "gemini": "generativelanguage.googleapis.com",
}
_REQUIRED_KEYS = ("input_mtok", "output_mtok")
_TABLE_KEYS = (*_REQUIRED_KEYS, "cache_read_mtok", "cache_write_mtok")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_Quote = Callable[[str, datetime], Offer | None]
"""One seller's offer for one model in a service class at a moment, before the overlay; None: not sold so."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured seller: where it is, which wire it speaks, what it serves and who states its prices.

    `kind` is the wire. `api_key_env` names an environment variable; a key itself never stands here. `models` are the
    names as the provider takes them, case kept; one that ends in "*" stands for every name that begins so and has a known
    price. `prices` is None where `name` is the genai-prices provider id, another
    such id, or a table of dollars per million tokens `{input_mtok, output_mtok, cache_read_mtok?, cache_write_mtok?}`
    for models that no price list knows (self-hosted ones). A table sells "sync" processing only. `responses` says whether
    a provider of kind openai serves the Responses API too; None: it does at OpenAI's own address. `batches` says the same
    of the kind's batch API; None: it does at the address of who made it.

    What a policy may ask for: `region` is where it computes, in your own words; `data_policy` what its contract promises
    ("zdr": nothing is retained, "no_training": nothing is trained on); `tags` are any words of yours.

    Raises ValueError, naming the field and the fix; a bad `api_key_env` or `base_url` is not repeated in it, since a
    secret may have been put there by mistake.
    """

    name: str
    kind: Literal["openai", "anthropic", "gemini"]
    base_url: str
    api_key_env: str | None
    models: tuple[str, ...]
    prices: str | Mapping[str, Decimal | int | float | str] | None = None
    responses: bool | None = None
    batches: bool | None = None
    region: str | None = None
    data_policy: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def lists(self, model: str) -> bool:
        """Whether `model` is among `models`, by its name or by one that ends in "*"."""
        return any(model == each or (each.endswith("*") and model.startswith(each[:-1])) for each in self.models)

    @property
    def promises(self) -> tuple[str, ...]:
        """All that a request may require of it: its data policy and its tags. Nobody trains on what is not retained."""
        implied = ("no_training",) if "zdr" in self.data_policy else ()
        return (*self.data_policy, *implied, *self.tags)

    @property
    def is_openrouter(self) -> bool:
        """Whether it is OpenRouter, which reads the fields of OPENROUTER_FIELDS itself; its regions are hosts below."""
        host = urlsplit(self.base_url).hostname or ""
        return host == "openrouter.ai" or host.endswith(".openrouter.ai")

    @property
    def serves_responses(self) -> bool:
        """Whether it answers OpenAI's Responses API itself; unless it is stated, OpenAI does, and nobody else."""
        return urlsplit(self.base_url).hostname == "api.openai.com" if self.responses is None else self.responses

    @property
    def serves_batches(self) -> bool:
        """Whether it has the batch API of its kind; unless it is stated, only the maker of that API has."""
        return urlsplit(self.base_url).hostname == _BATCH_HOSTS[self.kind] if self.batches is None else self.batches

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(
                f"name must be a non-empty text without '/' ('name/model' pins a model), not {self.name!r}"
            )
        if self.kind not in _KINDS:
            raise ValueError(f"kind of provider {self.name!r} must be one of {', '.join(_KINDS)}, not {self.kind!r}")
        if not isinstance(self.responses, bool | None):
            raise ValueError(f"responses of provider {self.name!r} must be true or false")
        if not isinstance(self.batches, bool | None):
            raise ValueError(f"batches of provider {self.name!r} must be true or false")
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
            raise ValueError(
                f"base_url of provider {self.name!r} must be an http:// or https:// address with a host and without "
                "a user name or password in it (a key goes into the environment variable that api_key_env names)"
            )
        if self.api_key_env is not None and not _ENVIRONMENT_NAME.fullmatch(self.api_key_env):
            raise ValueError(
                f"api_key_env of provider {self.name!r} must be the name of an environment variable, such as "
                "OPENAI_API_KEY; the key itself never goes into the configuration"
            )
        if not isinstance(self.models, tuple) or not self.models or not all(self.models):
            raise ValueError(f"models of provider {self.name!r} must be a tuple of names, none of them empty")
        if self.region is not None and not (isinstance(self.region, str) and self.region):
            raise ValueError(f"region of provider {self.name!r} must be a text that is not empty, such as 'eu'")
        for name in ("data_policy", "tags"):
            object.__setattr__(self, name, _words(self.name, name, getattr(self, name)))
        if unknown := sorted(set(self.data_policy) - set(DATA_POLICIES)):
            raise ValueError(
                f"data_policy of provider {self.name!r} may hold {' and '.join(DATA_POLICIES)}, not {unknown[0]!r}; "
                "words of your own go into tags"
            )
        if self.prices is not None and not isinstance(self.prices, str):
            object.__setattr__(self, "prices", _table(self.name, self.prices))


@dataclass(frozen=True, slots=True)
class Listing:
    """A model name that a caller may ask for, and the providers that serve it, in configured order."""

    model: str
    providers: tuple[str, ...]


class Catalog:
    """The configured providers, and what they sell at a moment.

    Empty (no providers), it sells every model at its maker's list prices, so that a plan needs no configuration; such
    an offer can be planned with and not forwarded. `overlay` corrects the price lists; None is the shipped one alone.
    `snapshot` gives the price lists of the moment, and is asked for every call, so that fresh prices count from the
    next request on. Raises ValueError for two providers of one name. Immutable.
    """

    __slots__ = ("_found", "_overlay", "_providers", "_snapshot")

    def __init__(
        self,
        providers: Iterable[Provider] = (),
        overlay: Overlay | None = None,
        snapshot: Callable[[], DataSnapshot] = get_snapshot,
    ) -> None:
        self._providers = tuple(providers)
        names = [provider.name for provider in self._providers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two providers are called {twice[0]!r}; give each a name of its own (`prices` may agree)")
        self._overlay = shipped_overlay() if overlay is None else overlay
        self._snapshot = snapshot
        # Found models, for the snapshot that they were found in. Measured: genai-prices tries its rows one by one
        # (0.2 ms among OpenRouter's 923), so 100 listed models cost 20 ms without this. Bounded by what is listed.
        # Compiled tiers are not kept: compiling takes 10 us, and prices change with the hour.
        self._found: tuple[DataSnapshot, dict[tuple[str, str], ModelInfo | None]] = (snapshot(), {})

    @property
    def providers(self) -> tuple[Provider, ...]:
        return self._providers

    def provider(self, name: str) -> Provider | None:
        """The configured provider of that name; None for a maker's list price (nothing is configured)."""
        return next((provider for provider in self._providers if provider.name == name), None)

    def models(self) -> tuple[Listing, ...]:
        """Every model that is listed, once, in configured order; nothing when no provider is configured. For a name that
        ends in "*" those that the price list of the moment calls so."""
        sellers: dict[str, list[str]] = {}
        snapshot = self._snapshot()
        for provider in self._providers:
            for model in dict.fromkeys(name for each in provider.models for name in _named(provider, each, snapshot)):
                sellers.setdefault(model, []).append(provider.name)
        return tuple(Listing(model, tuple(names)) for model, names in sellers.items())

    def offers(self, models: Sequence[str], now: datetime, processing: Sequence[str] = ("sync",)) -> tuple[Offer, ...]:
        """Every way to buy one of `models` at `now`, in the order of `models`, then providers, then `processing`.

        A name matches the providers that list exactly it; where none does, "provider/model" is that provider's model.
        `processing` holds "sync", "batch", or a service tier ("flex", "priority", ...); a class that the price data
        does not sell a model in at `now` yields no offer, so the answer can be empty.

        Raises UnknownModel if nobody sells a model or a seller's price for it is unknown, ValueError if `now` has no
        time zone (prices change with the hour) or `models` is a plain text.
        """
        if now.tzinfo is None:
            raise ValueError("now must carry a time zone: prices change with the hour")
        if isinstance(models, str) or isinstance(processing, str):
            raise ValueError("models and processing must be sequences of names, not one text")
        snapshot = self._snapshot()
        offers: dict[tuple[str, str, str], Offer] = {}
        for asked in models:
            for offer in self._sold(asked, now, processing, snapshot):
                offers.setdefault((offer.provider, offer.model, offer.processing), offer)
        return tuple(offers.values())

    def corrections(self, offer: Offer, now: datetime) -> tuple[Entry, ...]:
        """The entries of the overlay that made the price of `offer` at `now`."""
        provider = self.provider(offer.provider)
        sellers = (offer.provider,) if provider is None else _names(provider)
        return self._overlay.applying(sellers, offer.model, offer.processing, now)

    def _sold(self, asked: str, now: datetime, processing: Sequence[str], snapshot: DataSnapshot) -> list[Offer]:
        if not self._providers:
            return self._sold_by_makers(asked, now, processing, snapshot)
        sold: list[Offer] = []
        for provider, name in self._sellers(asked):
            if isinstance(provider.prices, Mapping):
                quote = _stated_quote(provider, name, provider.prices)
            else:
                quote = self._listed_quote(provider, name, snapshot)
            sold.extend(self._corrected(_names(provider), name, now, processing, quote))
        return sold

    def _sold_by_makers(
        self, asked: str, now: datetime, processing: Sequence[str], snapshot: DataSnapshot
    ) -> list[Offer]:
        try:
            price_list, name, found = maker_of(asked, snapshot)
        except UnknownModel as unknown:
            sellers = self._overlay.stating(asked)
            sold: list[Offer] = []
            for seller, model in sellers:
                sold.extend(self._corrected((seller,), model, now, processing, _unlisted(unknown)))
            if not sellers:
                raise
            return sold
        quote = _list_quote(price_list.id, name, price_list, found, snapshot)
        return self._corrected((price_list.id,), name, now, processing, quote)

    def _corrected(
        self, sellers: tuple[str, ...], name: str, now: datetime, processing: Sequence[str], quote: _Quote
    ) -> list[Offer]:
        """`quote` in each service class, as the overlay has it. What the overlay prices, no list needs to know."""
        sold: list[Offer] = []
        unknown: UnknownModel | None = None
        for service in processing:
            try:
                offer = self._overlay.quote(sellers, name, service, now, partial(quote, service))
            except UnknownModel as error:
                unknown = error
                continue
            if offer is not None:
                sold.append(offer)
        if unknown is not None and not sold:
            raise unknown
        return sold

    def _listed_quote(self, provider: Provider, name: str, snapshot: DataSnapshot) -> _Quote:
        wanted = provider.name if provider.prices is None else str(provider.prices)
        price_list = list_of(wanted, snapshot)
        if price_list is None:
            return _unlisted(UnknownModel(name, _no_list(provider, name, wanted, snapshot)))
        model = self._find(price_list, name, snapshot, keep=name in provider.models)
        if model is None:
            return _unlisted(UnknownModel(name, _no_row(provider, name, price_list, snapshot)))
        return _list_quote(provider.name, name, price_list, model, snapshot)

    def _sellers(self, asked: str) -> list[tuple[Provider, str]]:
        """Who sells `asked`, and under which name.

        A listed name goes before a pin: OpenRouter lists "openai/gpt-6", and a caller who reads that in the list of
        models must get it, also where a provider "openai" is configured beside it.
        """
        if exact := [(provider, asked) for provider in self._providers if provider.lists(asked)]:
            return exact
        pin, slash, model = asked.partition("/")
        pinned = self.provider(pin) if slash else None
        if pinned is not None and pinned.lists(model):
            return [(pinned, model)]
        if pinned is not None:
            raise UnknownModel(
                asked,
                f"provider {pin!r} does not list the model {shown(model)}{near(model, pinned.models)}. "
                "Add it to that provider's `models`, or ask for one that it lists.",
            )
        listed = [listing.model for listing in self.models()]
        raise UnknownModel(
            asked,
            f"no configured provider lists the model {shown(asked)}{near(asked, listed)}. "
            "Add it to a provider's `models`, or ask for one of GET /v1/models.",
        )

    def _find(self, price_list: PriceList, name: str, snapshot: DataSnapshot, *, keep: bool) -> ModelInfo | None:
        """`keep` what is found: for listed names, since callers invent as many others as they like."""
        known_snapshot, found = self._found
        if known_snapshot is not snapshot:
            found = {}
            self._found = (snapshot, found)
        if not keep:
            return price_list.find_model(name, all_providers=snapshot.providers)
        key = (price_list.id, name)
        if key not in found:
            found[key] = price_list.find_model(name, all_providers=snapshot.providers)
        return found[key]


def _named(provider: Provider, listed: str, snapshot: DataSnapshot) -> tuple[str, ...]:
    """The models that one of a provider's `models` stands for."""
    if not listed.endswith("*"):
        return (listed,)
    wanted = provider.name if provider.prices is None else provider.prices
    price_list = list_of(wanted, snapshot) if isinstance(wanted, str) else None
    rows = () if price_list is None else price_list.models
    return tuple(row.id for row in rows if row.id.startswith(listed[:-1]) and not row.deprecated)


def _names(provider: Provider) -> tuple[str, ...]:
    """What the overlay may call it: its own name, and that of its price list where it has another."""
    return (provider.name, provider.prices) if isinstance(provider.prices, str) else (provider.name,)


def _list_quote(seller: str, name: str, price_list: PriceList, model: ModelInfo, snapshot: DataSnapshot) -> _Quote:
    version = prices_version(snapshot)

    def quote(service: str, at: datetime) -> Offer | None:
        try:
            tiers = rates_of(price_list, model, service, at)
        except LookupError:
            raise UnknownModel(
                name,
                f"{version} knows the model {shown(name)} at {price_list.id!r} and states no price for input "
                "and output tokens, and an unknown price is not a price of zero. "
                "Give its provider a `prices` table with input_mtok and output_mtok (0 where it is free).",
            ) from None
        return None if tiers is None else Offer(seller, name, service, tiers, model.context_window, version)

    return quote


def _stated_quote(provider: Provider, name: str, table: Mapping[str, Decimal | int | float | str]) -> _Quote:
    mtok = {key: dollars_a_token(Decimal(amount)) for key, amount in table.items()}
    input_usd = mtok["input_mtok"]
    rates = Rates(
        above_tokens=-1,
        input_usd=input_usd,
        output_usd=mtok["output_mtok"],
        cache_read_usd=mtok.get("cache_read_mtok", input_usd),
        cache_write_usd=mtok.get("cache_write_mtok", input_usd),
    )
    offer = Offer(provider.name, name, "sync", (rates,), None, STATED_PRICES)
    return lambda service, at: offer if service == "sync" else None


def _unlisted(unknown: UnknownModel) -> _Quote:
    def quote(service: str, at: datetime) -> Offer | None:
        raise unknown

    return quote


def _no_list(provider: Provider, name: str, wanted: str, snapshot: DataSnapshot) -> str:
    return (
        f"no price for the model {shown(name)}: {prices_version(snapshot)} has no provider "
        f"{wanted!r}{near(wanted, [each.id for each in snapshot.providers])}. "
        f"Set `prices` of provider {provider.name!r} to a genai-prices provider id, or to a table with input_mtok "
        "and output_mtok."
    )


def _no_row(provider: Provider, name: str, price_list: PriceList, snapshot: DataSnapshot) -> str:
    return (
        f"no price for the model {shown(name)} that provider {provider.name!r} lists: {prices_version(snapshot)} does "
        f"not have it at {price_list.id!r}{near(name, [row.id for row in price_list.models])}. Correct the name, set "
        "`prices` to another genai-prices provider id, or to a table with input_mtok and output_mtok."
    )


def _words(provider: str, name: str, value: object) -> tuple[str, ...]:
    """The words of a list, as a configuration file has it; ValueError for anything else."""
    words = tuple(value) if isinstance(value, (list, tuple)) else ("",)
    if not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{name} of provider {provider!r} must be a list of words, none of them empty")
    return words


def _table(name: str, table: Mapping[str, Decimal | int | float | str]) -> Mapping[str, Decimal]:
    """The table with exact amounts, frozen; ValueError for a missing, unknown or impossible entry."""
    if unknown := sorted(set(table) - set(_TABLE_KEYS)):
        raise ValueError(f"prices of provider {name!r} may hold {', '.join(_TABLE_KEYS)}, not {unknown[0]!r}")
    if missing := [key for key in _REQUIRED_KEYS if key not in table]:
        raise ValueError(f"prices of provider {name!r} must state {missing[0]}, in dollars per million tokens")
    amounts: dict[str, Decimal] = {}
    for key, stated in table.items():
        try:
            # By way of str: Decimal(0.1) is 0.1000000000000000055..., and the file said 0.1.
            amount = Decimal("NaN") if isinstance(stated, bool) else Decimal(str(stated))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            raise ValueError(f"{key} in the prices of provider {name!r} must be a number of 0 or more, not {stated!r}")
        amounts[key] = amount
    return MappingProxyType(amounts)

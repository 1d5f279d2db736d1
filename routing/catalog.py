"""The catalog: who sells which model here, and at what price right now.

Prices are genai-prices' own data, read through its own classes and compiled into `Offer`s; none of it is copied, and
a price that it does not know is an error, never a guess. Knows nothing of budgets or of the network.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from genai_prices import __version__ as genai_prices_version
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices
from genai_prices.types import Provider as PriceList

from routing.errors import UnknownModel
from routing.offers import Offer, Rates

PRICES_VERSION = f"genai-prices {genai_prices_version}"
"""Where the prices of an offer come from, such as "genai-prices 0.2.3"."""

STATED_PRICES = "stated in the configuration"
"""The `prices_version` of an offer whose provider states its own prices."""

_KINDS = ("openai", "anthropic", "gemini")
_REQUIRED_KEYS = ("input_mtok", "output_mtok")
_TABLE_KEYS = (*_REQUIRED_KEYS, "cache_read_mtok", "cache_write_mtok")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN_CHARACTERS = 100
"""Of a caller's model name in a message; the name itself has no limit."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured seller: where it is, which wire it speaks, what it serves and who states its prices.

    `kind` is the wire. `api_key_env` names an environment variable; a key itself never stands here. `models` are the
    names as the provider takes them, case kept. `prices` is None where `name` is the genai-prices provider id, another
    such id, or a table of dollars per million tokens `{input_mtok, output_mtok, cache_read_mtok?, cache_write_mtok?}`
    for models that no price list knows (self-hosted ones). A table sells "sync" processing only.

    Raises ValueError, naming the field and the fix; a bad `api_key_env` or `base_url` is not repeated in it, since a
    secret may have been put there by mistake.
    """

    name: str
    kind: Literal["openai", "anthropic", "gemini"]
    base_url: str
    api_key_env: str | None
    models: tuple[str, ...]
    prices: str | Mapping[str, Decimal | int | float | str] | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(
                f"name must be a non-empty text without '/' ('name/model' pins a model), not {self.name!r}"
            )
        if self.kind not in _KINDS:
            raise ValueError(f"kind of provider {self.name!r} must be one of {', '.join(_KINDS)}, not {self.kind!r}")
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
    an offer can be planned with and not forwarded. Raises ValueError for two providers of one name. Immutable.
    """

    __slots__ = ("_found", "_providers")

    def __init__(self, providers: Iterable[Provider] = ()) -> None:
        self._providers = tuple(providers)
        names = [provider.name for provider in self._providers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two providers are called {twice[0]!r}; give each a name of its own (`prices` may agree)")
        # Found models, for the snapshot that they were found in. Measured: genai-prices tries its rows one by one
        # (0.2 ms among OpenRouter's 923), so 100 listed models cost 20 ms without this. Bounded by what is listed.
        # Compiled tiers are not kept: compiling takes 10 us, and prices change with the hour.
        self._found: tuple[DataSnapshot, dict[tuple[str, str], ModelInfo | None]] = (get_snapshot(), {})

    @property
    def providers(self) -> tuple[Provider, ...]:
        return self._providers

    def provider(self, name: str) -> Provider | None:
        """The configured provider of that name; None for a maker's list price (nothing is configured)."""
        return next((provider for provider in self._providers if provider.name == name), None)

    def models(self) -> tuple[Listing, ...]:
        """Every model that is listed, once, in configured order; nothing when no provider is configured."""
        sellers: dict[str, list[str]] = {}
        for provider in self._providers:
            for model in dict.fromkeys(provider.models):
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
        snapshot = get_snapshot()
        offers: dict[tuple[str, str, str], Offer] = {}
        for asked in models:
            for offer in self._sold(asked, now, processing, snapshot):
                offers.setdefault((offer.provider, offer.model, offer.processing), offer)
        return tuple(offers.values())

    def _sold(self, asked: str, now: datetime, processing: Sequence[str], snapshot: DataSnapshot) -> list[Offer]:
        if not self._providers:
            price_list, name, found = _maker(asked, snapshot)
            return _listed_offers(price_list.id, name, price_list, found, now, processing)
        sold: list[Offer] = []
        for provider, name in self._sellers(asked):
            if isinstance(provider.prices, Mapping):
                sold.extend(_stated_offers(provider, name, provider.prices, processing))
                continue
            price_list = _price_list(provider, name, snapshot)
            model = self._find(price_list, name, snapshot)
            if model is None:
                raise UnknownModel(name, _no_row(provider, name, price_list))
            sold.extend(_listed_offers(provider.name, name, price_list, model, now, processing))
        return sold

    def _sellers(self, asked: str) -> list[tuple[Provider, str]]:
        """Who sells `asked`, and under which name.

        A listed name goes before a pin: OpenRouter lists "openai/gpt-6", and a caller who reads that in the list of
        models must get it, also where a provider "openai" is configured beside it.
        """
        if exact := [(provider, asked) for provider in self._providers if asked in provider.models]:
            return exact
        pin, slash, model = asked.partition("/")
        pinned = self.provider(pin) if slash else None
        if pinned is not None and model in pinned.models:
            return [(pinned, model)]
        if pinned is not None:
            raise UnknownModel(
                asked,
                f"provider {pin!r} does not list the model {_shown(model)}{_near(model, pinned.models)}. "
                "Add it to that provider's `models`, or ask for one that it lists.",
            )
        listed = [listing.model for listing in self.models()]
        raise UnknownModel(
            asked,
            f"no configured provider lists the model {_shown(asked)}{_near(asked, listed)}. "
            "Add it to a provider's `models`, or ask for one of GET /v1/models.",
        )

    def _find(self, price_list: PriceList, name: str, snapshot: DataSnapshot) -> ModelInfo | None:
        known_snapshot, found = self._found
        if known_snapshot is not snapshot:
            found = {}
            self._found = (snapshot, found)
        key = (price_list.id, name)
        if key not in found:
            found[key] = price_list.find_model(name, all_providers=snapshot.providers)
        return found[key]


def _listed_offers(
    seller: str, name: str, price_list: PriceList, model: ModelInfo, now: datetime, processing: Sequence[str]
) -> list[Offer]:
    offers: list[Offer] = []
    for service in processing:
        context = _context(service)
        if context and not _is_sold(price_list, model, context, now):
            continue
        tiers = _tiers(model.get_prices(now, context))
        if tiers is None:
            raise UnknownModel(
                name,
                f"{PRICES_VERSION} knows the model {_shown(name)} at {price_list.id!r} and states no price for input "
                "and output tokens, and an unknown price is not a price of zero. "
                "Give its provider a `prices` table with input_mtok and output_mtok (0 where it is free).",
            )
        offers.append(Offer(seller, name, service, tiers, model.context_window, PRICES_VERSION))
    return offers


def _stated_offers(
    provider: Provider, name: str, table: Mapping[str, Decimal | int | float | str], processing: Sequence[str]
) -> list[Offer]:
    if "sync" not in processing:
        return []
    mtok = {key: _dollars_a_token(Decimal(amount)) for key, amount in table.items()}
    input_usd = mtok["input_mtok"]
    rates = Rates(
        above_tokens=-1,
        input_usd=input_usd,
        output_usd=mtok["output_mtok"],
        cache_read_usd=mtok.get("cache_read_mtok", input_usd),
        cache_write_usd=mtok.get("cache_write_mtok", input_usd),
    )
    return [Offer(provider.name, name, "sync", (rates,), None, STATED_PRICES)]


def _context(service: str) -> dict[str, str] | None:
    """The service class in genai-prices' words; None for the standard price."""
    if service == "sync":
        return None
    return {"processing": "batch"} if service == "batch" else {"service_tier": service}


def _is_sold(price_list: PriceList, model: ModelInfo, context: Mapping[str, str], now: datetime) -> bool:
    """Whether a price variant says so. Without this check `get_prices` answers with the standard price.

    A model that the list only borrows (Azure sells OpenAI's) has no variants there: its owner's batch price is not
    the borrower's, and genai-prices' own `calc_price` holds the same.
    """
    if not any(model is own for own in price_list.models):
        return False
    return any(
        (variant.constraint is None or variant.constraint.active(now))
        and all(context.get(key) == value for key, value in variant.when.items())
        for variant in model.price_variants or ()
    )


def _tiers(prices: ModelPrice) -> tuple[Rates, ...] | None:
    """Rows for every boundary of any price that counts here; None where input or output has no price.

    Out of scope, because a `Usage` does not count them: audio, image, video, documents, searches, reasoning and
    citation tokens priced apart, and the one-hour cache write (`cache_write_usd` is the five-minute one).
    """
    input_price, output_price = prices.input_mtok, prices.output_mtok
    if input_price is None or output_price is None:
        return None
    # A provider without a cache price bills cached tokens as input.
    read_price = input_price if prices.cache_read_mtok is None else prices.cache_read_mtok
    write_price = input_price if prices.cache_write_mtok is None else prices.cache_write_mtok
    request_price = Decimal(0) if prices.requests_kcount is None else prices.requests_kcount
    starts = {
        tier.start
        for each in (input_price, output_price, read_price, write_price, request_price)
        if isinstance(each, TieredPrices)
        for tier in each.tiers
    }
    rows: list[Rates] = []
    for start in (-1, *sorted(starts)):
        row = Rates(
            above_tokens=start,
            input_usd=_dollars_a_token(_above(input_price, start)),
            output_usd=_dollars_a_token(_above(output_price, start)),
            cache_read_usd=_dollars_a_token(_above(read_price, start)),
            cache_write_usd=_dollars_a_token(_above(write_price, start)),
            request_usd=_above(request_price, start).scaleb(-3),
        )
        rows.append(row)
    return tuple(rows)


def _above(price: Decimal | TieredPrices, start: int) -> Decimal:
    """The price of a unit once the input is above `start` tokens (exclusive, as genai-prices means it)."""
    if isinstance(price, Decimal):
        return price
    current = price.base
    for tier in price.tiers:
        if start >= tier.start:
            current = tier.price
    return current


def _dollars_a_token(dollars_a_million: Decimal) -> Decimal:
    # scaleb moves the point and is exact; a division could round.
    return dollars_a_million.scaleb(-6)


def _maker(asked: str, snapshot: DataSnapshot) -> tuple[PriceList, str, ModelInfo]:
    """The price list that genai-prices finds for `asked` by default, or the one that "id/model" names.

    The same search as `snapshot.find_provider_model`, without its memory: that remembers every name that anybody ever
    asked for, which a caller could use to fill the memory of a server.
    """
    pin, slash, model = asked.partition("/")
    if slash:
        pinned = next((each for each in snapshot.providers if each.id == pin), None)
        found = pinned.find_model(model, all_providers=snapshot.providers) if pinned is not None else None
        if pinned is not None and found is not None:
            return pinned, model, found
    lowered = asked.lower()
    maker = next((each for each in snapshot.providers if each.model_match and each.model_match.is_match(lowered)), None)
    found = maker.find_model(lowered, all_providers=snapshot.providers) if maker is not None else None
    if maker is not None and found is not None:
        return maker, asked, found
    pool = [row.id for each in snapshot.providers for row in each.models]
    raise UnknownModel(
        asked,
        f"{PRICES_VERSION} has no maker's price for the model {_shown(asked)}{_near(asked, pool)}. "
        "Correct the name, write 'genai-prices-provider/model', or configure a [[providers]] table that lists it.",
    )


def _price_list(provider: Provider, name: str, snapshot: DataSnapshot) -> PriceList:
    """By exact id. genai-prices' own search takes any name that merely contains "openai": that would be a guess."""
    wanted = provider.name if provider.prices is None else provider.prices
    found = next((each for each in snapshot.providers if each.id == wanted), None)
    if found is None:
        near = _near(str(wanted), [each.id for each in snapshot.providers])
        raise UnknownModel(
            name,
            f"no price for the model {_shown(name)}: {PRICES_VERSION} has no provider {wanted!r}{near}. "
            f"Set `prices` of provider {provider.name!r} to a genai-prices provider id, or to a table with input_mtok "
            "and output_mtok.",
        )
    return found


def _no_row(provider: Provider, name: str, price_list: PriceList) -> str:
    near = _near(name, [row.id for row in price_list.models])
    return (
        f"no price for the model {_shown(name)} that provider {provider.name!r} lists: {PRICES_VERSION} does not "
        f"have it at {price_list.id!r}{near}. Correct the name, set `prices` to another genai-prices provider id, or "
        "to a table with input_mtok and output_mtok."
    )


def _near(name: str, pool: Sequence[str]) -> str:
    """Up to three names that begin with or look like `name`, as the middle of a sentence; empty if none does."""
    by_lower = {known.lower(): known for known in pool}
    asked = name[:_SHOWN_CHARACTERS].lower()
    # Longer names first: to difflib, "gemini-2.5-pro" is nearer to "gemini-3.1-pro" than "gemini-3.1-pro-preview".
    longer = sorted(known for known in by_lower if asked and known.startswith(asked))
    close = list(dict.fromkeys((*longer, *difflib.get_close_matches(asked, by_lower, n=3))))[:3]
    return f" (near: {', '.join(by_lower[each] for each in close)})" if close else ""


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")


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

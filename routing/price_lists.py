"""Price lists: genai-prices' own data, found by name and compiled into rates. None of it is copied.

Read through its own classes, so that a price is what it says there to the digit. Knows nothing of who is configured.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal

from genai_prices import __version__ as genai_prices_version
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint
from genai_prices.types import Provider as PriceList

from routing.errors import UnknownModel
from routing.offers import Rates

PRICES_VERSION = f"genai-prices {genai_prices_version}"
"""The prices that the installed package carries, such as "genai-prices 0.2.3"."""

_SHOWN_CHARACTERS = 100
"""Of a caller's model name in a message; the name itself has no limit."""


def prices_version(snapshot: DataSnapshot) -> str:
    """What a receipt calls the prices of `snapshot`: the package's, or when they were fetched."""
    if not snapshot.from_auto_update:
        return PRICES_VERSION
    return f"{PRICES_VERSION}, updated {snapshot.timestamp.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def rates_of(price_list: PriceList, model: ModelInfo, service: str, at: datetime) -> tuple[Rates, ...] | None:
    """The rows for each price boundary of `model` in a service class at a moment; None where it is not sold so.

    `service` is "sync", "batch", or a service tier ("flex", "priority", ...). Raises LookupError where the list knows
    the model and states no price for its input or output, ValueError where a price is impossible (negative, NaN).
    """
    context = _context(service)
    if context and not _is_sold(price_list, model, context, at):
        return None
    return _tiers(model.get_prices(at, context), writes="embed" not in model.id)


def moments_of(model: ModelInfo, now: datetime) -> Iterator[datetime]:
    """`now`, and every later moment at which a price of `model` begins or ends: enough to see all its prices.

    Hours are taken on the day of `now` and on every day on which a price starts.
    """
    yield now
    rows = [*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ())]
    constraints = [row.constraint for row in rows if row.constraint is not None]
    days = {now.astimezone(UTC).date()}
    hours = {time(0)}
    for constraint in constraints:
        if isinstance(constraint, StartDateConstraint):
            days.add(max(constraint.start_date, min(days)))
        elif isinstance(constraint, TimeOfDateConstraint):
            hours |= {constraint.start_time, constraint.end_time}
    for day in sorted(days):
        for hour in sorted(hours, key=str):
            yield datetime.combine(day, hour, hour.tzinfo or UTC)


def list_of(provider_id: str, snapshot: DataSnapshot) -> PriceList | None:
    """By exact id. genai-prices' own search takes any name that merely contains "openai": that would be a guess."""
    return next((each for each in snapshot.providers if each.id == provider_id), None)


def maker_of(asked: str, snapshot: DataSnapshot) -> tuple[PriceList, str, ModelInfo]:
    """The price list that genai-prices finds for `asked` by default, or the one that "id/model" names.

    The same search as `snapshot.find_provider_model`, without its memory: that remembers every name that anybody ever
    asked for, which a caller could use to fill the memory of a server. Raises UnknownModel.
    """
    pin, slash, model = asked.partition("/")
    if slash:
        pinned = list_of(pin, snapshot)
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
        f"{prices_version(snapshot)} has no maker's price for the model {shown(asked)}{near(asked, pool)}. "
        "Correct the name, write 'genai-prices-provider/model', or configure a [[providers]] table that lists it.",
    )


def near(name: str, pool: Sequence[str]) -> str:
    """Up to three names that begin with or look like `name`, as the middle of a sentence; empty if none does."""
    by_lower = {known.lower(): known for known in pool}
    asked = name[:_SHOWN_CHARACTERS].lower()
    # Longer names first: to difflib, "gemini-2.5-pro" is nearer to "gemini-3.1-pro" than "gemini-3.1-pro-preview".
    longer = sorted(known for known in by_lower if asked and known.startswith(asked))
    close = list(dict.fromkeys((*longer, *difflib.get_close_matches(asked, by_lower, n=3))))[:3]
    return f" (near: {', '.join(by_lower[each] for each in close)})" if close else ""


def shown(name: str) -> str:
    """A caller's name as a message may repeat it."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")


def dollars_a_token(dollars_a_million: Decimal) -> Decimal:
    # scaleb moves the point and is exact; a division could round.
    return dollars_a_million.scaleb(-6)


def _context(service: str) -> dict[str, str] | None:
    """The service class in genai-prices' words; None for the standard price."""
    if service == "sync":
        return None
    return {"processing": "batch"} if service == "batch" else {"service_tier": service}


def _is_sold(price_list: PriceList, model: ModelInfo, context: Mapping[str, str], at: datetime) -> bool:
    """Whether a price variant says so. Without this check `get_prices` answers with the standard price.

    A model that the list only borrows (Azure sells OpenAI's) has no variants there: its owner's batch price is not
    the borrower's, and genai-prices' own `calc_price` holds the same.
    """
    if not any(model is own for own in price_list.models):
        return False
    return any(
        (variant.constraint is None or variant.constraint.active(at))
        and all(context.get(key) == value for key, value in variant.when.items())
        for variant in model.price_variants or ()
    )


def _tiers(prices: ModelPrice, *, writes: bool) -> tuple[Rates, ...]:
    """Rows for every boundary of any price that counts here.

    Out of scope, because a `Usage` does not count them: audio, image, video, documents, searches, reasoning and
    citation tokens priced apart, and the one-hour cache write (`cache_write_usd` is the five-minute one).
    `writes`: the model has output. One that embeds has none, so that its list states no price for it.
    """
    input_price, output_price = prices.input_mtok, prices.output_mtok
    if output_price is None and not writes:
        output_price = Decimal(0)
    if input_price is None or output_price is None:
        raise LookupError("no price for input and output tokens")
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
            input_usd=dollars_a_token(_above(input_price, start)),
            output_usd=dollars_a_token(_above(output_price, start)),
            cache_read_usd=dollars_a_token(_above(read_price, start)),
            cache_write_usd=dollars_a_token(_above(write_price, start)),
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

"""Preferences: whom a caller wants to be asked, in our own options and in OpenRouter's words, as one policy.

OpenRouter's words are the body's `provider` object, its `models` list and the suffixes `:floor` and `:nitro` of a model's
name (https://openrouter.ai/docs/guides/routing/provider-selection, /docs/guides/routing/model-fallbacks). They mean here
what they mean there. `read_preferences` says when they are left to OpenRouter itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from compressor.payload import OPTIONS
from routing.abilities import Abilities
from routing.catalog import OPENROUTER_FIELDS, Catalog
from routing.errors import UnknownModel
from routing.limits import MaxPrice
from routing.offers import Offer
from routing.policy import Admitted, Group, Policy, Sort, admitted
from routing.tongues import Tongue
from trimtab.errors import BadRequest
from trimtab.options import Names, Options, checked

Body = Mapping[str, Any]
Sell = Callable[[str], Sequence[Offer]]

_OF_NAMES: Final = ("order", "only", "ignore")
_THERE_ONLY: Final = ("quantizations", "enforce_distillable_text", "preferred_min_throughput", "preferred_max_latency")
_SUFFIXES: Final[Mapping[str, Sort]] = {":floor": "price", ":nitro": "throughput"}


def _only_there(value: object) -> object:
    raise ValueError("is known at OpenRouter and not of the providers here; remove it")


_OnlyThere = Annotated[object, AfterValidator(_only_there)]
_Dollars = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MostPaid(_Strict):
    """OpenRouter's `max_price`: dollars per million tokens of prompt and completion, and per request."""

    prompt: _Dollars | None = None
    completion: _Dollars | None = None
    request: _Dollars | None = None
    image: _OnlyThere = None
    audio: _OnlyThere = None


class SortBy(_Strict):
    """`sort` as an object; `partition` "none" sorts the offers of all models together, "model" each model's own."""

    by: Sort
    partition: Literal["model", "none"] = "model"


def _sorted_by(value: object) -> object:
    return {"by": value} if isinstance(value, str) else value


class Preferences(_Strict):
    """OpenRouter's `provider` object. `order`, `only` and `ignore` name providers of this configuration."""

    order: Names = []
    only: Names | None = None
    ignore: Names = []
    allow_fallbacks: bool = True
    # True is kept without it: what would be dropped silently is refused in any case.
    require_parameters: bool = False
    data_collection: Literal["allow", "deny"] = "allow"
    zdr: bool = False
    sort: Annotated[SortBy | None, BeforeValidator(_sorted_by)] = None
    max_price: MostPaid | None = None
    quantizations: _OnlyThere = None
    enforce_distillable_text: _OnlyThere = None
    preferred_min_throughput: _OnlyThere = None
    preferred_max_latency: _OnlyThere = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom a caller wants asked: the groups of offers (its own model first), the policy, and the body as it may be sent."""

    groups: tuple[Group, ...]
    policy: Policy
    body: Body

    def admitted(self, catalog: Catalog, tongue: Tongue) -> Admitted:
        """Who of them may be asked what the body, in `tongue`, asks. Raises NoOffer where nobody may."""
        abilities = Abilities({name: value for name, value in self.body.items() if name != OPTIONS}, tongue)
        sellers = {provider.name: provider for provider in catalog.providers}

        def unable(offer: Offer) -> str | None:
            return abilities.lacking(sellers.get(offer.provider), offer.model)

        return admitted(self.groups, self.policy, sellers.get, unable)


def read_preferences(body: Body, options: Options, catalog: Catalog, sell: Sell) -> Wanted:
    """What the body's fields and `options` want. `sell(model)` gives a model's offers and raises UnknownModel.

    Where OpenRouter is among the sellers, its fields are left to it, untouched, if it is the only one, or if they name a
    provider or a field that is known there only (nobody else is then asked). Else they are read here: no other provider
    gets them, and OpenRouter gets `provider` without the names, which mean nothing there. It sorts by a suffix in any case.

    Raises BadRequest that names the field, UnknownModel for `model` itself.
    """
    model, sort = _without_suffix(str(body.get("model")), catalog)
    own = [*sell(model)]
    for number, candidate in enumerate(options.candidates):
        own += _sold(sell, _without_suffix(candidate, catalog)[0], f"trimtab.candidates.{number}")
    _check_names(options.allow, catalog, "trimtab.allow")
    for name in ("deny", "order"):
        _check_names(getattr(options, name), catalog, f"trimtab.{name}")
    policy = Policy(
        allow=None if options.allow is None else tuple(options.allow),
        deny=tuple(options.deny),
        order=tuple(options.order),
        regions=tuple(options.regions),
        require=tuple(options.require),
    )
    relays = [each.name for each in catalog.providers if each.is_openrouter]
    relayed = [offer.provider in relays for offer in own]
    given = body.get("provider") or {}
    if any(relayed) and sort is not None and isinstance(given, Mapping):
        body = {**body, "provider": {"sort": sort, **given}}
    group = Group(tuple(own), sort or "price")
    if any(relayed) and (all(relayed) or _only_known_there(body.get("provider"), catalog)):
        allow = tuple(name for name in relays if policy.allow is None or name in policy.allow)
        return Wanted((group,), replace(policy, allow=allow), body)
    return _read_here(body, group, policy, catalog, sell)


def _read_here(body: Body, own: Group, policy: Policy, catalog: Catalog, sell: Sell) -> Wanted:
    given = body.get("provider")
    asked = Preferences() if given is None else checked(Preferences, _without_nulls(given), "provider")
    for name in _OF_NAMES:
        _check_names(getattr(asked, name), catalog, f"provider.{name}")
    if policy.order and asked.order:
        raise BadRequest("trimtab.order", "and provider.order are two orders; give one of them")
    by = asked.sort
    groups = [own if by is None else replace(own, sort=by.by)]
    for number, name in enumerate(checked(_Models, {"models": body.get("models") or []}, None).models):
        model, sort = _without_suffix(name, catalog)
        offers = _sold(sell, model, f"models.{number}")
        groups.append(Group(tuple(offers), by.by if by else sort or "price"))
    if by is not None and by.partition == "none":
        groups = [Group(tuple(offer for group in groups for offer in group.offers), by.by)]
    sent = {name: value for name, value in body.items() if name not in OPENROUTER_FIELDS}
    if isinstance(given, Mapping):
        left = {name: value for name, value in given.items() if name not in _OF_NAMES}
        sent |= {"provider": left} if left else {}
    return Wanted(tuple(groups), _joined(policy, asked), sent)


def _joined(policy: Policy, asked: Preferences) -> Policy:
    allow = policy.allow
    if asked.only is not None:
        allow = tuple(name for name in asked.only if allow is None or name in allow)
    promised = (*(["zdr"] if asked.zdr else []), *(["no_training"] if asked.data_collection == "deny" else []))
    most = asked.max_price
    return Policy(
        allow=allow,
        deny=(*policy.deny, *asked.ignore),
        order=policy.order or tuple(asked.order),
        fallbacks=asked.allow_fallbacks,
        regions=policy.regions,
        require=(*policy.require, *promised),
        max_price=None if most is None else MaxPrice(_a_token(most.prompt), _a_token(most.completion), most.request),
    )


def _a_token(dollars_a_million: Decimal | None) -> Decimal | None:
    # scaleb moves the point and is exact; a division could round.
    return None if dollars_a_million is None else dollars_a_million.scaleb(-6)


class _Models(BaseModel):
    models: Names = []


def _without_suffix(model: str, catalog: Catalog) -> tuple[str, Sort | None]:
    """The model's name without a suffix that says how to sort, and that sort. A model that is listed so is called so."""
    if model not in {listing.model for listing in catalog.models()}:
        for suffix, sort in _SUFFIXES.items():
            if model.endswith(suffix):
                return model.removesuffix(suffix), sort
    return model, None


def _sold(sell: Sell, model: str, param: str) -> Sequence[Offer]:
    try:
        return sell(model)
    except UnknownModel as error:
        raise BadRequest(param, str(error), "model_not_found", status=404) from None


def _check_names(names: Sequence[str] | None, catalog: Catalog, param: str) -> None:
    """Refuse a name that nobody here has: a slip in `ignore` would send a prompt where it must not go.

    Without any configured provider, plans are made with all the makers that the price list knows.
    """
    known = [provider.name for provider in catalog.providers]
    for number, name in enumerate(names or ()):
        if known and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            there = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known[:20])}"
            raise BadRequest(f"{param}.{number}", f"no provider here is called {name[:100]!r}; {there}")


def _only_known_there(asked: object, catalog: Catalog) -> bool:
    """Whether a `provider` object names a provider or a field that only OpenRouter knows."""
    if not isinstance(asked, Mapping):
        return False
    known = {provider.name for provider in catalog.providers}
    names = [name for field in _OF_NAMES if isinstance(asked.get(field), list) for name in asked[field]]
    fields = set(Preferences.model_fields) - set(_THERE_ONLY)
    return any(name not in known for name in names) or any(name not in fields for name in _without_nulls(asked))


def _without_nulls(asked: Any) -> Any:
    """OpenRouter takes null for a field that is not given."""
    return {name: each for name, each in asked.items() if each is not None} if isinstance(asked, Mapping) else asked

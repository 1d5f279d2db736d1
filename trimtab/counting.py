"""Counting: how many tokens a message of Anthropic's API has, told by its provider where that one counts, else by us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from compressor.payload import OPTIONS, parse
from compressor.tokens import count_each, encoding_for_model
from routing.offers import Offer
from routing.wires import NATIVE
from trimtab.access.rules import EVERYTHING, Rules
from trimtab.errors import BadRequest
from trimtab.options import read_options
from trimtab.pipeline import Trimtab
from trimtab.preferences import read_preferences
from trimtab.request import fixed_tokens
from trimtab.surfaces import COUNT_TOKENS


@dataclass(frozen=True, slots=True)
class Counting:
    """`offers` are those whose provider counts: the first of them is to be asked. Where there is none, `tokens` is ours."""

    body: Mapping[str, Any]
    offers: tuple[Offer, ...]
    tokens: int = 0


def counting(trimtab: Trimtab, body: Mapping[str, Any], rules: Rules = EVERYTHING) -> Counting:
    """How to count `body`. Counted whole: what trimming will leave of it depends on the plan.

    Raises BadRequest, BadPayload, UnknownModel or NoOffer.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model", 'must name a model, such as "claude-sonnet-5"')
    now = datetime.now(UTC)

    def sell(name: str) -> Sequence[Offer]:
        rules.check(name)
        return trimtab.catalog.offers([name], now)

    wanted = read_preferences(body, read_options(body), trimtab.catalog, sell)
    wanted = replace(wanted, policy=rules.narrowed(wanted.policy))
    admitted = wanted.admitted(trimtab.catalog, COUNT_TOKENS.tongue)
    offers = tuple(each for each in admitted.offers if _counts(trimtab, each))
    payload, encoding = parse(COUNT_TOKENS.api, body), encoding_for_model(model)
    sent = {name: value for name, value in wanted.body.items() if name != OPTIONS}
    if offers:
        return Counting(sent, offers)
    contexts = count_each([source.text for source in payload.sources], encoding)
    return Counting(sent, (), sum(fixed_tokens(payload, encoding).values()) + sum(contexts))


def _counts(trimtab: Trimtab, offer: Offer) -> bool:
    provider = trimtab.catalog.provider(offer.provider)
    return provider is not None and (provider.kind, COUNT_TOKENS.tongue.name) in NATIVE

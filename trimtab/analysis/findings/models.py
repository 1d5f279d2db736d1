"""Models that are too good for their task: a cheaper one is expected to answer as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from routing.offers import Offer
from trimtab.analysis.changes import Change
from trimtab.analysis.grouping import Group
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import counted
from trimtab.difficulty import DifficultyRouter

_FEWEST: Final = 10
_LEAST_QUALITY: Final = 0.85
_MOST_LOST: Final = 0.05
_LEAST_SAVED_SHARE: Final = Decimal("0.5")
_SAMPLE: Final = 40
"""Prompts of a group that are judged: a whole route is moved or none of it."""


def too_good_models(study: Study) -> Iterator[Finding]:
    """For groups all of whose judged prompts are easy: among the models of the same maker that the recording uses too, and
    those that are to be considered. Models of another maker are a change that nobody makes for a guess."""
    names = list(dict.fromkeys((*(request.model for request in study.requests), *study.considered)))
    router = study.router() if len(names) > 1 else None
    for group in study.groups if router is not None else ():
        if len(group.requests) >= _FEWEST and router is not None:
            yield from _found(study, group, _offers(study, group, names), router)


def _offers(study: Study, group: Group, names: Sequence[str]) -> dict[str, Offer]:
    """By name what the group is bought as, first, and what it could be."""
    first = study.requests[group.requests[0]]
    own = study.prices.offer(first, group.model, "sync")
    offers = {} if own is None else {group.model: own}
    for name in names if own is not None else ():
        offer = study.prices.offer(first, name, "sync")
        if offer is not None and own is not None and (offer.provider == own.provider or name in study.considered):
            offers.setdefault(name, offer)
    return offers


def _found(study: Study, group: Group, offers: dict[str, Offer], router: DifficultyRouter) -> Iterator[Finding]:
    good = _cheaper(study, group, offers)
    own = offers.get(group.model)
    worst = dict.fromkeys(good, 1.0)
    judged = 0
    for prompt in _prompts(study, group) if own is not None else ():
        if not good or own is None:
            return
        qualities = router.qualities(prompt, offers.values())
        judged += 1
        for name in list(good):
            quality = qualities[offers[name].model]
            worst[name] = min(worst[name], quality)
            if quality < _LEAST_QUALITY or qualities[own.model] - quality > _MOST_LOST:
                del good[name]
    if not good or judged < _FEWEST:
        return
    name = max(good, key=lambda each: study.saved_usd(good[each]))
    yield Finding(
        kind="model-too-good",
        title=f"{name} is expected to answer {counted(len(group.requests), 'request')} of {group.model} as well",
        advice=f'Try {name} on a sample of these requests and compare; or let trimtab choose for each (model "auto").',
        reckoned=f"the difficulty router gives {name} a chance of {worst[name]:.0%} or more of a good answer on every one of "
        f"{judged} prompts judged (strengths of models it was not trained on are guessed from their prices); "
        "the same tokens at its price",
        basis="estimated",
        changes=good[name],
    )


def _cheaper(study: Study, group: Group, offers: dict[str, Offer]) -> dict[str, tuple[Change, ...]]:
    """By name the models at which the same tokens cost much less, each with the change to it."""
    spent = sum((study.cost_usd(i) or Decimal(0) for i in group.requests), Decimal(0))
    changes = {name: tuple(Change(i, model=name) for i in group.requests) for name in offers if name != group.model}
    return {
        name: change
        for name, change in changes.items()
        if spent and study.saved_usd(change) >= _LEAST_SAVED_SHARE * spent
    }


def _prompts(study: Study, group: Group) -> Iterator[str]:
    """What some of the requests ask, evenly from the first to the last."""
    step = max(1, len(group.requests) // _SAMPLE)
    for i in group.requests[::step]:
        payload = study.anatomies[i].payload
        if payload is not None and payload.query.strip():
            yield payload.query

"""The gate with keys: who may come in, what he may ask, and what he may spend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from routing.attempts import Attempt
from trimtab.access.counters import Ask, Budget, Counters, End, Rate
from trimtab.access.key import Key, Limits, period_at
from trimtab.access.keys import Keys
from trimtab.access.refusals import anthropic_headers, away, not_admitted, openai_headers, refused
from trimtab.access.rules import EVERYTHING, Rules
from trimtab.access.secrets import MOST_CHARACTERS, digest_of
from trimtab.access.spending import JOB_PREFIX, LEASE_S, Past, Spending, WhenAway
from trimtab.access.worst_case import tokens_of, worst_case_usd
from trimtab.caller import Caller
from trimtab.conclusion import Conclusion
from trimtab.errors import BadRequest
from trimtab.http import in_thread
from trimtab.ledger.entries import pico
from trimtab.prepared import Prepared
from trimtab.surfaces import MESSAGES

KNOWN_S: Final = 2.0
"""How long a key is taken to be as it was found: a change, or its end, holds for everybody within so long."""
KNOWN_WHEN_AWAY_S: Final = 300.0
"""And how long while the database is away, where requests may go without it."""
MOST_KNOWN: Final = 10_000
_BEARER: Final = "bearer "


@dataclass(slots=True)
class _Known:
    key: Key | None
    at: float


class KeyGate:
    """`clock` gives seconds since 1970."""

    def __init__(
        self, keys: Keys, counters: Counters, past: Past, when_away: WhenAway, clock: Callable[[], float]
    ) -> None:
        self.keys = keys
        self.counters = counters
        self.past = past
        self._when_away = when_away
        self._clock = clock
        self._spending = Spending(counters, past, when_away, clock)
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with self._spending.serving():
            yield

    # --- who -------------------------------------------------------------------------------------------------------------

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        secret = credential(headers)
        if secret is None:
            raise not_admitted("this server asks for a key: send authorization: Bearer, with a key that it gave you")
        digest = digest_of(secret)
        if len(secret) > MOST_CHARACTERS:
            raise not_admitted("the key that was sent is none of this server's")
        now = self._clock()
        known = self._known.get(("digest", digest))
        if known is not None and 0 <= now - known.at < KNOWN_S:
            key = known.key
        else:
            key = await in_thread(lambda: self._look_up("digest", digest))
        if key is None:
            raise not_admitted("the key that was sent is none of this server's, or was withdrawn")
        _check_open(key, now)
        return key.caller

    def rules(self, caller: Caller) -> Rules:
        return EVERYTHING if not caller.key else self._named(caller).rules

    def _named(self, caller: Caller) -> Key:
        """Raises BadRequest for a caller whose key is no more, or is another's by now."""
        key = self._look_up("name", caller.key)
        if key is None or key.caller.tenant != caller.tenant:
            raise not_admitted(f"the key {caller.key!r} was withdrawn")
        _check_open(key, self._clock())
        return key

    def _look_up(self, by: str, what: str) -> Key | None:
        now, place = self._clock(), (by, what)
        with self._lock:
            known = self._known.get(place)
        if known is not None and 0 <= now - known.at < KNOWN_S:
            return known.key
        try:
            key = self.keys.of_secret(what, now) if by == "digest" else self.keys.named(what)
        except SQLAlchemyError:
            recent = known is not None and 0 <= now - known.at < KNOWN_WHEN_AWAY_S
            if known is not None and known.key is not None and recent and self._when_away == "allow":
                return known.key
            raise away() from None
        with self._lock:
            self._known[place] = _Known(key, now)
            self._known.move_to_end(place)
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return key

    def forget(self) -> None:
        """Look every key up anew: something was changed here."""
        with self._lock:
            self._known.clear()

    # --- how much --------------------------------------------------------------------------------------------------------

    async def hold(self, caller: Caller, prepared: Prepared, job_id: str | None = None) -> Mapping[str, str]:
        if not caller.key:
            return {}
        known, now = self._known.get(("name", caller.key)), self._clock()
        fresh = known is not None and known.key is not None and 0 <= now - known.at < KNOWN_S
        key = known.key if fresh and known is not None else await in_thread(lambda: self._named(caller))
        assert key is not None
        deferred = job_id is not None
        rates = () if deferred else _rates(key, tokens_of(prepared))
        budgets = budgets_of(key, now)
        if not budgets and not rates:
            return {}
        worst = pico(worst_case_usd(prepared)) or 0
        id = prepared.receipt.id if job_id is None else job_id
        # A job outlives the process; what nobody knows the cost of may have been billed in full.
        ask = Ask(id, worst, 0 if deferred else worst, budgets, rates, now + LEASE_S)
        answer = await self._spending.reserve(ask)
        if not answer.reserved:
            raise refused(answer, now)
        if not deferred:
            self._held[id] = worst
        surface = prepared.request.api
        return anthropic_headers(answer.rates, now) if surface is MESSAGES.api else openai_headers(answer.rates)

    def settle(self, id: str, billed_usd: Decimal) -> None:
        if id.startswith(JOB_PREFIX) or self._held.pop(id, None) is not None:
            self._spending.settle(End(id, pico(billed_usd) or 0, None if id.startswith(JOB_PREFIX) else 0))

    def listen(self, conclusion: Conclusion) -> None:
        """A request that is over is settled with what it was billed. Where nobody knows that, it counts as what was
        reserved: else whoever hangs up in time would spend for nothing."""
        worst = self._held.pop(conclusion.prepared.receipt.id, None)
        if worst is None:
            return
        receipt = conclusion.receipt
        tokens: int | None = None
        if receipt.input_tokens_billed is not None:
            tokens = receipt.input_tokens_billed + (receipt.output_tokens_billed or 0)
        if receipt.billed_cost_usd is not None:
            amount_pico = pico(receipt.billed_cost_usd) or 0
        elif receipt.attempts and not any(_may_be_billed(each) for each in receipt.attempts):
            amount_pico, tokens = 0, 0
        else:
            amount_pico = worst
        self._spending.settle(End(receipt.id, amount_pico, tokens))


_NOT_BILLED: Final = ("connect_failed", "rate_limited", "server_error", "unsupported", "rejected", "caller_error")
"""Outcomes of an attempt for which no provider bills anything."""


def _may_be_billed(attempt: Attempt) -> bool:
    return attempt.outcome not in _NOT_BILLED


def _check_open(key: Key, now: float) -> None:
    team = key.team
    if key.disabled or (team is not None and team.disabled):
        whose = "team" if not key.disabled else "key"
        raise BadRequest(None, f"this {whose} is disabled", "key_disabled", status=403, kind="permission_error")
    if key.expires_at is not None and now >= key.expires_at:
        raise not_admitted(f"the key {key.name!r} has expired")


def credential(headers: Mapping[str, str]) -> str | None:
    """The key in a request's headers, wherever its client puts it: OpenAI's, Anthropic's and Google's do it differently."""
    given = headers.get("authorization", "")
    if given.lower().startswith(_BEARER):
        return given[len(_BEARER) :].strip() or None
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or None


def _limits(key: Key) -> tuple[tuple[str, str, Limits], ...]:
    own = ("key", key.name, key.limits)
    return (own,) if key.team is None else (own, ("team", key.team.name, key.team.limits))


def budgets_of(key: Key, now: float) -> tuple[Budget, ...]:
    """The budgets that a request of this key has to fit into: its own and its team's."""
    return tuple(each for kind, name, limits in _limits(key) for each in budgets_in(kind, name, limits, now))


def budgets_in(kind: str, name: str, limits: Limits, now: float) -> tuple[Budget, ...]:
    """Of one key or team, for the periods that `now` is in."""
    return tuple(
        Budget(kind, name, period, *period_at(period, now), pico(usd) or 0) for period, usd in limits.budgets.items()
    )


def _rates(key: Key, tokens: int) -> tuple[Rate, ...]:
    found: list[Rate] = []
    for kind, name, limits in _limits(key):
        if limits.requests_per_minute is not None:
            found.append(Rate(kind, name, "requests", limits.requests_per_minute, 1))
        if limits.tokens_per_minute is not None:
            found.append(Rate(kind, name, "tokens", limits.tokens_per_minute, tokens))
    return tuple(found)

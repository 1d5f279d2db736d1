"""Counters in Redis (5 or later): a script for each step, so that it is one to everybody else.

All keys have one hash tag: a cluster keeps them together. A meter is a hash, a reservation a text, and the leases are a
sorted set. Whole pico-dollars are added by HINCRBY, which is exact; only the comparison is Lua's, and right to one part in
10 ** 15.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from trimtab.access.counters import KEPT_S, Answer, Ask, Budget, End, standing
from trimtab.sharing.redis_server import RedisServer

_PREFIX: Final = "{trimtab-access}:"
_LEASES: Final = _PREFIX + "leases"

_RESERVE: Final = """
local id, now, till, forced, amount, held = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1', ARGV[5], ARGV[6]
local budgets, rates = tonumber(ARGV[7]), tonumber(ARGV[8])
local unknown = {}
for i = 1, budgets do
  if redis.call('EXISTS', KEYS[2 + i]) == 0 then unknown[#unknown + 1] = i end
end
if #unknown > 0 then return {'unknown', unknown} end
local at, full = 9, {}
for i = 1, budgets do
  local meter = redis.call('HMGET', KEYS[2 + i], 'spent', 'reserved')
  local left = tonumber(ARGV[at]) - tonumber(meter[1] or 0) - tonumber(meter[2] or 0)
  if not forced and (left < tonumber(amount) or left <= 0) then
    return {'refused', i, string.format('%.0f', left)}
  end
  at = at + 1
end
local late = 0
for i = 1, rates do
  local before = tonumber(redis.call('HGET', KEYS[2 + budgets + i], 'full_at') or 0)
  full[i] = {before, math.max(now, before) + tonumber(ARGV[at + 1]) * 60 / tonumber(ARGV[at])}
  if late == 0 and not forced and full[i][2] - now - 60 > 0.000001 then late = i end
  at = at + 2
end
local told = {}
for i = 1, rates do told[i] = string.format('%.6f', full[i][late == 0 and 2 or 1]) end
if late > 0 then
  return {'late', late, string.format('%.6f', full[late][2] - now - 60), told}
end
for i = 1, budgets do redis.call('HINCRBY', KEYS[2 + i], 'reserved', amount) end
for i = 1, rates do
  redis.call('HSET', KEYS[2 + budgets + i], 'full_at', told[i])
  redis.call('EXPIRE', KEYS[2 + budgets + i], 300)
end
redis.call('SET', KEYS[2], held)
redis.call('ZADD', KEYS[1], till, id)
return {'reserved', told}
"""
_SETTLE: Final = """
local held = redis.call('GET', KEYS[2])
if not held then return 0 end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
held = cjson.decode(held)
for _, meter in ipairs(held.budgets) do
  if redis.call('EXISTS', meter) == 1 then
    redis.call('HINCRBY', meter, 'reserved', '-' .. held.amount)
    redis.call('HINCRBY', meter, 'spent', ARGV[2])
  end
end
if ARGV[3] ~= '' then
  for _, rate in ipairs(held.rates) do
    local full = redis.call('HGET', rate[1], 'full_at')
    if full then
      full = tonumber(full) + (tonumber(ARGV[3]) - rate[2]) * 60 / rate[3]
      redis.call('HSET', rate[1], 'full_at', string.format('%.6f', full))
    end
  end
end
return 1
"""
_SEED: Final = """
if redis.call('HSETNX', KEYS[1], 'spent', ARGV[1]) == 1 then redis.call('EXPIREAT', KEYS[1], ARGV[2]) end
"""


class RedisCounters:
    """Over one Redis or Valkey. Reservations that Redis lost with its memory are not missed: the ledger seeds the meters."""

    def __init__(self, url: str) -> None:
        self._server = RedisServer(url)

    def reserve(self, asks: Sequence[Ask], now: float) -> list[Answer]:
        def commands(pipe: Any) -> None:
            for ask in asks:
                pipe.eval(_RESERVE, *_reserving(ask, now))

        told = self._server.ask(lambda client: _together(client, commands))
        return [_answer(ask, each, now) for ask, each in zip(asks, told, strict=True)]

    def settle(self, ends: Sequence[End], now: float) -> set[str]:
        def commands(pipe: Any) -> None:
            for end in ends:
                tokens = "" if end.tokens is None else str(end.tokens)
                pipe.eval(_SETTLE, 2, _LEASES, _hold(end.id), end.id, str(end.amount_pico), tokens)

        told = self._server.ask(lambda client: _together(client, commands))
        return {end.id for end, each in zip(ends, told, strict=True) if each}

    def seed(self, spent: Mapping[Budget, int]) -> None:
        def commands(pipe: Any) -> None:
            for budget, pico in spent.items():
                pipe.eval(_SEED, 1, _meter(budget.meter), str(pico), str(int(budget.ends_at + KEPT_S)))

        self._server.ask(lambda client: _together(client, commands))

    def renew(self, ids: Sequence[str], until: float) -> None:
        if ids:
            self._server.ask(lambda client: client.zadd(_LEASES, dict.fromkeys(ids, until), xx=True))

    def lost(self, now: float, limit: int = 100) -> list[tuple[str, int]]:
        def look(client: redis.Redis) -> list[tuple[str, int]]:
            ids: Any = client.zrangebyscore(_LEASES, "-inf", now, start=0, num=limit)
            names = [each.decode() for each in ids]
            helds: Any = client.mget([_hold(each) for each in names]) if names else []
            gone = [name for name, held in zip(names, helds, strict=True) if held is None]
            if gone:
                client.zrem(_LEASES, *gone)
            found = zip(names, helds, strict=True)
            return [(name, int(json.loads(held)["if_lost"])) for name, held in found if held is not None]

        return self._server.ask(look)

    def read(self, budgets: Sequence[Budget]) -> list[tuple[int, int] | None]:
        def commands(pipe: Any) -> None:
            for each in budgets:
                pipe.hmget(_meter(each.meter), "spent", "reserved")

        told = self._server.ask(lambda client: _together(client, commands))
        return [None if spent is None else (int(spent), int(reserved or 0)) for spent, reserved in told]

    def close(self) -> None:
        self._server.close()


def _together(client: redis.Redis, commands: Any) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        commands(pipe)
        told: list[Any] = pipe.execute()
        return told


def _meter(name: str) -> str:
    return f"{_PREFIX}meter:{name}"


def _hold(id: str) -> str:
    return f"{_PREFIX}hold:{id}"


def _reserving(ask: Ask, now: float) -> list[Any]:
    """The numbers of keys, the keys and the arguments of _RESERVE."""
    budgets = [_meter(each.meter) for each in ask.budgets]
    keys = [_LEASES, _hold(ask.id), *budgets, *(_meter(each.meter) for each in ask.rates)]
    tokens = [[_meter(each.meter), each.cost, each.per_minute] for each in ask.rates if each.what == "tokens"]
    # as texts where Lua would write 1e+14
    held = {"amount": str(ask.amount_pico), "if_lost": str(ask.if_lost_pico), "budgets": budgets, "rates": tokens}
    head = [
        ask.id,
        now,
        ask.until,
        int(ask.forced),
        str(ask.amount_pico),
        json.dumps(held),
        len(budgets),
        len(ask.rates),
    ]
    caps = [str(each.cap_pico) for each in ask.budgets]
    return [len(keys), *keys, *head, *caps, *(each for rate in ask.rates for each in (rate.per_minute, rate.cost))]


def _answer(ask: Ask, told: list[Any], now: float) -> Answer:
    word = told[0].decode()
    if word == "unknown":
        return Answer(unknown=tuple(ask.budgets[number - 1] for number in told[1]))
    if word == "refused":
        return Answer(ask.budgets[told[1] - 1], left_pico=int(told[2]))
    moments = told[3] if word == "late" else told[1]
    standings = tuple(standing(rate, float(at), now) for rate, at in zip(ask.rates, moments, strict=True))
    if word == "reserved":
        return Answer(rates=standings)
    rate = ask.rates[told[1] - 1]
    return Answer(rate, math.inf if rate.cost > rate.per_minute else float(told[2]), rates=standings)

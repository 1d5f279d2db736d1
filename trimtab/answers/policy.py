"""Policy: whether a request may be answered from the cache, by another's wording, and by how old an answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from compressor.payload import OPTIONS
from trimtab.errors import BadRequest
from trimtab.options import read_options, seconds_until
from trimtab.settings import Settings

_MAX_AGE: Final = re.compile(r"max-age=\"?([0-9]{1,10})\"?")


@dataclass(frozen=True, slots=True)
class Policy:
    """An answer may be as old as `max_age_s`, and one that is bought now is kept for `lifetime_s`."""

    near: bool
    max_age_s: float
    lifetime_s: float


def is_wanted(settings: Settings, body: Mapping[str, Any]) -> bool:
    """Whether `policy_of` need be asked: cheap, since most servers have no cache, and none of their requests waits for it."""
    own = body.get(OPTIONS)
    return settings.answer_cache != "off" or (isinstance(own, Mapping) and own.get("cache") is not None)


def policy_of(settings: Settings, body: Mapping[str, Any], headers: Mapping[str, str]) -> Policy | None:
    """None where the cache is not to be used at all.

    The settings say what holds; `trimtab.cache` and then the header Cache-Control (RFC 9111: no-store, no-cache, max-age)
    say otherwise for one request. Raises BadRequest for options that are none, and for near matches where the settings do
    not admit them.
    """
    own = body.get(OPTIONS)
    wish = read_options(body).cache if isinstance(own, Mapping) and own.get("cache") is not None else None
    mode = settings.answer_cache if wish is None or wish.mode is None else wish.mode
    if mode == "off" and wish is not None and wish.mode is None:
        mode = "exact"  # whoever says how long wants it
    if mode == "near" and settings.answer_cache != "near":
        reason = 'near matches are not enabled here; ask for "exact", or set answer_cache = "near" in the settings'
        raise BadRequest("trimtab.cache", reason)
    said = {each.strip().lower() for each in headers.get("cache-control", "").split(",")}
    if mode == "off" or "no-store" in said:
        return None
    lifetime_s = settings.answer_cache_hours * 3600.0
    if wish is not None and wish.ttl is not None:
        lifetime_s = max(0.0, seconds_until(wish.ttl, datetime.now(UTC)))
    ages = [float(found[1]) for each in said if (found := _MAX_AGE.fullmatch(each))]
    max_age_s = 0.0 if "no-cache" in said else min([lifetime_s, *ages])
    return Policy(mode == "near", max_age_s, lifetime_s)

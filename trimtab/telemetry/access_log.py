"""The access log: one line for every request that is over."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any, Final

from routing.offers import plain
from trimtab.telemetry.exchange import Exchange
from trimtab.telemetry.logs import FIELDS

logger = logging.getLogger("trimtab.access")

_QUIET: Final = frozenset(("/healthz", "/readyz", "/metrics"))
"""Asked for every few seconds by whoever watches: told at debug only."""

MAX_PATH_CHARACTERS: Final = 200


def told(exchange: Exchange) -> None:
    """Write the exchange's line (a watcher, see `trimtab.telemetry.exchange`)."""
    level = logging.DEBUG if exchange.route in _QUIET and exchange.status < 400 else logging.INFO
    if logger.isEnabledFor(level):
        # Never the query: it is where clients that do not know better put their keys.
        path = exchange.path[:MAX_PATH_CHARACTERS]
        message = f"{exchange.method} {path} {exchange.status}"
        logger.log(level, "%s", message, extra={FIELDS: fields(exchange)})


def fields(exchange: Exchange) -> dict[str, Any]:
    """What the line says beside method, path and status; None for what is not known. Never a credential, never a prompt:
    `key` and `team` are the names of a virtual key and its team."""
    said: dict[str, Any] = {
        "method": exchange.method,
        "route": exchange.route or None,
        "status": exchange.status,
        "ms": round(exchange.seconds * 1000, 1),
        "first_byte_ms": None if exchange.first_byte_s is None else round(exchange.first_byte_s * 1000, 1),
        "replayed": exchange.replayed or None,
        "defect": exchange.defect or None,
    }
    conclusion = exchange.conclusion
    if conclusion is None:
        return said
    receipt, attempts = conclusion.receipt, conclusion.receipt.attempts
    return said | {
        "surface": conclusion.prepared.request.api.name,
        "stream": conclusion.stream,
        "key": conclusion.caller.key or None,
        "team": conclusion.caller.team or None,
        "receipt": receipt.id,
        "model": receipt.model,
        "provider": receipt.provider,
        "attempts": len(attempts),
        "outcome": attempts[-1].outcome if attempts else None,
        "context_tokens_before": receipt.tokens_before,
        "context_tokens_after": receipt.tokens_after,
        "input_tokens": receipt.input_tokens_billed,
        "output_tokens": receipt.output_tokens_billed,
        "cost_usd": _dollars(receipt.billed_cost_usd),
        "saved_usd": _dollars(receipt.saved_usd) if 200 <= conclusion.status < 300 else None,
    }


def _dollars(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)

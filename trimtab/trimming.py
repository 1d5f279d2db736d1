"""Trimming: a request made smaller on its way to a provider that somebody else calls.

What the middleware shares: the HTTP transport, the ASGI middleware, LangChain's and LiteLLM's. No provider is configured
here and none is chosen: the caller's own model answers, priced at its maker's list price where there is one, and without
dollars where there is none. Pure but for the clock; knows nothing of connections.
"""

from __future__ import annotations

import functools
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from compressor.payload import OPTIONS, BadPayload
from compressor.prompts import CHAT, Api
from routing.catalog import Catalog
from routing.errors import RoutingError, UnknownModel
from routing.offers import Offer, Rates, Usage
from routing.receipt import Receipt, billed, settled
from routing.streams import Garbage, parse_object
from trimtab.bills import surface_at
from trimtab.caller import NOBODY
from trimtab.conclusion import Conclusion
from trimtab.errors import BadRequest, TrimtabError
from trimtab.options import read_options
from trimtab.pipeline import Trimtab
from trimtab.surfaces import Surface

logger = logging.getLogger("trimtab")

LIST_PRICES: Final = Catalog()
_ANY_PRICE: Final = (Rates(-1, *(Decimal(1),) * 4),)
"""For a model whose price is unknown: it says that fewer tokens are better, and no dollar of it reaches a receipt."""


@dataclass(frozen=True, slots=True)
class TrimmedRequest:
    """A request as it is to be sent, and its receipt as far as it is known before the answer."""

    body: Mapping[str, Any]
    receipt: Receipt
    offer: Offer | None = None
    """What the answer is priced at; None where the price or the model is unknown."""
    tell: Callable[[Receipt, Usage | None, int, bool], None] = lambda *_: None
    """Is told how it ended: its last receipt, the bill, the provider's HTTP status, and whether it was a stream."""

    def over(self, usage: Usage | None, began_s: float, *, status: int = 200, stream: bool = False) -> Receipt:
        """The receipt once the provider has answered and said what it took (None: it did not say). What that taught is
        learned, and it is written to the ledger, where one is kept. To be called once; `began_s` is of `perf_counter`."""
        receipt = self._settled(usage, (time.perf_counter() - began_s) * 1000)
        if not 200 <= status < 300:  # nothing was answered, and so nothing was saved
            receipt = replace(receipt, baseline_cost_usd=None)
        self.tell(receipt, usage, status, stream)
        return receipt

    @contextmanager
    def sending(self, began_s: float) -> Iterator[None]:
        """Around the call of the provider: one that raises is over too."""
        try:
            yield
        except BaseException as error:
            self.over(None, began_s, status=502 if isinstance(error, Exception) else 499)
            raise

    def _settled(self, usage: Usage | None, provider_ms: float) -> Receipt:
        stages = (("provider", round(provider_ms, 3)),)
        if self.offer is not None:
            return settled(self.receipt, answered=self.offer, baseline=self.offer, usage=usage, stage_ms=stages)
        receipt = replace(self.receipt, stage_ms=self.receipt.stage_ms + stages)
        return receipt if usage is None else billed(receipt, usage)


@functools.cache
def default_trimtab() -> Trimtab:
    """The `Trimtab` of whoever names none: one for the process, because each holds a model in memory."""
    return Trimtab()


def trim(trimtab: Trimtab, body: Mapping[str, Any], seller: str | None = None, api: Api = CHAT) -> TrimmedRequest:
    """`body`, a request of `api`, with its context trimmed and its `trimtab` object taken out. CPU-bound.

    `seller` is what the receipt calls the provider (a host name); None: the maker of the model.

    Raises BadRequest, BadPayload or NoOffer for what the `trimtab` object asks and cannot be had. Whatever else goes
    wrong never costs an answer: the original is to be sent, and the receipt's notes say why.

    >>> body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "How large may an upload be?"}]}
    >>> options = {"contexts": ["An upload may be 5 GB.", "Data is encrypted at rest."], "ratio": 0.6}
    >>> sent = trim(Trimtab(), {**body, "trimtab": options})
    >>> print(sent.body["messages"][0]["content"])
    <context>
    <document>
    An upload may be 5 GB.
    </document>
    </context>
    >>> sent.receipt.tokens_before > sent.receipt.tokens_after
    True
    """
    try:
        offer = _list_offer(body.get("model"), seller)
        _refuse_what_needs_a_choice(body, offer)
        unpriced = Offer(seller or "", str(body.get("model")), "sync", _ANY_PRICE, None, "")
        prepared = trimtab.prepare(body, (offer or unpriced,), api)
    except (TrimtabError, RoutingError, BadPayload) as error:
        if OPTIONS in body:
            raise
        return _original(body, seller, f"not trimmed: {error}")
    except Exception as defect:
        if OPTIONS in body and read_options(body).contexts:
            raise  # they stand nowhere else: an answer without them is worse than an error
        logger.error("trimming failed (%s); the original request is sent", type(defect).__name__)
        return _original(body, seller, f"trimming failed ({type(defect).__name__}); the original request was sent")
    receipt = prepared.receipt
    if offer is None:
        receipt = replace(receipt, provider=seller, expected_cost_usd=None, baseline_cost_usd=None, prices_version=None)
    trimtab.experience.came(prepared.asked)

    def tell(last: Receipt, usage: Usage | None, status: int, stream: bool) -> None:
        if 200 <= status < 300:
            trimtab.taught(prepared, [(prepared.offers[0], usage)])
        trimtab.concluded(Conclusion(NOBODY, prepared, last, status, stream))

    return TrimmedRequest(prepared.body, receipt, offer, tell)


@dataclass(frozen=True, slots=True)
class TrimmedContent:
    """A request's body in bytes, as it is to be sent."""

    content: bytes
    request: TrimmedRequest
    surface: Surface


def is_chat(method: str, path: str, content_type: str) -> bool:
    """Whether this is a request that may carry context; all others are none of our business."""
    kind = content_type.partition(";")[0].strip().lower()
    return method == "POST" and kind == "application/json" and surface_at(path) is not None


def trim_content(trimtab: Trimtab, path: str, content: bytes, seller: str | None = None) -> TrimmedContent | None:
    """`trim`, of bytes. Bytes that need no change come back as they are; None for what is no JSON object, or is larger
    than the settings' `max_body_bytes`: that is the provider's to refuse."""
    surface = surface_at(path)
    if surface is None or len(content) > trimtab.settings.max_body_bytes:
        return None
    try:
        body = parse_object(content)
    except Garbage:
        return None
    request = trim(trimtab, body, seller, surface.api)
    return TrimmedContent(content if request.body == body else _encoded(request.body), request, surface)


def _encoded(body: Mapping[str, Any]) -> bytes:
    # Python's own json, because orjson turns whole numbers beyond 64 bits into floats.
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair is legal in JSON, as an escape only
        return json.dumps(body, separators=(",", ":")).encode()


_NEEDS_A_CHOICE: Final = (
    *("candidates", "max_latency_ms", "deadline", "min_quality"),
    *("allow", "deny", "order", "regions", "require", "expand"),
)
_NEEDS_A_PRICE: Final = ("max_cost_usd", "wrong_answer_usd")


def _list_offer(model: object, seller: str | None) -> Offer | None:
    if not isinstance(model, str):
        return None
    try:
        offers = LIST_PRICES.offers([model], datetime.now(UTC))
    except UnknownModel:
        return None
    return replace(offers[0], provider=seller or offers[0].provider) if offers else None


def _refuse_what_needs_a_choice(body: Mapping[str, Any], offer: Offer | None) -> None:
    """An option that would be silently ignored is worse than an error."""
    options = read_options(body)
    for name in _NEEDS_A_CHOICE:
        if getattr(options, name):
            raise BadRequest(
                f"trimtab.{name}", "needs a trimtab server: here one model is asked, and at once; remove it"
            )
    for name in _NEEDS_A_PRICE:
        if getattr(options, name) is not None and offer is None:
            raise BadRequest(f"trimtab.{name}", "cannot be held: no list price is known for this model; remove it")


def _original(body: Mapping[str, Any], seller: str | None, note: str) -> TrimmedRequest:
    model = body.get("model")
    asked = model if isinstance(model, str) else ""
    sent = {name: value for name, value in body.items() if name != OPTIONS} if OPTIONS in body else body
    return TrimmedRequest(sent, Receipt(f"rcpt_{uuid.uuid4().hex}", asked, provider=seller, model=asked, notes=(note,)))

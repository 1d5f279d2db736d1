"""Reading: a caller's body becomes a `Request`: what is asked, and who may be asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from compressor.payload import parse
from compressor.prompts import Api
from compressor.tokens import encoding_for_model
from routing.catalog import Catalog
from routing.commitments import Drawdown
from routing.offers import Offer
from routing.policy import alone
from trimtab.access.rules import EVERYTHING, Rules
from trimtab.auto import Auto
from trimtab.conversations import chain
from trimtab.errors import BadRequest
from trimtab.options import Options, read_options, sources_of
from trimtab.preferences import Wanted, read_preferences
from trimtab.request import EXPECTED_OUTPUT_TOKENS, Request, fixed_tokens
from trimtab.surfaces import tongue_of


@dataclass(frozen=True, slots=True)
class Reading:
    """What bodies are read with: who sells what, what of it is paid for already, and what "auto" stands for."""

    catalog: Catalog
    drawdown: Drawdown
    auto: Auto

    def request(
        self,
        body: Mapping[str, Any],
        offers: Sequence[Offer],
        api: Api,
        now: datetime,
        batches: Collection[str] = (),
        rules: Rules = EVERYTHING,
    ) -> Request:
        """`offers`, `batches` and `rules` as in `Trimtab.prepare`, which says what is raised."""
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise BadRequest("model", 'must name a model, such as "gpt-6.1-sol"')
        options = read_options(body)
        body, options = (body, options) if offers else self.auto.opened(body, options, rules.permits)
        contexts = sources_of(options.contexts or ())
        encoding = encoding_for_model(str(body["model"]))
        wanted = None if offers else self._wanted(body, options, now, batches, rules)
        body = body if wanted is None else wanted.body
        payload = parse(api, body, contexts, options.query)
        chosen = alone(offers) if wanted is None else wanted.admitted(self.catalog, tongue_of(api))
        digests = chain(api, body)
        request = Request(body, model, encoding, options, payload, chosen, digests, 0, fixed_tokens(payload, encoding))
        if contexts and not payload.query.strip():
            raise BadRequest("trimtab.query", "is missing, and no user message says what the contexts are needed for")
        return request

    def _wanted(
        self, body: Mapping[str, Any], options: Options, now: datetime, batches: Collection[str], rules: Rules
    ) -> Wanted:
        waits = options.deadline_s is not None
        processing = ("sync", *(("flex",) if waits else ()), *(("batch",) if waits and batches else ()))

        def sell(model: str) -> Sequence[Offer]:
            rules.check(model)
            sold = self.catalog.offers([model], now, processing)
            sold = tuple(each for each in sold if each.processing != "batch" or each.provider in batches)
            return self.drawdown.quoted(sold, EXPECTED_OUTPUT_TOKENS, now)

        wanted = read_preferences(body, options, self.catalog, sell)
        return replace(wanted, policy=rules.narrowed(wanted.policy))

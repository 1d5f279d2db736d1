"""The pipeline: payload, ranking, plan, cut, answer, receipt. Each step is one call into one package.

Everything up to the forwarding is synchronous and runs on the caller's thread; forwarding is asynchronous.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from compressor import Kept, Ranker, Ranking
from compressor.fusion import Fusion, shipped_fusion
from compressor.payload import BadPayload, Payload, parse_chat
from compressor.ranking import whole
from compressor.tokens import count_each, count_tokens, encoding_for_model
from retrieval import CachedEncoder, Passage, SentenceTransformerEncoder
from routing.attempts import RetryPolicy
from routing.catalog import Catalog
from routing.errors import RoutingError, UnknownModel
from routing.forwarding import Router, Timeouts
from routing.offers import Offer, Usage, price
from routing.planner import Candidate, Needs, Plan, plan
from routing.receipt import Receipt, opened, settled
from routing.replies import Reply
from trimtab.errors import BadRequest, BadSettings, TrimtabError
from trimtab.options import CompressIn, Options, checked, read_options, sources_of
from trimtab.settings import Settings

logger = logging.getLogger("trimtab")

WORTH_TRIMMING_TOKENS = 256  # below it a cut saves less than a hundredth of a cent: only an explicit budget is obeyed
EXPECTED_OUTPUT_TOKENS = 512  # where the caller sets no maximum
MESSAGE_TOKENS = 4  # what a chat template adds to a message (OpenAI cookbook, "How to count tokens")
IMAGE_TOKENS = 1_100  # a high-detail image at OpenAI's usual tile count; its true size is not known here


@dataclass(frozen=True, slots=True)
class Compressed:
    """What `compress` gives: one entry of `contexts` for every input, in order; `dropped` counts the emptied ones."""

    contexts: tuple[Kept, ...]
    tokens_before: int
    tokens_after: int
    coverage_estimate: float
    dropped: int
    ms: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to be sent: the reduced body, who may answer it in what order, and the open receipt."""

    body: Mapping[str, Any]
    offers: tuple[Offer, ...]
    baseline: Offer
    plan: Plan
    receipt: Receipt
    max_latency_ms: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished chat completion. `answer` is the provider's own object, `status` its HTTP status."""

    status: int
    answer: Mapping[str, Any]
    receipt: Receipt


class Trimtab:
    """Trims, plans and forwards. One for a process; safe to share between threads.

    >>> trimtab = Trimtab()
    >>> trimtab.compress("How large may an upload be?", ["An upload may be 5 GB.", "Data is encrypted."], ratio=0.7).dropped
    1

    `config` is a TOML file, a table, or `Settings`; keyword arguments override it. Raises BadSettings.
    """

    def __init__(self, config: Settings | Mapping[str, Any] | str | Path | None = None, **settings: Any) -> None:
        if isinstance(config, (str, Path)):
            config = Settings.load(config)
        if isinstance(config, Mapping):
            config = Settings.of(config)
        if settings:
            given = Settings.of(settings)
            config = replace(config or Settings(), **{name: getattr(given, name) for name in settings})
        self.settings = config or Settings()
        self.catalog = Catalog(self.settings.providers)
        self._model = SentenceTransformerEncoder(self.settings.encoder)
        self.encoder = CachedEncoder(self._model, self.settings.cache_dir / "vectors", self.settings.cache_size_bytes)
        self.ranker = Ranker(self.encoder, self.settings.marker, _fusion(self.settings.ranker))

    def compress(
        self,
        query: str,
        contexts: Sequence[str | Mapping[str, Any]],
        *,
        ratio: float | None = None,
        budget_tokens: int | None = None,
        min_coverage: float | None = None,
        model: str | None = None,
    ) -> Compressed:
        """Keep what `query` needs of `contexts`: texts, or tables with `text` and, if you like, `id` and `title`.

        `ratio` and `budget_tokens` limit the tokens (of `model`'s tokenizer) that are kept, gap markers included;
        `min_coverage` asks for the least budget that is expected to keep that share of the evidence. With none of them
        `min_coverage` is the settings'. Raises BadRequest that names the argument.
        """
        size = {"ratio": ratio, "budget_tokens": budget_tokens, "min_coverage": min_coverage}
        asked = checked(CompressIn, {"query": query, "contexts": list(contexts), "model": model, **size}, None)
        return self.compress_request(asked)

    def compress_request(self, asked: CompressIn) -> Compressed:
        """`compress`, of a body that was checked already."""
        began = time.perf_counter()
        if not asked.query.strip():
            raise BadRequest("query", "must say what the contexts are needed for, and is blank")
        encoding = encoding_for_model(asked.model or "")
        ranking = self.ranker.rank(asked.query, sources_of(asked.contexts), encoding)
        trimmed = ranking.cut(self._target(ranking, asked.ratio, asked.budget_tokens, asked.min_coverage))
        return Compressed(
            trimmed.contexts,
            trimmed.tokens_before,
            trimmed.tokens_after,
            trimmed.coverage_estimate,
            trimmed.dropped,
            (time.perf_counter() - began) * 1000,
        )

    def _target(self, ranking: Ranking, ratio: float | None, budget: int | None, coverage: float | None) -> int:
        cap = _cap(ranking.full_tokens, ratio, budget)
        if cap is not None and coverage is None:
            return cap
        if ranking.full_tokens < WORTH_TRIMMING_TOKENS:
            return ranking.full_tokens if cap is None else cap
        needed = ranking.budget_for(coverage or self.settings.min_coverage)
        return needed if cap is None else min(cap, needed)

    def warm_up(self) -> None:
        """Load the encoder and the tokenizer, so that the first request does not wait for them."""
        self._model.encode([Passage("warm up", ((0, 7),))])  # past the cache, which would have it from the last start
        count_tokens("warm up")

    def plan(self, body: Mapping[str, Any]) -> Plan:
        """What would be bought for this chat completion, and what else was considered. Nothing is sent."""
        return self.prepare(body).plan

    def complete(self, body: Mapping[str, Any]) -> Completion:
        """Answer a chat completion (with or without a `trimtab` object), not streaming. Raises what `acomplete` raises.

        Not to be called from within a running event loop: there, `await acomplete(body)`.
        """
        return asyncio.run(self.acomplete(body))

    async def acomplete(self, body: Mapping[str, Any], router: Router | None = None) -> Completion:
        """Answer a chat completion, not streaming. Pass a `router()` to keep connections between calls.

        Raises BadRequest, RoutingError (unknown model, no offer, no provider answered), or TimeoutError at `max_latency_ms`.
        """
        if router is None:
            async with self.router() as own:
                return await self.acomplete(body, own)
        prepared = await asyncio.to_thread(self.prepare, body)
        reply = await self.forward(prepared, router, stream=False)
        return Completion(reply.status, _answer(reply), self.settle(prepared, reply))

    def router(self) -> Router:
        """The connections to the configured providers, for one event loop. To be closed: `async with trimtab.router()`."""
        settings = self.settings
        timeouts = Timeouts(
            connect_ms=settings.connect_timeout_ms,
            first_byte_ms=settings.first_byte_timeout_ms,
            idle_ms=settings.idle_timeout_ms,
            answer_ms=settings.answer_timeout_ms,
            total_ms=settings.total_timeout_ms,
        )
        providers = {provider.name: provider for provider in self.catalog.providers}
        return Router(providers, RetryPolicy(max_attempts=settings.max_attempts), timeouts)

    async def forward(
        self, prepared: Prepared, router: Router, *, stream: bool, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a prepared request. Raises TimeoutError if `max_latency_ms`, preparing included, passes before the first
        byte (whole, if not streaming)."""
        limit_ms = prepared.max_latency_ms
        spent_ms = sum(ms for _, ms in prepared.receipt.stage_ms)
        async with asyncio.timeout(None if limit_ms is None else (limit_ms - spent_ms) / 1000):
            return await router.forward(prepared.body, prepared.offers, stream, headers)

    def settle(self, prepared: Prepared, reply: Reply) -> Receipt:
        """The receipt once `reply` is over: with what was billed and every attempt."""
        spent_ms = sum(attempt.latency_ms for attempt in reply.attempts)
        return settled(
            prepared.receipt,
            answered=reply.offer,
            baseline=prepared.baseline,
            usage=reply.usage,
            attempts=reply.attempts,
            stage_ms=(("provider", spent_ms),),
        )

    def prepare(self, body: Mapping[str, Any]) -> Prepared:
        """Everything that happens before a request is sent. CPU-bound: run it in a thread beside an event loop.

        Raises BadRequest, BadPayload, UnknownModel or NoOffer for what the caller can mend. If trimming or planning
        itself breaks, the original payload is prepared instead, and the receipt says so.
        """
        request = self._read(body)
        try:
            return self._trimmed(request)
        except (TrimtabError, RoutingError, BadPayload):
            raise
        except Exception as defect:  # noqa: BLE001 (the one broad except: a defect of ours must not cost an answer)
            logger.error("trimming failed (%s); the original payload is forwarded", type(defect).__name__)
            return self._untouched(
                request, f"trimming failed ({type(defect).__name__}); the original payload was forwarded"
            )

    def _read(self, body: Mapping[str, Any]) -> _Request:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise BadRequest("model", 'must name a model, such as "gpt-6.1-sol"')
        options = read_options(body)
        contexts = sources_of(options.contexts or ())
        payload = parse_chat(body, contexts, options.query)
        if contexts and not payload.query.strip():
            raise BadRequest("trimtab.query", "is missing, and no user message says what the contexts are needed for")
        return _Request(body, model, options, payload, self._offers(model, options.candidates))

    def _offers(self, model: str, candidates: Sequence[str]) -> tuple[Offer, ...]:
        now = datetime.now(UTC)
        offers = dict.fromkeys(self.catalog.offers([model], now))
        for number, candidate in enumerate(candidates):
            try:
                offers |= dict.fromkeys(self.catalog.offers([candidate], now))
            except UnknownModel as error:
                raise BadRequest(f"trimtab.candidates.{number}", str(error), "model_not_found", status=404) from None
        return tuple(offers)

    def _trimmed(self, request: _Request) -> Prepared:
        began = time.perf_counter()
        payload, options = request.payload, request.options
        encoding = encoding_for_model(request.model)
        sources = payload.sources if payload.query.strip() else ()
        ranking = self.ranker.rank(payload.query, sources, encoding)
        ranked = time.perf_counter()
        needs = self._needs(request, ranking, encoding)
        chosen = plan(ranking, needs, request.offers)
        planned = time.perf_counter()
        trimmed = ranking.cut(chosen.chosen.budget_tokens)
        body = payload.rebuilt(trimmed.contexts if sources else whole(payload.sources))
        cut = time.perf_counter()
        receipt = opened(
            chosen,
            receipt_id=_receipt_id(),
            model_asked=request.model,
            baseline=request.offers[0],
            tokens_before=trimmed.tokens_before,
            tokens_after=trimmed.tokens_after,
        )
        stages = (("rank", ranked - began), ("plan", planned - ranked), ("cut", cut - planned))
        receipt = replace(receipt, stage_ms=tuple((name, round(s * 1000, 3)) for name, s in stages))
        offers = (chosen.chosen.offer, *chosen.fallbacks)
        return Prepared(body, offers, request.offers[0], chosen, receipt, options.max_latency_ms)

    def _needs(self, request: _Request, ranking: Ranking, encoding: str) -> Needs:
        options, body = request.options, request.body
        cap = _cap(ranking.full_tokens, options.ratio, options.budget_tokens)
        coverage = options.min_coverage
        if cap is None and coverage is None:
            worth = ranking.full_tokens >= WORTH_TRIMMING_TOKENS
            coverage = self.settings.min_coverage if worth else 1.0
        fixed = sum(count_each(list(request.payload.fixed_texts()), encoding))
        if not ranking.sources:  # sources without a question are sent whole
            fixed += sum(count_each([source.text for source in request.payload.sources], encoding))
        return Needs(
            fixed_tokens=fixed + _template_tokens(body),
            output_tokens=_expected_output_tokens(body),
            budget_tokens=cap,
            min_coverage=coverage,
            max_cost_usd=options.max_cost_usd,
        )

    def _untouched(self, request: _Request, note: str) -> Prepared:
        baseline = request.offers[0]
        encoding = encoding_for_model(request.model)
        payload = request.payload
        context = sum(count_each([source.text for source in payload.sources], encoding))
        fixed = sum(count_each(list(payload.fixed_texts()), encoding)) + _template_tokens(request.body)
        usage = Usage(fixed + context, _expected_output_tokens(request.body))
        cost = price(baseline, usage)
        only = Candidate(baseline, context, usage.input_tokens, usage.output_tokens, cost, 1.0)
        unplanned = Plan(only, (), baseline.prices_version)
        receipt = opened(
            unplanned,
            receipt_id=_receipt_id(),
            model_asked=request.model,
            baseline=baseline,
            tokens_before=context,
            tokens_after=context,
        )
        body = payload.rebuilt(whole(payload.sources))
        receipt = replace(receipt, notes=(note,))
        return Prepared(body, request.offers, baseline, unplanned, receipt, request.options.max_latency_ms)


@dataclass(frozen=True, slots=True)
class _Request:
    """A chat completion that was understood: what is asked, of which offers (the caller's own model first)."""

    body: Mapping[str, Any]
    model: str
    options: Options
    payload: Payload
    offers: tuple[Offer, ...]


def _answer(reply: Reply) -> Mapping[str, Any]:
    """The provider's object. A success is one for certain; an error page that is none is wrapped in OpenAI's shape."""
    try:
        answer = orjson.loads(reply.body or b"")
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict):
        return answer
    said = (reply.body or b"").decode(errors="replace")[:500]
    return {"error": {"message": said, "type": "upstream_error", "param": None, "code": None}}


def _fusion(file: str | None) -> Fusion:
    if file is None:
        return shipped_fusion()
    try:
        return Fusion.load(Path(file))
    except (OSError, ValueError, KeyError) as error:
        raise BadSettings(f"ranker: {error}") from None


def _cap(full_tokens: int, ratio: float | None, budget_tokens: int | None) -> int | None:
    return math.floor(ratio * full_tokens) if ratio is not None else budget_tokens


def _expected_output_tokens(body: Mapping[str, Any]) -> int:
    """The caller's own maximum for each of `n` answers, where there is one: nothing better is known of them."""
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"), EXPECTED_OUTPUT_TOKENS)
    maximum = next(limit for limit in map(_count, limits) if limit)
    return maximum * max(1, _count(body.get("n")))


def _count(value: object) -> int:
    """A positive whole number, or 0 for anything else: what the provider makes of it is the provider's to say."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _template_tokens(body: Mapping[str, Any]) -> int:
    images: int = sum(
        isinstance(part, Mapping) and part.get("type") == "image_url"
        for message in body["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
    return MESSAGE_TOKENS * len(body["messages"]) + IMAGE_TOKENS * images


def _receipt_id() -> str:
    return f"rcpt_{uuid.uuid4().hex}"

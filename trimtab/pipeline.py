"""The pipeline: payload, ranking, plan, cut, answer, receipt. Each step is one call into one package.

Everything up to the forwarding is synchronous and runs on the caller's thread; forwarding is asynchronous.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compressor import Kept, Ranker, Ranking
from compressor.payload import BadPayload, parse
from compressor.prompts import CHAT, Api
from compressor.tokens import count_tokens, encoding_for_model
from retrieval import CachedEncoder, Passage, SentenceTransformerEncoder
from routing.attempts import RetryPolicy
from routing.catalog import Catalog
from routing.commitments import Drawdown
from routing.errors import RoutingError
from routing.forwarding import Router, Timeouts
from routing.offers import Offer, Usage
from routing.planner import Plan
from routing.policy import alone
from routing.price_refresh import PriceRefresh
from routing.receipt import Receipt, opened, settled
from routing.replies import Reply
from routing.standing import Called, called
from routing.tongues import CHAT as CHAT_TONGUE
from routing.tongues import Tongue
from trimtab.auto import asks_for_quality, within_reach
from trimtab.cache_marks import last_mark, marked
from trimtab.caller import NOBODY, Caller
from trimtab.completion import Completion, answer_of
from trimtab.conclusion import Conclusion, Listener
from trimtab.contexts import originals_of
from trimtab.conversations import Conversations, chain
from trimtab.difficulty import DifficultyRouter
from trimtab.errors import BadRequest, BadSettings, TrimtabError
from trimtab.expansion import expander_of
from trimtab.experience import Experience
from trimtab.loading import calibration_of, fusion_of, overlay_of
from trimtab.options import CompressIn, Options, checked, read_options, sources_of
from trimtab.preferences import read_preferences
from trimtab.prepared import WORTH_TRIMMING_TOKENS, Body, Prepared, needs_of, receipt_id, untouched
from trimtab.request import EXPECTED_OUTPUT_TOKENS, Request, cap, fixed_tokens
from trimtab.rounds import Asking, Expanded, expanded
from trimtab.settings import Settings
from trimtab.surfaces import tongue_of

logger = logging.getLogger("trimtab")


@dataclass(frozen=True, slots=True)
class Compressed:
    """What `compress` gives: one entry of `contexts` for every input, in order; `dropped` counts the emptied ones."""

    contexts: tuple[Kept, ...]
    tokens_before: int
    tokens_after: int
    coverage_estimate: float
    dropped: int
    ms: float
    lossless_tokens: int = 0
    coverage_basis: str = ""


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
        self.prices = PriceRefresh(self.settings.providers)
        self.catalog = Catalog(self.settings.providers, overlay_of(self.settings), self.prices.current)
        self.drawdown = Drawdown(self.settings.commitments)
        self.experience = Experience(self.catalog, self.settings.history_file)
        self.conversations = Conversations()
        self.listeners: list[Listener] = []
        self._model = SentenceTransformerEncoder(self.settings.encoder)
        self.encoder = CachedEncoder(self._model, self.settings.cache_dir / "vectors", self.settings.cache_size_bytes)
        self.ranker = Ranker(
            self.encoder, self.settings.marker, fusion_of(self.settings), calibration_of(self.settings)
        )

    @functools.cached_property
    def difficulty(self) -> DifficultyRouter | None:
        """Judges how likely each model is to answer a prompt well; None where the shipped weights do not know this encoder.

        Raises BadSettings where `router` names weights of another encoder.
        """
        file = self.settings.router
        try:
            return DifficultyRouter.of(self.encoder, None if file is None else str(file), self.settings.auto.shares)
        except BadSettings:
            if file is not None:
                raise
            return None

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
        ranking, budget_tokens = self.ranked(asked)
        trimmed = ranking.cut(budget_tokens)
        return Compressed(
            trimmed.contexts,
            trimmed.tokens_before,
            trimmed.tokens_after,
            trimmed.coverage_estimate,
            trimmed.dropped,
            (time.perf_counter() - began) * 1000,
            trimmed.lossless_tokens,
            trimmed.coverage_basis,
        )

    def ranked(self, asked: CompressIn) -> tuple[Ranking, int]:
        """The ranking of a checked body's contexts, and the budget in tokens that it asks for. Raises BadRequest."""
        if not asked.query.strip():
            raise BadRequest("query", "must say what the contexts are needed for, and is blank")
        encoding = encoding_for_model(asked.model or "")
        ranking = self.ranker.rank(asked.query, sources_of(asked.contexts), encoding)
        return ranking, self._target(ranking, asked.ratio, asked.budget_tokens, asked.min_coverage)

    def _target(self, ranking: Ranking, ratio: float | None, budget: int | None, coverage: float | None) -> int:
        most = cap(ranking.full_tokens, ratio, budget)
        if most is not None and coverage is None:
            return most
        if ranking.full_tokens < WORTH_TRIMMING_TOKENS:
            return ranking.full_tokens if most is None else most
        needed = ranking.budget_for(coverage or self.settings.min_coverage)
        return needed if most is None else min(most, needed)

    def warm_up(self) -> None:
        """Load the encoder and the tokenizer, so that the first request does not wait for them."""
        self._model.encode([Passage("warm up", ((0, 7),))])  # past the cache, which would have it from the last start
        count_tokens("warm up")

    @contextmanager
    def running(self) -> Iterator[None]:
        """While serving: prices are refreshed as the settings say, and what bills taught is written down at the end."""
        if self.settings.refresh_prices_hours is not None:
            self.prices.start(self.settings.refresh_prices_hours)
        try:
            yield
        finally:
            self.prices.stop()
            self.experience.save()

    def forget(self) -> None:
        """Begin anew, as after a restart: drop what past requests taught of offers and conversations. Vectors stay."""
        self.experience.forget()
        self.conversations.forget()

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
        return Completion(reply.status, answer_of(reply), self.conclude(prepared, reply))

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
        return Router(
            providers, RetryPolicy(max_attempts=settings.max_attempts), timeouts, health=self.experience.health
        )

    async def forward(
        self,
        prepared: Prepared,
        router: Router,
        *,
        stream: bool,
        headers: Mapping[str, str] | None = None,
        tongue: Tongue = CHAT_TONGUE,
    ) -> Reply:
        """Send a prepared request, and get its answer, both in `tongue`. Raises TimeoutError if `max_latency_ms`,
        preparing included, passes before the first byte (whole, if not streaming)."""
        self.experience.came(prepared.asked)
        limit_ms = prepared.max_latency_ms
        spent_ms = sum(ms for _, ms in prepared.receipt.stage_ms)
        async with asyncio.timeout(None if limit_ms is None else (limit_ms - spent_ms) / 1000):
            if prepared.expander is None:
                return await router.forward(prepared.body, prepared.offers, stream, headers, tongue, prepared.marked)

            def ask(spoken: Tongue, streamed: bool) -> Awaitable[Reply]:
                return router.forward(prepared.body, prepared.offers, streamed, headers, spoken, prepared.marked)

            return await expanded(Asking(prepared.body, tongue, prepared.expander, ask), stream)

    def settle(self, prepared: Prepared, reply: Reply) -> Receipt:
        """The receipt once `reply` is over: with what was billed and every attempt."""
        if isinstance(reply, Expanded):
            return reply.settled(prepared.receipt, prepared.baseline)
        spent_ms = sum(attempt.latency_ms for attempt in reply.attempts)
        return settled(
            prepared.receipt,
            answered=reply.offer,
            baseline=prepared.baseline,
            usage=reply.usage,
            attempts=reply.attempts,
            stage_ms=(("provider", spent_ms),),
        )

    def conclude(self, prepared: Prepared, reply: Reply, caller: Caller = NOBODY, *, stream: bool = False) -> Receipt:
        """The receipt of a request whose reply is over; what it taught is learned, and the listeners are told of it."""
        receipt = self.settle(prepared, reply)
        self.learn(prepared, reply)
        self.concluded(Conclusion(caller, prepared, receipt, reply.status, stream))
        return receipt

    def concluded(self, conclusion: Conclusion) -> None:
        """Tell the listeners that a request is over."""
        for listener in self.listeners:
            try:
                listener(conclusion)
            except Exception as defect:  # noqa: BLE001 (the answer is there: a defect of ours must not cost it)
                logger.error("a request was not counted (%s)", type(defect).__name__)

    def learn(self, prepared: Prepared, reply: Reply) -> None:
        """Note what an answer taught, once it is over: what is warm where, what was billed, and what is used up."""
        if 200 <= reply.status < 300:
            # what was planned is the first round; every one is billed
            rounds = reply.rounds if isinstance(reply, Expanded) else (reply,)
            self.taught(prepared, [(each.offer, each.usage) for each in rounds])

    def taught(self, prepared: Prepared, calls: Sequence[tuple[Offer, Usage | None]]) -> None:
        """`learn`, for whoever calls providers by other means: who was called, and what each billed."""
        try:
            self._note(prepared, calls)
        except Exception as defect:  # noqa: BLE001 (the answer is there and is paid for: a defect of ours must not cost it)
            logger.error("nothing was learned from an answer (%s)", type(defect).__name__)

    def _note(self, prepared: Prepared, calls: Sequence[tuple[Offer, Usage | None]]) -> None:
        request, (offer, usage) = prepared.request, calls[0]
        beside = request.payload.beside if request.context_apart else None
        self.conversations.sent(request.api, request.asked, request.digests, prepared.body, beside)
        sent = prepared.marked.get(called(offer), prepared.body)
        estimated = None if request.payload.images else prepared.receipt.input_tokens_estimated
        self.experience.answered(
            offer,
            prepared.chain,
            request.options.route,
            estimated_tokens=estimated,
            usage=usage,
            answers=request.answers,
            marked_turn=last_mark(request.api, sent) if self.experience.rules(offer).marked else None,
        )
        for each, billed in calls:
            if billed is not None and prepared.receipt.at is not None:
                self.drawdown.bill(each, billed, prepared.receipt.at)

    def prepare(self, body: Mapping[str, Any], offers: Sequence[Offer] = (), api: Api = CHAT) -> Prepared:
        """Everything that happens before a request is sent. CPU-bound: run it in a thread beside an event loop.

        `offers` are who may answer, the caller's own model first, where that is not for the catalog to say; `api` is what
        the body is a request of.

        Raises BadRequest, BadPayload, UnknownModel or NoOffer for what the caller can mend. If trimming or planning
        itself breaks, the original payload is prepared instead, and the receipt says so.
        """
        now = datetime.now(UTC)
        request = self._read(body, offers, api, now)
        try:
            return self._trimmed(self._resumed(request), now)
        except (TrimtabError, RoutingError, BadPayload):
            raise
        except Exception as defect:  # noqa: BLE001 (a defect of ours must not cost an answer)
            logger.error("trimming failed (%s); the original payload is forwarded", type(defect).__name__)
            return untouched(
                request, f"trimming failed ({type(defect).__name__}); the original payload was forwarded", now
            )

    def _read(self, body: Mapping[str, Any], offers: Sequence[Offer], api: Api, now: datetime) -> Request:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise BadRequest("model", 'must name a model, such as "gpt-6.1-sol"')
        options = read_options(body)
        body, options = (body, options) if offers else self.settings.auto.opened(body, options)
        contexts = sources_of(options.contexts or ())
        encoding = encoding_for_model(str(body["model"]))
        wanted = (
            None if offers else read_preferences(body, options, self.catalog, lambda m: self._sold(m, options, now))
        )
        body = body if wanted is None else wanted.body
        payload = parse(api, body, contexts, options.query)
        chosen = alone(offers) if wanted is None else wanted.admitted(self.catalog, tongue_of(api))
        digests = chain(api, body)
        request = Request(body, model, encoding, options, payload, chosen, digests, 0, fixed_tokens(payload, encoding))
        if contexts and not payload.query.strip():
            raise BadRequest("trimtab.query", "is missing, and no user message says what the contexts are needed for")
        return request

    def _resumed(self, request: Request) -> Request:
        """The request with the turns that were sent before as they were sent, where a provider still holds them."""
        body, settled_turns = self.conversations.resumed(request.api, request.asked, request.digests)
        if not settled_turns or request.payload.cited:  # a citation must find the original of what was sent
            return request
        contexts = sources_of(request.options.contexts or ())
        # the question as the caller's own turns ask it: in a settled one, context is no longer told from question
        payload = parse(request.api, body, contexts, request.payload.query, settled_turns)
        fixed = fixed_tokens(payload, request.encoding)
        resumed = replace(request, payload=payload, settled_turns=settled_turns, fixed_tokens=fixed)
        settled_chain = resumed.known_chain()[: settled_turns + 1]
        if body[request.api.turns] != request.asked[request.api.turns] and not self.experience.warm(
            request.offers, settled_chain
        ):
            return request  # gone cold: what was cut for an earlier question may be cut for this one
        return resumed

    def _sold(self, model: str, options: Options, now: datetime) -> Sequence[Offer]:
        processing = ("sync",) if options.deadline_s is None else ("sync", "flex")
        return self.drawdown.quoted(self.catalog.offers([model], now, processing), EXPECTED_OUTPUT_TOKENS, now)

    def _trimmed(self, request: Request, now: datetime) -> Prepared:
        began = time.perf_counter()
        payload = request.payload
        ranking = self.ranker.rank(payload.query, payload.sources, request.encoding)
        ranked = time.perf_counter()
        asked = request.chain()
        expected = self.experience.expected(asked, context_apart=request.context_apart)
        needs = needs_of(request, ranking, expected.carried, self.settings.min_coverage)
        wish = self.settings.auto.min_quality if self.settings.auto.models(request.model) else None
        qualities: Mapping[str, float] = {}
        if asks_for_quality(request.options, wish) and self.difficulty is not None:
            qualities = self.difficulty.qualities(payload.query or "?", request.offers)
        needs, unreached = within_reach(needs, wish, qualities)
        standings = self.experience.standings(
            request.offers,
            request.known_chain(),
            input_tokens=needs.fixed_tokens + ranking.full_tokens,
            route=request.options.route,
            answers=request.answers,
            qualities=qualities,
        )
        chosen = request.admitted.plan(ranking, needs, standings)
        planned = time.perf_counter()
        trimmed = ranking.cut(chosen.chosen.budget_tokens)
        kept = trimmed.contexts
        body, shown = payload.rebuilt(kept), payload.shown(kept)
        originals = originals_of(payload.sources, kept, request.encoding)
        expander, notes = expander_of(request, body, originals, self.ranker, tongue_of(request.api))
        cut = time.perf_counter()
        receipt = opened(
            chosen,
            receipt_id=receipt_id(),
            model_asked=request.model,
            baseline=request.admitted.baseline,
            tokens_before=trimmed.tokens_before,
            tokens_after=trimmed.tokens_after,
            at=now,
            coverage_basis=trimmed.coverage_basis,
        )
        stages = (("rank", ranked - began), ("plan", planned - ranked), ("cut", cut - planned))
        stage_ms = tuple((name, round(s * 1000, 3)) for name, s in stages)
        receipt = replace(
            receipt, stage_ms=stage_ms, notes=(*unreached, *notes), cut=tuple(each.cut for each in originals)
        )
        return Prepared(
            request,
            body,
            (chosen.chosen.offer, *chosen.fallbacks),
            request.admitted.baseline,
            chosen,
            receipt,
            shown,
            request.sent_chain(body, kept),
            self._marked(request, body, chosen, expected.link - 1),
            asked,
            originals,
            expander,
        )

    def _marked(self, request: Request, body: Mapping[str, Any], chosen: Plan, turn: int) -> Mapping[Called, Body]:
        """What goes to the chosen offer instead of `body`, where its prefix is worth marking for the provider's cache."""
        candidate = chosen.chosen
        if not (
            candidate.marks_cache or (candidate.cache_read_tokens and self.experience.rules(candidate.offer).marked)
        ):
            return {}
        with_mark = marked(request.api, body, request.sent_turn(body, turn))
        return {} if with_mark is None else {called(candidate.offer): with_mark}

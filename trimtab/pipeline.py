"""The pipeline: payload, ranking, plan, cut, answer, receipt. Each step is one call into one package.

Everything up to the forwarding is synchronous and runs on the caller's thread; forwarding is asynchronous.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor import Ranker, Ranking
from compressor.payload import OPTIONS, BadPayload
from compressor.prompts import CHAT, Api
from compressor.tokens import DEFAULT_ENCODING, count_tokens, encoding_for_model
from retrieval import CachedEncoder, Passage, SentenceTransformerEncoder
from routing.attempts import RetryPolicy
from routing.catalog import Catalog
from routing.commitments import Drawdown
from routing.errors import RoutingError
from routing.forwarding import Router, Timeouts
from routing.offers import Offer, Usage
from routing.planner import Plan
from routing.price_refresh import PriceRefresh
from routing.receipt import Receipt, opened, settled
from routing.replies import Reply
from routing.standing import called
from routing.tongues import CHAT as CHAT_TONGUE
from routing.tongues import Tongue
from trimtab.access.rules import EVERYTHING, Rules
from trimtab.answers.cache import SIZE_LIMIT_BYTES, Answers
from trimtab.answers.serving import completed
from trimtab.auto import asks_for_quality, within_reach
from trimtab.baseline import Baselines
from trimtab.cache_marks import last_mark
from trimtab.caller import NOBODY, Caller
from trimtab.completion import Completion
from trimtab.compressed import Compressed, compressed, ranked
from trimtab.conclusion import Conclusion, Listener
from trimtab.contexts import originals_of
from trimtab.conversations import Conversations
from trimtab.difficulty import DifficultyRouter
from trimtab.errors import BadSettings, TrimtabError
from trimtab.expansion import expander_of
from trimtab.experience import Experience
from trimtab.loading import calibration_of, fusion_of, overlay_of
from trimtab.options import CompressIn, checked
from trimtab.prepared import Prepared, answering, marked_for, needs_of, receipt_id, untouched
from trimtab.ranking_pool import Ranks, ranking_pool
from trimtab.reading import Reading
from trimtab.request import Request
from trimtab.resuming import resumed
from trimtab.rounds import Asking, Expanded, expanded
from trimtab.settings import Settings
from trimtab.stores import Stores
from trimtab.surfaces import tongue_of
from trimtab.telling import together

if TYPE_CHECKING:
    from trimtab.ledger.ledger import Ledger

logger = logging.getLogger("trimtab")


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
        self._reading = Reading(self.catalog, self.drawdown, self.settings.auto)
        self.experience = Experience(self.catalog, self.settings.history_file)
        self.stores = Stores(self.settings)
        self.conversations = Conversations(shared=self.stores.conversations())
        self.baselines = Baselines()
        self.listeners: list[Listener] = []
        self._ledger: Ledger | None = None
        self._model = SentenceTransformerEncoder(self.settings.encoder)
        self.encoder = CachedEncoder(self._model, self.stores.near("vectors", self.settings.cache_size_bytes))
        self.ranker = Ranker(
            self.encoder, self.settings.marker, fusion_of(self.settings), calibration_of(self.settings)
        )
        self.ranks: Ranks = self.ranker
        self.answers = Answers(self.settings, self.encoder, self.stores.one("answer-cache", SIZE_LIMIT_BYTES))
        if self.settings.ledger:
            self.open_ledger()

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
        return compressed(self.ranks, self.settings.min_coverage, asked)

    def ranked(self, asked: CompressIn) -> tuple[Ranking, int]:
        """The ranking of a checked body's contexts, and the budget in tokens that it asks for. Raises BadRequest."""
        return ranked(self.ranks, self.settings.min_coverage, asked)

    def warm_up(self) -> None:
        """Load the encoder and the tokenizer, so that the first request does not wait for them."""
        self._model.encode([Passage("warm up", ((0, 7),))])  # past the cache, which would have it from the last start
        count_tokens("warm up")

    @contextmanager
    def running(self) -> Iterator[None]:
        """While serving: large payloads are ranked in processes, prices are refreshed and the ledger is kept as the settings
        say, and what bills taught is written down at the end."""
        if self.settings.refresh_prices_hours is not None:
            self.prices.start(self.settings.refresh_prices_hours)
        opened = self.settings.ledger is None and self.open_ledger()
        try:
            with together(self), ranking_pool(self.ranker, self.settings) as self.ranks:
                yield
        finally:
            self.prices.stop()
            self.experience.save()
            if opened:
                self.close()

    def open_ledger(self) -> bool:
        """Have every request that is over written to the ledger from now on. Whether that is news. Raises BadSettings."""
        if self._ledger is not None:
            return False
        from trimtab.ledger.ledger import Ledger  # here, since SQLAlchemy takes long to load and middleware has no need

        self._ledger = Ledger(self.settings)
        self.listeners.append(self._ledger.listen)
        return True

    def close(self) -> None:
        """Write what the ledger has not written yet, and keep none any more. Without one, nothing."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            self.listeners.remove(ledger.listen)
            ledger.close()

    def forget(self) -> None:
        """Begin anew, as after a restart: drop what past requests taught of offers and conversations. Vectors stay."""
        self.experience.forget()
        self.conversations.forget()
        self.baselines.forget()

    def plan(self, body: Mapping[str, Any], rules: Rules = EVERYTHING) -> Plan:
        """What would be bought for this chat completion, and what else was considered. Nothing is sent."""
        return self.prepare(body, rules=rules).plan

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
        return await completed(self, body, router)

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
            return reply.settled(prepared, self._usual_share(prepared, reply.offer))
        spent_ms = sum(attempt.latency_ms for attempt in reply.attempts)
        return settled(
            prepared.receipt,
            answered=reply.offer,
            baseline=prepared.baseline,
            usage=reply.usage,
            attempts=reply.attempts,
            stage_ms=(("provider", spent_ms),),
            marked=called(reply.offer) in prepared.marked,
            usual_share=self._usual_share(prepared, reply.offer),
        )

    def _usual_share(self, prepared: Prepared, answered: Offer) -> float:
        return self.experience.usual_share(prepared.baseline, answered, prepared.request.options.route)

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
        self.baselines.came(called(prepared.baseline), prepared.untouched, time.monotonic())
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

    def prepare(
        self,
        body: Mapping[str, Any],
        offers: Sequence[Offer] = (),
        api: Api = CHAT,
        batches: Collection[str] = (),
        rules: Rules = EVERYTHING,
    ) -> Prepared:
        """Everything that happens before a request is sent. CPU-bound: run it in a thread beside an event loop.

        `offers` are who may answer, the caller's own model first, where that is not for the catalog to say; `api` is what
        the body is a request of; `batches` names the providers whose batches are planned with, where there is a deadline.
        `rules` are what the caller may use at all.

        Raises BadRequest, BadPayload, UnknownModel or NoOffer for what the caller can mend. If trimming or planning
        itself breaks, the original payload is prepared instead, and the receipt says so.
        """
        now, began = datetime.now(UTC), time.perf_counter()
        return self._prepared(self._reading.request(body, offers, api, now, batches, rules), now, began)

    def prepared_at_once(self, body: Mapping[str, Any], api: Api = CHAT, rules: Rules = EVERYTHING) -> Prepared | None:
        """What `prepare` gives, where that is a matter of half a millisecond for a small body, and so may be done on an event
        loop; None where it is not: there is context to rank, an encoder or another server to ask, a tokenizer to load."""
        model = str(body.get("model"))
        if OPTIONS in body or self.settings.auto.models(model) or encoding_for_model(model) != DEFAULT_ENCODING:
            return None
        now, began = datetime.now(UTC), time.perf_counter()
        request = self._reading.request(body, (), api, now, (), rules)
        at_hand = not request.payload.sources and self.conversations.at_hand(request.digests)
        return self._prepared(request, now, began) if at_hand else None

    def _prepared(self, request: Request, now: datetime, began: float) -> Prepared:
        try:
            return self._trimmed(resumed(request, self.conversations, self.experience), now, began)
        except (TrimtabError, RoutingError, BadPayload):
            raise
        except Exception as defect:  # noqa: BLE001 (a defect of ours must not cost an answer)
            logger.error("trimming failed (%s); the original payload is forwarded", type(defect).__name__)
            return untouched(
                request, f"trimming failed ({type(defect).__name__}); the original payload was forwarded", now
            )

    def unplanned(self, body: Mapping[str, Any], offers: Sequence[Offer], api: Api) -> Prepared:
        """A request that was sent already, untrimmed: for whoever must know what was asked. Raises as `prepare`."""
        now = datetime.now(UTC)
        return untouched(self._reading.request(body, offers, api, now), "", now)

    def _trimmed(self, request: Request, now: datetime, began: float) -> Prepared:
        parsed = time.perf_counter()
        payload = request.payload
        ranking = self.ranks.rank(payload.query, payload.sources, request.encoding)
        was_ranked = time.perf_counter()
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
        expander, notes = expander_of(request, body, originals, self.ranks, tongue_of(request.api))
        sent_chain, own = request.sent_chain(body, kept), request.admitted.baseline
        rules = self.experience.rules(own)
        untouched_chain = self.baselines.untouched(called(own), request, body, sent_chain, originals, rules)
        cut = time.perf_counter()
        receipt = opened(
            chosen,
            receipt_id=receipt_id(),
            model_asked=request.model,
            baseline=own,
            tokens_before=trimmed.tokens_before,
            tokens_after=trimmed.tokens_after,
            at=now,
            coverage_basis=trimmed.coverage_basis,
            earlier_cut_tokens=untouched_chain.earlier_cut_tokens,
            warm_tokens=self.baselines.warm_tokens(called(own), untouched_chain, rules, time.monotonic()),
        )
        stages = (
            ("parse", parsed - began),
            ("rank", was_ranked - parsed),
            ("plan", planned - was_ranked),
            ("cut", cut - planned),
        )
        stage_ms = tuple((name, round(s * 1000, 3)) for name, s in stages)
        receipt = replace(
            receipt, stage_ms=stage_ms, notes=(*unreached, *notes), cut=tuple(each.cut for each in originals)
        )
        return Prepared(
            request,
            body,
            answering((chosen.chosen.offer, *chosen.fallbacks)),
            own,
            chosen,
            receipt,
            shown,
            sent_chain,
            marked_for(request, body, chosen.chosen, expected.link - 1, self.experience.rules(chosen.chosen.offer)),
            asked,
            originals,
            expander,
            ranking,
            untouched_chain,
        )

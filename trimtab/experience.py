"""Experience: what past requests taught of each offer, put together for the next plan.

Health, history and prompt caches live in `routing` and know no text; here a request is told to them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from routing.catalog import Catalog
from routing.health import Health
from routing.history import History
from routing.offers import Offer, Usage
from routing.prompt_cache import CacheRules, Expected, Link, PromptCaches, rules_of
from routing.standing import Called, Standing, called
from trimtab.telling import Tell, links_of, nobody, plain_links

logger = logging.getLogger("trimtab")


def _history(file: Path | None) -> History:
    try:
        return History(file)
    except (OSError, ValueError) as error:
        logger.warning("the history of bills cannot be read, and is begun anew (%s)", error)
        return History()


class Experience:
    """One for a process; safe to share between threads. `history_file` keeps bills over a restart; one that cannot be
    read is begun anew."""

    def __init__(
        self, catalog: Catalog, history_file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self.health = Health(clock=clock)
        self.history = _history(history_file)
        self.caches = PromptCaches()
        self._written = PromptCaches()  # what caches hold that keep only what is marked
        self.tell: Tell = nobody

    def forget(self) -> None:
        """Begin anew. Routers keep the same `health`, which forgets too."""
        self.health.forget()
        self.history, self.caches, self._written = History(), PromptCaches(), PromptCaches()

    def save(self) -> None:
        """Write the history, where it has a file. A disk that refuses it costs the memory and nothing else."""
        try:
            self.history.save()
        except OSError as error:
            logger.warning("the history of bills was not written (%s)", error.strerror)

    def standings(
        self,
        offers: Sequence[Offer],
        chain: Sequence[Link],
        *,
        input_tokens: int,
        route: str = "",
        answers: int = 1,
        qualities: Mapping[str, float] | None = None,
    ) -> dict[Called, Standing]:
        """What is known of each offer for a request with this chain. `qualities` are chances by model, where asked for."""
        now_s = self._clock()
        return {
            called(offer): self._standing(offer, chain, input_tokens, route, answers, qualities or {}, now_s)
            for offer in offers
        }

    def _standing(
        self,
        offer: Offer,
        chain: Sequence[Link],
        input_tokens: int,
        route: str,
        answers: int,
        qualities: Mapping[str, float],
        now_s: float,
    ) -> Standing:
        rules = self.rules(offer)
        held = self._written if rules.marked else self.caches
        return replace(
            self.health.standing(offer, input_tokens),
            output_tokens=self.history.expected_output(offer.model, route, answers=answers),
            margin=self.history.margin(offer.model),
            quality=qualities.get(offer.model),
            warm_tokens=held.warm_tokens(called(offer), chain, rules, now_s),
            cache_minimum_tokens=rules.minimum_tokens,
            cache_marked=rules.marked,
            promised_s=0.0
            if offer.processing == "batch"
            else None,  # it may be called back: the deferred lane sees to it
        )

    def rules(self, offer: Offer) -> CacheRules:
        """How the offer's provider caches prefixes. Of one that is not configured (middleware calls it) the model's name
        says whose it is; Anthropic's caches what is marked alone, and middleware marks nothing."""
        provider = self._catalog.provider(offer.provider)
        if provider is not None:
            return rules_of(provider.kind, offer.model)
        if "claude" in offer.model:
            return CacheRules()
        return rules_of("gemini" if "gemini" in offer.model else "openai", offer.model)

    def usual_share(self, own: Offer, answered: Offer, route: str = "") -> float:
        """How much of what `answered` wrote the caller's own model would have written: less than 1 where it is known to
        write less. Never more: harder questions go to dearer models, whose longer answers are no saving of ours."""
        if own.model == answered.model:
            return 1.0
        usual, written = (self.history.usual_output(each.model, route) for each in (own, answered))
        return 1.0 if not usual or not written else min(1.0, usual / written)

    def warm(self, offers: Sequence[Offer], chain: Sequence[Link]) -> int:
        """The most tokens of `chain` that any offer has read lately. A cache that keeps only what is marked counts as if
        all were: a prefix that changed with each turn would never be worth marking."""
        now_s = self._clock()
        return max(
            (self.caches.warm_tokens(called(each), chain, self.rules(each), now_s) for each in offers), default=0
        )

    def expected(self, chain: Sequence[Link], *, context_apart: bool) -> Expected:
        """What later requests are expected to repeat of this one."""
        return self.caches.expected(chain, self._clock(), context_apart=context_apart)

    def came(self, chain: Sequence[Link]) -> None:
        """Note a request that is sent."""
        self.caches.came(chain, self._clock())
        self.tell("came", {"chain": plain_links(chain)})

    def answered(
        self,
        offer: Offer,
        chain: Sequence[Link],
        route: str = "",
        *,
        estimated_tokens: int | None,
        usage: Usage | None,
        answers: int = 1,
        marked_turn: int | None = None,
    ) -> None:
        """Note an answer: its prefixes are warm there, and its bill says how long answers are and how we count.

        `marked_turn` is the last message that bore a cache mark (-1: what stands before them did), None for no mark.
        """
        written = () if marked_turn is None else chain[marked_turn + 1 : marked_turn + 2]
        where = called(offer)
        self.caches.sent(where, chain, self._clock())
        self._written.sent(where, written, self._clock())
        self.tell("sent", {"offer": where, "chain": plain_links(chain), "written": plain_links(written)})
        if usage is not None:
            self.history.observed(offer, route, estimated_tokens, usage, answers)
            counted = {"estimated": estimated_tokens, "input": usage.input_tokens, "output": usage.output_tokens}
            self.tell("billed", {"model": offer.model, "route": route, "answers": answers, **counted})

    def heard(self, kind: str, event: Mapping[str, Any], age_s: float) -> None:
        """What another process told `age_s` ago. Raises ValueError, KeyError or TypeError for what is no event of ours."""
        then_s = self._clock() - age_s
        if kind == "came":
            self.caches.came(links_of(event["chain"]), then_s)
        elif kind == "sent":
            provider, model, processing = event["offer"]
            where = (str(provider), str(model), processing)
            self.caches.sent(where, links_of(event["chain"]), then_s)
            self._written.sent(where, links_of(event["written"]), then_s)
        elif kind == "billed":
            usage = Usage(int(event["input"]), int(event["output"]))
            self.history.saw(event["model"], event["route"], event["estimated"], usage, int(event["answers"]))

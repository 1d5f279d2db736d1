"""Auto: a model's name that stands for several, and how good an answer has to be.

[auto]
candidates = ["claude-haiku-5-5", "gpt-6.1-sol"]   # what `model: "auto"` chooses from
min_quality = 0.8                                  # the least chance of a good answer
tiers = { fast = ["gpt-5-mini", "claude-haiku-5-5"] }      # `model: "fast"`
shares = { "gpt-5-mini" = 0.7 }                    # what share of your ordinary prompts a model answers well
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from routing.planner import Needs
from trimtab.errors import BadRequest
from trimtab.options import Options

AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Auto:
    """The `[auto]` table. Raises ValueError that names the entry."""

    candidates: tuple[str, ...] = ()
    min_quality: float | None = None
    tiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(table: object) -> Auto:
        """From a plain table. Raises ValueError."""
        if not isinstance(table, Mapping):
            raise ValueError("auto must be a table")
        if unknown := sorted(set(table) - {each.name for each in fields(Auto)}):
            raise ValueError(f"auto.{unknown[0]} is no setting; there are candidates, min_quality, tiers and shares")
        tiers, shares, quality = table.get("tiers", {}), table.get("shares", {}), table.get("min_quality")
        if not isinstance(tiers, Mapping) or not isinstance(shares, Mapping):
            raise ValueError("auto.tiers and auto.shares must be tables")
        for name, share in (("auto.min_quality", quality), *((f"auto.shares.{m}", s) for m, s in shares.items())):
            if share is not None and (
                isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1
            ):
                raise ValueError(f"{name} must be a number above 0 and below 1")
        return Auto(
            _names("auto.candidates", table.get("candidates", ())),
            quality,
            {name: _names(f"auto.tiers.{name}", models) for name, models in tiers.items()},
            dict(shares),
        )

    def models(self, asked: str) -> tuple[str, ...]:
        """What `asked` stands for; () where it is a model's own name. Raises BadRequest for "auto" without candidates."""
        if asked == AUTO and not self.candidates:
            raise BadRequest(
                "model", '"auto" needs candidates: list them under [auto] in the settings', "no_candidates"
            )
        return self.candidates if asked == AUTO else self.tiers.get(asked, ())

    def opened(
        self, body: Mapping[str, Any], options: Options, permitted: Callable[[str], bool] = lambda _: True
    ) -> tuple[Mapping[str, Any], Options]:
        """The request with the first model that its name stands for, the others as candidates; of those that are `permitted`
        where any is."""
        models = self.models(str(body.get("model")))
        if not models:
            return body, options
        models = tuple(each for each in models if permitted(each)) or models
        candidates = [*models[1:], *options.candidates]
        return {**body, "model": models[0]}, options.model_copy(update={"candidates": candidates})


def asks_for_quality(options: Options, wish: float | None) -> bool:
    """Whether it matters how well each candidate answers, so that the difficulty router is asked."""
    return options.min_quality is not None or options.wrong_answer_usd is not None or wish is not None


def within_reach(needs: Needs, least: float | None, qualities: Mapping[str, float]) -> tuple[Needs, tuple[str, ...]]:
    """The needs with `least` as the quality that is wanted, or, where no candidate reaches it, that of the best one.

    A caller's own `min_quality` stands. The settings' is a wish: chances of models that training has not seen are too
    rough to refuse an answer for. What was given up is said.
    """
    if needs.min_quality is not None or least is None or not qualities:
        return needs, ()
    best = max(qualities.values())
    if best >= least:
        return replace(needs, min_quality=least), ()
    note = f"no candidate is expected to answer well with {least:.2f}; the best, with {best:.2f}, is asked"
    return replace(needs, min_quality=best), (note,)


def _names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each for each in value):
        raise ValueError(f"{name} must be a list of model names")
    return tuple(value)

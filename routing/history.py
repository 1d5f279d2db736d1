"""History: what past bills say of the next one: how long answers are, and how far our token counts are off.

The arithmetic is pure (`Mean`); `History` keeps it for a process, behind a lock, and in a small JSON file if asked to.
Holds counts, model names and the callers' route labels. No text.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Hashable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final, TypeVar

from routing.offers import Offer, Usage

PRIOR_OUTPUT_TOKENS: Final = 512.0
"""An answer that nothing is known of. It counts as much as PRIOR_ANSWERS answers, and fades as they do."""
PRIOR_ANSWERS: Final = 2.0

ENOUGH_ANSWERS: Final = 20.0
"""Of a model on a route, before its mean counts without a prior."""

DEFAULT_MARGIN: Final = 0.02
"""By what share a bill may exceed our count; less is believed only once ENOUGH_BILLS of a model were seen."""
ENOUGH_BILLS: Final = 20
LEAST_MARGIN: Final = 0.002
DEVIATIONS: Final = 3.09
"""Standard deviations above the mean: the 99.9 % quantile of a normal distribution."""
WORTH_COUNTING_TOKENS: Final = 1_000
"""Smaller prompts say nothing of the tokenizer: what a chat template adds, a few tokens, is percents of them."""

MEMORY: Final = 100.0
"""Each observation fades by 1 / MEMORY with every one that follows."""
MOST_KEPT: Final = 1_000
"""Of each kind; what was not seen for longest is dropped. Route labels are the callers', and may be without number."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A fading mean, as sums: of the weights, of the weighted values and their squares, and of the squared weights."""

    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    weight_squares: float = 0.0

    def after(self, value: float, weight: float = 1.0) -> Mean:
        """With one more value.

        >>> round(Mean().after(100.0).after(300.0).mean, 1)
        200.5
        """
        kept = 1.0 - 1.0 / MEMORY
        return Mean(
            self.weight * kept + weight,
            self.total * kept + weight * value,
            self.squares * kept + weight * value * value,
            self.weight_squares * kept * kept + weight * weight,
        )

    @property
    def size(self) -> float:
        """How many values of equal weight would say as much (Kish's effective sample size)."""
        return self.weight * self.weight / self.weight_squares if self.weight_squares else 0.0

    @property
    def mean(self) -> float:
        """Needs a value."""
        return self.total / self.weight

    def around(self, prior: float, values: float) -> float:
        """The mean, had `prior` been seen `values` times at first and faded since. For values of weight 1."""
        left = values * max(0.0, 1.0 - self.weight / MEMORY)
        return (self.total + prior * left) / (self.weight + left)

    def quantile(self, deviations: float) -> float:
        """The mean and that many standard deviations, wider the fewer values there are. `size` must be above 1."""
        spread = max(0.0, self.squares / self.weight - self.mean * self.mean)
        return self.mean + deviations * math.sqrt(spread * (self.size + 1.0) / (self.size - 1.0))


class History:
    """What was billed so far. One for a process: safe to share between threads.

    Output is kept for each model and route, where a route is a caller's label for one kind of request, or "". What is
    expected is an arithmetic mean, because dollars are linear in tokens. A mean of logarithms is steadier and wrong: it
    is the median of a log-normal distribution, and a third below the mean at the usual spread; corrected for that
    spread, it is four times the mean where a route's answers are either a word or a page.

    `file` is read now, where it exists, and written by `save`. Raises ValueError for one that is no history.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._answers: dict[_Route, Mean] = {}
        self._bills: dict[str, Mean] = {}
        if file is not None and file.exists():
            self._answers, self._bills = _read(file)

    def observed(self, offer: Offer, route: str, estimated_tokens: int | None, usage: Usage, answers: int = 1) -> None:
        """Note a bill. `usage.output_tokens` count reasoning, as they are billed, of `answers` together (OpenAI's `n`).

        `estimated_tokens` is what we had counted as input; None where that was no count of the model's tokens (an image
        whose size is not known).
        """
        self.saw(offer.model, route, estimated_tokens, usage, answers)

    def saw(self, model: str, route: str, estimated_tokens: int | None, usage: Usage, answers: int = 1) -> None:
        """`observed`, of an offer of which only the model is known: another process saw the bill."""
        each_tokens = usage.output_tokens / max(1, answers)
        with self._lock:
            _renew(self._answers, (model, route), each_tokens, 1.0)
            _renew(self._answers, (model, None), each_tokens, 1.0)
            if usage.input_tokens and (estimated_tokens or 0) >= WORTH_COUNTING_TOKENS:
                # Weighted by size: what matters is on which side of a boundary a prompt of 100,000 tokens lands.
                weight = float(estimated_tokens or 0)
                _renew(self._bills, model, usage.input_tokens / weight - 1.0, weight)

    def expected_output(
        self, model: str, route: str = "", max_tokens: int | None = None, answers: int = 1
    ) -> int | None:
        """The output tokens to expect, `max_tokens` for each of `answers` at most; None while none of `model` was seen.

        A route that is new begins as the model's answers on all routes are; a model with few answers leans on
        PRIOR_OUTPUT_TOKENS.
        """
        with self._lock:
            overall = self._answers.get((model, None))
            own = self._answers.get((model, route), Mean())
        if overall is None:
            return None
        expected = own.around(overall.around(PRIOR_OUTPUT_TOKENS, PRIOR_ANSWERS), PRIOR_ANSWERS)
        if max_tokens is not None:
            expected = min(expected, max_tokens)
        return math.ceil(expected * max(1, answers))

    def usual_output(self, model: str, route: str = "") -> float | None:
        """The mean output tokens of one answer on this route; None while fewer than ENOUGH_ANSWERS are known."""
        with self._lock:
            seen = self._answers.get((model, route), Mean())
        return seen.mean if seen.weight >= ENOUGH_ANSWERS else None

    def margin(self, model: str) -> float:
        """By what share a bill of `model` may exceed our count: the 99.9 % quantile, LEAST_MARGIN to 1."""
        with self._lock:
            bills = self._bills.get(model, Mean())
        if bills.size < 2.0:
            return DEFAULT_MARGIN
        least = LEAST_MARGIN if bills.size >= ENOUGH_BILLS else DEFAULT_MARGIN
        return min(1.0, max(least, bills.quantile(DEVIATIONS)))

    def save(self) -> None:
        """Write the file, in one step: whoever reads it meanwhile finds the old one or the new one. Nothing without a
        file. Raises OSError."""
        if self._file is None:
            return
        with self._lock:
            answers = [[model, route, *astuple(mean)] for (model, route), mean in self._answers.items()]
            bills = [[model, *astuple(mean)] for model, mean in self._bills.items()]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        fresh.write_text(json.dumps({"answers": answers, "bills": bills}), encoding="utf-8")
        fresh.replace(self._file)


_Route = tuple[str, str | None]
"""A model and a route; None stands for all of them."""
_Key = TypeVar("_Key", bound=Hashable)


def _renew(means: dict[_Key, Mean], key: _Key, value: float, weight: float) -> None:
    # Taken out and put in again, so that the first key is always the one not seen for longest.
    means[key] = means.pop(key, Mean()).after(value, weight)
    if len(means) > MOST_KEPT:
        del means[next(iter(means))]


def _read(file: Path) -> tuple[dict[_Route, Mean], dict[str, Mean]]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        answers = {(str(model), route): _mean(numbers) for model, route, *numbers in kept["answers"]}
        return answers, {str(model): _mean(numbers) for model, *numbers in kept["bills"]}
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{file} is no history of ours; delete it to begin a new one") from None


def _mean(numbers: list[float]) -> Mean:
    weight, total, squares, weight_squares = map(float, numbers)
    return Mean(weight, total, squares, weight_squares)

"""Difficulty: how likely each of several models is to answer a prompt well. Numbers in, chances out.

    chance(model, prompt) = sigmoid(strength(model) + taste(model) . x - hardness . x)

`x` is the prompt's row of numbers, standardised. This is item response theory's model of a test (Rasch 1960; Lord 1980)
with the item's difficulty read off the prompt, so that a prompt nobody has asked before has one, and with a correction of
each model's own. Difficulty is nobody's in particular: a model that was not seen in training needs a strength, no more.
Knows nothing of texts and encoders. The weights are trained in `difficulty_training`; docs/router.md says on what.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Numbers = NDArray[np.float64]

LIMIT = 3.0
"""Standard deviations beyond which a column says no more: a prompt unlike any in training stays within what was seen."""

STRENGTH_PER_TENFOLD = 0.7
"""What a price ten times as high is taken to be worth, in log-odds, where nothing else is known of a model. By the shipped
weights GPT-4-1106 is 0.7 a tenfold above Mixtral-8x7B, and two general models of 50 billion parameters are 0.8 above four
of 7 to 9 billion (docs/router.md). For any other model it is an assumption: single models stray far from it."""

MOST_TENFOLDS = 2.0
"""A model that costs a hundredth of the dearest or less is taken to be as weak as at a hundredth: free is not hopeless."""


@dataclass(frozen=True, slots=True, eq=False)
class Difficulty:
    """What training found. `columns` names what a row holds, and whoever makes the rows must agree with it.

    `centre`, `spread`, `hardness`: shape (width,). `models`, `strength` (in log-odds) and `taste`, shape (models, width),
    are of those seen in training. `ordinary` are difficulties of training prompts, evenly from the easiest to the
    hardest: the scale on which a strength is said in words that a user knows, the share of them that a model answers well.
    """

    columns: str
    models: tuple[str, ...]
    centre: Rows
    spread: Rows
    hardness: Rows
    strength: Rows
    taste: Rows
    ordinary: Rows

    def standardised(self, rows: Rows) -> Rows:
        """`rows`, shape (prompts, width), each column in standard deviations from its mean in training."""
        return np.asarray(np.clip((rows - self.centre) / self.spread, -LIMIT, LIMIT), np.float32)

    def difficulty(self, rows: Rows) -> Numbers:
        """Shape (prompts,), in log-odds: a model of this strength answers the prompt well half of the time."""
        return np.asarray(self.standardised(rows) @ self.hardness, np.float64)

    def chances(self, rows: Rows) -> Numbers:
        """Of the models seen in training, in their order: shape (prompts, models), each from 0 to 1."""
        x = self.standardised(rows)
        return sigmoid(np.asarray(self.strength + x @ (self.taste - self.hardness).T, np.float64))

    def qualities(
        self,
        row: Rows,
        models: Sequence[str],
        shares: Mapping[str, float] | None = None,
        prices_usd: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """The chance, 0 to 1, that each of `models` answers the prompt of `row`, shape (width,), well.

        A model that was not seen in training has no taste; `strengths` says how strong it is taken to be.
        A name is known with or without what stands before its last slash.
        """
        x = self.standardised(row[None])[0]
        difficulty = float(x @ self.hardness)
        qualities = {}
        for model, strength in self.strengths(models, shares, prices_usd).items():
            at = self.known(model)
            taste = 0.0 if at is None else float(self.taste[at] @ x)
            qualities[model] = float(sigmoid(strength + taste - difficulty))
        return qualities

    def strengths(
        self,
        models: Sequence[str],
        shares: Mapping[str, float] | None = None,
        prices_usd: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """How strong each of `models` is taken to be, in log-odds.

        It is what `shares` says (the share of ordinary prompts that it answers well, above 0 and below 1); else what
        training found; else a guess from its price, `prices_usd` being in one unit for all of `models`: the dearest is
        taken to be as strong as the strongest of training, and the others weaker by STRENGTH_PER_TENFOLD. One that has no
        price is taken to be as weak as a guess can make it.
        """
        prices = prices_usd or {}
        dearest = max((prices.get(model, 0.0) for model in models), default=0.0)
        strengths = {}
        for model in models:
            at = self.known(model)
            if shares and model in shares:
                strengths[model] = self.strength_of(shares[model])
            elif at is not None:
                strengths[model] = float(self.strength[at])
            else:
                price = prices.get(model, 0.0)
                tenfolds = min(math.log10(dearest / price), MOST_TENFOLDS) if price > 0 else MOST_TENFOLDS
                strengths[model] = float(self.strength.max()) - STRENGTH_PER_TENFOLD * tenfolds
        return strengths

    def known(self, model: str) -> int | None:
        """Where `model` stands in `models`; None if training has not seen it."""
        names = [name.lower() for name in self.models]
        wanted = model.lower()
        for name in (wanted, wanted.rpartition("/")[2]):
            if name in names:
                return names.index(name)
        return None

    def share_of(self, strength: float) -> float:
        """The share of ordinary prompts that a model of `strength` answers well."""
        return float(sigmoid(strength - self.ordinary.astype(np.float64)).mean())

    def strength_of(self, share: float) -> float:
        """The strength at which that share of ordinary prompts is answered well. Raises ValueError outside of (0, 1)."""
        if not 0 < share < 1:
            raise ValueError(f"the share of prompts that a model answers well must be above 0 and below 1, not {share}")
        low, high = float(self.ordinary.min()) - 40.0, float(self.ordinary.max()) + 40.0
        for _ in range(60):  # halving: share_of rises with the strength
            middle = (low + high) / 2
            low, high = (middle, high) if self.share_of(middle) < share else (low, middle)
        return (low + high) / 2

    def save(self, file: Path) -> None:
        """Write as `.npz`, the same bytes for the same weights."""
        with file.open("wb") as out:  # given a name, numpy would add .npz to one that ends otherwise
            np.savez(
                out,
                columns=np.array(self.columns),
                models=np.array(self.models),
                **{name: getattr(self, name) for name in _ARRAYS},
            )

    @staticmethod
    def load(file: Path) -> Difficulty:
        """Read what `save` wrote. Raises OSError, or ValueError for a file that is something else."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in _ARRAYS}
                return Difficulty(str(stored["columns"]), tuple(map(str, stored["models"])), **arrays)
        except (KeyError, ValueError, TypeError, EOFError) as error:
            raise ValueError(f"{file} holds no difficulty weights; write it with `trimtab train-router`") from error


_ARRAYS = ("centre", "spread", "hardness", "strength", "taste", "ordinary")


def sigmoid(log_odds: Numbers | float) -> Numbers:
    """1 / (1 + exp(-log_odds)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(np.asarray(log_odds, np.float64) / 2)))


@functools.cache
def shipped_difficulty() -> Difficulty:
    """The weights that come with the package (docs/router.md: what they were trained on, and what came out)."""
    with as_file(files("routing") / "difficulty.npz") as file:
        return Difficulty.load(file)

"""The difficulty router as the pipeline sees it: a prompt and who may answer it in, the chance of a good answer each out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retrieval import Encoder
from routing.difficulty import Difficulty, shipped_difficulty
from routing.offers import Offer
from trimtab import prompt_features
from trimtab.errors import BadSettings

INPUT_SHARE = 0.75
"""Of the tokens of an ordinary request three in four are input: what a model's list price is weighed with."""


@dataclass(frozen=True, slots=True)
class DifficultyRouter:
    """Judges prompts with `weights`, whose columns must be those of `encoder`. `shares` says of a model, by name, what share
    of ordinary prompts it answers well, and goes before what training found."""

    encoder: Encoder
    weights: Difficulty
    shares: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(encoder: Encoder, file: str | None = None, shares: Mapping[str, float] | None = None) -> DifficultyRouter:
        """With the weights that `trimtab train-router` wrote to `file`; None for the shipped ones. Raises BadSettings."""
        try:
            weights = shipped_difficulty() if file is None else Difficulty.load(Path(file))
        except (OSError, ValueError) as error:
            raise BadSettings(f"router: {error}") from None
        if weights.columns != prompt_features.columns(encoder):
            raise BadSettings(
                "router: the weights were trained on other vectors than this encoder's; "
                "train your own with `trimtab train-router`, or leave `encoder` at its default"
            )
        return DifficultyRouter(encoder, weights, shares or {})

    def qualities(self, prompt: str, offers: Iterable[Offer]) -> dict[str, float]:
        """By model of `offers` the chance, 0 to 1, that it answers `prompt` well. Encodes the prompt, unless it is cached."""
        prices = list_prices_usd(offers)
        row = prompt_features.rows([prompt], self.encoder)[0]
        return self.weights.qualities(row, tuple(prices), self.shares, prices)


def list_prices_usd(offers: Iterable[Offer]) -> dict[str, float]:
    """By model the dollars of an ordinary token, at its dearest offer: a discount makes no model weaker."""
    prices: dict[str, float] = {}
    for offer in offers:
        rates = offer.tiers[0]
        price = float(rates.input_usd) * INPUT_SHARE + float(rates.output_usd) * (1 - INPUT_SHARE)
        prices[offer.model] = max(price, prices.get(offer.model, 0.0))
    return prices

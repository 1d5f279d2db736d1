"""Calibration: from what a ranking expects to keep to what it may promise.

A ranking's own estimate is a level: "the segments kept hold 0.9 of the chances". On labelled questions it is known what
share of the evidence a cut at each level really kept. The promise is conformal risk control (Angelopoulos, Bates, Fisch,
Lei and Schuster, "Conformal Risk Control", 2022): for questions exchangeable with n calibration questions, the expected
share lost at a level chosen by the rule is at most (n * their mean loss + 1) / (n + 1).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVELS: Floats = np.round(
    np.concatenate([np.arange(0, 0.9, 0.02), np.arange(0.9, 0.99, 0.005), np.arange(0.99, 1, 0.001)]), 4
)
"""The nominal coverages at which calibration questions are cut. Finer near 1, where promises are made."""

ALIKE = 0.95
"""A request is taken to be like a kind of question if it is nearer to its centre than the outermost 5 % of that kind are."""

_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """What may be promised at each level: `coverages[i]` at `LEVELS[i]` or above. `says` names what it rests on."""

    coverages: Floats
    says: str

    def coverage(self, level: float) -> float:
        """The promised coverage of a cut at `level`, 0 to 1. The whole payload keeps everything, and needs no promise."""
        return float(self.coverages_at(np.array([level]))[0])

    def coverages_at(self, levels: Floats) -> Floats:
        """`coverage` of each level of an array."""
        at = np.searchsorted(LEVELS, levels + 1e-9, side="right") - 1
        return np.where(levels >= 1 - 1e-9, 1.0, self.coverages[np.maximum(at, 0)])


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """One kind of questions: what it promises, its centre, its inverse covariance, and how far ALIKE of it reach
    (Mahalanobis, squared)."""

    name: str
    promise: Floats
    centre: Floats
    inverse: Floats
    reach: float

    def holds(self, signature: Floats) -> bool:
        off = signature - self.centre
        return bool(off @ self.inverse @ off <= self.reach)


@dataclass(frozen=True, eq=False)  # no slots: what is made of each kind is kept
class Calibration:
    """Labelled questions as a ranking fared on them.

    `kept`, shape (questions, levels), is the share of a question's evidence that a cut at each of `LEVELS` kept, made
    monotone by taking the least of all higher levels. `kind[q]` is the number of a question's kind in `kinds` (its data
    set), `signatures[q]` its signature.
    """

    kinds: tuple[str, ...]
    kind: NDArray[np.int64]
    kept: Floats
    signatures: Floats

    def __post_init__(self) -> None:
        questions = len(self.kind)
        if self.kept.shape != (questions, len(LEVELS)) or len(self.signatures) != questions or not questions:
            raise ValueError(f"a calibration needs a row for each question, not {self.kept.shape} for {questions}")

    def bound(self, signature: Floats, everything: bool = False) -> Bound:
        """The promise for a request with that signature: the least of the kinds that it is like, and of all questions.

        For a question that needs everything, or that is like no kind at all (a shift), it is the least of all kinds.
        """
        alike = [] if everything else [kind for kind in self._known if kind.holds(signature)]
        coverages = np.minimum.reduce([self._overall, *(kind.promise for kind in alike or self._known)])
        return Bound(coverages, self._says(alike, everything))

    @functools.cached_property
    def _overall(self) -> Floats:
        return _promise(self.kept)

    @functools.cached_property
    def _known(self) -> tuple[_Kind, ...]:
        return tuple(self._kind(number) for number in range(len(self.kinds)))

    def _kind(self, number: int) -> _Kind:
        own = self.signatures[self.kind == number]
        centre = own.mean(axis=0)
        # A few questions do not tell a covariance: it is drawn towards that of all.
        weight = len(own) / (len(own) + 20)
        spread = weight * _covariance(own) + (1 - weight) * _covariance(self.signatures)
        inverse = np.asarray(np.linalg.pinv(spread + 1e-6 * np.eye(len(centre))), np.float64)
        off = own - centre
        reach = float(np.quantile(np.einsum("ij,jk,ik->i", off, inverse, off), ALIKE))
        return _Kind(self.kinds[number], _promise(self.kept[self.kind == number]), centre, inverse, reach)

    def _says(self, alike: Sequence[_Kind], everything: bool) -> str:
        questions = f"conformal, {len(self.kind)} questions"
        if everything:
            return f"{questions}; the question needs everything: least of all kinds"
        if not alike:
            return f"{questions}; unlike all of them: least of all kinds"
        return f"{questions}; like {', '.join(kind.name for kind in alike)}"

    def save(self, file: Path) -> None:
        """Write the file that `load` reads. Shares are kept to a thousandth, rounded down."""
        np.savez_compressed(
            file,
            version=_VERSION,
            levels=LEVELS,
            kinds=np.array(self.kinds),
            kind=self.kind.astype(np.int16),
            kept=np.floor(self.kept * 1000 + 1e-6).astype(np.int16),
            signatures=self.signatures.astype(np.float32),
        )

    @staticmethod
    def load(file: Path) -> Calibration:
        """Raises ValueError for a file that is none, or that was made by another version of the ranking."""
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                fields = {name: stored[name] for name in stored.files}
            version, levels = int(fields["version"]), fields["levels"]
            kinds = tuple(str(name) for name in fields["kinds"])
            kind = fields["kind"].astype(np.int64)
            kept, signatures = (fields[name].astype(np.float64) for name in ("kept", "signatures"))
        except (KeyError, OSError, EOFError, ValueError, BadZipFile) as error:
            raise ValueError(f"{file} is no calibration ({type(error).__name__})") from None
        if version != _VERSION or not np.array_equal(levels, LEVELS):
            raise ValueError(f"{file} is a calibration of another version; run `trimtab calibrate` again")
        return Calibration(kinds, kind, kept / 1000, signatures)


def _promise(kept: Floats) -> Floats:
    """1 - (n * mean loss + 1) / (n + 1), at each level."""
    return np.asarray(kept.sum(axis=0) / (len(kept) + 1))


def _covariance(signatures: Floats) -> Floats:
    width = signatures.shape[1]
    return np.asarray(np.cov(signatures, rowvar=False) if len(signatures) > 1 else np.eye(width), np.float64)


def signature(log_odds: Floats, shares: Floats) -> Floats:
    """What a ranking's scores look like, whatever they are scores of: shape (4,).

    The best log-odds, how far they stand above the tenth, how evenly the chances are spread (entropy over its maximum),
    and the logarithm of the number of segments.
    """
    count = len(log_odds)
    best = np.sort(log_odds)[::-1]
    spread = -(shares * np.log(np.maximum(shares, 1e-12))).sum() / max(np.log(count), 1e-9)
    return np.array([best[0], best[0] - best[min(9, count - 1)], spread, np.log(count)])


def least_of_higher(kept: Floats) -> Floats:
    """`kept` made monotone in the level, downwards: what a level promises holds at every higher one too."""
    return np.asarray(np.minimum.accumulate(kept[..., ::-1], axis=-1)[..., ::-1])


@functools.cache
def shipped_calibration() -> Calibration:
    """The calibration that goes with the shipped weights (docs/ranker.md)."""
    with as_file(files("compressor") / "calibration.npz") as path:
        return Calibration.load(path)

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

from compressor.features import NAMES

Floats = NDArray[np.float64]

LEVELS: Floats = np.round(
    np.concatenate(
        [
            np.arange(0, 0.9, 0.02),
            np.arange(0.9, 0.99, 0.005),
            np.arange(0.99, 0.999, 0.001),
            [0.999, 0.9993, 0.9995, 0.9997, 0.9998, 0.9999, 0.99995],
        ]
    ),
    5,
)
"""The nominal coverages at which calibration questions are cut. Finer near 1, where promises are made: the
chances of the weakest half of a payload are a thousandth of all."""

ALIKE = 0.99
"""A request is taken to be like a kind of question if it is nearer to its centre than the outermost 1 % of that kind are."""

BROAD_SPANS = 8
"""A kind whose questions have more spans of evidence than that on average asks for a bit of everything."""

_VERSION = 3
_COLUMNS = tuple(
    NAMES.index(name)
    for name in ("sources", "tokens", "question_words", "has_number", "raw_similarity", "shared_words")
)


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
    """One kind of questions: what it promises, whether it asks for a bit of everything, the centre of its signatures,
    their inverse covariance, and how far ALIKE of them reach (Mahalanobis, squared)."""

    name: str
    promise: Floats
    broad: bool
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
    set), `signatures[q]` its signature, and `spans[q]` how many spans of evidence it has.
    """

    kinds: tuple[str, ...]
    kind: NDArray[np.int64]
    kept: Floats
    signatures: Floats
    spans: NDArray[np.int64]

    def __post_init__(self) -> None:
        questions = len(self.kind)
        rows = {len(self.signatures), len(self.spans), questions}
        if self.kept.shape != (questions, len(LEVELS)) or len(rows) > 1 or not questions:
            raise ValueError(f"a calibration needs a row for each question, not {self.kept.shape} for {questions}")

    def bound(self, signature: Floats, everything: bool = False) -> Bound:
        """The promise for a request with that signature: the least of the kinds that it is like.

        For one that is like no kind at all (a shift) it is the least of all kinds but those that ask for a bit of
        everything, and for a question that does ask for everything the least of all.
        """
        alike = [kind for kind in self._known if kind.holds(signature)]
        narrow = [kind for kind in self._known if not kind.broad]
        chosen = self._known if everything else alike or narrow or self._known
        return Bound(np.minimum.reduce([kind.promise for kind in chosen]), self._says(alike, everything))

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
        chosen = self.kind == number
        broad = bool(self.spans[chosen].mean() > BROAD_SPANS)
        return _Kind(self.kinds[number], _promise(self.kept[chosen]), broad, centre, inverse, reach)

    def _says(self, alike: Sequence[_Kind], everything: bool) -> str:
        questions = f"conformal, {len(self.kind)} questions"
        if everything:
            return f"{questions}; the question needs everything: least of all kinds"
        if not alike:
            return f"{questions}; unlike all of them: least of the kinds that ask for one thing"
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
            spans=self.spans.astype(np.int32),
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
            spans = fields["spans"].astype(np.int64)
            kept, signatures = (fields[name].astype(np.float64) for name in ("kept", "signatures"))
        except (KeyError, OSError, EOFError, ValueError, BadZipFile) as error:
            raise ValueError(f"{file} is no calibration ({type(error).__name__})") from None
        if version != _VERSION or not np.array_equal(levels, LEVELS):
            raise ValueError(f"{file} is a calibration of another version; run `trimtab calibrate` again")
        return Calibration(kinds, kind, kept / 1000, signatures, spans)


def _promise(kept: Floats) -> Floats:
    """1 - (n * mean loss + 1) / (n + 1), at each level."""
    return np.asarray(kept.sum(axis=0) / (len(kept) + 1))


def _covariance(signatures: Floats) -> Floats:
    width = signatures.shape[1]
    return np.asarray(np.cov(signatures, rowvar=False) if len(signatures) > 1 else np.eye(width), np.float64)


def signature(log_odds: Floats, shares: Floats, matrix: NDArray[np.float32]) -> Floats:
    """What a payload and its scores look like, whatever they are about: shape (12,).

    Of the scores: the best log-odds, how far they stand above the tenth, how evenly the chances are spread (entropy over
    its maximum). Of the payload (`matrix` holds the features): how many segments and sources, how long the segments are
    and how unequal, the question's words, how many segments hold numbers, and how like the question the best of them is.
    """
    count = len(log_odds)
    best = np.sort(log_odds)[::-1]
    spread = -(shares * np.log(np.maximum(shares, 1e-12))).sum() / max(np.log(count), 1e-9)
    sources, tokens, words, number, similarity, shared = (matrix[:, at].astype(np.float64) for at in _COLUMNS)
    return np.array(
        [
            *(best[0], best[0] - best[min(9, count - 1)], spread, np.log(count), np.sqrt(sources[0])),
            *(tokens.mean(), tokens.std(), np.log1p(words[0]), number.mean()),
            *(similarity.max(), similarity.mean(), shared.max()),
        ]
    )


def least_of_higher(kept: Floats) -> Floats:
    """`kept` made monotone in the level, downwards: what a level promises holds at every higher one too."""
    return np.asarray(np.minimum.accumulate(kept[..., ::-1], axis=-1)[..., ::-1])


@functools.cache
def shipped_calibration() -> Calibration:
    """The calibration that goes with the shipped weights (docs/ranker.md)."""
    with as_file(files("compressor") / "calibration.npz") as path:
        return Calibration.load(path)

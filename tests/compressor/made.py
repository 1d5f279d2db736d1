"""Rankings made for tests: real splitting or none, scores and shares as the test wants them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from compressor import Ranking, Segment, Source
from compressor.ranking import DEFAULT_MARKER
from compressor.segments import segmented
from compressor.tokens import DEFAULT_ENCODING, count_tokens

DOCUMENTS = 300  # of each kind, made from a seed
WORDS = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "omega",
    "value",
    "total",
)

COUNTED = re.compile(r"… \d+ more like (?:this|those above) …")  # the only words that a cut adds

MARKERS = ("", " … ", "…", "\n", " [... some text was left out here ...] ")

PROSE = (
    "The limit is 5 GB. It was raised in May 2026, after many had asked for it! Was that wise? Nobody knows.\n\n"
    "A second paragraph speaks of keys. Keys are rotated every 90 days, or sooner; see https://example.com/a?b=c."
)
TABLE = (
    "| plan | upload | price |\n|---|---|---|\n| free | 1 GB | $0 |\n| team | 5 GB | $10 |\n| firm | 50 GB | $99 |\n"
)
JSON = (
    '{\n  "plan": "team",\n  "limits": {"upload": "5 GB", "files": [1, 2, {"deep": null}], "note": "%s"},\n  "x": []\n}'
    % ("n " * 120)
)
TEXTS = (
    PROSE,
    TABLE,
    JSON,
    "",
    "   \n ",
    "One.",
    "東京都の人口は約1400万人です。大阪府は880万人です。",
    "a\ud800b. c\n\n\n        d.",
)


def ranked(
    texts: Sequence[str],
    scores: Sequence[float] | None = None,
    *,
    marker: str = DEFAULT_MARKER,
    encoding: str = DEFAULT_ENCODING,
    seed: int = 0,
) -> Ranking:
    """A ranking of `texts` as they are really split; random scores unless given."""
    sources = tuple(Source(str(n), text) for n, text in enumerate(texts))
    segments = segmented(sources, encoding)
    rng = np.random.default_rng(seed)
    values = rng.normal(size=len(segments)) if scores is None else np.asarray(scores, np.float64)
    return Ranking(sources, segments, values, shares(rng, len(segments)), marker, encoding)


def shares(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.dirichlet(np.full(n, 0.5)) if n else np.zeros(0)


def by_words(
    text: str,
    *,
    kinds: Sequence[str] = ("prose",),
    skeletons: bool = False,
    marker: str = DEFAULT_MARKER,
    seed: int = 0,
) -> Ranking:
    """A ranking with a segment a word; with `skeletons`, some words need an earlier word or two."""
    rng = np.random.default_rng(seed)
    segments: list[Segment] = []
    position = 0
    supports: set[int] = set()
    for number, word in enumerate(text.split()):
        start = text.index(word, position)
        position = start + len(word)
        skeleton: tuple[int, ...] = ()
        if skeletons and number and number not in supports and rng.random() < 0.4:
            free = [i for i in range(number) if not segments[i].skeleton]
            skeleton = tuple(sorted({int(i) for i in rng.choice(free, min(2, len(free)))}))
            supports.update(skeleton)
        kind = kinds[int(rng.integers(len(kinds)))]
        segments.append(Segment(0, start, position, kind, count_tokens(" " + word), skeleton))
    source = Source("only", text)
    return Ranking((source,), tuple(segments), rng.normal(size=len(segments)), shares(rng, len(segments)), marker)


def made(build: Callable[[random.Random], str]) -> list[str]:
    """DOCUMENTS of them, always the same."""
    return [build(random.Random(seed)) for seed in range(DOCUMENTS)]


def words(rng: random.Random, most: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


texts = st.lists(
    st.one_of(
        st.sampled_from(TEXTS), st.text(st.characters(codec=None), max_size=60), st.text('ab .\n|,{}[]":1', max_size=60)
    ),
    max_size=4,
)

"""Suite `answers`: how often the answer cache gives one question the answer to another, and how often it helps.

Pairs of questions, asked one after the other: those of `benchmarks/data/answer_pairs.jsonl`, whose templates are filled
here, and different questions over the same contexts out of the run's data sets. Guards were written against the split "dev"
alone; figures are of "held_out". Beside it stands the usual semantic cache: a cosine above a threshold and nothing else.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.questions import DATA, Dataset
from benchmarks.sections import Excerpt, Progress, Section, Table
from retrieval import Encoder, Passage, SentenceTransformerEncoder
from trimtab.answers.guards import difference
from trimtab.answers.near import MIN_COSINE

PAIRS_A_TEMPLATE, QUICK_PAIRS_A_TEMPLATE = 120, 4
THRESHOLDS: Final = (0.80, 0.90, 0.95, 0.98)
"""0.8 is GPTCache's own (`similarity_threshold` in its Config)."""
OF_ONE_PAYLOAD: Final = "of one payload"

_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions; `same` says whether one's answer is the other's."""

    kind: str
    one: str
    other: str
    same: bool


def pairs(split: str, count: int, seed: int) -> tuple[Pair, ...]:
    """The self-written pairs of a split, at most `count` of each template, no two alike."""
    rows = [json.loads(line) for line in (DATA / "answer_pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    fills = {row["fill"]: row["values"] for row in rows if "fill" in row}
    chosen = random.Random(seed)
    found: dict[Pair, None] = {}
    for row in rows:
        if row.get("split") == split:
            for one, other in _filled(row, fills, count, chosen):
                found[Pair(row["kind"], one, other, row["same"])] = None
    return tuple(found)


def _filled(
    row: Mapping[str, Any], fills: Mapping[str, Sequence[str]], count: int, chosen: random.Random
) -> Iterator[tuple[str, str]]:
    """A template with every way to fill it that is drawn; "{city2}" is another city than "{city}"."""
    slots = sorted({*_SLOT.findall(row["one"]), *_SLOT.findall(row["other"])})
    ways = [dict(zip(slots, way, strict=True)) for way in itertools.product(*(fills[s.rstrip("2")] for s in slots))]
    ways = [way for way in ways if all(way[s] != way.get(s.rstrip("2")) for s in slots if s.endswith("2"))]
    for way in chosen.sample(ways, min(count, len(ways))):
        yield row["one"].format_map(way), row["other"].format_map(way)


def of_one_payload(datasets: Sequence[Dataset]) -> tuple[Pair, ...]:
    """Different questions of a data set that share a context: the nearest neighbours that a cache in front of one index
    has. Questions that are alike but for case and punctuation are left out, and so are those with the same answer."""
    found: dict[Pair, None] = {}
    for dataset in datasets:
        by_context: dict[str, list[int]] = {}
        for number, question in enumerate(dataset.questions):
            for source in question.contexts:
                by_context.setdefault(source.text, []).append(number)
        together = {pair for numbers in by_context.values() for pair in itertools.combinations(numbers[:40], 2)}
        for first, second in sorted(together):
            one, other = dataset.questions[first], dataset.questions[second]
            if _bare(one.query) != _bare(other.query) and set(one.answers) != set(other.answers):
                found[Pair(OF_ONE_PAYLOAD, one.query, other.query, same=False)] = None
    return tuple(found)


def _bare(text: str) -> str:
    return re.sub(r"\W+", " ", text).lower().strip()


def run(datasets: Sequence[Dataset], count: int, seed: int, progress: Progress) -> Section:
    encoder = SentenceTransformerEncoder()
    own = of_one_payload(datasets)
    tables, records = [], []
    wrong: list[str] = []
    for split in ("held_out", "dev"):
        judged = (*pairs(split, count, seed), *(own if split == "held_out" else ()))
        cosines = _cosines(encoder, judged, progress)
        ways = _ways(judged, cosines)
        kinds = (_SELF_WRITTEN, *dict.fromkeys(pair.kind for pair in judged if not pair.same))
        same = [n for n, pair in enumerate(judged) if pair.same]
        rows = []
        for name, hits in ways.items():
            cells = [name, _share(hits, same)]
            for kind in kinds:
                different = [n for n, pair in enumerate(judged) if not pair.same and _is_of(pair, kind)]
                bounded = kind in (_SELF_WRITTEN, OF_ONE_PAYLOAD)
                cells.append((_with_bound if bounded else _share)(hits, different))
                record = {"split": split, "cache": name, "kind": kind, "pairs": len(different)}
                records.append({"record": "answers", **record, "false_hits": int(hits[different].sum())})
            record = {"split": split, "cache": name, "kind": "paraphrase", "pairs": len(same)}
            records.append({"record": "answers", **record, "hits": int(hits[same].sum())})
            rows.append(tuple(cells))
        columns = ("cache", "true paraphrases hit", *(f"false hits: {kind}" for kind in kinds))
        note = (
            f"{len(same):,} pairs with one answer, {len(judged) - len(same):,} with two. Intervals are of 95 % "
            "(Wilson); for no hit at all the upper bound is about 3 / n. Pairs of one template are alike, so the bound is "
            "of questions such as these. "
        )
        note += "The guards were written against these." if split == "dev" else "The guards were written without these."
        tables.append(Table(f"Pairs of the split {split}", columns, tuple(rows), note, readme=split == "held_out"))
        ours = ways[_OURS]
        wrong += [
            f"{split}, {pair.kind}: {pair.one} / {pair.other}"
            for hit, pair in zip(ours, judged, strict=True)
            if hit and not pair.same
        ]
    excerpts = (Excerpt("False hits of trimtab", "\n".join(wrong)),) if wrong else ()
    return Section("answers", "The answer cache", (), tuple(tables), excerpts=excerpts, records=tuple(records))


_OURS: Final = "trimtab, near"
_SELF_WRITTEN: Final = "self-written"


def _is_of(pair: Pair, kind: str) -> bool:
    return pair.kind == kind or (kind == _SELF_WRITTEN and pair.kind != OF_ONE_PAYLOAD)


def _ways(judged: Sequence[Pair], cosines: NDArray[np.float32]) -> dict[str, NDArray[np.bool_]]:
    """By cache, which pairs it takes for one question."""
    agree = np.array([difference(pair.one, pair.other) is None for pair in judged])
    ways = {_OURS: agree & (cosines >= MIN_COSINE)}
    return ways | {f"cosine of {limit:.2f}": cosines >= limit for limit in THRESHOLDS}


def _cosines(encoder: Encoder, judged: Sequence[Pair], progress: Progress) -> NDArray[np.float32]:
    texts = list(dict.fromkeys(text for pair in judged for text in (pair.one, pair.other)))
    vectors: dict[str, NDArray[np.float32]] = {}
    batches = [texts[start : start + 256] for start in range(0, len(texts), 256)]
    step = progress("questions", len(batches))
    for batch in batches:
        made = encoder.encode([Passage(text, ((0, len(text)),)) for text in batch])
        vectors |= {text: each[0] for text, each in zip(batch, made, strict=True)}
        step()
    return np.array([float(vectors[pair.one] @ vectors[pair.other]) for pair in judged], np.float32)


def _share(hits: NDArray[np.bool_], rows: Sequence[int]) -> str:
    return f"{hits[rows].sum()}/{len(rows)} ({100 * hits[rows].mean():.1f} %)" if rows else "-"


def _with_bound(hits: NDArray[np.bool_], rows: Sequence[int]) -> str:
    if not rows:
        return "-"
    low, high = interval(int(hits[rows].sum()), len(rows))
    return f"{hits[rows].sum()}/{len(rows)} ({100 * hits[rows].mean():.2f} % [{100 * low:.2f}-{100 * high:.2f}])"


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson's, and for none or all the rule of three (Hanley and Lippman-Hand, JAMA 1983).

    >>> interval(0, 3_000)
    (0.0, 0.001)
    """
    if hits in (0, count):
        edge = min(1.0, 3 / count)
        return (0.0, edge) if hits == 0 else (1.0 - edge, 1.0)
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))) / (1 + z * z / count)
    return middle - half, middle + half

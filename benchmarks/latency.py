"""Suite `latency`: how long a cut takes, from nothing and when the same payload comes again, by size of the payload."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.evidence import MAIN_RATIO, budget_of, opened
from benchmarks.intervals import Spread, spread
from benchmarks.judging import judge
from benchmarks.peers import Arm, Peer
from benchmarks.peers.llmlingua import RANDOM_LLMLINGUA2, llmlingua2_shape
from benchmarks.questions import Dataset, Question
from benchmarks.sections import Plot, Progress, Section, Series, Table
from compressor import Source
from compressor.tokens import count_tokens

SIZES_TOKENS = (500, 2_000, 8_000, 32_000)
QUICK_SIZES_TOKENS = (500, 2_000)
COLD_CALLS = 3
WARM_CALLS = 7
TOO_SLOW_MS = 4_000.0  # a peer that takes longer than this is not tried on the next size
QUERY = "Which exception is raised when the limit is exceeded, and what is the limit?"
SHAPE = "LLMLingua-2's network, random weights"

Timed = tuple[Spread, Spread]


def run(
    datasets: Sequence[Dataset],
    peers: Sequence[Peer],
    sizes: Sequence[int],
    seed: int,
    folder: Path,
    progress: Progress,
) -> Section:
    """Times of every peer on payloads of the data's own texts. Each cut is judged before it is timed."""
    payloads = [each for size in sizes if (each := payload(datasets, size))]
    times: dict[tuple[str, int], Timed | str] = {}
    for peer in (*peers, RANDOM_LLMLINGUA2):
        arm = opened(peer, seed, folder / "latency")
        if isinstance(arm, str):
            continue
        step = progress(peer.name, len(payloads))
        for size, question in payloads:
            times[peer.name, size] = _timed(peer, arm, question, _slowest(times, peer.name))
            step()
    shape = llmlingua2_shape()
    for size, _ in payloads:
        times[SHAPE, size] = _timed_shape(shape, size, _slowest(times, SHAPE))
    return _section(times, [size for size, _ in payloads])


def payload(datasets: Sequence[Dataset], size_tokens: int) -> tuple[int, Question] | None:
    """(tokens, question) with distinct texts of the data up to `size_tokens`; None if there are not enough of them."""
    texts: dict[str, Source] = {}
    for dataset in datasets:
        for question in dataset.questions:
            texts.update((context.text, context) for context in question.contexts)
    taken: list[Source] = []
    tokens = 0
    for context in texts.values():
        cost = count_tokens(context.text)
        if tokens + cost <= size_tokens:
            taken.append(context)
            tokens += cost
    if tokens < 0.9 * size_tokens:
        return None
    return size_tokens, Question(f"{size_tokens} tokens", QUERY, tuple(taken), (), ())


def _slowest(times: dict[tuple[str, int], Timed | str], name: str) -> float | None:
    """The last cold median of `name`, None before the first; infinite once a size was passed over."""
    mine = [timed for (peer, _), timed in times.items() if peer == name]
    if not mine:
        return None
    return float("inf") if isinstance(mine[-1], str) else mine[-1][0].median


def _timed(peer: Peer, arm: Arm, question: Question, before_ms: float | None) -> Timed | str:
    if before_ms is not None and before_ms > TOO_SLOW_MS:
        return "too slow to try"
    budget = budget_of(question, MAIN_RATIO)

    def cut() -> None:
        arm.cut(question.query, question.contexts, budget, MAIN_RATIO)

    arm.forget()
    first = arm.cut(question.query, question.contexts, budget, MAIN_RATIO)
    judged = judge(question, first, budget if peer.budget == "told" else None, peer.markers)
    if judged.violations and peer is not RANDOM_LLMLINGUA2:  # what random weights keep means nothing
        return ", ".join(judged.violations)
    cold = _calls(cut, COLD_CALLS, arm.forget)
    warm = _calls(cut, WARM_CALLS, lambda: None) if peer.remembers else cold
    return spread(cold), spread(warm)


def _timed_shape(shape: Callable[[int], None], size: int, before_ms: float | None) -> Timed | str:
    if before_ms is not None and before_ms > TOO_SLOW_MS:
        return "too slow to try"
    times = spread(_calls(lambda: shape(size), COLD_CALLS, lambda: None))
    return times, times


def _calls(call: Callable[[], None], count: int, before: Callable[[], None]) -> list[float]:
    times: list[float] = []
    for _ in range(count):
        before()
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
        if sum(times) > 2 * TOO_SLOW_MS:
            break
    return times


def _section(times: dict[tuple[str, int], Timed | str], sizes: Sequence[int]) -> Section:
    names = list(dict.fromkeys(name for name, _ in times))
    tables = tuple(
        Table(
            f"{title}: milliseconds by size of the payload",
            ("", *(f"{size:,} tokens" for size in sizes)),
            tuple((name, *(_cell(times[name, size], which) for size in sizes)) for name in names),
            readme=True,
        )
        for title, which in (("From nothing", 0), ("The same payload again", 1))
    )
    return Section(
        "latency",
        "Latency",
        notes=(
            f"One cut to {MAIN_RATIO:.2f} of the tokens: median (minimum-maximum). Peers that remember nothing are as fast "
            "the second time as the first. What breaks a rule is not timed. "
            f"LLMLingua-2's trained weights are not at hand. '{RANDOM_LLMLINGUA2.name}' is its real package over untrained "
            f"weights of its smaller model's shape, and '{SHAPE}' is that network's passes alone. Both say how slow it is, "
            "and nothing of how good.",
        ),
        tables=tables,
        plots=(_plot(times, sizes, names),),
        records=tuple(_records(times)),
    )


def _cell(timed: Timed | str, which: int) -> str:
    return timed if isinstance(timed, str) else str(timed[which])


def _plot(times: dict[tuple[str, int], Timed | str], sizes: Sequence[int], names: Sequence[str]) -> Plot:
    series: list[Series] = []
    for name in names:
        found = [(size, timed) for size in sizes if not isinstance(timed := times[name, size], str)]
        whiches = ((0, " (first)"), (1, " (again)")) if name == "trimtab" else ((0, ""),)
        for which, label in whiches:
            if found:
                ys = tuple(timed[which].median for _, timed in found)
                series.append(Series(name + label, tuple(float(size) for size, _ in found), ys))
    return Plot("Latency against size", "payload, tokens", "milliseconds", tuple(series), log_x=True, log_y=True)


def _records(times: dict[tuple[str, int], Timed | str]) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    for (name, size), timed in times.items():
        row: dict[str, object] = {"record": "latency", "peer": name, "tokens": size}
        if not isinstance(timed, str):
            for when, times_of in zip(("cold", "warm"), timed, strict=True):
                row |= {
                    f"{when}_median_ms": times_of.median,
                    f"{when}_minimum_ms": times_of.low,
                    f"{when}_maximum_ms": times_of.high,
                }
        out.append(row)
    return out

"""What the `evidence` suite found, as tables, plots and the worst cases. Pure: results in, a section out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.evidence import MAIN_RATIO, Miss, Outcome, Results
from benchmarks.intervals import Estimate, estimate
from benchmarks.judging import Judgement
from benchmarks.peers import PEERS
from benchmarks.questions import fold
from benchmarks.sections import Excerpt, Plot, Section, Series, Table

WORST_CASES = 6
SHOWN_CHARS = 700


def evidence_section(results: Results, seed: int) -> Section:
    """Everything that was measured, rows where trimtab loses included."""
    tables = [_main_table(results, dataset.name, seed) for dataset in results.datasets]
    tables += [_kind_table(results, dataset.name, seed) for dataset in results.datasets]
    tables += [_ratio_table(results, dataset.name, seed) for dataset in results.datasets]
    if results.absent:
        rows = tuple((peer.name, reason) for peer, reason in results.absent)
        tables.append(Table("Peers that did not run here", ("peer", "why"), rows, readme=True))
    return Section(
        "evidence",
        "Evidence kept",
        notes=(
            "Coverage: the mean share of a question's evidence spans that stand in what is kept. Complete: the share of "
            "questions with every span kept. In brackets: 95 % bootstrap intervals over questions. Tokens are o200k_base, "
            "recounted by the harness, markers included.",
            "A cut over its budget, out of order or not verbatim counts as keeping nothing; such cuts stand under "
            "'rules broken', and 'if forgiven' is the coverage without that rule. Peers marked * cannot be told a budget in "
            "tokens: what they kept stands under 'kept', and their coverage belongs to that, not to the ratio asked for.",
        ),
        tables=tuple(tables),
        plots=tuple(_curve(results, dataset.name, seed) for dataset in results.datasets),
        excerpts=tuple(_excerpt(miss) for miss in _worst(results)),
        records=tuple(_records(results)),
    )


def judgements(results: Results, dataset: str, peer: str, ratio: float, kind: str | None = None) -> list[Judgement]:
    return [
        o.judgement
        for o in results.outcomes
        if o.dataset == dataset and o.peer == peer and o.ratio == ratio and (kind is None or o.kind == kind)
    ]


def coverage(of: Iterable[Judgement], seed: int) -> Estimate | None:
    return estimate([j.coverage for j in of if j.coverage is not None], seed)


def main_ratio(results: Results) -> float:
    """The ratio that the tables show: `MAIN_RATIO`, or the one nearest to it of those that were run."""
    return min(results.ratios, key=lambda ratio: abs(ratio - MAIN_RATIO))


def peers_of(results: Results) -> list[str]:
    return list(dict.fromkeys(o.peer for o in results.outcomes))


def kept_share(of: Sequence[Judgement]) -> float:
    return sum(j.tokens for j in of) / max(1, sum(j.full_tokens for j in of))


def shown(peer: str) -> str:
    """The name with its mark, where the peer decides its own budget."""
    return peer + ("*" if any(p.name == peer and p.budget == "own" for p in PEERS) else "")


def _main_table(results: Results, dataset: str, seed: int) -> Table:
    ratio = main_ratio(results)
    times = {t.peer: t for t in results.timings if t.dataset == dataset}
    rows = []
    for peer in peers_of(results):
        asked = ratio if peer in times else 0.0
        of = judgements(results, dataset, peer, asked)
        broken = Counter(v for j in of for v in j.violations)
        forgiven = estimate([j.forgiven for j in of if j.forgiven is not None], seed)
        rows.append(
            (
                shown(peer),
                f"{kept_share(of):.2f}",
                _said(coverage(of, seed)),
                _said(estimate([float(j.complete) for j in of if j.complete is not None], seed)),
                _said(estimate([float(j.answered) for j in of if j.answered is not None], seed)),
                ", ".join(f"{what} {count}/{len(of)}" for what, count in sorted(broken.items())),
                f"{forgiven.mean:.2f}" if broken and forgiven else "",
                str(times[peer].cold) if peer in times else "",
                str(times[peer].warm) if peer in times else "",
            )
        )
    headers = ("", "kept", "coverage", "complete", "answer kept", "rules broken", "if forgiven", "cold ms", "warm ms")
    count = next(len(d.questions) for d in results.datasets if d.name == dataset)
    title = f"{dataset}: {count} questions, a cut to {ratio:.2f} of the tokens"
    return Table(title, headers, tuple(rows), "Times: median (minimum-maximum) of a sample.", readme=True)


def _kind_table(results: Results, dataset: str, seed: int) -> Table:
    ratio = main_ratio(results)
    named = [p.peer for p in results.timings if p.dataset == dataset]
    kinds = list(dict.fromkeys(o.kind for o in results.outcomes if o.dataset == dataset and o.kind))
    rows = []
    for kind in kinds:
        row = [kind]
        for peer in named:
            found = coverage(judgements(results, dataset, peer, ratio, kind), seed)
            row.append(f"{found.mean:.2f}" if found else "-")
        count = len(judgements(results, dataset, named[0], ratio, kind)) if named else 0
        rows.append((row[0], str(count), *row[1:]))
    title = f"{dataset}: coverage by kind of question at {ratio:.2f}"
    note = "Few questions a kind: read these as where to look, not as figures. Unanswerable questions have no evidence."
    return Table(title, ("kind", "n", *map(shown, named)), tuple(rows), note)


def _ratio_table(results: Results, dataset: str, seed: int) -> Table:
    named = [p.peer for p in results.timings if p.dataset == dataset]
    rows = []
    for peer in named:
        row = [shown(peer)]
        for ratio in results.ratios:
            of = judgements(results, dataset, peer, ratio)
            found = coverage(of, seed)
            whole = estimate([float(j.complete) for j in of if j.complete is not None], seed)
            row.append(f"{found.mean:.2f} / {whole.mean:.2f} ({kept_share(of):.2f})" if found and whole else "-")
        rows.append(tuple(row))
    title = f"{dataset}: coverage / complete (kept) at each ratio"
    return Table(title, ("", *(f"{ratio:.2f}" for ratio in results.ratios)), tuple(rows))


def _curve(results: Results, dataset: str, seed: int) -> Plot:
    series = []
    for timing in (t for t in results.timings if t.dataset == dataset):
        by_ratio = [judgements(results, dataset, timing.peer, ratio) for ratio in results.ratios]
        points = sorted(
            (kept_share(of), found.mean, found.low, found.high) for of in by_ratio if (found := coverage(of, seed))
        )
        if points:
            xs, ys, low, high = zip(*points, strict=True)
            series.append(Series(shown(timing.peer), xs, ys, low, high))
    return Plot(f"{dataset}: evidence kept", "share of the tokens kept", "coverage", tuple(series))


def _worst(results: Results) -> list[Miss]:
    """trimtab's own losses, those first that some other peer at the same budget did not have; then the emptiest."""
    ratio = main_ratio(results)
    best: dict[tuple[str, str], float] = {}
    for o in results.outcomes:
        if o.ratio == ratio and o.peer != "trimtab" and not shown(o.peer).endswith("*"):
            key = (o.dataset, o.question)
            best[key] = max(best.get(key, 0.0), o.judgement.coverage or 0.0)

    def regret(miss: Miss) -> float:
        return best.get((miss.dataset, miss.question.id), 0.0) - (miss.judgement.coverage or 0.0)

    return sorted(results.misses, key=lambda m: (-regret(m), m.judgement.coverage or 0.0, m.question.id))[:WORST_CASES]


def _excerpt(miss: Miss) -> Excerpt:
    kept = {sent.context: sent.text for sent in miss.cut.sent}
    lines = [f"Question: {miss.question.query}"]
    for span in miss.question.evidence:
        survived = fold(span.text) in fold(kept.get(span.context, ""))
        source = miss.question.contexts[span.context]
        lines.append(f"\n{'kept' if survived else 'LOST'}, in {source.title or source.id!r}: {_short(span.text)}")
        if not survived:
            lines.append(f"    what was kept of that text: {_short(kept.get(span.context, '')) or 'nothing'}")
    lines.extend(f"\nrule broken: {violation}" for violation in miss.judgement.violations)
    return Excerpt(f"{miss.dataset} {miss.question.id} ({miss.question.kind or 'no kind'})", "\n".join(lines))


def _short(text: str) -> str:
    text = fold(text)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " [...]"


def _said(found: Estimate | None) -> str:
    return str(found) if found else "-"


def _records(results: Results) -> Iterable[Mapping[str, Any]]:
    for dataset in results.datasets:
        yield {"record": "dataset", "name": dataset.name, "digest": dataset.digest, "questions": len(dataset.questions)}
    for o in results.outcomes:
        yield _outcome_record(o)
    for t in results.timings:
        for when, times in (("cold", t.cold), ("warm", t.warm)):
            yield {
                "record": "time",
                "peer": t.peer,
                "dataset": t.dataset,
                "when": when,
                "calls": times.count,
                "median_ms": times.median,
                "minimum_ms": times.low,
                "maximum_ms": times.high,
            }
    for peer, reason in results.absent:
        yield {"record": "absent", "peer": peer.name, "reason": reason}


def _outcome_record(outcome: Outcome) -> Mapping[str, Any]:
    judged = outcome.judgement
    return {
        "record": "outcome",
        "peer": outcome.peer,
        "dataset": outcome.dataset,
        "question": outcome.question,
        "kind": outcome.kind,
        "ratio": outcome.ratio,
        "tokens": judged.tokens,
        "full_tokens": judged.full_tokens,
        "coverage": judged.coverage,
        "forgiven": judged.forgiven,
        "answered": judged.answered,
        "violations": list(judged.violations),
    }

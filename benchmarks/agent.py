"""Suite `agent`: an agent's growing transcript, trimmed at every request. What is saved, and what does it cost?

The transcripts are scripted (`agent_traces`), so that every arm is asked the same requests whatever it lost before: a
loss counts, and does not end the run. A need is an identifier that the next call, or the answer, has to name, and that no
earlier call has named yet: it is met if it stands anywhere in what was sent. Dollars are reckoned twice, because cutting
an earlier output breaks a provider's prompt cache: as if nothing were cached, and with an automatic prefix cache.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agent_traces import Trace, traces
from benchmarks.caching_provider import CachingProvider, caching_provider
from benchmarks.judging import OVER_BUDGET, judge
from benchmarks.peers.peer import Cut, Sent
from benchmarks.peers.trimtab import TRIMTAB_MARKERS
from benchmarks.questions import Question
from benchmarks.sections import Excerpt, Plot, Progress, Section, Series, Table
from compressor import Source
from compressor.recognition import LONG_TEXT_CHARS
from compressor.tokens import count_each, count_tokens
from routing.catalog import Catalog
from routing.offers import Offer, Usage, price

TRACES = 3
QUICK_TRACES = 1
COVERAGES = (0.95, 0.90)
BUDGET_TOKENS = 1_000
MODEL = "gpt-5-mini"
DAY = datetime(2026, 11, 2, 14, 0, tzinfo=UTC)
ANSWER_TOKENS = 300
CACHE_MINIMUM_TOKENS, CACHE_STEP_TOKENS = 1024, 128  # OpenAI's guide to prompt caching
WORST_CASES = 5
SHOWN_CHARS = 300
REMOVED = "[old tool output removed]"
AGES = (("just read", 1), ("2 to 4 requests old", 4), ("older", 10_000))

Messages = list[dict[str, Any]]
Trimmer = Callable[[Messages], tuple[Messages, float]]
"""A transcript in; what is sent of it out, with the milliseconds that the cut took."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to send a transcript. `budget_tokens` limits what is kept of a long tool output, where it was set."""

    name: str
    trim: Trimmer
    markers: tuple[str, ...] = ()
    budget_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """An identifier that request `outputs` had to hold. `age`: how many requests ago its output came."""

    value: str
    age: int
    met: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it was sent by one arm, and judged. `broken` are the rules of the judge that it broke."""

    arm: str
    trace: str
    outputs: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    needs: tuple[Need, ...]
    broken: tuple[str, ...]
    trim_ms: float


def run(count: int, seed: int, folder: Path, progress: Progress) -> Section:
    """`count` transcripts, every request of each, by every arm."""
    told = traces(seed, count)
    with ExitStack() as stack:
        arms, absent = _arms(folder, stack)
        requests, losses = measure(arms, told, progress)
    return _section(requests, absent, losses)


def measure(arms: Sequence[Arm], told: Sequence[Trace], progress: Progress) -> tuple[list[Request], list[Excerpt]]:
    """Every request of every trace by every arm, judged; and what trimtab's own arms lost, to be read by people."""
    requests: list[Request] = []
    losses: list[Excerpt] = []
    for arm in arms:
        step = progress(arm.name, sum(len(trace.steps) for trace in told))
        for trace in told:
            before = ""
            for outputs in range(1, len(trace.steps) + 1):
                request, sent = _request(arm, trace, outputs, before)
                before = rendered(sent)
                requests.append(request)
                if arm.name.startswith("trimtab"):
                    losses += _losses(request, trace, sent)
                step()
    return requests, losses


# --- arms ---------------------------------------------------------------------------------------------------------------


def everything(messages: Messages) -> tuple[Messages, float]:
    """No trimming."""
    return messages, 0.0


def keep_last(count: int) -> Trimmer:
    """Truncation as agents do it: tool outputs before the last `count` are replaced by a note."""

    def trim(messages: Messages) -> tuple[Messages, float]:
        places = [n for n, each in enumerate(messages) if each["role"] == "tool"]
        old = set(places[: max(0, len(places) - count)])
        return [{**each, "content": REMOVED} if n in old else each for n, each in enumerate(messages)], 0.0

    return trim


def with_trimtab(folder: Path, provider: CachingProvider, **options: float | None) -> Trimmer:
    """trimtab's own pipeline, over HTTP to `provider`, so that it knows what was sent before and what is still cached.

    It ranks by the task, which is the last thing that a user said, and by the calls that the newest outputs answer.
    """
    from trimtab import Trimtab

    seller = {"name": "openai", "kind": "openai", "base_url": provider.base_url, "models": [MODEL]}
    trimtab = Trimtab(cache_dir=folder, providers=[seller])
    trimtab.warm_up()

    def trim(messages: Messages) -> tuple[Messages, float]:
        completion = trimtab.complete({"model": MODEL, "messages": messages, "trimtab": options})
        spent_ms = sum(ms for stage, ms in completion.receipt.stage_ms if stage != "provider")
        return list(provider.bodies[-1]["messages"]), spent_ms

    return trim


def with_headroom() -> Trimmer:
    """headroom's defaults for agents. Raises ModuleNotFoundError where it is not installed."""
    import logging

    from headroom import compress

    logging.getLogger("headroom").setLevel(logging.ERROR)

    def trim(messages: Messages) -> tuple[Messages, float]:
        began = time.perf_counter()
        sent = list(compress(messages, model=MODEL).messages)
        return sent, (time.perf_counter() - began) * 1000

    return trim


def _arms(folder: Path, stack: ExitStack) -> tuple[list[Arm], list[tuple[str, str]]]:
    """The arms that can run here, and (name, why not) for the others. `stack` closes their providers."""
    arms = [
        Arm("everything", everything),
        Arm("keep the last 8 outputs", keep_last(8), (REMOVED,)),
        Arm("keep the last 3 outputs", keep_last(3), (REMOVED,)),
    ]

    def ours(name: str, *, min_coverage: float | None = None, budget: int | None = None) -> None:
        provider = stack.enter_context(caching_provider("openai"))
        options = {"min_coverage": min_coverage, "budget_tokens": budget}
        trim = with_trimtab(folder / "agent", provider, **options)
        arms.append(Arm(f"trimtab, {name}", trim, TRIMTAB_MARKERS, budget))

    for coverage in COVERAGES:
        ours(f"coverage {coverage:.2f}", min_coverage=coverage)
    ours(f"{BUDGET_TOKENS:,} tokens an output", budget=BUDGET_TOKENS)
    try:
        arms.append(Arm("headroom", with_headroom()))
    except ModuleNotFoundError:
        return arms, [("headroom", "not installed: pip install headroom-ai")]
    return arms, []


# --- judging ------------------------------------------------------------------------------------------------------------


def rendered(messages: Messages) -> str:
    """The transcript as one text, for counting: roles, contents, calls and their numbers."""
    parts = []
    for each in messages:
        calls = "".join(
            f"\n{call['id']} {call['function']['name']}({call['function']['arguments']})"
            for call in each.get("tool_calls", ())
        )
        parts.append(f"<{each['role']} {each.get('tool_call_id', '')}>\n{each['content'] or ''}{calls}")
    return "\n".join(parts)


def cached_tokens(before: str, now: str) -> int:
    """What an automatic prefix cache holds of `now` after `before` was sent: whole steps, from a least length on."""
    length = next(
        (n for n, (old, new) in enumerate(zip(before, now, strict=False)) if old != new), min(len(before), len(now))
    )
    shared = count_tokens(now[:length])
    return shared // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS if shared >= CACHE_MINIMUM_TOKENS else 0


def faults(given: Messages, sent: Messages, markers: Sequence[str], budget_tokens: int | None) -> tuple[str, ...]:
    """The rules that a trimmed transcript breaks: messages and calls as they were, each result under its call, outputs
    verbatim and in order but for what was cut, each long one within the budget."""
    if _skeleton(given) != _skeleton(sent):
        return ("messages or calls changed",)
    pairs = [(old["content"], new["content"]) for old, new in zip(given, sent, strict=True) if old["role"] == "tool"]
    contexts = tuple(Source(str(n), old) for n, (old, _) in enumerate(pairs))
    cut = Cut(tuple(Sent(n, new) for n, (_, new) in enumerate(pairs) if new))
    found = set(judge(Question("", "", contexts, (), ()), cut, None, markers).violations)
    long = [new for old, new in pairs if len(old.strip()) >= LONG_TEXT_CHARS]  # shorter ones are never cut
    if budget_tokens is not None and any(tokens > budget_tokens for tokens in count_each(long)):
        found.add(OVER_BUDGET)
    return tuple(sorted(found))


def _skeleton(messages: Messages) -> list[dict[str, Any]]:
    """All that may not be changed: everything but what tools said."""
    return [{k: v for k, v in each.items() if k != "content" or each["role"] != "tool"} for each in messages]


def _request(arm: Arm, trace: Trace, outputs: int, before: str) -> tuple[Request, Messages]:
    given = trace.messages(outputs)
    sent, trim_ms = arm.trim(trace.messages(outputs))
    text = rendered(sent)
    needs = tuple(Need(value, _age(trace, outputs, value), value in text) for value in trace.needs(outputs))
    last = outputs == len(trace.steps)
    call = "" if last else f"{trace.steps[outputs].tool}({json.dumps(dict(trace.steps[outputs].arguments))})"
    request = Request(
        arm.name,
        trace.name,
        outputs,
        count_tokens(text),
        cached_tokens(before, text),
        ANSWER_TOKENS if last else count_tokens(call),
        needs,
        faults(given, sent, arm.markers, arm.budget_tokens),
        trim_ms,
    )
    return request, sent


def _age(trace: Trace, outputs: int, value: str) -> int:
    return outputs - next(n for n, step in enumerate(trace.steps) if value in step.output)


def _losses(request: Request, trace: Trace, sent: Messages) -> list[Excerpt]:
    """What was lost, with the line that held it and what was kept of its output."""
    kept = [each["content"] for each in sent if each["role"] == "tool"]
    out = []
    for need in (need for need in request.needs if not need.met):
        number = request.outputs - need.age
        step = trace.steps[number]
        line = next(line for line in step.output.splitlines() if need.value in line)
        asked = ", ".join(f"{name}={value}" for name, value in step.arguments.items())
        told = (
            f"Needed: {need.value}\nLOST, from {step.tool}({asked}), {need.age} request(s) old: {_short(line)}\n"
            f"    what was kept of that output: {_short(kept[number]) or 'nothing'}"
        )
        out.append(Excerpt(f"{request.arm}: {trace.name}, request {request.outputs}", told))
    return out


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " [...]"


# --- the section ---------------------------------------------------------------------------------------------------------


def _offers() -> tuple[Offer, ...]:
    return Catalog().offers([MODEL], DAY)[:1]


def _costs(requests: Sequence[Request]) -> tuple[Decimal, Decimal]:
    """Dollars as if nothing were cached, and with the prefix cache."""
    offer = _offers()[0]
    uncached = (price(offer, Usage(r.input_tokens, r.output_tokens)) for r in requests)
    cached = (price(offer, Usage(r.input_tokens, r.output_tokens, r.cached_tokens)) for r in requests)
    return sum(uncached, Decimal(0)), sum(cached, Decimal(0))


def _section(requests: Sequence[Request], absent: Sequence[tuple[str, str]], losses: Sequence[Excerpt]) -> Section:
    by_arm = {name: [r for r in requests if r.arm == name] for name in dict.fromkeys(r.arm for r in requests)}
    uncut = next(iter(by_arm.values()))
    tokens = sum(r.input_tokens for r in uncut)
    rows = []
    for name, of in by_arm.items():
        needs = [need for r in of for need in r.needs]
        sent = sum(r.input_tokens for r in of)
        lost = sum(any(not need.met for need in r.needs) for r in of)
        broken = sorted({rule for r in of for rule in r.broken})
        rows.append(
            (
                name,
                f"{sent:,} ({_share(1 - sent / tokens)})",
                *(
                    f"${cost:.4f} ({_share(1 - cost / whole)})"
                    for cost, whole in zip(_costs(of), _costs(uncut), strict=True)
                ),
                f"{sum(need.met for need in needs)}/{len(needs)}",
                f"{lost}/{len(of)}",
                ", ".join(f"{rule} {sum(rule in r.broken for r in of)}/{len(of)}" for rule in broken),
                f"{np.median([r.trim_ms for r in of]):,.0f}",
            )
        )
    headers = (
        "",
        "input tokens (saved)",
        "dollars without a cache (saved)",
        "dollars with a prefix cache (saved)",
        "needs met",
        "requests with a loss",
        "rules broken",
        "ms",
    )
    count = len({r.trace for r in uncut})
    title = f"{count} transcript{'s' if count > 1 else ''}, {len(uncut)} requests, at the list price of {MODEL}"
    note = (
        "Times: median. The first of trimtab's rows computes the vectors of every new output; the later ones find them."
    )
    tables = [Table(title, headers, tuple(rows), note, readme=True), _age_table(by_arm)]
    if absent:
        tables.append(Table("Agent arms that did not run here", ("arm", "why"), tuple(absent)))
    return Section(
        "agent",
        "Agent transcripts",
        notes=(
            "Every request of a scripted agent, which repeats its whole transcript each time. A need is an identifier that "
            "the next call or the answer must name; a request with a loss is one at which an agent would have to call again "
            "or guess. Trimmers see the task and every call so far, and nothing of what the next call will be. In these "
            "transcripts what is needed is in the row that was asked for, which favours trimtab: the newest calls are part of "
            "its question. Where an agent looks for something else in an output, that helps less.",
            "The prefix cache is an automatic one: what two requests in a row share from their beginning on costs its read "
            "price. A cut that changes with every request shares little, and may cost more than sending everything; trimtab "
            "therefore sends earlier outputs as it sent them before, and a budget holds for the outputs that are new.",
        ),
        tables=tuple(tables),
        plots=(_growth(by_arm),),
        excerpts=tuple(losses[:: max(1, len(losses) // WORST_CASES)][:WORST_CASES]),
        records=tuple(_record(r) for r in requests),
    )


def _age_table(by_arm: Mapping[str, Sequence[Request]]) -> Table:
    rows = []
    for name, of in by_arm.items():
        needs = [need for r in of for need in r.needs]
        row, above = [name], 0
        for _, upto in AGES:
            these = [need for need in needs if above < need.age <= upto]
            row.append(f"{sum(need.met for need in these)}/{len(these)}")
            above = upto
        rows.append(tuple(row))
    return Table("Needs met, by how long ago their output came", ("", *(name for name, _ in AGES)), tuple(rows))


def _growth(by_arm: Mapping[str, Sequence[Request]]) -> Plot:
    series = []
    for name, of in by_arm.items():
        turns = sorted({r.outputs for r in of})
        means = [float(np.mean([r.input_tokens for r in of if r.outputs == turn])) for turn in turns]
        series.append(Series(name, tuple(map(float, turns)), tuple(means)))
    return Plot("Tokens of each request", "tool outputs so far", "input tokens", tuple(series))


def _share(saved: float | Decimal) -> str:
    return f"{round(saved * 100):d}%"


def _record(request: Request) -> Mapping[str, Any]:
    return {
        "record": "request",
        "arm": request.arm,
        "trace": request.trace,
        "outputs": request.outputs,
        "input_tokens": request.input_tokens,
        "cached_tokens": request.cached_tokens,
        "output_tokens": request.output_tokens,
        "needed": [need.value for need in request.needs],
        "lost": [need.value for need in request.needs if not need.met],
        "broken": list(request.broken),
        "trim_ms": request.trim_ms,
    }

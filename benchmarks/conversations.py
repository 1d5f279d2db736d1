"""Suite `conversations`: thirty turns with fresh chunks in each, billed by a provider that caches prefixes.

The caller repeats every earlier turn, its chunks included, as chat clients do. Three ways to send that: as it is; with
every turn's chunks cut anew for the question at hand, as a compressor without a memory does; and through trimtab.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from benchmarks.caching_provider import ANSWER, CachingProvider, Kind, caching_provider
from benchmarks.questions import Dataset
from benchmarks.sections import Plot, Progress, Section, Series, Table
from routing.catalog import Provider
from routing.offers import Offer, Usage, price
from trimtab.cache_marks import MARK
from trimtab.pipeline import Trimtab

TURNS, QUICK_TURNS = 30, 6
CHUNKS = 8
SYSTEM_TOKENS = 5_000
MIN_COVERAGE = 0.9
MODELS: Mapping[Kind, str] = {"openai": "gpt-6.1-sol", "anthropic": "claude-sonnet-5-5"}

_AS_IT_IS = "as it is"
_MARKED = "as it is, the caller marks the last message"
_ANEW = "cut anew each turn"
_TRIMTAB = "through trimtab"

_RULE = "Rule {}: answer from the documents alone, name the one that you used, and say so where they do not tell."


@dataclass(frozen=True, slots=True)
class _Replayed:
    way: str
    costs_usd: tuple[Decimal, ...]
    cached_share: float

    @property
    def total_usd(self) -> Decimal:
        return sum(self.costs_usd, Decimal(0))


def run(dataset: Dataset, turns: int, seed: int, folder: Path, progress: Progress) -> Section:
    """The section: both kinds of cache, each way of sending."""
    talk = _conversation(dataset, turns, seed)
    rows: list[tuple[str, ...]] = []
    plots: list[Plot] = []
    records: list[Mapping[str, object]] = []
    for kind, model in MODELS.items():
        replays = _replays(kind, model, talk, folder, progress)
        base = replays[0].total_usd
        for each in replays:
            saved = 1 - each.total_usd / base
            rows.append((model, each.way, f"${each.total_usd:.4f}", f"{saved:.0%}", f"{each.cached_share:.0%}"))
            records.append(
                {
                    "record": "conversation",
                    "model": model,
                    "way": each.way,
                    "turns": turns,
                    "total_usd": str(each.total_usd),
                    "dearest_turn_usd": str(max(each.costs_usd)),
                    "cached_share": each.cached_share,
                }
            )
        numbers = tuple(float(turn) for turn in range(1, turns + 1))
        series = tuple(Series(each.way, numbers, tuple(map(float, each.costs_usd))) for each in replays)
        plots.append(Plot(f"Dollars for each turn, {model}", "turn", "dollars", series))
    note = (
        f"{turns} turns, a system prompt of about {SYSTEM_TOKENS:,} tokens, {CHUNKS} fresh chunks a turn that stay in the "
        f"history, min_coverage {MIN_COVERAGE}. The provider is a fake that bills prefixes as the real ones document it "
        "(benchmarks/caching_provider.py); the prices are the models' list prices."
    )
    headers = ("model", "way of sending", "dollars", "saved", "input read from the cache")
    table = Table("Conversations against a prompt cache", headers, tuple(rows), note, readme=True)
    return Section("conversations", "Conversations", tables=(table,), plots=tuple(plots), records=tuple(records))


def _conversation(dataset: Dataset, turns: int, seed: int) -> list[str]:
    """The user's messages: chunks as tagged documents, and a question that some of them answer."""
    questions = random.Random(seed).sample([each for each in dataset.questions if len(each.contexts) >= CHUNKS], turns)
    talk = []
    for question in questions:
        needed = {evidence.context for evidence in question.evidence}
        order = sorted(range(len(question.contexts)), key=lambda at: (at not in needed, at))[:CHUNKS]
        chunks = [f"<document>\n{question.contexts[at].text}\n</document>" for at in sorted(order)]
        talk.append("\n".join((*chunks, "", question.query)))
    return talk


def _system() -> str:
    return "\n".join(_RULE.format(number) for number in range(SYSTEM_TOKENS // 24))


def _replays(kind: Kind, model: str, talk: Sequence[str], folder: Path, progress: Progress) -> list[_Replayed]:
    ways = [_AS_IT_IS, *([_MARKED] if kind == "anthropic" else []), _ANEW, _TRIMTAB]
    replays = []
    for way in ways:
        with caching_provider(kind) as provider:
            configured = Provider("maker", kind, provider.base_url, None, (model,), kind)
            trimtab = Trimtab({"providers": [configured], "cache_dir": folder / "cache", "min_coverage": MIN_COVERAGE})
            step = progress(f"{model}, {way}", len(talk))
            for body in _bodies(model, talk):
                if way in (_AS_IT_IS, _MARKED):
                    _send_directly(provider, body, mark=way == _MARKED)
                else:
                    if way == _ANEW:
                        trimtab.forget()
                    trimtab.complete(body)
                step()
            (offer,) = trimtab.catalog.offers([model], datetime.now(UTC))
            replays.append(_replayed(way, provider, offer))
    return replays


def _bodies(model: str, talk: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What a chat client sends, turn by turn."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": _system()}]
    for said in talk:
        messages.append({"role": "user", "content": said})
        yield {"model": model, "messages": list(messages), "max_tokens": 200}
        messages.append({"role": "assistant", "content": ANSWER})


def _send_directly(provider: CachingProvider, body: Mapping[str, Any], *, mark: bool) -> None:
    path, sent = "/chat/completions", dict(body)
    if provider.kind == "anthropic":
        system, *messages = body["messages"]
        path, sent = "/v1/messages", {**body, "system": system["content"], "messages": messages}
    if mark:
        last = {"role": "user", "content": [{"type": "text", "text": sent["messages"][-1]["content"], **MARK}]}
        sent["messages"] = [*sent["messages"][:-1], last]
    httpx.post(provider.base_url + path, json=sent, timeout=60).raise_for_status()


def _replayed(way: str, provider: CachingProvider, offer: Offer) -> _Replayed:
    usages = [_usage(provider.kind, usage) for usage in provider.usages]
    cached = sum(usage.cache_read_tokens for usage in usages) / sum(usage.input_tokens for usage in usages)
    return _Replayed(way, tuple(price(offer, usage) for usage in usages), cached)


def _usage(kind: Kind, bill: Mapping[str, Any]) -> Usage:
    if kind == "openai":
        return Usage(bill["prompt_tokens"], bill["completion_tokens"], bill["prompt_tokens_details"]["cached_tokens"])
    read, written = bill["cache_read_input_tokens"], bill["cache_creation_input_tokens"]
    return Usage(bill["input_tokens"] + read + written, bill["output_tokens"], read, written)

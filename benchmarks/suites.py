"""The suites by name: each takes the run's setting and hands back a section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    adversarial,
    agent,
    answers,
    boundaries,
    chaos,
    conversations,
    deferred,
    evidence,
    faults,
    gateway,
    growth,
    guarantee,
    latency,
    ledger,
    load,
    plan,
    ranking,
    reader,
    router,
)
from benchmarks.endpoint import Endpoint
from benchmarks.evidence import Results
from benchmarks.evidence_report import evidence_section
from benchmarks.peers import Peer
from benchmarks.questions import Dataset
from benchmarks.sections import Progress, Section


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run was asked for. `folder` is scratch space, gone afterwards. `remote`: another reader than the local one;
    `judge`: who judges its answers beside the string measures. `scored`: prompts with models' scores, for the router."""

    datasets: tuple[Dataset, ...]
    peers: tuple[Peer, ...]
    ratios: tuple[float, ...]
    seed: int
    quick: bool
    folder: Path
    progress: Progress
    remote: reader.RemoteReader | None = None
    judge: Endpoint | None = None
    scored: tuple[Path, ...] = ()


def run_evidence(setting: Setting) -> Section:
    return evidence_section(_measured(setting), setting.seed)


def run_reader(setting: Setting) -> Section:
    count = reader.QUICK_QUESTIONS if setting.quick else reader.QUESTIONS
    return reader.run(
        setting.datasets[0],
        count,
        setting.seed,
        setting.folder,
        remote=setting.remote,
        judge=setting.judge,
        progress=setting.progress,
    )


def run_latency(setting: Setting) -> Section:
    sizes = latency.QUICK_SIZES_TOKENS if setting.quick else latency.SIZES_TOKENS
    return latency.run(setting.datasets, setting.peers, sizes, setting.seed, setting.folder, setting.progress)


def run_plan(setting: Setting) -> Section:
    return plan.run(setting.datasets[0], setting.seed, setting.folder, setting.progress)


def run_gateway(setting: Setting) -> Section:
    rounds = gateway.QUICK_ROUNDS if setting.quick else gateway.ROUNDS
    return gateway.run(rounds, setting.folder, setting.progress)


def run_ranking(setting: Setting) -> Section:
    return ranking.run(setting.datasets, setting.folder, setting.progress)


def run_guarantee(setting: Setting) -> Section:
    splits = guarantee.QUICK_SPLITS if setting.quick else guarantee.SPLITS
    return guarantee.run(setting.datasets, splits, setting.seed, setting.folder, setting.progress)


def run_router(setting: Setting) -> Section:
    return router.run(setting.scored, setting.seed, setting.quick, setting.folder, setting.progress)


def run_agent(setting: Setting) -> Section:
    count = agent.QUICK_TRACES if setting.quick else agent.TRACES
    return agent.run(count, setting.seed, setting.folder, setting.progress)


def run_chaos(setting: Setting) -> Section:
    return chaos.run(chaos.QUICK_REQUESTS if setting.quick else chaos.REQUESTS, setting.progress)


def run_deferred(setting: Setting) -> Section:
    count = deferred.QUICK_REQUESTS if setting.quick else deferred.REQUESTS
    return deferred.run(count, setting.seed, setting.progress)


def run_boundaries(setting: Setting) -> Section:
    return boundaries.run(setting.progress)


def run_adversarial(setting: Setting) -> Section:
    long_tokens = adversarial.QUICK_LONG_TOKENS if setting.quick else adversarial.LONG_TOKENS
    return adversarial.run(setting.peers, long_tokens, setting.seed, setting.folder, setting.progress)


def run_conversations(setting: Setting) -> Section:
    turns = conversations.QUICK_TURNS if setting.quick else conversations.TURNS
    return conversations.run(setting.datasets[0], turns, setting.seed, setting.folder, setting.progress)


def run_ledger(setting: Setting) -> Section:
    rounds, requests = (
        (ledger.QUICK_ROUNDS, ledger.QUICK_REQUESTS) if setting.quick else (ledger.ROUNDS, ledger.REQUESTS)
    )
    return ledger.run(rounds, requests, setting.folder, setting.progress)


def run_answers(setting: Setting) -> Section:
    count = answers.QUICK_PAIRS_A_TEMPLATE if setting.quick else answers.PAIRS_A_TEMPLATE
    return answers.run(setting.datasets, count, setting.seed, setting.progress)


def run_growth(setting: Setting) -> Section:
    quick = setting.quick
    tokens, counts = (growth.QUICK_TOKENS, growth.QUICK_CHUNKS) if quick else (growth.TOKENS, growth.CHUNKS)
    return growth.run(tokens, counts, setting.folder / "growth", setting.progress)


def run_load(setting: Setting) -> Section:
    quick = setting.quick
    seconds, large = (load.QUICK_SECONDS, load.QUICK_LARGE_TOKENS) if quick else (load.SECONDS, load.LARGE_TOKENS)
    return load.run(seconds, large, setting.seed, setting.folder, setting.progress)


def run_faults(setting: Setting) -> Section:
    return faults.run(setting.quick, setting.seed, setting.folder / "faults", setting.progress)


SUITES: Mapping[str, Callable[[Setting], Section]] = {
    "evidence": run_evidence,
    "adversarial": run_adversarial,
    "reader": run_reader,
    "latency": run_latency,
    "plan": run_plan,
    "boundaries": run_boundaries,
    "router": run_router,
    "conversations": run_conversations,
    "agent": run_agent,
    "gateway": run_gateway,
    "load": run_load,
    "growth": run_growth,
    "chaos": run_chaos,
    "deferred": run_deferred,
    "ledger": run_ledger,
    "answers": run_answers,
    "ranking": run_ranking,
    "guarantee": run_guarantee,
    "faults": run_faults,
}

ON_REQUEST = frozenset({"ranking", "guarantee", "faults"})
"""Suites that run only when they are named: they train and say most of several data sets of one's own, or kill servers."""


def _measured(setting: Setting) -> Results:
    return evidence.measure(
        setting.datasets,
        setting.seed,
        setting.folder,
        peers=setting.peers,
        ratios=setting.ratios,
        progress=setting.progress,
    )

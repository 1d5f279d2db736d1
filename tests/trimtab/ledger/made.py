"""Entries made up by chance from a seed, for tests of whatever reads the ledger."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from trimtab.database import Database
from trimtab.ledger.entries import TABLES, Entry, record_of, write

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)

_MODELS = (  # provider, model, dollars per million tokens in and out, price boundary
    ("openai", "gpt-6.1-sol", "2", "10", None),
    ("openai", "gpt-5-mini", "0.25", "2", None),
    ("anthropic", "claude-haiku-5-5", "0.1", "0.5", 100_000),
    ("gemini", "gemini-3-flash", "0.0375", "0.15", 200_000),
)
_OUTCOMES = (("ok", 200),) * 17 + (("cut_off", 200), ("server_error", 502), ("abandoned", 499))


def made(
    count: int, *, seed: int = 0, now: datetime = NOW, days: float = 14.0, tenants: Sequence[str] = ("",)
) -> list[Entry]:
    """`count` entries of the `days` before `now`, oldest first; about a tenth failed, and some saved less than nothing."""
    chance = random.Random(seed)
    moments = sorted(now - timedelta(seconds=chance.uniform(0, days * 86_400)) for _ in range(count))
    return [_entry(chance, number, moment, chance.choice(tenants)) for number, moment in enumerate(moments)]


def written(database: Database, entries: Sequence[Entry]) -> None:
    """The entries in the database's own tables, in their order."""
    database.create(TABLES)
    write(database, [record_of(each) for each in entries])


def _entry(chance: random.Random, number: int, at: datetime, tenant: str) -> Entry:
    provider, model, inward, outward, boundary = chance.choice(_MODELS)
    outcome, status = chance.choice(_OUTCOMES)
    answered = status == 200
    before = int(chance.lognormvariate(8.5, 1.2)) + 100
    after = int(before * chance.uniform(0.15, 1.0))
    fixed, output = chance.randint(20, 2_000), chance.randint(1, 1_500)
    read = chance.choice((0, 0, fixed // 2))
    rates = Decimal(inward) / 1_000_000, Decimal(outward) / 1_000_000
    cost = rates[0] * (fixed + after - read) + rates[0] / 10 * read + rates[1] * output
    own = _MODELS[0]
    baseline = Decimal(own[2]) / 1_000_000 * (fixed + before) + Decimal(own[3]) / 1_000_000 * output
    if chance.random() < 0.1:
        baseline = round(cost * Decimal("0.8"), 12)
    loss = round(cost / 20, 12) if chance.random() < 0.05 else Decimal(0)
    identity = hashlib.sha256(f"{number}/{at}".encode()).hexdigest()[:32]
    return Entry(
        receipt_id=f"rcpt_{identity}",
        at=at.replace(microsecond=at.microsecond // 1000 * 1000),
        model_asked=chance.choice((own[1], model)),
        tenant=tenant,
        key=chance.choice(("", "web", "batch")),
        team=chance.choice(("", "search", "support")),
        request_id=f"req-{number}",
        route=chance.choice(("", "faq", "summary")),
        user=chance.choice(("", "ada", "grace")),
        surface=chance.choice(("chat", "chat", "messages", "responses")),
        stream=chance.random() < 0.5,
        status=status,
        outcome=outcome,
        answered=answered,
        attempts=chance.choice((1, 1, 1, 2)),
        provider=provider,
        model=model,
        processing=chance.choice(("sync", "sync", "flex", "batch")),
        baseline_provider=own[0],
        baseline_model=own[1],
        prices_version="made",
        tokens_before=before,
        tokens_after=after,
        input_tokens_estimated=fixed + after,
        output_tokens_estimated=512,
        input_tokens_billed=fixed + after if answered else None,
        output_tokens_billed=output if answered else None,
        cache_read_tokens_billed=read if answered else None,
        cache_write_tokens_billed=0 if answered else None,
        expected_usd=cost,
        billed_usd=cost if answered else None,
        cost_usd=cost if answered else Decimal(0),
        baseline_usd=baseline if answered else None,
        saved_usd=baseline - cost if answered else None,
        cache_loss_usd=loss if answered else None,
        coverage_estimate=chance.uniform(0.8, 1.0),
        boundary_tokens=boundary,
        over_boundary_tokens=None if boundary is None else fixed + after - boundary,
        trimtab_ms=chance.uniform(3, 40),
        provider_ms=chance.uniform(200, 9_000),
        first_byte_ms=chance.uniform(100, 900),
        prefix_digest=hashlib.sha256(str(chance.randint(0, 5)).encode()).hexdigest()[:32],
        prefix_tokens=fixed,
        detail=_detail(provider, model, before, after, outcome),
    )


def _detail(provider: str, model: str, before: int, after: int, outcome: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{before}-{after}".encode()).hexdigest()
    candidate = {
        "provider": provider,
        "model": model,
        "processing": "sync",
        "budget_tokens": after,
        "input_tokens": after + 50,
        "output_tokens": 512,
        "expected_cost_usd": "0.0011",
        "coverage_estimate": 0.95,
    }
    dearer = {**candidate, "budget_tokens": before, "expected_cost_usd": "0.0031", "why": "costs 2.8 times as much"}
    attempt = {"provider": provider, "model": model, "processing": "sync", "started_ms": 5.0, "latency_ms": 700.0}
    return {
        "coverage_basis": "made up",
        "attempts": [{**attempt, "status": 200, "outcome": outcome, "detail": "", "first_byte_ms": 210.0}],
        "cut": [
            {
                "id": "doc-1",
                "digest": digest,
                "tokens_before": before,
                "tokens_after": after,
                "characters": before * 4,
                "kept_spans": [[0, after * 2], [before * 2, before * 2 + after * 2]],
            }
        ],
        "expansions": [],
        "plan": {"chosen": candidate, "runners_up": [dearer]},
        "curve": [[before * step // 20, min(1.0, step / 16)] for step in range(21)],
        "stage_ms": {"rank": 9.0, "plan": 1.0, "cut": 1.0, "provider": 700.0},
        "metadata": {"feature": "search"},
        "notes": [],
        "turns": [["aa" * 16, 40], ["bb" * 16, after + 50]],
    }

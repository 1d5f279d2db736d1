"""Requests that nobody waits for, and that a batch would answer at a lower price. Only where something says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from trimtab.analysis.changes import Change
from trimtab.analysis.quoting import excerpt
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import counted

_FEWEST: Final = 10
_BURST: Final = 30  # requests at night, one right after another
_NIGHT_HOURS: Final = range(6)
_PAUSE: Final = timedelta(seconds=60)

_JOB: Final = re.compile(
    r"(?:^|[^a-z])(?:batch(?:es|-?job)?|cron(?:tab|job)?|nightly|backfill|scheduled|offline|airflow|celery|dagster|prefect|etl"
    r"|background)(?:$|[^a-z])|[-_/: ]jobs?(?:$|[^-_a-z])",
    re.I,
)
_BROWSER: Final = re.compile(r"mozilla/|chrome/|safari/", re.I)


def could_wait(study: Study) -> Iterator[Finding]:
    """For each group, the requests that a job sends: it says so itself, or they come at night in one burst, all alike."""
    for group in study.groups:
        alone = [i for i in group.requests if _may_wait(study, i)]
        named = [i for i in alone if _job_words(study, i)]
        burst = () if len(named) >= _FEWEST else tuple(_night_burst(study, alone))
        requests = named if len(named) >= _FEWEST else list(burst)
        changes = tuple(
            Change(i, processing="batch")
            for i in requests
            if study.prices.offer(study.requests[i], group.model, "batch") is not None
        )
        if not changes or len(requests) < _FEWEST or study.saved_usd(changes) <= 0:
            continue
        words = tuple(dict.fromkeys(excerpt(word) for i in named for word in _job_words(study, i)))[:3]
        why = "who sends them is a job" if requests is named else "they come at night, one right after another"
        outputs = "" if study.measured(requests) else "; only the input is counted, as no answers are recorded"
        known = study.requests[requests[0]].api is not None
        against = "no request streams or is part of a conversation" if known else "no request streams"
        yield Finding(
            kind="could-wait",
            title=f"{counted(len(changes), 'request')} of {group.model} could wait for a batch: {why}",
            advice='Send them through the batch API (or trimtab\'s deferred lane, "processing": "batch"): '
            "answers come within 24 hours.",
            reckoned=f"the same tokens at the batch price; {against}{outputs}",
            basis="measured" if study.measured(requests) else "estimated",
            changes=changes,
            excerpts=words,
        )


def _may_wait(study: Study, i: int) -> bool:
    """Whether nothing speaks against it: no stream, no conversation, no browser, and the price of a synchronous call."""
    request, anatomy = study.requests[i], study.anatomies[i]
    return (
        not request.streamed
        and request.processing == "sync"
        and study.stands_alone(i)
        and anatomy.user_turns <= 1
        and not any(part.role == "tool" for part in anatomy.parts)
        and not any(_BROWSER.search(sign) for sign in request.signs)
    )


def _job_words(study: Study, i: int) -> list[str]:
    return [sign for sign in study.requests[i].signs if _JOB.search(sign)]


def _night_burst(study: Study, requests: Sequence[int]) -> Iterator[int]:
    """The runs of at least _BURST requests between midnight and six (UTC) with no longer pause than a minute."""
    run: list[int] = []
    for i in (*requests, None):
        at = None if i is None else study.requests[i].at
        if i is not None and at is not None and at.hour in _NIGHT_HOURS:
            last = study.requests[run[-1]].at if run else at
            if last is not None and at - last <= _PAUSE:
                run.append(i)
                continue
        if len(run) >= _BURST:
            yield from run
        run = [i] if i is not None and at is not None and at.hour in _NIGHT_HOURS else []

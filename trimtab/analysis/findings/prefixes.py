"""Prefixes that break the provider's cache, and prefixes that nothing asks it to cache."""

from __future__ import annotations

import hashlib
import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, NamedTuple

from compressor.tokens import count_each, encoding_for_model
from trimtab.analysis.changes import Change
from trimtab.analysis.grouping import Clause, Group, clauses, opening
from trimtab.analysis.quoting import excerpt
from trimtab.analysis.study import Finding, Study

_FEWEST: Final = 5  # requests of a group: of fewer nobody can say what stays
_STABLE_SHARE: Final = 0.95
_LEAST_GAIN_TOKENS: Final = 200
_LEAST_GAIN_SHARE: Final = 0.1

_KINDS: Final = (
    ("a UUID", re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I)),
    ("an e-mail address", re.compile(r"\b[\w.+-]+@[\w-]+\.\w+\b")),
    (
        "a time",
        re.compile(
            r"\b\d{4}-\d\d-\d\d|\b\d{1,2}:\d\d\b|\b1[6-9]\d{8}\b|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b"
            r"|\b(?:mon|tues?|wednes|thurs?|fri|satur|sun)day\b"
            r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d",
            re.I,
        ),
    ),
    ("an id", re.compile(r"(?=\w*\d)[\w-]{6,}|\b[0-9a-f]{8,}\b", re.I)),
    ("a number", re.compile(r"^[\W_]*\d[\d,.]*[\W_]*$")),
    ("a name", re.compile(r"^\W*(?:[^\W\d_a-z][\w'’-]*\W+){0,3}[^\W\d_a-z][\w'’-]*\W*$")),
)


@dataclass(frozen=True, slots=True)
class _Break:
    """Where a request stops being equal to the one before it, and the two clauses that stand there."""

    at: int
    what: str
    role: str
    here: Clause
    there: Clause


def unstable_prefixes(study: Study) -> Iterator[Finding]:
    """For each group: what it shares, how much of that a cache can read today, and how much it could."""
    for group in study.groups:
        if len(group.requests) >= _FEWEST and study.requests[group.requests[0]].api is not None:
            yield from _found(study, group)


def _found(study: Study, group: Group) -> Iterator[Finding]:
    sequences = {i: clauses(study.anatomies[i].parts, opening(study.anatomies[i])) for i in group.requests}
    stable = _stable_keys(list(sequences.values()))
    encoding = encoding_for_model(group.model)
    stable_tokens = _tokens_of(study, sequences, stable, encoding)
    rules = study.cache_rules(group.requests[0])
    if not 0 < rules.minimum_tokens <= stable_tokens:
        return
    equal_tokens = _equal_tokens(study, group, sequences, rules.lifetime_s, encoding)
    before = {
        i: max(study.usage(i).cache_read_tokens, equal if not rules.marked or study.anatomies[i].marked else 0)
        for i, equal in equal_tokens.items()
    }
    before = {i: tokens if tokens >= rules.minimum_tokens else 0 for i, tokens in before.items()}
    changes = tuple(_changes(study, group, sequences, stable, stable_tokens, before))
    gained = {change.request: stable_tokens - before[change.request] for change in changes if not change.writes}
    least = max(_LEAST_GAIN_TOKENS, _LEAST_GAIN_SHARE * stable_tokens)
    if len(gained) < _FEWEST - 1 or median(gained.values()) < least or study.saved_usd(changes) <= 0:
        return
    in_order = median(equal_tokens[i] for i in gained) >= stable_tokens - least
    breaks = () if in_order else tuple(_breaks(study, group, sequences))
    if not in_order and not breaks:
        return
    measured = study.measured(group.requests)
    marks = rules.marked and not study.anatomies[group.requests[0]].marked
    said = _unmarked(group, stable_tokens) if in_order else _unstable(breaks, group, stable_tokens, marks)
    yield Finding(
        kind="unmarked-prefix" if in_order else "unstable-prefix",
        title=said.title,
        advice=said.advice,
        reckoned=_reckoned(study, rules.lifetime_s, measured, stable_tokens),
        basis="measured" if measured and study.window else "estimated",
        changes=changes,
        tokens=sum(gained.values()),
        excerpts=said.excerpts,
    )


def _stable_keys(sequences: Sequence[Sequence[Clause]]) -> set[str]:
    seen = Tally(key for sequence in sequences for key in {clause.key for clause in sequence})
    return {key for key, count in seen.items() if count >= _STABLE_SHARE * len(sequences)}


def _tokens_of(study: Study, sequences: dict[int, tuple[Clause, ...]], stable: set[str], encoding: str) -> int:
    """The tokens of all that is stable, read off the request that has most of it."""
    best = max(sequences.values(), key=lambda own: sum(len(c.text) for c in own if c.key in stable))
    texts: dict[int, list[str]] = {}
    for clause in best:
        if clause.key in stable:
            texts.setdefault(clause.part, []).append(clause.text)
    return sum(count_each(["".join(own) for own in texts.values()], encoding))


def _equal_tokens(
    study: Study, group: Group, sequences: dict[int, tuple[Clause, ...]], lifetime_s: float, encoding: str
) -> dict[int, int]:
    """For each request the tokens of the longest beginning that an earlier one of the last `lifetime_s` had too."""
    texts = list(dict.fromkeys(clause.text for own in sequences.values() for clause in own))
    tokens = dict(zip(texts, count_each(texts, encoding), strict=True))
    sent: dict[bytes, float] = {}
    found: dict[int, int] = {}
    for place, i in enumerate(group.requests):
        at = study.requests[i].at
        now_s = float(place) if at is None else at.timestamp()
        digest, total, warm, chain = b"", 0, 0, []
        for clause in sequences[i]:
            digest = hashlib.blake2b(digest + clause.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            total += tokens[clause.text]
            chain.append(digest)
            if digest in sent and now_s - sent[digest] < lifetime_s:
                warm = total
        found[i] = warm
        sent.update(dict.fromkeys(chain, now_s))
    return found


def _changes(
    study: Study,
    group: Group,
    sequences: dict[int, tuple[Clause, ...]],
    stable: set[str],
    stable_tokens: int,
    before: dict[int, int],
) -> Iterator[Change]:
    rules = study.cache_rules(group.requests[0])
    last_s: float | None = None
    for place, i in enumerate(group.requests):
        at = study.requests[i].at
        now_s = float(place) if at is None else at.timestamp()
        warm = last_s is not None and now_s - last_s < rules.lifetime_s
        last_s = now_s
        writes = not warm and rules.marked and not study.usage(i).cache_write_tokens
        if writes or (warm and before[i] < stable_tokens):
            prefix = frozenset(clause.part for clause in sequences[i] if clause.key in stable)
            yield Change(
                i,
                cached_tokens=stable_tokens,
                read_today_tokens=before[i],
                writes=writes,
                minimum_tokens=rules.minimum_tokens,
                prefix_parts=prefix,
            )


def _breaks(study: Study, group: Group, sequences: dict[int, tuple[Clause, ...]]) -> Iterable[_Break]:
    """Where each request differs from the one before it."""
    for earlier, later in zip(group.requests, group.requests[1:], strict=False):
        own, other = sequences[later], sequences[earlier]
        tokens = 0
        for a, b in zip(own, other, strict=False):
            if a.text != b.text:
                role = study.anatomies[later].parts[a.part].role
                yield _Break(tokens, _what(study, later, earlier, a, b), _ROLES.get(role, role), a, b)
                break
            tokens += len(a.text) // 4


_ROLES: Final = {"tool schema": "tools", "system": "system prompt", "user": "first user message"}


def _what(study: Study, later: int, earlier: int, here: Clause, there: Clause) -> str:
    """What sort of thing differs."""
    if study.anatomies[later].parts[here.part].role == "tool schema":
        names = [
            sorted(part.name for part in study.anatomies[i].parts if part.role == "tool schema")
            for i in (later, earlier)
        ]
        if here.key == there.key:
            return "keys"
        return "order" if names[0] == names[1] else "change"
    a, b = _differing(here.text, there.text)
    return next((kind for kind, pattern in _KINDS if pattern.search(a) and pattern.search(b)), "a text that changes")


def _differing(a: str, b: str) -> tuple[str, str]:
    """The words of two texts between what they share at both ends."""
    first, second = a.split(), b.split()
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    end = 0
    while end < min(len(first), len(second)) - start and first[-1 - end] == second[-1 - end]:
        end += 1
    return " ".join(first[start : len(first) - end]), " ".join(second[start : len(second) - end])


class _Said(NamedTuple):
    title: str
    advice: str
    excerpts: tuple[str, ...] = ()


def _unmarked(group: Group, stable_tokens: int) -> _Said:
    begin = f"{stable_tokens:,} tokens begin {len(group.requests):,} requests of {group.model} alike"
    return _Said(
        f"{begin}, and nothing marks them for the cache", f"{_MARK}. This provider caches only what is marked."
    )


def _unstable(breaks: Sequence[_Break], group: Group, stable_tokens: int, marked: bool) -> _Said:
    (role, what), _ = Tally((each.role, each.what) for each in breaks).most_common(1)[0]
    first = next(each for each in breaks if (each.role, each.what) == (role, what))
    mark = f" {_MARK}." if marked else ""
    place = f"about {first.at:,} tokens in" if first.at else "at the very beginning"
    of = f"the cache of {group.model} ({len(group.requests):,} requests)"
    if role == "tools":
        title, advice = _TOOLS[what]
        return _Said(f"{title}, which breaks {of}", f"{advice} {stable_tokens:,} tokens are the same each time.{mark}")
    return _Said(
        f"{what[0].upper()}{what[1:]} in the {role} breaks {of}",
        "Move it behind everything that stays (into the last message), or leave it out. "
        f"It stands {place}; {stable_tokens:,} tokens of what begins these requests stay the same.{mark}",
        (excerpt(first.there.text), excerpt(first.here.text)),
    )


_MARK: Final = "Mark the last block of what stays with cache_control"
_TOOLS: Final = {
    "order": ("The same tools come in another order", "Send the tools in one fixed order, such as by name."),
    "keys": ("The keys of tools come in another order", "Write each tool's keys in one fixed order, such as sorted."),
    "change": (
        "The tools change from request to request",
        "Offer the same tools each time, and limit them with tool_choice.",
    ),
}


def _reckoned(study: Study, lifetime_s: float, measured: bool, stable_tokens: int) -> str:
    times = (
        f"requests within {lifetime_s:,.0f} s of the one before read {stable_tokens:,} tokens at the cache's price, "
        "others write or pay them in full"
        if study.window
        else "no times are recorded: each request is taken to follow within the cache's life"
    )
    bill = (
        "less what was already read from the cache" if measured else "no bill is recorded: today's reads are reckoned"
    )
    return f"{times}; {bill}"

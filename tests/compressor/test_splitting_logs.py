"""Splitting logs: an entry is kept with its stack trace, and repeats are counted."""

from __future__ import annotations

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.splitting import split
from compressor.splitting.templates import templates_of
from tests.compressor.made import DOCUMENTS, ranked, words
from tests.compressor.test_splitting import assert_sound, cuts_of

TRACES = (
    'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    go(x)\nValueError: bad value: 3',
    "java.lang.IllegalStateException: no\n\tat a.b.C.d(C.java:12)\n\tat a.b.E.f(E.java:9)\n"
    "Caused by: java.io.IOException\n\t... 3 more",
)
STAMPS = (
    "2024-01-31 12:00:{:02} INFO",
    "[2024-01-31T12:00:{:02}Z] WARN",
    "Jan 31 12:00:{:02} host app[3]:",
    "INFO 12:00:{:02} -",
)


def log_document(rng: random.Random) -> tuple[str, list[str]]:
    stamp = rng.choice(STAMPS)
    entries = []
    for n in range(rng.randint(3, 30)):
        entry = f"{stamp.format(n)} {words(rng)} id={n}"
        if rng.random() < 0.2:
            entry += "\n" + rng.choice(TRACES)
        entries.append(entry)
    return "\n".join(entries), entries


def test_an_entry_is_kept_with_its_trace_or_not_at_all() -> None:
    for seed in range(DOCUMENTS):
        text, entries = log_document(random.Random(seed))
        assert [(p.kind, text[p.start : p.end]) for p in split(text)] == [("log", entry) for entry in entries]


def test_a_deep_trace_is_cut_under_its_first_line() -> None:
    frames = "\n".join(f"    at com.example.deep.Stack.frame{n}(Stack.java:{n})" for n in range(200))
    text = f"2024-01-31 12:00:01 ERROR it broke\n{frames}\n2024-01-31 12:00:02 INFO up again"
    for kept in cuts_of(text):
        assert "frame" not in kept or "ERROR it broke" in kept
        assert all(line.strip() in text for line in kept.split("\n") if line != "…")


def test_of_a_deep_trace_both_ends_stay_together() -> None:
    frames = "\n".join(f'  File "/app/deep/module_{n}.py", line {n}, in call\n    go_on({n})' for n in range(90))
    trace = f"Traceback (most recent call last):\n{frames}\nValueError: bad value: 3"
    text = f"2024-01-31 12:00:01 ERROR it broke\n{trace}\n2024-01-31 12:00:02 INFO up"
    assert_sound(text)
    for seed in range(10):
        for kept in cuts_of(text, seed):
            assert (
                ("module_0." in kept)
                == ("ValueError: bad value: 3" in kept)
                == ("module_89." in kept)
                == ("Traceback" in kept)
            )
            assert not re.search(r"module_[1-8]", kept) or "Traceback" in kept


# --- templates ---------------------------------------------------------------------------------------------------------


def test_templates_are_what_is_the_same_in_entries() -> None:
    rng = random.Random(0)
    forms = (
        "INFO request GET /api/{} took {} ms",
        "ERROR request GET /api/{} took {} ms",
        "INFO user {name} logged in from 10.0.0.{} after {} tries",
        "INFO cache of {name} is full with {} of {} entries",
    )
    names = ("ann", "bob", "cleo", "dan")
    picks = [rng.randrange(len(forms)) for _ in range(300)]
    lines = [
        f"2024-01-31 12:00:{n % 60:02} {forms[p].format(n, n * 7, name=rng.choice(names))}" for n, p in enumerate(picks)
    ]
    found = templates_of(lines)
    assert len(set(found)) == len(forms)
    assert len(set(zip(picks, found, strict=True))) == len(forms)
    assert found[0] == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=30))
def test_the_same_entry_has_the_same_template(entries: list[str]) -> None:
    found = templates_of(entries)
    assert len(found) == len(entries)
    assert set(found) == set(range(len(set(found))))


def test_repeats_that_are_left_out_are_counted() -> None:
    beats = [f"2024-01-31 12:{n // 60:02}:{n % 60:02} INFO heartbeat {n} ok" for n in range(300)]
    lines = [*beats[:150], "2024-01-31 12:02:30 ERROR disk 7 is full", *beats[150:]]
    text = "\n".join(lines)
    best = {0: 5.0, 150: 9.0, 151: 4.0, 300: 6.0}
    ranking = ranked([text], [best.get(n, 0.0) for n in range(301)])
    cuts = (ranking.cut(budget).contexts[0] for budget in range(ranking.full_tokens))
    kept = next(cut for cut in cuts if all(lines[n] in cut.text for n in best))
    gap = "… {} more like this …"
    assert kept.text.split("\n") == [lines[0], gap.format(149), lines[150], lines[151], gap.format(148), lines[300]]
    assert [text[a:b] for a, b in kept.spans] == re.split(r"\n… \d+ more like this …\n", kept.text)


def test_the_counts_and_the_lines_add_up() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        count = rng.randint(30, 200)
        verbs = [rng.choice(("read", "wrote")) for _ in range(count)]
        lines = [f"12:00:{n % 60:02} INFO {verb} {n} bytes of file {n * 3}" for n, verb in enumerate(verbs)]
        text = "\n".join(lines)
        for kept in cuts_of(text, seed):
            position = -1
            for line in kept.split("\n"):
                counted = re.fullmatch(r"… (\d+) more like (this|those above) …", line)
                if counted:
                    position += int(counted[1]) if position >= 0 else 0
                elif line == "…":
                    position = -1
                else:
                    at = lines.index(line)
                    assert position in (-1, at)
                    position = at + 1


def test_a_line_unlike_those_above_is_never_counted_as_one() -> None:
    lines = [f"12:00:{n % 60:02} INFO heartbeat {n} ok" for n in range(40)]
    lines[20] = "12:00:20 ERROR disk is full"
    ranking = ranked(["\n".join(lines)], [9.0, *[0.0] * 38, 8.0])
    assert ranking.cut(30).contexts[0].text == f"{lines[0]}\n…\n{lines[-1]}"

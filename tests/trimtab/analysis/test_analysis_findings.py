"""Findings one by one: what must be found in forms that the planted traffic has not, and what must not be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.catalog import Catalog
from routing.offers import Usage
from tests.retrieval.fake_encoder import WordEncoder
from tests.trimtab.analysis.traffic import MILLION, PRICES, START, Maker, chat, tokens, tool
from trimtab.analysis import Prices, Recording, Report, reported, studied
from trimtab.analysis.changes import Bought, Change, Removal, applied
from trimtab.analysis.findings.documents import _holds
from trimtab.analysis.findings.tables import as_table, leaner
from trimtab.analysis.quoting import MAX_EXCERPT_CHARS, excerpt
from trimtab.analysis.shapes import shape_of

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def analysed(entries: Sequence[dict[str, Any]]) -> Report:
    requests = []
    for number, entry in enumerate(entries, 1):
        shape = shape_of(entry)
        assert shape is not None
        request = shape.read(entry, f"line {number}")
        assert request is not None
        requests.append(request)
    study, problems = studied(requests, Prices(Catalog(), NOW), WordEncoder, lambda: None)
    assert not problems
    return reported(study, Recording(requests=requests), "test")


def titles(report: Report) -> list[str]:
    return [f"{row.finding.kind}: {row.finding.title}" for row in report.rows]


def prompts(
    heads: Sequence[str], stable: Sequence[str], *, in_user: bool = False, every_s: int = 30
) -> list[dict[str, Any]]:
    """Requests that differ in their first line, with neither bills nor answers."""
    made = []
    for n, head in enumerate(heads):
        text, question = "\n".join([head, *stable]), f"Which of them is number {n}?"
        messages = [{"role": "user", "content": f"{text}\n{question}"}]
        if not in_user:
            messages = [{"role": "system", "content": text}, {"role": "user", "content": question}]
        at = START + timedelta(seconds=every_s * n)
        made.append({"at": at.isoformat(), "request": {"model": "gpt-5", "messages": messages}})
    return made


UUID = "0d0d7b6e-{:04d}-4c3e-9d3f-1f2e3d4c5b6a"


@pytest.mark.parametrize("in_user", [False, True])
@pytest.mark.parametrize(
    ("head", "what"),
    [
        (lambda n: f"Request {UUID.format(n)}", "A UUID"),
        (lambda n: f"Today is {(START + timedelta(days=n)):%A, %d %B %Y}", "A time"),
        (lambda n: f"User: user{n:02d}@example.com", "An e-mail address"),
        (lambda n: f"Trace 7f3a{n:04d}bc", "An id"),
        (lambda n: f"The customer is {['Ada', 'Bo', 'Cy', 'Di', 'Ed', 'Flo', 'Gus', 'Hal'][n]} Smith.", "A name"),
        (
            lambda n: f"The weather is {['fair', 'wet', 'dull', 'hot', 'cold', 'grey', 'fine', 'mild'][n]} today",
            "A text",
        ),
    ],
)
def test_what_breaks_a_prefix_is_named(head: Any, what: str, in_user: bool) -> None:
    """Without bills: today's reads are reckoned, and the money is the same."""
    stable = Maker(1, "stable").lines(1_500)
    (row,) = analysed(prompts([head(n) for n in range(8)], stable, in_user=in_user)).rows
    assert row.finding.title.startswith(what)
    assert ("first user message" if in_user else "system prompt") in row.finding.title
    assert row.finding.basis == "estimated"
    price, _, read = PRICES["gpt-5"]
    expected = 7 * tokens("\n".join(stable)) * (price - read) / MILLION
    assert abs(row.saved_usd - expected) <= expected / 100


def test_no_prefix_is_called_unstable_where_nothing_can_be_gained() -> None:
    maker = Maker(2, "stable")
    times = [f"Time: {START + timedelta(seconds=n)}" for n in range(8)]
    short, long = maker.lines(700), maker.lines(1_500)
    assert titles(analysed(prompts(times, short))) == []  # shorter than OpenAI's cache takes
    assert titles(analysed(prompts(times, long, every_s=900))) == []  # forgotten before the next one comes
    assert titles(analysed(prompts(times[:4], long))) == []  # too few to say what stays
    assert titles(analysed(prompts(["Be brief."] * 8, long))) == []
    late = prompts(["Be brief."] * 8, [*long, "{}"])
    for n, entry in enumerate(late):  # the time stands behind all that stays
        system = entry["request"]["messages"][0]
        system["content"] = system["content"].replace("{}", times[n])
    assert titles(analysed(late)) == []


def test_what_a_cache_reads_today_is_no_gain() -> None:
    """The time stands in the middle: OpenAI caches what is before it by itself."""
    before, after = Maker(1, "before").lines(1_300), Maker(1, "after").lines(1_300)
    entries = prompts(["Be brief."] * 8, [*before, "Time: {}", *after])
    for n, entry in enumerate(entries):
        system = entry["request"]["messages"][0]
        system["content"] = system["content"].replace("{}", str(START + timedelta(seconds=n)))
    price, _, read = PRICES["gpt-5"]
    (reckoned,) = analysed(entries).rows
    expected = 7 * tokens("\n".join(after)) * (price - read) / MILLION
    assert abs(reckoned.saved_usd - expected) <= expected / 100
    for entry in entries:  # as a provider's bill would say it
        usage = {"prompt_tokens": 2_700, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 1_280}}
        entry["response"] = {"usage": usage}
    (measured,) = analysed(entries).rows
    assert measured.finding.basis == "measured"
    assert abs(measured.saved_usd - expected) <= expected / 50


def test_a_prefix_that_anthropic_is_not_asked_to_cache() -> None:
    stable = "\n".join(Maker(3, "stable").lines(5_000))
    entries = [
        {
            "at": (START + timedelta(seconds=60 * n)).isoformat(),
            "request": {
                "model": "claude-sonnet-5",
                "max_tokens": 100,
                "system": stable,
                "messages": [{"role": "user", "content": f"Which is number {n}?"}],
            },
        }
        for n in range(10)
    ]
    (row,) = analysed(entries).rows
    assert row.finding.kind == "unmarked-prefix"
    # the first one writes at 2.50 what it now pays 2.00 for, the nine others read at 0.20
    expected = tokens(stable) * (9 * (Decimal("2") - Decimal("0.2")) - Decimal("0.5")) / MILLION
    assert abs(row.saved_usd - expected) <= expected / 100
    for entry in entries:
        entry["request"]["system"] = [{"type": "text", "text": stable, "cache_control": {"type": "ephemeral"}}]  # type: ignore[index]
    assert titles(analysed(entries)) == []


def test_without_times_there_is_no_day_and_it_is_said() -> None:
    entries = prompts([f"Time: {START + timedelta(seconds=n)}" for n in range(8)], Maker(4, "x").lines(1_500))
    for entry in entries:
        del entry["at"]
    report = analysed(entries)
    (row,) = report.rows
    assert (report.days, row.day_usd, report.to_dict()["together_usd_per_day"]) == (None, None, None)
    assert "no times are recorded" in row.finding.reckoned
    assert row.saved_usd > 0


def test_a_day_is_the_window_s_share() -> None:
    entries = prompts([f"Time: {START + timedelta(seconds=n)}" for n in range(8)], Maker(4, "x").lines(1_500))
    late = {"at": (START + timedelta(days=4)).isoformat(), "request": chat("gpt-5", "Be brief.", "Is it late?")}
    report = analysed([*entries, late])
    assert report.days == 4
    assert report.rows[0].day_usd == report.rows[0].saved_usd / 4


def test_batches_are_only_claimed_with_evidence() -> None:
    maker = Maker(5, "job")
    system = maker.document(120)

    def sent(count: int, start: datetime, every_s: float = 20, **beside: Any) -> list[dict[str, Any]]:
        return [
            {
                "at": (start + timedelta(seconds=every_s * n)).isoformat(),
                "request": chat("gpt-5", system, maker.question(), **beside.get("body", {})),
                **{name: value for name, value in beside.items() if name != "body"},
            }
            for n in range(count)
        ]

    night = START.replace(hour=2)
    assert titles(analysed(sent(40, START))) == []  # many alike by day: it may be a chat
    assert titles(analysed(sent(20, night))) == []  # few by night
    assert titles(analysed(sent(40, night, every_s=300))) == []  # no burst
    assert titles(analysed(sent(40, START, metadata={"route": "job-search"}))) == []  # a search for jobs is none
    assert titles(analysed(sent(40, START, tags=["nightly"], body={"stream": True}))) == []
    assert titles(analysed(sent(40, START, user_agent="cron/1.0", conversation_id="c"))) == []
    assert titles(analysed(sent(40, START, tags=["cron"], user_agent="Mozilla/5.0 (X11) Firefox"))) == []
    assert titles(analysed(sent(40, START, tags=["nightly"], body={"service_tier": "flex"}))) == []
    (burst,) = analysed(sent(40, night)).rows
    assert (burst.finding.kind, len(burst.requests)) == ("could-wait", 40)
    (cron,) = analysed(sent(12, START, user_agent="cron/1.0")).rows
    assert cron.finding.excerpts == ("cron/1.0",)
    half = PRICES["gpt-5"][0] / 2
    assert abs(cron.saved_usd - cron_tokens(system, maker, 12) * half / MILLION) < Decimal("0.0005")


def cron_tokens(system: str, maker: Maker, count: int) -> int:
    return count * (tokens(system) + tokens(maker.question()) + 8)


def test_tools_that_are_called_or_not_known_to_be_silent_are_left_alone() -> None:
    maker = Maker(6, "tools")
    tools = [tool(maker, "used", 60), tool(maker, "idle", 60), {"type": "web_search"}]
    call = {"id": "c", "type": "function", "function": {"name": "used", "arguments": "{}"}}
    answer = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}}]}
    entries = [
        {"request": chat("gpt-5", "Be brief.", maker.question(), tools=tools), "response": answer} for _ in range(20)
    ]
    (row,) = analysed(entries).rows
    assert "idle" in row.finding.advice
    assert "used" not in row.finding.advice.replace("unused", "")
    assert titles(analysed(entries[:19])) == []  # too few
    assert titles(analysed([{"request": entry["request"]} for entry in entries])) == []  # no answers: nobody knows
    entries[3] = {"request": chat("gpt-5", "Be brief.", "Go on.", tools=tools)}
    entries[3]["request"]["messages"][1:1] = [  # type: ignore[call-overload]
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call | {"function": {"name": "idle", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "Nothing."},
    ]
    assert titles(analysed(entries)) == []  # it was called before


def test_rows_that_are_no_copies_are_left_alone() -> None:
    maker = Maker(7, "docs")
    one = maker.document(150)
    words = one.split()
    for changed in ("41 percent", "never", "Zürich"):  # a number, a negation, a name
        a, b = words[:], words[:]
        a[40:40], b[40:40] = ["and", "40", "percent"], ["and", *changed.split()]
        user = f"<document>\n{' '.join(a)}\n</document>\n<document>\n{' '.join(b)}\n</document>\n\n{maker.question()}"
        assert titles(analysed([{"request": chat("gpt-5", "Be brief.", user)}])) == [], changed
    assert _holds("It may rise by 4 % in Rome.", "It may rise by 4 %.")
    assert not _holds("It may rise by 4 %.", "It may not rise by 4 %.")


def test_log_lines_and_short_phrases_may_repeat() -> None:
    line = "2026-11-16 09:00:00 ERROR the connection to the payment service at host seven was refused, " + "again " * 9
    text = "\n".join([line, "Yes, it is.", line, "Yes, it is.", line])
    assert titles(analysed([{"request": chat("gpt-5", "Be brief.", text)}])) == []


def test_five_examples_are_no_block_and_examples_of_one_request_are_content() -> None:
    maker = Maker(8, "shots")
    shots = [f"Example {n}:\n{maker.document(150)}\nLabel: no\n" for n in range(1, 9)]
    few = [{"request": chat("gpt-5", "\n".join(shots[:5]), maker.question())} for _ in range(6)]
    assert titles(analysed(few)) == []
    one = [{"request": chat("gpt-5", "Be brief.", "\n".join(shots))}]
    assert titles(analysed(one)) == []
    tagged = "\n".join(f"<example>{maker.document(150)}</example>" for _ in range(8))
    turns = [{"role": role, "content": maker.document(60)} for _ in range(8) for role in ("user", "assistant")]
    for request in (
        lambda: chat("gpt-5", tagged, maker.question()),
        lambda: {"model": "gpt-5", "messages": [*turns, {"role": "user", "content": maker.question()}]},
    ):
        (row,) = analysed([{"request": request()} for _ in range(4)]).rows  # type: ignore[no-untyped-call]
        assert (row.finding.kind, row.finding.title[:10]) == ("oversized-examples", "8 examples")


def test_json_is_only_called_tabular_where_a_table_holds_all_of_it() -> None:
    rows = [{"id": n, "name": "Ada, L.", "note": None, "ok": True} for n in range(20)]
    assert as_table(rows[:4]) is None
    assert as_table([*rows, {"id": 3}]) is None
    assert as_table([{**row, "tags": ["a"]} for row in rows]) is None
    assert as_table([1, 2, 3, 4, 5]) is None
    (lean,) = leaner(f"Rows: {json.dumps(rows)} and no more.", "o200k_base")
    assert lean.tabular
    (within,) = leaner(json.dumps({"count": 20, "results": rows}), "o200k_base")
    assert json.dumps({"count": 20, "results": rows})[within.start : within.end] == json.dumps(rows)
    nested = {"a": {"b": [{"c": "some words to make it long", "d": {"e": [1, 2, 3]}} for _ in range(20)]}}
    (indented,) = leaner(json.dumps(nested, indent=4), "o200k_base")
    assert not indented.tabular
    assert leaner(json.dumps(nested), "o200k_base") == ()


def test_limits_near_use_are_left_alone_and_far_ones_cost_nothing() -> None:
    maker = Maker(9, "limits")
    entries = []
    for n in range(25):
        usage = {"prompt_tokens": 100, "completion_tokens": 100 + n}
        entries.append(
            {"request": chat("gpt-5", "Be brief.", maker.question(), max_tokens=900), "response": {"usage": usage}}
        )
    assert titles(analysed(entries)) == []
    for entry in entries:
        entry["request"]["max_tokens"] = 9_000
    (row,) = analysed(entries).rows
    assert (row.finding.kind, row.saved_usd) == ("far-limit", 0)
    assert "Set it to 300" in row.finding.advice
    assert "no dollars" in row.finding.reckoned


def test_a_model_without_a_price_is_in_no_dollar() -> None:
    entries = prompts([f"Time: {START + timedelta(seconds=n)}" for n in range(8)], Maker(4, "x").lines(1_500))
    for entry in entries:
        entry["request"]["model"] = "house-model-1"
    report = analysed(entries)
    assert report.unpriced == (("house-model-1", 8),)
    assert (report.spent_usd, report.together_usd) == (0, 0)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop123456",
        "Bearer abc.def",
        "eyJhbGciOiJIUzI1NiJ9.e30.x",
        "ghp_abcdefghijklmnop1234",
        "password: hunter2",
    ],
)
def test_excerpts_are_short_and_hold_no_key(secret: str) -> None:
    told = excerpt(f"Use this:\n{secret} {'and more ' * 50}")
    assert len(told) <= MAX_EXCERPT_CHARS
    assert secret.rpartition(" ")[2] not in told
    assert "[secret]" in told


REMOVALS = st.lists(
    st.builds(
        Removal, st.integers(0, 2), st.integers(0, 20), st.integers(21, 40), st.integers(0, 300), st.integers(0, 900)
    ),
    max_size=4,
)
CHANGES = st.lists(
    st.builds(
        Change,
        request=st.just(0),
        removed=REMOVALS.map(tuple),
        at_most_tokens=st.none() | st.integers(0, 1_500),
        cached_tokens=st.integers(0, 1_500),
        read_today_tokens=st.integers(0, 1_500),
        writes=st.booleans(),
        minimum_tokens=st.integers(0, 1_024),
        prefix_parts=st.frozensets(st.integers(0, 2)),
    ),
    max_size=4,
)


@given(changes=CHANGES, read=st.integers(0, 500), written=st.integers(0, 500), plain=st.integers(0, 500))
def test_no_change_makes_an_impossible_bill(changes: list[Change], read: int, written: int, plain: int) -> None:
    """Usage refuses counts that contradict each other, so that there is one at all is the test."""
    before = Bought("m", "sync", Usage(read + written + plain, 10, read, written))
    after = applied(before, changes).usage
    assert 0 <= after.input_tokens <= before.usage.input_tokens
    assert after.output_tokens == 10
    assert applied(before, []) == before


def test_what_is_removed_twice_is_removed_once() -> None:
    before = Bought("m", "sync", Usage(1_000, 10, 200, 0))
    a, b, c = Removal(0, 0, 50, 100, 500), Removal(0, 40, 90, 60, 500), Removal(1, 0, 9, 30, 100)
    assert applied(before, [Change(0, (a, c)), Change(0, (b,))]).usage == Usage(870, 10, 170, 0)

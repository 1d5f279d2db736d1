"""Agent transcripts, made from a seed: a task, then calls whose outputs hold what later calls need.

Each trace is a chain of identifiers. A tool gives back a page of look-alikes (JSON records, logs, tables, code, settings, a
runbook), one of which holds the identifiers that the next calls, or calls ten turns later, will ask with. The task does
not say which: that is what makes agents' outputs hard to cut. Pure; nothing in it was seen in training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SYSTEM = (
    "You are an operations agent. Work step by step with the tools. Use identifiers exactly as the tools gave them, and "
    "never guess one."
)

# fmt: off
_WORDS = (
    "amber", "ardent", "basalt", "beacon", "cedar", "cobalt", "copper", "coral", "delta", "drift", "ember",
    "fathom", "flint", "garnet", "glade", "granite", "harbor", "hazel", "indigo", "iris", "jasper", "juniper",
    "keel", "lantern", "larch", "linden", "magnet", "maple", "marble", "meadow", "mica", "nimbus", "oak", "onyx",
    "opal", "osprey", "pine", "prism", "quarry", "quartz", "raven", "reed", "ridge", "river", "rowan", "saffron",
    "sierra", "slate", "sorrel", "spruce", "tarn", "thistle", "tundra", "umber", "vale", "willow", "yarrow",
    "zephyr",
)
# fmt: on
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class Step:
    """One call and what came back. `needs`: what its arguments say that only an earlier output can have told."""

    tool: str
    arguments: Mapping[str, str]
    output: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole run. `answer` is what the last message has to name."""

    name: str
    task: str
    steps: tuple[Step, ...]
    answer: tuple[str, ...]

    def messages(self, outputs: int) -> list[dict[str, Any]]:
        """The request after `outputs` outputs have come back, as an agent sends it: nothing left out."""
        sent: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.task}]
        for number, step in enumerate(self.steps[:outputs]):
            arguments = json.dumps(step.arguments)
            function = {"name": step.tool, "arguments": arguments}
            call = {"id": f"call_{number:02d}", "type": "function", "function": function}
            sent.append({"role": "assistant", "content": None, "tool_calls": [call]})
            sent.append({"role": "tool", "tool_call_id": call["id"], "content": step.output})
        return sent

    def needs(self, outputs: int) -> tuple[str, ...]:
        """What has to stand in that request, for the next call or the answer to be right."""
        return self.answer if outputs == len(self.steps) else self.steps[outputs].needs


Rows = Sequence[tuple[str, Mapping[str, str]]]
"""What a tool's output is made of: (reference, facts by label), one of which was asked for and the rest look like it."""

Shape = Callable[[random.Random, Rows], str]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A step before its values are drawn: labels of facts that it asks with and that its output shows."""

    tool: str
    asks: tuple[str, ...]
    shows: tuple[str, ...]
    shape: Shape
    rows: int


@dataclass(frozen=True, slots=True)
class _Story:
    """`facts` are patterns: # is a letter or digit, % a digit, @ a word."""

    name: str
    task: str
    facts: Mapping[str, str]
    plans: tuple[_Plan, ...]
    answer: tuple[str, ...]


def traces(seed: int, count: int) -> tuple[Trace, ...]:
    """`count` traces, the stories in turn, each with values of its own."""
    return tuple(_trace(_STORIES[n % len(_STORIES)], random.Random(f"{seed}:{n}"), n) for n in range(count))


def _trace(story: _Story, dice: random.Random, number: int) -> Trace:
    facts = {label: drawn(pattern, dice) for label, pattern in story.facts.items()}
    task = story.task.format(**facts)
    said = task
    steps = []
    for plan in story.plans:
        asked = {label: facts[label] for label in plan.asks}
        output = plan.shape(dice, _rows(dice, plan, facts, story.facts))
        steps.append(Step(plan.tool, asked, output, tuple(v for v in asked.values() if v not in said)))
        said += json.dumps(asked)  # a value that a call has named stands in the transcript whatever is cut
    answer = tuple(facts[label] for label in story.answer if facts[label] not in said)
    return Trace(f"{story.name}-{number}", task, tuple(steps), answer)


def drawn(pattern: str, dice: random.Random) -> str:
    """A value of the pattern: "pay_####%%" may become "pay_k3xq07"."""
    draw = {"#": lambda: dice.choice(_ALPHABET), "%": lambda: str(dice.randrange(10)), "@": lambda: dice.choice(_WORDS)}
    return "".join(draw[sign]() if sign in draw else sign for sign in pattern)


# --- shapes of output: one row that was asked for, among look-alikes ----------------------------------------------------


def records(dice: random.Random, rows: Rows) -> str:
    """A page of an API: JSON objects of one shape."""
    status = ("open", "settled", "pending", "archived")
    items = [
        {
            "ref": ref,
            **values,
            "status": dice.choice(status),
            "updated_at": _moment(dice),
            "amount": {"value": dice.randrange(100, 90_000), "currency": dice.choice(("EUR", "USD", "GBP"))},
            "links": {"self": f"/v2/items/{drawn('######', dice)}", "events": dice.randrange(40)},
        }
        for ref, values in rows
    ]
    return json.dumps({"data": items, "has_more": False, "request_id": drawn("rq_##########", dice)}, indent=2)


def log(dice: random.Random, rows: Rows) -> str:
    """Lines of a service's log around the one that matters."""
    lines = []
    for ref, values in rows:
        fields = " ".join(f"{label}={value}" for label, value in (("ref", ref), *values.items()))
        level = dice.choice(("INFO", "INFO", "INFO", "DEBUG", "WARN"))
        took = dice.randrange(3, 900)
        lines.append(f"{_moment(dice)} {level} worker-{dice.randrange(8)} handled {fields} in {took}ms")
    return "\n".join(lines)


def table(dice: random.Random, rows: Rows) -> str:
    """A Markdown table, as a console prints a query."""
    lines = [f"| ref | {' | '.join(rows[0][1])} | rows | updated |", "|---" * (len(rows[0][1]) + 3) + "|"]
    for ref, values in rows:
        lines.append(f"| {ref} | {' | '.join(values.values())} | {dice.randrange(9000)} | {_moment(dice)[:10]} |")
    return "\n".join(lines)


def csv(dice: random.Random, rows: Rows) -> str:
    """An export with a header."""
    lines = [",".join(("ref", *rows[0][1], "quantity", "exported_at"))]
    for ref, values in rows:
        lines.append(",".join((ref, *values.values(), str(dice.randrange(500)), _moment(dice))))
    return "\n".join(lines)


def code(dice: random.Random, rows: Rows) -> str:
    """A Python module of small functions, each with names of its own in it."""
    parts = ["from __future__ import annotations", "", "import logging", "", "logger = logging.getLogger(__name__)"]
    for ref, values in rows:
        name = drawn("@_@", dice)
        parts += ["", "", f"def {name}(batch, retries={dice.randrange(1, 6)}):", f'    """For {ref}."""']
        parts += [f"    {label} = {value!r}" for label, value in values.items()]
        parts += [f"    for item in batch[:{dice.randrange(10, 400)}]:", f"        logger.debug('{name} %s', item)"]
        parts += [f"    return send(batch, {', '.join(values) or 'None'}, retries)"]
    return "\n".join(parts)


def settings(dice: random.Random, rows: Rows) -> str:
    """A TOML file of many sections."""
    parts = []
    for ref, values in rows:
        own = [f'{label} = "{value}"' for label, value in values.items()]
        parts += [
            f'["{ref}"]',
            *own,
            f"timeout_s = {dice.randrange(1, 90)}",
            f"enabled = {dice.choice(('true', 'false'))}",
            "",
        ]
    return "\n".join(parts)


def runbook(dice: random.Random, rows: Rows) -> str:
    """Prose with rules, one paragraph a case."""
    parts = []
    for ref, values in rows:
        told = " and ".join(f"the {label.replace('_', ' ')} {value}" for label, value in values.items())
        days, team = dice.randrange(1, 30), drawn("@-@", dice)
        parts.append(
            f"For cases of {ref}, use {told}. The team {team} confirms within {days} days; without a reply the case goes "
            f"back to the queue it came from, and the note of the first reader stays with it."
        )
    return "\n\n".join(parts)


def small(dice: random.Random, rows: Rows) -> str:
    """A short answer to a write."""
    ref, values = rows[0]
    return json.dumps({"ok": True, "ref": ref, **values, "at": _moment(dice)})


def _rows(dice: random.Random, plan: _Plan, facts: Mapping[str, str], patterns: Mapping[str, str]) -> Rows:
    """The row that `plan` asks for at a place drawn by lot, among others drawn by the same patterns."""
    label, place = plan.asks[0], dice.randrange(plan.rows)
    return [
        (facts[label], {name: facts[name] for name in plan.shows})
        if number == place
        else (drawn(patterns[label], dice), {name: drawn(patterns[name], dice) for name in plan.shows})
        for number in range(plan.rows)
    ]


def _moment(dice: random.Random) -> str:
    return f"2026-11-{dice.randrange(1, 25):02d}T{dice.randrange(24):02d}:{dice.randrange(60):02d}:{dice.randrange(60):02d}Z"


_STORIES = (
    _Story(
        "double-charge",
        "A customer says that order {order} was charged twice. Find out which release caused it and which other order it "
        "hit, refund the second charge through the account that the runbook names, and open a ticket with whoever is on "
        "call. Name the release, the other order, the refund and the ticket.",
        {
            "order": "ord-%%%%%%",
            "customer": "cus_########",
            "first_payment": "pay_##########",
            "second_payment": "pay_##########",
            "shipment": "shp-%%%%-##",
            "gateway_ref": "gw/####/%%%%%%%",
            "trace": "tr-########%%",
            "host": "@-@-%%",
            "release": "@-2026.%%.%",
            "commit": "##########",
            "path": "services/@/@_@.py",
            "setting": "@.@_window",
            "flag": "ff-@-@-%%",
            "owner": "team-@-@",
            "segment": "seg_######",
            "other_order": "ord-%%%%%%",
            "account": "ACC-%%%%-%%%%",
            "carrier_ref": "CR%%%%%%%%",
            "on_call": "@.@%%",
            "refund": "re_##########",
            "ticket": "OPS-%%%%%",
        },
        (
            _Plan("get_order", ("order",), ("customer", "first_payment", "second_payment", "shipment"), records, 12),
            _Plan("list_payments", ("customer",), ("gateway_ref",), records, 16),
            _Plan("search_logs", ("second_payment",), ("trace",), log, 45),
            _Plan("get_trace", ("trace",), ("host", "release"), records, 14),
            _Plan("list_deployments", ("release",), ("commit",), table, 45),
            _Plan("show_commit", ("commit",), ("path",), table, 40),
            _Plan("read_file", ("path",), ("setting",), code, 16),
            _Plan("read_settings", ("setting",), ("flag",), settings, 40),
            _Plan("get_flag", ("flag",), ("owner", "segment"), records, 14),
            _Plan("query_orders", ("segment",), ("other_order",), csv, 60),
            _Plan("read_runbook", ("owner",), ("account",), runbook, 18),
            _Plan("get_payment", ("first_payment",), (), records, 12),
            _Plan("track_shipment", ("shipment",), ("carrier_ref",), log, 40),
            _Plan("get_schedule", ("host",), ("on_call",), table, 40),
            _Plan("create_refund", ("gateway_ref", "account"), ("refund",), small, 1),
            _Plan("open_ticket", ("on_call", "carrier_ref"), ("ticket",), small, 1),
        ),
        ("release", "other_order", "refund", "ticket"),
    ),
    _Story(
        "nightly-export",
        "The nightly export {job} has been empty since Tuesday. Find the table and the migration behind it, restore the "
        "partition from the last good snapshot, run it again, and tell the people who consume it. Name the migration, the "
        "snapshot, the new run and the consumer.",
        {
            "job": "exp-@-%%",
            "run": "run_%%%%%%%%",
            "queue": "q-@-@",
            "dataset": "@_@_daily",
            "bucket": "s3-@-%%%",
            "query_id": "qry-##########",
            "warehouse": "wh_@_%%%",
            "column": "@_@_key",
            "migration": "m%%%%_@_@",
            "author": "@.@",
            "module": "jobs/@/@.py",
            "table_name": "fct_@_@",
            "partition": "p2026%%%%_##",
            "snapshot": "snap-%%%%%%-####",
            "key_alias": "kms/@-%%",
            "consumer": "team-@-%%",
            "channel": "ch_########",
            "policy": "ret-@-%%",
            "approval": "APR-%%%%%",
            "new_run": "run_%%%%%%%%",
            "notice": "msg_########",
        },
        (
            _Plan("list_runs", ("job",), ("run", "queue", "consumer"), table, 45),
            _Plan("get_run", ("run",), ("query_id", "bucket"), records, 14),
            _Plan("search_logs", ("query_id",), ("warehouse", "column"), log, 45),
            _Plan("describe_column", ("column",), ("table_name", "migration"), csv, 50),
            _Plan("show_migration", ("migration",), ("author", "module"), code, 15),
            _Plan("read_file", ("module",), ("dataset",), code, 16),
            _Plan("list_partitions", ("table_name",), ("partition",), table, 50),
            _Plan("read_settings", ("dataset",), ("policy", "key_alias"), settings, 36),
            _Plan("read_runbook", ("policy",), ("approval",), runbook, 18),
            _Plan("list_snapshots", ("partition",), ("snapshot",), records, 16),
            _Plan("get_bucket", ("bucket",), (), records, 12),
            _Plan("get_warehouse", ("warehouse",), (), log, 40),
            _Plan("list_channels", ("consumer",), ("channel",), csv, 55),
            _Plan("restore", ("snapshot", "key_alias", "approval"), (), small, 1),
            _Plan("start_run", ("queue",), ("new_run",), small, 1),
            _Plan("post_notice", ("channel", "author"), ("notice",), small, 1),
        ),
        ("new_run", "notice"),
    ),
    _Story(
        "flaky-upgrade",
        "After the upgrade in merge request {change} one test fails on some machines only. Find the fixture and the pin "
        "behind it, mend the pin, run the test again on the machine where it failed, and hand it to the owner of the "
        "module. Name the test, the pin, the new build and the review.",
        {
            "change": "mr-%%%%%",
            "pipeline": "pl-%%%%%%%",
            "branch": "@/@-@",
            "job_id": "jb_########",
            "test": "test_@_@_%%",
            "runner": "rn-@-%%",
            "fixture": "@_@_fixture",
            "file": "tests/@/@_test.py",
            "module": "lib/@/@_@.py",
            "symbol": "@_@_handle",
            "package": "@-@",
            "pin": "%.%%.%+######",
            "lock_digest": "sha-############",
            "mirror": "mx-@-%%",
            "image": "img/@:%%%%",
            "owner": "@-@-%%",
            "rule": "own-%%%%",
            "token_name": "tok_@_%%",
            "new_build": "bd_%%%%%%%%",
            "review": "rv-%%%%%%",
        },
        (
            _Plan("get_change", ("change",), ("pipeline", "branch"), records, 14),
            _Plan("list_jobs", ("pipeline",), ("job_id", "runner", "image"), table, 45),
            _Plan("read_job_log", ("job_id",), ("test",), log, 50),
            _Plan("find_test", ("test",), ("file", "fixture"), csv, 55),
            _Plan("read_file", ("file",), ("module",), code, 16),
            _Plan("find_fixture", ("fixture",), ("symbol",), code, 15),
            _Plan("read_file", ("module",), ("package",), code, 16),
            _Plan("read_lock", ("package",), ("pin", "lock_digest"), settings, 40),
            _Plan("list_mirrors", ("lock_digest",), ("mirror",), records, 15),
            _Plan("find_symbol", ("symbol",), ("rule",), table, 45),
            _Plan("read_owners", ("rule",), ("owner",), runbook, 18),
            _Plan("get_runner", ("runner",), ("token_name",), records, 14),
            _Plan("probe_mirror", ("mirror",), (), log, 40),
            _Plan("commit_pin", ("branch", "pin"), (), small, 1),
            _Plan("run_test", ("image", "token_name"), ("new_build",), small, 1),
            _Plan("ask_review", ("owner",), ("review",), small, 1),
        ),
        ("new_build", "review"),
    ),
)

"""Recorded traffic, made from a seed: applications that send requests, some of them with one planted fault each.

What each fault costs is worked out here, by hand: from prices written down below, from the texts as they were put together,
and with tiktoken alone. Nothing of the analyser is used.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from compressor.tokens import encoding

START = datetime(2026, 11, 16, 9, tzinfo=UTC)
Entry = dict[str, Any]

MILLION = Decimal(1_000_000)
# Dollars a million tokens, as the makers list them: input, output, cache read, cache write.
PRICES = {
    "gpt-6.1-sol": (Decimal("2"), Decimal("10"), Decimal("0.1")),
    "gpt-5": (Decimal("1.25"), Decimal("10"), Decimal("0.125")),
    "gpt-5-mini": (Decimal("0.25"), Decimal("2"), Decimal("0.025")),
    "claude-sonnet-5": (Decimal("2"), Decimal("10"), Decimal("0.2")),
}
SONNET_WRITE = Decimal("2.5")
SONNET_BATCH = (Decimal("1"), Decimal("5"))
HAIKU_BELOW, HAIKU_ABOVE = (Decimal("0.1"), Decimal("0.5")), (Decimal("0.5"), Decimal("2.5"))

_WORDS = tuple(
    re.findall(
        r"\w+",
        """
        harbour ledger window copper meadow signal border engine garden letter market native orchard parcel quarry
        river saddle temple valley winter anchor basket candle desert ember forest glacier hollow island jacket kettle
        lantern mirror needle orange pepper quiver ribbon shelter timber umbrella velvet whistle yellow zephyr almond
        barrel cotton dagger eagle falcon gravel hammer iron jasper kernel linen marble nectar oyster pillar quartz
        rocket silver tunnel carries follows touches reaches crosses shapes holds covers measures repairs colours
        reports watches gathers folds under over beside between against within beyond near past through slowly often
        rarely soon later twice quietly
        """,
    )
)


def tokens(text: str) -> int:
    return len(encoding("o200k_base").encode_ordinary(text))


@dataclass(frozen=True)
class Fault:
    """What was planted: in which requests, and what it costs over the recording."""

    kind: str
    ids: frozenset[str]
    saved_usd: Decimal
    says: str = ""


@dataclass
class Traffic:
    entries: list[Entry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class Maker:
    """Writes texts and requests. Each application gets a maker of its own, so that none changes another's texts."""

    def __init__(self, seed: int, name: str) -> None:
        self.random = random.Random(f"{seed} {name}")
        self.name = name
        self.entries: list[Entry] = []

    def sentence(self, words: int = 14) -> str:
        said = [self.random.choice(_WORDS) for _ in range(words)]
        return " ".join([said[0].capitalize(), *said[1:]]) + "."

    def lines(self, target_tokens: int) -> list[str]:
        """Sentences, a line each, of about so many tokens."""
        made: list[str] = []
        while sum(map(tokens, made)) < target_tokens:
            made.append(self.sentence())
        return made

    def document(self, target_tokens: int) -> str:
        return " ".join(self.lines(target_tokens))

    def question(self) -> str:
        a, b, c = (self.random.choice(_WORDS) for _ in range(3))
        return f"Prove that for every prime p above {self.random.randint(10, 9999)} the {a} of {b} and {c} is bounded by p^2 + 1."

    def add(
        self,
        body: dict[str, Any],
        at: datetime,
        input_tokens: int,
        *,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        written_tokens: int = 0,
        calls: str = "",
        **beside: Any,
    ) -> str:
        """Note a request with its answer; its id."""
        id_ = f"{self.name}-{len(self.entries):04d}"
        output_tokens = output_tokens or self.random.randint(80, 160)
        if body["model"].startswith("claude"):
            block = (
                {"type": "tool_use", "id": "t", "name": calls, "input": {}}
                if calls
                else {"type": "text", "text": "Yes."}
            )
            usage = {
                "input_tokens": input_tokens - cached_tokens - written_tokens,
                "output_tokens": output_tokens,
                "cache_read_input_tokens": cached_tokens,
                "cache_creation_input_tokens": written_tokens,
            }
            answer = {"type": "message", "role": "assistant", "content": [block], "usage": usage}
        else:
            message: dict[str, Any] = {"role": "assistant", "content": "Yes."}
            if calls:
                message["tool_calls"] = [
                    {"id": "t", "type": "function", "function": {"name": calls, "arguments": "{}"}}
                ]
            details = {"cached_tokens": cached_tokens}
            usage = {
                "prompt_tokens": input_tokens,
                "completion_tokens": output_tokens,
                "prompt_tokens_details": details,
            }
            answer = {"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}
        self.entries.append({"id": id_, "at": at.isoformat(), "request": body, "response": answer, **beside})
        return id_


def chat(model: str, system: str, user: str, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        **more,
    }


def size(*texts: str) -> int:
    """About what a provider would bill; only ever used as a recorded figure."""
    return sum(map(tokens, texts)) + 4 * len(texts)


def documents(texts: list[str]) -> str:
    return "\n".join(f'<document id="{n}">\n{text}\n</document>' for n, text in enumerate(texts, 1))


# --- applications with a fault ----------------------------------------------------------------------------------------


def timestamp(maker: Maker) -> Fault:
    """The time of day in the second line of a long system prompt: OpenAI's automatic cache never hits."""
    stable, ids = maker.lines(2_200), []
    for n in range(60):
        at = START + timedelta(seconds=40 * n)
        system = "\n".join([stable[0], f"Current time: {at.isoformat()}", *stable[1:]])
        question = maker.question()
        ids.append(maker.add(chat("gpt-6.1-sol", system, question), at, size(system, question)))
    price, _, read = PRICES["gpt-6.1-sol"]
    # the first one has nothing to read; all others come within five minutes
    return Fault(
        "unstable-prefix", frozenset(ids[1:]), 59 * tokens("\n".join(stable)) * (price - read) / MILLION, "A time"
    )


def user_name(maker: Maker) -> Fault:
    """The user's name at the top of a marked prefix on Anthropic's wire: every request writes the cache, none reads it."""
    stable, ids = maker.lines(5_000), []
    stable_tokens = tokens("\n".join(stable))
    for n in range(40):
        first, last = maker.random.choice(["Ada", "Bo", "Cleo", "Dmitri"]), maker.random.choice(["Lopez", "Okafor"])
        name = f"{first} {last}{chr(97 + n // 26)}{chr(97 + n % 26)}"
        system = "\n".join([f"You are talking to {name}.", *stable])
        question = maker.question()
        body = {
            "model": "claude-sonnet-5",
            "max_tokens": 400,
            "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": question}],
        }
        total = size(system, question)
        # an hour later for the second half: the cache has forgotten by then, and is written once more
        at = START + timedelta(seconds=50 * n, hours=n // 20)
        ids.append(maker.add(body, at, total, written_tokens=tokens(system)))
    read = PRICES["claude-sonnet-5"][2]
    reads = [id_ for n, id_ in enumerate(ids) if n not in (0, 20)]
    saved = len(reads) * stable_tokens * (SONNET_WRITE - read) / MILLION
    return Fault("unstable-prefix", frozenset(reads), saved, "A name")


def tool(maker: Maker, name: str, target_tokens: int) -> dict[str, Any]:
    fields = {
        f"field_{n}": {"type": "string", "description": maker.sentence()} for n in range(max(1, target_tokens // 22))
    }
    schema = {"type": "object", "properties": fields}
    return {"type": "function", "function": {"name": name, "description": maker.sentence(), "parameters": schema}}


def tool_order(maker: Maker) -> Fault:
    """The same tools, shuffled for each request."""
    tools = [tool(maker, f"look_up_{n}", 260) for n in range(7)]
    system, ids, stable = maker.sentence(), [], 0
    stable = tokens(system) + sum(tokens(json.dumps(each, separators=(",", ":"))) for each in tools)
    for n in range(40):
        shuffled = tools[:]
        while n and shuffled[0] is tools[(n - 1) % 7]:
            maker.random.shuffle(shuffled)
        # a rotation, so that no request begins like any of the last minutes
        shuffled = tools[n % 7 :] + tools[: n % 7]
        question = maker.question()
        body = chat("gpt-5", system, question, tools=shuffled)
        at = START + timedelta(minutes=4 * n)
        ids.append(maker.add(body, at, stable + size(question), calls=f"look_up_{n % 7}"))
    price, _, read = PRICES["gpt-5"]
    return Fault("unstable-prefix", frozenset(ids[1:]), 39 * stable * (price - read) / MILLION, "The same tools")


def unused_tools(maker: Maker) -> Fault:
    tools = [tool(maker, f"crm_{n}", 90) for n in range(6)]
    system, ids = maker.document(60), []
    idle = tools[4:]
    for n in range(40):
        question = maker.question()
        body = chat("gpt-5-mini", system, question, tools=tools)
        total = size(system, question) + sum(tokens(json.dumps(each)) for each in tools)
        ids.append(maker.add(body, START + timedelta(minutes=20 * n), total, calls=f"crm_{n % 4}"))
    gone = sum(tokens(json.dumps(each, separators=(",", ":"))) for each in idle)
    return Fault("unused-tools", frozenset(ids), 40 * gone * PRICES["gpt-5-mini"][0] / MILLION, "2 tools")


def repeated(maker: Maker) -> Fault:
    """Retrieval returns one chunk twice."""
    system, ids, gone = maker.document(80), [], 0
    for n in range(30):
        texts = [maker.document(180) for _ in range(4)]
        texts.append(texts[n % 3])
        user = f"{documents(texts)}\n\n{maker.question()}"
        gone += tokens(texts[-1])
        ids.append(maker.add(chat("gpt-5", system, user), START + timedelta(minutes=25 * n), size(system, user)))
    return Fault("repeated-chunk", frozenset(ids), gone * PRICES["gpt-5"][0] / MILLION)


def repeated_across(maker: Maker) -> Fault:
    """A conversation in which the application sends the same policy with every question."""
    system, ids, gone = maker.document(80), [], 0
    for n in range(15):
        policy = maker.document(300)
        said = [f"{policy}\n\n{maker.question()}", "It is.", f"{policy}\n\n{maker.question()}"]
        gone += tokens(policy)
        messages = [{"role": "system", "content": system}] + [
            {"role": role, "content": text} for role, text in zip(["user", "assistant", "user"], said, strict=True)
        ]
        body = {"model": "gpt-5", "messages": messages}
        ids.append(maker.add(body, START + timedelta(minutes=30 * n), size(system, *said)))
    return Fault("repeated-across-turns", frozenset(ids), gone * PRICES["gpt-5"][0] / MILLION)


def near_duplicates(maker: Maker) -> Fault:
    """Two versions of a document that differ in a word or two."""
    system, ids, gone = maker.document(80), [], 0
    for n in range(30):
        texts = [maker.document(150) for _ in range(4)]
        words = texts[1].split()
        words[len(words) // 2] = "otherwise"
        copy = " ".join(words)
        texts.append(copy)
        gone += tokens(copy)
        user = f"{documents(texts)}\n\n{maker.question()}"
        ids.append(maker.add(chat("gpt-5", system, user), START + timedelta(minutes=25 * n), size(system, user)))
    return Fault("near-duplicate-documents", frozenset(ids), gone * PRICES["gpt-5"][0] / MILLION)


def examples(maker: Maker) -> Fault:
    shots = [f"Example {n}:\n{maker.document(70)}\nLabel: {maker.random.choice(_WORDS)}\n" for n in range(1, 13)]
    system, ids = f"{maker.sentence()}\n\n" + "\n".join(shots), []
    for n in range(30):
        question = maker.question()
        ids.append(
            maker.add(chat("gpt-5", system, question), START + timedelta(minutes=22 * n), size(system, question))
        )
    gone = tokens("\n".join(shots[3:]))
    return Fault("oversized-examples", frozenset(ids), 30 * gone * PRICES["gpt-5"][0] / MILLION)


def json_rows(maker: Maker) -> Fault:
    system, ids, gone = maker.document(80), [], 0
    for n in range(25):
        rows = [
            {
                "order_number": maker.random.randint(1000, 9999),
                "customer": maker.random.choice(_WORDS),
                "status": "open",
            }
            for _ in range(30)
        ]
        written = json.dumps(rows)
        table = "order_number,customer,status\n" + "".join(f"{r['order_number']},{r['customer']},open\n" for r in rows)
        gone += tokens(written) - tokens(table)
        user = f"Orders:\n{written}\n\n{maker.question()}"
        ids.append(maker.add(chat("gpt-5", system, user), START + timedelta(minutes=21 * n), size(system, user)))
    return Fault("tabular-json", frozenset(ids), gone * PRICES["gpt-5"][0] / MILLION)


def boundary(maker: Maker) -> Fault:
    """Three requests of claude-haiku-5-5 just above 100,000 tokens, and one far above."""
    ids, saved = [], Decimal(0)
    for n, total in enumerate((100_001, 104_000, 112_000, 180_000)):
        body = {
            "model": "claude-haiku-5-5",
            "max_tokens": 500,
            "messages": [
                {
                    "role": "user",
                    "content": f"{documents([maker.document(2_000) for _ in range(3)])}\n\n{maker.question()}",
                }
            ],
        }
        id_ = maker.add(body, START + timedelta(hours=n), total, output_tokens=300)
        if total <= 115_000:
            ids.append(id_)
            saved += (
                total * HAIKU_ABOVE[0] + 300 * HAIKU_ABOVE[1] - 100_000 * HAIKU_BELOW[0] - 300 * HAIKU_BELOW[1]
            ) / MILLION
    return Fault("tier-boundary", frozenset(ids), saved, "100,000")


def nightly(maker: Maker) -> Fault:
    """A job that summarises, synchronously, and says so in its metadata."""
    system, ids, saved = maker.document(120), [], Decimal(0)
    price, out, _ = PRICES["claude-sonnet-5"]
    for n in range(30):
        user = f"{maker.document(900)}\n{maker.question()}"
        body = {
            "model": "claude-sonnet-5",
            "max_tokens": 300,
            "system": system,
            "messages": [{"role": "user", "content": user}],
        }
        total, output = size(system, user), maker.random.randint(80, 160)
        at = START + timedelta(hours=16, seconds=20 * n)
        ids.append(maker.add(body, at, total, output_tokens=output, metadata={"job": "nightly-summaries"}))
        saved += (total * (price - SONNET_BATCH[0]) + output * (out - SONNET_BATCH[1])) / MILLION
    return Fault("could-wait", frozenset(ids), saved, "batch")


def far_limit(maker: Maker) -> Fault:
    system, ids = maker.document(80), []
    for n in range(30):
        question = maker.question()
        body = chat("gpt-5", system, question, max_completion_tokens=16_000)
        ids.append(maker.add(body, START + timedelta(minutes=19 * n), size(system, question)))
    return Fault("far-limit", frozenset(ids), Decimal(0))


def too_good(maker: Maker) -> Fault:
    """A dear model that is asked for a label, again and again."""
    ids, saved = [], Decimal(0)
    system = "Name the language of the text. " + maker.document(60)
    price, out, _ = PRICES["gpt-5"]
    low, low_out, _ = PRICES["gpt-5-mini"]
    for n in range(25):
        user = (
            f"Classify the language of: bonjour {maker.random.choice(['', 'madame', 'le monde', 'mes amis'])}".strip()
        )
        total, output = size(system, user), maker.random.randint(20, 40)
        ids.append(
            maker.add(chat("gpt-5", system, user), START + timedelta(minutes=17 * n), total, output_tokens=output)
        )
        saved += (total * (price - low) + output * (out - low_out)) / MILLION
    return Fault("model-too-good", frozenset(ids), saved, "gpt-5-mini")


# --- applications without one -----------------------------------------------------------------------------------------


def clean(maker: Maker, count: int) -> None:
    """What good traffic looks like: stable prefixes that are read from the cache, distinct documents, tools that are called,
    tables, short histories, streams, a few examples, limits near use."""
    system, tools = maker.document(1_500), [tool(maker, f"find_{n}", 80) for n in range(3)]
    stable = tokens(system) + sum(tokens(json.dumps(each, separators=(",", ":"))) for each in tools)
    for n in range(count // 3):
        user = f"{documents([maker.document(140) for _ in range(4)])}\n\n{maker.question()}"
        body = chat("gpt-5", system, user, tools=tools, stream=True, max_completion_tokens=1_000)
        at = START + timedelta(seconds=90 * n)
        maker.add(body, at, stable + size(user), cached_tokens=stable // 128 * 128 if n else 0, calls=f"find_{n % 3}")
    system, rows = maker.document(200), 12
    for n in range(count // 3):
        table = "id,name\n" + "".join(
            f"{maker.random.randint(1, 99999)},{maker.random.choice(_WORDS)}\n" for _ in range(rows)
        )
        maker.add(
            chat("gpt-5", system, f"{table}\n{maker.question()}"), START + timedelta(minutes=7 * n), size(system, table)
        )
    stable_lines = "\n".join(maker.lines(4_600))
    for n in range(count - 2 * (count // 3)):
        history = [maker.question(), "It is.", maker.question()]
        body = {
            "model": "claude-sonnet-5",
            "max_tokens": 600,
            "system": [{"type": "text", "text": stable_lines, "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": role, "content": text}
                for role, text in zip(("user", "assistant", "user"), history, strict=True)
            ],
        }
        marked = tokens(stable_lines)
        cached = {"cached_tokens": marked} if n else {"written_tokens": marked}
        maker.add(body, START + timedelta(seconds=100 * n), marked + size(*history), **cached)  # type: ignore[arg-type]


PLANTED: tuple[Callable[[Maker], Fault], ...] = (
    timestamp, user_name, tool_order, unused_tools, repeated, repeated_across, near_duplicates, examples, json_rows,
    boundary, nightly, far_limit, too_good,
)  # fmt: skip


def traffic(seed: int, count: int = 500, planted: tuple[Callable[[Maker], Fault], ...] = PLANTED) -> Traffic:
    """`count` recorded requests, those with a fault among those without, in order of time."""
    made = Traffic()
    for plant in planted:
        maker = Maker(seed, plant.__name__)
        made.faults.append(plant(maker))
        made.entries += maker.entries
    maker = Maker(seed, "clean")
    clean(maker, count - len(made.entries))
    made.entries += maker.entries
    made.entries.sort(key=lambda entry: str(entry["at"]))
    return made

"""Batches without a server: a store in either database, a folder, a clock, and a lane that is moved by hand."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.trimtab.talking import Clock
from trimtab.caller import Caller
from trimtab.database import Database
from trimtab.deferred.batch_work import BatchWork
from trimtab.deferred.batches import Batch, Batches, Order
from trimtab.deferred.files import Files
from trimtab.deferred.jobs import COMPLETED, FAILED, Job, Jobs, Outcome
from trimtab.errors import BadRequest

ONE = Caller("one", "key-1", "team-1")
CHAT = "/v1/chat/completions"


@contextmanager
def database_of(kind: str, folder: Path, postgres: Callable[[], str]) -> Iterator[Database]:
    """A new one: a SQLite file, or a schema of its own in a PostgreSQL."""
    if kind == "sqlite":
        database = Database(f"sqlite:///{folder / 'db.sqlite'}")
        yield database
        database.close()
        return
    schema = f"t{uuid.uuid4().hex}"
    url = sa.make_url(postgres())
    admin = Database(url.render_as_string(hide_password=False))
    with admin.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    own = url.update_query_dict({"options": f"-csearch_path={schema}"})
    database = Database(own.render_as_string(hide_password=False))
    yield database
    database.close()
    with admin.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    admin.close()


class Rig:
    """Everything that a batch needs but its lane. `work(...)` is a worker, as another process would have one."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.clock = Clock()
        self.clock.now_s = 1_790_000_000.0
        self.jobs = Jobs(database)
        self.jobs.create()
        self.files = Files(database, folder / "files", self.clock)
        self.batches = Batches(database)
        self.files.create()
        self.batches.create()

    def work(self, **limits: Any) -> BatchWork:
        limits = {"max_line_bytes": 1 << 20, "check_url": public, **limits}
        return BatchWork(self.batches, self.files, self.jobs, clock=self.clock, **limits)

    def order(self, content: bytes, caller: Caller = ONE, expires_s: float = 86_400.0, **changes: Any) -> Batch:
        with self.files.writing() as writing:
            writing.write(content)
            file_id = self.files.keep(writing, caller.tenant, "in.jsonl", "batch").id
        order = Order(
            **{
                "endpoint": CHAT,
                "input_file_id": file_id,
                "completion_window": "24h",
                "deadline": None,
                "metadata": None,
                "options": {},
                "callback_url": None,
                "output_lifetime_s": 3600,
                **changes,
            }
        )
        return self.batches.accept(caller, order, self.clock(), self.clock() + expires_s)

    def found(self, batch: Batch) -> Batch:
        return self.batches.find(batch.caller.tenant, batch.id)

    def stepped(self, batch: Batch, work: BatchWork | None = None) -> Batch:
        """As far as workers bring it without a lane."""
        work = work or self.work()
        while work.step():
            pass
        return self.found(batch)

    def open_jobs(self, batch: Batch) -> list[Job]:
        return [job for job, _ in self.jobs.of_batch(batch.id, ("waiting", "shipped"))]

    def answer(self, jobs: Iterable[Job], status: int = 200, **receipt: Any) -> None:
        self.jobs.finish([answered(job, status, **receipt) for job in jobs], self.clock())

    def concluded(self, batch: Batch) -> Batch:
        """Once it is looked at again."""
        self.clock.now_s += 10
        return self.stepped(batch)

    def lines_of(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        content = self.files.path(file_id).read_bytes()
        assert content.endswith(b"\n")
        return [json.loads(each) for each in content.splitlines()]

    def all_lines(self, batch: Batch) -> list[dict[str, Any]]:
        return self.lines_of(batch.output_file_id) + self.lines_of(batch.error_file_id)


def public(url: str, param: str) -> str:
    """Refuses what no webhook may call, as far as these tests go."""
    if not url.startswith("https://"):
        raise BadRequest(param, "must be a public https address")
    return url


def answered(job: Job, status: int = 200, **receipt: Any) -> Outcome:
    content = json.dumps({"answer": job.custom_id, "usage": {"completion_tokens_details": {"reasoning_tokens": 2}}})
    figures = {
        "provider": "p",
        "model": "m",
        "processing": "batch",
        "billed_cost_usd": "0.001",
        "baseline_cost_usd": "0.004",
        "tokens_before": 100,
        "tokens_after": 40,
        "input_tokens_billed": 60,
        "output_tokens_billed": 10,
        "cache_read_tokens_billed": 5,
        **receipt,
    }
    state = COMPLETED if status < 300 else FAILED
    return Outcome(job.id, state, status, content.encode(), json.dumps(figures))


def line(custom_id: object = "a", **changes: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"What is {custom_id}?"}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **changes}


def jsonl(*lines: Mapping[str, Any] | str | bytes) -> bytes:
    """Lines as they are, tables as JSON."""
    raw = [each if isinstance(each, bytes) else each if isinstance(each, str) else json.dumps(each) for each in lines]
    return b"".join((each.encode() if isinstance(each, str) else each) + b"\n" for each in raw)

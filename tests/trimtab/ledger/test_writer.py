"""The writer: nothing is lost while the database is slow, away, or refuses, and nothing waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.trimtab.ledger.made import made
from tests.trimtab.ledger.stores import sqlite_database
from trimtab.database import Database
from trimtab.ledger import writer as writer_module
from trimtab.ledger.entries import ENTRIES, TABLES, Entry, record_of, write
from trimtab.ledger.spill import Spill
from trimtab.ledger.writer import Writer


def count(database: Database) -> int:
    database.create(TABLES)
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(ENTRIES)).scalar_one())


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def writer_of(database: Database, folder: Path, **more: Any) -> Writer:
    return Writer(database, Spill(folder / "spill"), record_of, **{"retry_s": 0.05, **more})


def test_everything_is_written_once_from_many_threads(database: Database, tmp_path: Path) -> None:
    entries = made(1_000)
    writer = writer_of(database, tmp_path)

    def tell(part: list[Entry]) -> None:
        for each in part:
            writer.record(each)

    threads = [threading.Thread(target=tell, args=(entries[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(30)
    assert count(database) == 1_000
    assert (writer.counts.recorded, writer.counts.written, writer.counts.spilled) == (1_000, 1_000, 0)
    writer.close()


def test_closing_writes_what_is_left(database: Database, tmp_path: Path) -> None:
    writer = writer_of(database, tmp_path, group_s=60.0)
    for each in made(50):
        writer.record(each)
    writer.close()
    assert count(database) == 50


def test_a_database_that_is_away_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_module, "GROUP_WHILE_AWAY_S", 0.05)
    away = Database("sqlite:///" + str(tmp_path / "there" / "ledger.sqlite"))
    (tmp_path / "there").rmdir()
    writer = writer_of(away, tmp_path)
    entries = made(60)
    for each in entries[:30]:
        writer.record(each)
    assert writer.flush(20)
    assert writer.counts.spilled == 30
    assert [each.levelname for each in caplog.records] == ["ERROR"]  # once, and not for each
    for each in entries[30:]:
        writer.record(each)
    assert writer.flush(20)
    assert writer.counts.spilled == 60
    (tmp_path / "there").mkdir()
    until(lambda: count(away) == 60)
    until(lambda: list((tmp_path / "spill").iterdir()) == [])
    writer.close()
    away.close()


def test_what_a_killed_process_left_is_taken_up(database: Database, tmp_path: Path) -> None:
    entries = made(25)
    spill = Spill(tmp_path / "spill")
    spill.add([record_of(each) for each in entries[:10]])
    spill.add([record_of(each) for each in entries[5:20]])
    (tmp_path / "spill" / "0-torn.part").write_bytes(b'{"row": {"rece')
    writer = writer_of(database, tmp_path)
    writer.record(entries[20])
    until(lambda: count(database) == 21)
    writer.close()


def test_a_database_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    def slow(database: Database, records: Any) -> None:
        hangs.wait(30)
        write(database, records)

    monkeypatch.setattr(writer_module, "write", slow)
    with sqlite_database(tmp_path) as database:
        writer = writer_of(database, tmp_path, group_s=0.0, most_waiting=100)
        entries = made(2_000)
        began = time.perf_counter()
        for each in entries:
            writer.record(each)
        assert time.perf_counter() - began < 2.0
        until(lambda: writer.counts.spilled >= 1_000)  # memory is bounded: they wait in files
        hangs.set()
        assert writer.flush(30)
        until(lambda: count(database) == 2_000)
        writer.close()


def test_closing_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(writer_module, "write", lambda *_: hangs.wait(30))
    with sqlite_database(tmp_path) as database:
        writer = writer_of(database, tmp_path)
        for each in made(10):
            writer.record(each)
        writer.close(timeout_s=0.3)
        assert writer.counts.spilled == 10
        monkeypatch.setattr(writer_module, "write", write)
        hangs.set()
        again = writer_of(database, tmp_path)
        again.record(made(11)[-1])
        until(lambda: count(database) == 11)
        again.close()


def test_a_line_that_is_refused_costs_only_itself(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = made(20)
    bad = replace(entries[7], model=None)  # type: ignore[arg-type] # the database's own check, since no caller can do it
    writer = writer_of(database, tmp_path)
    for each in (*entries[:7], bad, *entries[8:]):
        writer.record(each)
    assert writer.flush(20)
    assert (writer.counts.written, writer.counts.refused) == (19, 1)
    assert count(database) == 19
    assert len(list((tmp_path / "spill").glob("*.refused"))) == 1
    assert "refuses a line" in caplog.text
    assert entries[7].receipt_id not in caplog.text
    writer.close()


def test_a_line_that_cannot_be_made_costs_only_itself(database: Database, tmp_path: Path) -> None:
    writer = writer_of(database, tmp_path)
    for told in (*made(3), "no entry"):
        writer.record(told)
    assert writer.flush(20)
    assert (writer.counts.written, writer.counts.lost) == (3, 1)
    writer.close()


def test_neither_database_nor_disk_is_a_loss_that_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "spill").write_text("a file where the folder should be")
    away = Database("sqlite:///" + str(tmp_path / "there" / "ledger.sqlite"))
    (tmp_path / "there").rmdir()
    with caplog.at_level(logging.ERROR):
        writer = writer_of(away, tmp_path)
        for each in made(4):
            writer.record(each)
        assert not writer.flush(1)  # they wait in memory, for as long as there is hope
        writer.close()
    assert writer.counts.lost == 4
    assert "lines of the ledger are lost" in caplog.text
    away.close()


def test_a_disk_that_was_full_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    blocked = tmp_path / "spill"
    blocked.write_text("a file where the folder should be")
    away = Database("sqlite:///" + str(tmp_path / "there" / "ledger.sqlite"))
    (tmp_path / "there").rmdir()
    writer = writer_of(away, tmp_path)
    for each in made(4):
        writer.record(each)
    assert not writer.flush(1)
    blocked.unlink()
    (tmp_path / "there").mkdir()
    assert writer.flush(20)
    until(lambda: count(away) == 4)
    assert writer.counts.lost == 0
    writer.close()
    away.close()


def test_a_damaged_file_costs_its_damaged_lines_and_holds_up_no_other(database: Database, tmp_path: Path) -> None:
    entries = made(5)
    spill = Spill(tmp_path / "spill")
    spill.add([record_of(each) for each in entries[:2]])
    (file,) = spill.folder.iterdir()
    first, second = file.read_bytes().splitlines()
    file.write_bytes(first + b"\n" + second[:40] + b"\n\xff\x00\n[]\n")
    spill.add([record_of(each) for each in entries[2:4]])
    writer = writer_of(database, tmp_path)
    writer.record(entries[4])
    until(lambda: count(database) == 4)
    until(lambda: [each.suffix for each in spill.folder.iterdir()] == [".refused"])
    writer.close()


def test_upkeep_is_done_at_the_beginning(database: Database, tmp_path: Path) -> None:
    kept = threading.Event()
    writer = Writer(database, Spill(tmp_path / "spill"), record_of, lambda _: kept.set())
    writer.record(made(1)[0])
    assert kept.wait(20)
    writer.close()

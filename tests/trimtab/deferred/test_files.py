"""The store of files: durable before it is found, a tenant's own, paged, and gone when its time is over."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trimtab.talking import Clock
from trimtab.database import Database
from trimtab.deferred.files import ABANDONED_S, KEPT_S, Files, StoredFile
from trimtab.deferred.pages import Asked, new_id
from trimtab.errors import BadRequest


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path, clock: Clock) -> Iterator[Files]:
    database = Database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    made = Files(database, tmp_path / "files", clock)
    made.create()
    yield made
    database.close()


def put(
    files: Files, content: bytes = b"{}\n", tenant: str = "one", purpose: str = "batch", **more: object
) -> StoredFile:
    with files.writing() as writing:
        writing.write(content)
        return files.keep(writing, tenant, "a.jsonl", purpose, **more)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_file_is_found_by_its_tenant_alone(files: Files) -> None:
    kept = put(files, b"one\ntwo\n")
    assert files.find("one", kept.id) == kept
    assert files.path(kept.id).read_bytes() == b"one\ntwo\n"
    assert kept.size_bytes == 8
    assert kept.expires_at == kept.created_at + KEPT_S
    assert kept.to_dict()["object"] == "file"
    with pytest.raises(BadRequest, match="there is no file") as refused:
        files.find("two", kept.id)
    assert refused.value.status == 404
    with pytest.raises(BadRequest):
        files.delete("two", kept.id)
    assert files.find("one", kept.id) == kept


def test_what_is_not_kept_leaves_nothing(files: Files, tmp_path: Path) -> None:
    with files.writing() as writing:
        writing.write(b"x")
        assert len(names(tmp_path / "files")) == 1
    assert names(tmp_path / "files") == []
    assert files.page("one", Asked(None, 10)).items == ()


def test_a_file_that_is_kept_again_stays_as_it_was(files: Files, tmp_path: Path) -> None:
    file_id = files.new_id()
    first = put(files, b"first", id=file_id)
    assert put(files, b"second", id=file_id) == first
    assert files.path(file_id).read_bytes() == b"first"
    assert names(tmp_path / "files") == [file_id]


def test_bytes_without_a_row_are_written_again(files: Files) -> None:
    """As after a crash between the two."""
    file_id = files.new_id()
    files.path(file_id).write_bytes(b"half")
    put(files, b"whole", id=file_id)
    assert files.path(file_id).read_bytes() == b"whole"


def test_it_is_on_disk_before_it_is_found(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "rename", lambda path, to: (done.append("rename"), rename(path, to))[1])
    put(files)
    assert done == ["fsync", "rename", "fsync"]  # the bytes, the name, and the folder that has it


def test_deleted_is_gone_from_disk(files: Files, tmp_path: Path) -> None:
    kept = put(files)
    files.delete("one", kept.id)
    assert names(tmp_path / "files") == []
    with pytest.raises(BadRequest):
        files.delete("one", kept.id)


def test_an_expired_file_is_not_found_and_then_swept(files: Files, tmp_path: Path, clock: Clock) -> None:
    short, long = put(files, lifetime_s=3600), put(files)
    clock.now_s += 3600
    with pytest.raises(BadRequest):
        files.find("one", short.id)
    assert [each.id for each in files.page("one", Asked(None, 10)).items] == [long.id]
    files.sweep()
    assert names(tmp_path / "files") == [long.id]


def test_nothing_is_kept_for_longer_than_is_set(files: Files, tmp_path: Path, clock: Clock) -> None:
    short = Files(files._database, tmp_path / "files", clock, 7200)
    with short.writing() as writing:
        writing.write(b"1")
        assert short.keep(writing, "one", "a", "batch", 86_400).expires_at == int(clock()) + 7200
    with short.writing() as writing:
        assert short.keep(writing, "one", "b", "batch", 3600).expires_at == int(clock()) + 3600


def test_what_a_crash_left_is_swept_when_it_is_old(files: Files, tmp_path: Path, clock: Clock) -> None:
    kept = put(files)
    folder = tmp_path / "files"
    for name, age_s in (("file-orphan", ABANDONED_S + 1), ("writing-half", ABANDONED_S + 1), ("writing-now", 5)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (clock.now_s - age_s,) * 2)
    os.utime(files.path(kept.id), (clock.now_s - 10 * ABANDONED_S,) * 2)
    files.sweep()
    assert names(folder) == sorted([kept.id, "writing-now"])


@pytest.mark.parametrize("ascending", [True, False])
def test_pages_together_are_the_whole_list(files: Files, clock: Clock, ascending: bool) -> None:
    made = []
    for _ in range(7):
        clock.now_s += 1
        made.append(put(files).id)
    put(files, tenant="two")
    put(files, purpose="batch_output")
    seen: list[str] = []
    for _ in itertools.count():
        page = files.page("one", Asked(seen[-1] if seen else None, 3, ascending), "batch")
        seen += [each.id for each in page.items]
        if not page.has_more:
            break
        assert len(page.items) == 3
    assert seen == (made if ascending else made[::-1])


def test_a_page_goes_on_after_a_file_that_was_deleted(files: Files, clock: Clock) -> None:
    made = []
    for _ in range(4):
        clock.now_s += 1
        made.append(put(files).id)
    files.delete("one", made[1])
    page = files.page("one", Asked(made[1], 10, ascending=True))
    assert [each.id for each in page.items] == made[2:]


def test_ids_sort_as_they_were_given_and_are_no_paths() -> None:
    ids = [new_id("file-", second / 7) for second in range(0, 2_000_000_000, 50_000_000)]
    assert ids == sorted(ids)
    assert len({len(each) for each in ids}) == 1
    assert all(each.replace("-", "").isalnum() for each in ids)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": ""}, "after"),
        ({"after": "x" * 101}, "after"),
        ({"after": "\0"}, "after"),
    ],
)
def test_a_bad_page_is_refused(query: dict[str, str], field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Asked.of(query, 100, 20)
    assert refused.value.param == field


def test_a_page_as_asked() -> None:
    assert Asked.of({}, 100, 20) == Asked(None, 20)
    assert Asked.of({"limit": "5", "order": "asc", "after": "file-1"}, 100, 20) == Asked("file-1", 5, ascending=True)

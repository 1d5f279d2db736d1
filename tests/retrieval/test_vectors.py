"""The vector cache: nothing is encoded twice, nothing but float16 is stored, and trouble with the disk costs only time."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval import CachedEncoder, Passage, SentenceTransformerEncoder
from retrieval.store import DiskStore
from tests.retrieval.fake_encoder import DIMENSION, WordEncoder

ONE = Passage("An upload may be 5 GB. Data is encrypted.", ((0, 22), (23, 41)), "Limits")
TWO = Passage("Keys are rotated every 90 days.", ((0, 31),))
MODE_RAW, MODE_BINARY, MODE_PICKLE = 1, 2, 4  # diskcache's own numbers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vectors"


def cached(folder: Path, inner: WordEncoder | None = None, size_limit_bytes: int = 2**30) -> CachedEncoder:
    return CachedEncoder(inner or WordEncoder(), DiskStore(folder, size_limit_bytes))


def rows(folder: Path, query: str = "SELECT mode, filename, value FROM Cache") -> list[tuple[object, ...]]:
    db = sqlite3.connect(folder / "cache.db")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def change(folder: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(folder / "cache.db")
    with db:
        assert db.execute(statement, values).rowcount > 0
    db.close()


def test_a_passage_is_encoded_once(folder: Path) -> None:
    encoder = cached(folder)
    first = encoder.encode([ONE, TWO, ONE])
    again = encoder.encode([TWO, ONE])
    assert encoder.encoded_passages == 2
    for x, y in zip([first[1], first[0]], again, strict=True):
        np.testing.assert_array_equal(x, y)  # cold and warm are the same to the last bit
    np.testing.assert_array_equal(first[0], first[2])
    plain = WordEncoder().encode([ONE])[0]
    assert first[0].dtype == np.float32
    np.testing.assert_allclose(first[0], plain, atol=1e-3)


def test_no_passages(folder: Path) -> None:
    assert cached(folder).encode([]) == []


def test_only_what_is_missing_is_asked_for(folder: Path) -> None:
    inner = WordEncoder()
    encoder = cached(folder, inner)
    encoder.encode([ONE])
    encoder.encode([ONE, TWO])
    assert inner.asked == [ONE, TWO]


@pytest.mark.parametrize(
    "other",
    [
        Passage(ONE.text, ONE.spans, "Limit"),
        Passage(ONE.text, ((0, 21), (23, 41)), ONE.title),
        Passage(ONE.text, ((0, 22),), ONE.title),
        Passage(ONE.text + " ", ONE.spans, ONE.title),
        Passage("Limits" + ONE.text, ONE.spans, ""),
        Passage(ONE.text, (*ONE.spans, (0, 0)), ONE.title),
    ],
)
def test_whatever_changes_the_vectors_changes_the_key(folder: Path, other: Passage) -> None:
    inner = WordEncoder()
    encoder = cached(folder, inner)
    encoder.encode([ONE])
    encoder.encode([other])
    assert inner.asked == [ONE, other]


def test_another_encoder_is_another_key(folder: Path) -> None:
    cached(folder, WordEncoder("one")).encode([ONE])
    other = cached(folder, WordEncoder("other"))
    other.encode([ONE])
    assert other.encoded_passages == 1


def test_where_a_part_ends_and_the_next_begins_is_in_the_key(folder: Path) -> None:
    inner = WordEncoder()
    encoder = cached(folder, inner)
    encoder.encode([Passage("b c", ((0, 3),), "a"), Passage("c", ((0, 1),), "a b")])
    assert len(inner.asked) == 2


def test_lone_surrogates_have_keys(folder: Path) -> None:
    encoder = cached(folder)
    for _ in range(2):
        encoder.encode([Passage("a\ud800", ((0, 2),), "\udfff"), Passage("a\ud801", ((0, 2),), "\udfff")])
    assert encoder.encoded_passages == 2


SECOND_PROCESS = """
import sys
from pathlib import Path
from retrieval import CachedEncoder, Passage
from retrieval.store import DiskStore
from tests.retrieval.fake_encoder import WordEncoder
encoder = CachedEncoder(WordEncoder(), DiskStore(Path(sys.argv[1]), 2**30))
spans = ((0, 5),)
found = encoder.encode([Passage(f"text {n}", spans) for n in range(20)])
print(encoder.encoded_passages, float(sum(v.sum() for v in found)))
"""


def test_a_second_process_encodes_nothing_again(folder: Path) -> None:
    encoder = cached(folder)
    here = encoder.encode([Passage(f"text {n}", ((0, 5),)) for n in range(20)])
    done = subprocess.run(
        [sys.executable, "-c", SECOND_PROCESS, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    encoded, total = done.stdout.split()
    assert int(encoded) == 0
    assert float(total) == pytest.approx(float(sum(v.sum() for v in here)))


def test_threads_that_want_the_same_do_not_encode_it_twice(folder: Path) -> None:
    inner = WordEncoder(delay_s=0.05)
    encoder = cached(folder, inner)
    passages = [Passage(f"text {n}", ((0, 6),)) for n in range(10)]
    got: list[list[np.ndarray]] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        got.append(encoder.encode(passages))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inner.asked) == encoder.encoded_passages == 10
    for vectors in got:
        np.testing.assert_array_equal(np.concatenate(vectors), np.concatenate(got[0]))


def test_the_real_encoder_is_asked_once(folder: Path, encoder: SentenceTransformerEncoder) -> None:
    first = CachedEncoder(encoder, DiskStore(folder, 2**30))
    cold = first.encode([ONE, TWO])
    second = CachedEncoder(
        SentenceTransformerEncoder(), DiskStore(folder, 2**30)
    )  # not loaded: a warm answer needs no model
    warm = second.encode([ONE, TWO])
    assert (first.encoded_passages, second.encoded_passages) == (2, 0)
    for x, y, exact in zip(cold, warm, encoder.encode([ONE, TWO]), strict=True):
        np.testing.assert_array_equal(x, y)
        assert ((x * exact).sum(axis=1) > 0.999).all()


# --- what is on the disk ---------------------------------------------------------------------------------------------------


def test_raw_half_precision_and_no_pickles(folder: Path) -> None:
    long = Passage("word " * 2000, tuple((n * 5, n * 5 + 4) for n in range(2000)))  # large enough for a file of its own
    encoder = cached(folder)
    expected = encoder.encode([ONE, TWO, long])
    stored = rows(folder)
    assert {mode for mode, _, _ in stored} == {MODE_RAW, MODE_BINARY}
    values = [Path(folder, str(name)).read_bytes() if name else bytes(value) for _, name, value in stored]  # type: ignore[arg-type]
    assert [len(value) for value in values] == [2 * DIMENSION * len(p.spans) for p in (ONE, TWO, long)]
    for value, vectors in zip(values, expected, strict=True):
        np.testing.assert_array_equal(np.frombuffer(value, np.float16), vectors.astype(np.float16).ravel())
    assert rows(folder, "SELECT DISTINCT raw FROM Cache") == [(1,)]  # the keys are no pickles either
    encoder.close()
    assert cached(folder).encode([long])[0].shape == (2000, DIMENSION)


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_planted_pickle_is_a_miss_and_is_not_run(folder: Path, in_a_file: bool) -> None:
    encoder = cached(folder)
    (expected,) = encoder.encode([ONE])
    bomb = pickle.dumps(Planted(folder / "it ran"))
    if in_a_file:
        (folder / "bomb.val").write_bytes(bomb)
        change(folder, "UPDATE Cache SET mode = ?, filename = 'bomb.val', value = NULL", MODE_PICKLE)
    else:
        change(folder, "UPDATE Cache SET mode = ?, value = ?", MODE_PICKLE, bomb)
    (vectors,) = encoder.encode([ONE])
    np.testing.assert_array_equal(vectors, expected)
    assert encoder.encoded_passages == 2
    assert not (folder / "it ran").exists()
    assert {mode for mode, _, _ in rows(folder)} == {MODE_RAW}  # the entry was mended
    pickle.loads(bomb)
    assert (folder / "it ran").exists()  # it would have run


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\0",
        np.zeros(DIMENSION, np.float16).tobytes(),  # half of it
        np.zeros(2 * DIMENSION, np.float16).tobytes(),  # the right size and all wrong
        np.zeros(4 * DIMENSION, np.float16).tobytes(),
        "a text",
        17,
        None,
    ],
)
def test_a_damaged_entry_is_a_miss(folder: Path, damaged: object) -> None:
    encoder = cached(folder)
    (expected,) = encoder.encode([ONE])
    change(folder, "UPDATE Cache SET value = ?", damaged)
    (vectors,) = encoder.encode([ONE])
    np.testing.assert_array_equal(vectors, expected)
    assert encoder.encoded_passages == 2
    encoder.encode([ONE])
    assert encoder.encoded_passages == 2  # and it was mended


def test_a_value_file_that_is_gone_is_a_miss(folder: Path) -> None:
    long = Passage("word " * 2000, tuple((n * 5, n * 5 + 4) for n in range(2000)))
    encoder = cached(folder)
    encoder.encode([long])
    (file,) = folder.rglob("*.val")
    file.unlink()
    assert encoder.encode([long])[0].shape == (2000, DIMENSION)
    assert encoder.encoded_passages == 2


def test_the_size_limit_holds_and_the_oldest_go_first(folder: Path) -> None:
    limit = 600_000
    encoder = cached(folder, size_limit_bytes=limit)
    spans = tuple((0, 1) for _ in range(500))  # 32,000 bytes each: rows in the database
    for n in range(60):
        encoder.encode([Passage(f"{n} text", spans)])
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.name.endswith((".db", ".val")))
    assert size < 1.5 * limit
    count = len(rows(folder))
    assert 5 < count < 40
    encoder.encode([Passage("59 text", spans)])
    assert encoder.encoded_passages == 60  # the newest is there
    encoder.encode([Passage("0 text", spans)])
    assert encoder.encoded_passages == 61  # the oldest is not


# --- trouble -----------------------------------------------------------------------------------------------------------------


def assert_slower_and_never_wrong(folder: Path) -> None:
    encoder = cached(folder)
    for _ in range(2):
        (vectors,) = encoder.encode([ONE])
        np.testing.assert_allclose(vectors, WordEncoder().encode([ONE])[0], atol=1e-3)
    assert encoder.encoded_passages == 2
    encoder.close()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("not a folder")
    assert_slower_and_never_wrong(tmp_path / "vectors")


def test_a_folder_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert_slower_and_never_wrong(tmp_path / "file" / "vectors")


def test_a_database_that_is_none(folder: Path) -> None:
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"This is no database. " * 500)
    assert_slower_and_never_wrong(folder)


def test_a_database_that_breaks_while_it_is_in_use(folder: Path) -> None:
    encoder = cached(folder)
    encoder.encode([ONE])
    encoder.close()
    for file in folder.iterdir():
        file.write_bytes(b"This is no database. " * 500)
    (vectors,) = encoder.encode([ONE])
    np.testing.assert_allclose(vectors, WordEncoder().encode([ONE])[0], atol=1e-3)


def test_a_folder_that_vanishes(folder: Path) -> None:
    encoder = cached(folder)
    encoder.encode([ONE])
    encoder.close()
    shutil.rmtree(folder)
    (vectors,) = encoder.encode([ONE])
    np.testing.assert_allclose(vectors, WordEncoder().encode([ONE])[0], atol=1e-3)


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder outside pytest's own (which only its owner may enter), for tests that give up root's rights."""
    made = Path(tempfile.mkdtemp(prefix="trimtab-test-"))
    made.chmod(0o755)
    yield made / "vectors"
    shutil.rmtree(made)


class as_nobody:  # noqa: N801
    """Root may write everywhere: be somebody else for a while. Somebody else already is."""

    def __enter__(self) -> None:
        self.was_root = os.geteuid() == 0
        if self.was_root:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self.was_root:
            os.seteuid(0)


def test_a_folder_that_cannot_be_made(nobodys_folder: Path) -> None:
    nobodys_folder.parent.chmod(0o555)
    with as_nobody():
        assert_slower_and_never_wrong(nobodys_folder)
    assert not nobodys_folder.exists()
    nobodys_folder.parent.chmod(0o755)


@pytest.mark.parametrize("rights", [0o555, 0o000])
def test_a_folder_that_is_read_only_or_unreadable(nobodys_folder: Path, rights: int) -> None:
    encoder = cached(nobodys_folder)
    encoder.encode([TWO])
    encoder.close()
    for file in nobodys_folder.iterdir():
        file.chmod(rights & 0o444)
    nobodys_folder.chmod(rights)
    try:
        with as_nobody():
            assert_slower_and_never_wrong(nobodys_folder)
    finally:
        nobodys_folder.chmod(0o755)

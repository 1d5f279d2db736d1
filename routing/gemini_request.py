"""Gemini requests: a chat completion as Gemini's generateContent takes it (the Gemini API, not Vertex AI).

Pure. Written against google-genai 3.4 (`types.py`, `models._GenerateContentConfig_to_mldev`) and ai.google.dev
("Thinking", "Thought signatures", "OpenAI compatibility", "File input methods") of November 2026.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from routing.chat_parts import Part
from routing.chat_request import ChatRequest, Message, Tool
from routing.conversion import Outgoing
from routing.errors import UnsupportedParameter
from routing.output_schema import Dialect, enforceable

_VERSION: Final = "v1beta"
"""google-genai 3 asks v1, which knows no alias such as gemini-flash-latest; a `base_url` that ends with /v1 picks it."""

NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Google's documentation gives for a call that another model made: Gemini 3 refuses one without a signature."""

_BUDGETS: Final = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
"""Gemini 2.5's thinking tokens: what Google's own OpenAI-compatible endpoint makes of these words."""
_LEVELS: Final = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}
_MEDIA_LEVELS: Final = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}

# `GenerateContentConfig.response_json_schema`; `oneOf`, which is read as `anyOf` there, is left out for that reason.
_SCHEMA: Final = Dialect(
    keywords=frozenset(
        (
            *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items"),
            *("prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "properties"),
            *("additionalProperties", "required", "propertyOrdering"),
        )
    ),
    formats=frozenset(("date-time", "date", "time")),
    closed_objects=False,
    const=False,
    least_items=None,
)
_IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/heic", "image/heif")
_MOST_STOPS: Final = 5
_SEEDS: Final = range(-(2**31), 2**31)
_NAME: Final = re.compile(r"gemini-([0-9]+)(?:\.([0-9]+))?(?![0-9])")


@dataclass(frozen=True, slots=True)
class _Model:
    """`version` is that of the name, and (99, 0) for a name without one ("gemini-flash-latest")."""

    version: tuple[int, int]
    pro: bool

    @property
    def is_third(self) -> bool:
        """Of the third generation or later, which thinks by levels and signs its calls."""
        return self.version >= (3, 0)


def model_of(name: str) -> _Model:
    found = _NAME.search(name)
    return _Model((int(found[1]), int(found[2] or 0)) if found else (99, 0), "pro" in name)


def encode(request: ChatRequest, model: str, stream: bool) -> Outgoing:
    """The body of POST /v1beta/models/{model}:generateContent, or of streamGenerateContent; raises
    UnsupportedParameter for what it cannot be asked.

    `user`, a file's name and cache marks stay behind: there is no field for the first two, and Gemini caches prefixes
    by itself. None of them changes an answer.
    """
    kind = model_of(model)
    system, contents = _conversation(request, kind)
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]
    if config := _tool_config(request):
        body["toolConfig"] = {"functionCallingConfig": config}
    generation = _generation(request, kind)
    if generation:
        body["generationConfig"] = generation
    name = model if "/" in model else f"models/{model}"
    method = "streamGenerateContent" if stream else "generateContent"
    query = (("alt", "sse"),) if stream else ()
    return Outgoing(f"/{_VERSION}/{quote(name, safe='/')}:{method}", body, query)


def _generation(request: ChatRequest, kind: _Model) -> dict[str, Any]:
    if len(request.stop) > _MOST_STOPS:
        raise UnsupportedParameter("stop", f"Gemini takes at most {_MOST_STOPS} stop sequences")
    if request.seed is not None and request.seed not in _SEEDS:
        raise UnsupportedParameter("seed", "must fit 32 bits for Gemini")
    config = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "candidateCount": request.n if request.n > 1 else None,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "seed": request.seed,
        "responseLogprobs": request.logprobs or None,
        "logprobs": request.top_logprobs or None,
        "thinkingConfig": _thinking(request, kind),
    }
    return {name: value for name, value in config.items() if value is not None} | _format(request, kind)


def _thinking(request: ChatRequest, kind: _Model) -> dict[str, Any] | None:
    asked = request.reasoning_effort
    if asked is None:
        return None
    if kind.version < (2, 5):
        if asked == "none":
            return None
        raise UnsupportedParameter("reasoning_effort", "this model does not reason")
    if asked == "none" and (kind.is_third or kind.pro):
        raise UnsupportedParameter("reasoning_effort", "this model's reasoning cannot be switched off")
    if not kind.is_third:
        if asked not in _BUDGETS:
            raise UnsupportedParameter("reasoning_effort", f"this model takes {', '.join(_BUDGETS)}")
        budget = _BUDGETS[asked]
        return {"thinkingBudget": budget, "includeThoughts": True} if budget else {"thinkingBudget": 0}
    if asked == "minimal" and kind.pro:
        asked = "low"  # the lowest that Pro has, and what Google's endpoint makes of it
    if asked not in _LEVELS or (asked == "medium" and kind.pro and kind.version == (3, 0)):
        raise UnsupportedParameter("reasoning_effort", "this model has no such level")
    return {"thinkingLevel": _LEVELS[asked], "includeThoughts": True}


def _format(request: ChatRequest, kind: _Model) -> dict[str, Any]:
    wanted = request.response_format
    if wanted is None:
        return {}
    if request.tools and not kind.is_third:
        raise UnsupportedParameter("response_format", "this model gives either JSON or tool calls")
    if wanted.schema is None:
        return {"responseMimeType": "application/json"}
    schema = enforceable(wanted.schema, _SCHEMA, "response_format.json_schema.schema")
    if wanted.description:
        schema.setdefault("description", wanted.description)
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = dict(tool.parameters)
    if tool.strict:
        parameters = enforceable(tool.parameters, _SCHEMA, f"{tool.path}.parameters")
    declared = {"name": tool.name, "description": tool.description, "parametersJsonSchema": parameters}
    return {name: value for name, value in declared.items() if value is not None}


def _tool_config(request: ChatRequest) -> dict[str, Any] | None:
    if not request.tools:
        return None
    if request.parallel_tool_calls is False and request.tool_choice != "none":
        raise UnsupportedParameter("parallel_tool_calls", "Gemini cannot be kept from calling several tools at once")
    if request.tool_choice == "none":
        return {"mode": "NONE"}
    if request.tool_choice == "required":
        return {"mode": "ANY"}
    if request.tool_choice == "named":
        return {"mode": "ANY", "allowedFunctionNames": [request.named_tool]}
    if any(tool.strict for tool in request.tools):
        return {"mode": "VALIDATED"}  # as AUTO, and calls keep to their schemas
    return {"mode": "AUTO"} if request.tool_choice == "auto" else None


def _conversation(request: ChatRequest, kind: _Model) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system instruction's parts and `contents`. Neighbours of one role become one content, and tool results are
    the user's. System messages in the middle go up to the others: Gemini has one instruction for a request."""
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    names = {call.id: call.name for message in request.messages for call in message.tool_calls}
    for message in request.messages:
        if message.role == "system":
            system += [{"text": part.text} for part in message.parts if part.text]
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = _tool_result(message, names, kind) if message.role == "tool" else _parts(message, kind)
        if parts and contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    if not contents:
        raise UnsupportedParameter("messages", "Gemini needs a message of a user or an assistant that says something")
    return system, contents


def _parts(message: Message, kind: _Model) -> list[dict[str, Any]]:
    parts = [_part(part, kind) for part in message.parts if part.kind != "text" or part.text]
    for at, call in enumerate(message.tool_calls):
        part: dict[str, Any] = {"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}}
        if call.signature is not None:
            part["thoughtSignature"] = call.signature
        elif at == 0 and kind.is_third:
            part["thoughtSignature"] = NO_SIGNATURE  # parallel calls are signed at the first one only
        parts.append(part)
    return parts


def _tool_result(message: Message, names: Mapping[str, str], kind: _Model) -> list[dict[str, Any]]:
    name = names.get(message.tool_call_id)
    if name is None:
        raise UnsupportedParameter(f"{message.path}.tool_call_id", "answers no tool call of an earlier message")
    texts = [part.text for part in message.parts if part.kind == "text"]
    result: dict[str, Any] = {"id": message.tool_call_id, "name": name, "response": {"output": "".join(texts)}}
    media = [_part(part, kind) for part in message.parts if part.kind != "text"]
    if media and not kind.is_third:
        raise UnsupportedParameter(f"{message.path}.content", "this model takes text only as a tool's result")
    if media:
        result["parts"] = media
    return [{"functionResponse": result}]


def _part(part: Part, kind: _Model) -> dict[str, Any]:
    if part.kind == "text":
        return {"text": part.text}
    made: dict[str, Any]
    if part.url:
        made = {"fileData": {"fileUri": part.url, "mimeType": _guessed_type(part)}}
    else:
        made = {"inlineData": {"mimeType": part.media_type, "data": part.data}}
    if part.kind != "image":
        return made
    if not part.url and part.media_type not in _IMAGE_TYPES:
        raise UnsupportedParameter(f"{part.path}.url", f"must be one of {', '.join(_IMAGE_TYPES)}")
    if part.detail is None:
        return made
    if part.detail not in _MEDIA_LEVELS or not kind.is_third:
        raise UnsupportedParameter(f"{part.path}.detail", "this model has no such level of detail for one image")
    return {**made, "mediaResolution": {"level": _MEDIA_LEVELS[part.detail]}}


def _guessed_type(part: Part) -> str:
    """The image's type by the address's ending: Gemini wants one, and nothing is fetched here to find out."""
    if not part.url.startswith("https://"):
        raise UnsupportedParameter(f"{part.path}.url", "must begin with https:// for Gemini, or be a data: URL")
    try:
        guessed, _ = mimetypes.guess_type(urlsplit(part.url).path)
    except ValueError:
        guessed = None
    if guessed not in _IMAGE_TYPES:
        raise UnsupportedParameter(f"{part.path}.url", "must end as an image's name does, so that its type is known")
    return guessed

"""What the OpenAPI page says of the bodies that the app reads as bytes, made from the models that check them."""

from __future__ import annotations

from typing import Any, Final

from trimtab.options import CompressIn, Options
from trimtab.surfaces import COUNT_TOKENS, SURFACES

VERSION: Final = "0.1.0"
SUMMARY: Final = "Trims the context, plans the cheapest way to get it answered, forwards it, and hands back a receipt."

_REF = "#/components/schemas/{model}"

_CHAT_EXAMPLE: Final = {
    "model": "gpt-6.1-sol",
    "messages": [{"role": "user", "content": "How large may one upload be?"}],
    "max_tokens": 100,
    "trimtab": {
        "contexts": [
            {"id": "limits-3", "title": "Limits", "text": "An upload may be 5 GB. A bucket holds 100 TB."},
            {"id": "security-1", "title": "Security", "text": "Uploads are encrypted at rest with AES-256."},
        ],
        "ratio": 0.5,
    },
}

_MESSAGE_EXAMPLE: Final = {
    "model": "claude-sonnet-5",
    "max_tokens": 100,
    "messages": [
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "title": "Limits",
                    "source": {
                        "type": "text",
                        "media_type": "text/plain",
                        "data": "An upload may be 5 GB. A bucket holds 100 TB.",
                    },
                },
                {"type": "text", "text": "How large may one upload be?"},
            ],
        }
    ],
    "trimtab": {"ratio": 0.5},
}
_RESPONSE_EXAMPLE: Final = {
    "model": "gpt-6.1-sol",
    "instructions": "Be brief.",
    "input": "How large may one upload be?",
    "trimtab": {"contexts": ["An upload may be 5 GB.", "Uploads are encrypted."], "ratio": 0.5},
}


def _request(described: str, example: dict[str, Any], required: list[str], **properties: Any) -> dict[str, Any]:
    """The schema of a request that passes through to the provider, but for `trimtab`."""
    return {
        "type": "object",
        "required": ["model", *required],
        "description": f"{described} Every field passes through to the provider, but for `trimtab`.",
        "properties": {
            "model": {"type": "string", "minLength": 1},
            **properties,
            "trimtab": {"$ref": _REF.format(model="Options")},
        },
        "additionalProperties": True,
        "examples": [example],
    }


_STREAM: Final = {"type": "boolean"}
_MESSAGE: Final = {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}}
_MESSAGES: Final = {"type": "array", "minItems": 1, "items": _MESSAGE}
_ITEMS: Final = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}
_TEXTS: Final = {"oneOf": [{"type": "string"}, {"type": "array"}]}

_INSPECTED: Final = ("ChatCompletionRequest", "MessageRequest", "ResponseRequest", "EmbeddingRequest")

_REQUESTS: Final = {
    "ChatCompletionRequest": _request(
        "OpenAI's chat completion request.", _CHAT_EXAMPLE, ["messages"], messages=_MESSAGES, stream=_STREAM
    ),
    "MessageRequest": _request(
        "Anthropic's message request.",
        _MESSAGE_EXAMPLE,
        ["messages", "max_tokens"],
        messages=_MESSAGES,
        max_tokens={"type": "integer", "minimum": 1},
        stream=_STREAM,
    ),
    "CountTokensRequest": _request(
        "Anthropic's request for a count of tokens.",
        {name: value for name, value in _MESSAGE_EXAMPLE.items() if name not in ("max_tokens", "trimtab")},
        ["messages"],
        messages=_MESSAGES,
    ),
    "ResponseRequest": _request(
        "OpenAI's response request.", _RESPONSE_EXAMPLE, ["input"], input=_ITEMS, stream=_STREAM
    ),
    "EmbeddingRequest": _request(
        "OpenAI's embeddings request.",
        {"model": "text-embedding-3-small", "input": "An upload may be 5 GB."},
        ["input"],
        input=_TEXTS,
    ),
}


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = dict(_REQUESTS)
    schemas["InspectRequest"] = {
        "description": "A request of any surface.",
        "anyOf": [{"$ref": _REF.format(model=each)} for each in _INSPECTED],
        "examples": [_CHAT_EXAMPLE, _MESSAGE_EXAMPLE, _RESPONSE_EXAMPLE],
    }
    for model in (CompressIn, Options):
        schema = model.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return schemas


def _body(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}}
    return {"requestBody": {"required": True, "content": content}}


SCHEMAS: Final = _schemas()

EXTRAS: Final = {
    "/v1/inspect": {
        **_body("InspectRequest"),
        "parameters": [
            {
                "name": "surface",
                "in": "query",
                "description": "Which surface the request is one of, where its shape does not say.",
                "schema": {"type": "string", "enum": [each.tongue.name for each in SURFACES]},
            }
        ],
    },
    "/v1/compress": _body("CompressIn"),
    "/v1/plan": _body("ChatCompletionRequest"),
    **{each.path: _body(each.schema) for each in (*SURFACES, COUNT_TOKENS)},
}

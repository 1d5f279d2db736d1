"""What the OpenAPI page says of the bodies that the app reads as bytes, made from the models that check them."""

from __future__ import annotations

from typing import Any, Final

from trimtab.options import CompressIn, Options

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

_CHAT: Final = {
    "type": "object",
    "required": ["model", "messages"],
    "description": "OpenAI's chat completion request. Every field passes through to the provider, but for `trimtab`.",
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "messages": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role"]}},
        "stream": {"type": "boolean"},
        "trimtab": {"$ref": _REF.format(model="Options")},
    },
    "additionalProperties": True,
    "examples": [_CHAT_EXAMPLE],
}


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {"ChatCompletionRequest": _CHAT}
    for model in (CompressIn, Options):
        schema = model.model_json_schema(ref_template=_REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return schemas


def _body(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}}
    return {"requestBody": {"required": True, "content": content}}


SCHEMAS: Final = _schemas()

BODIES: Final = {
    "/v1/compress": _body("CompressIn"),
    "/v1/plan": _body("ChatCompletionRequest"),
    "/v1/chat/completions": _body("ChatCompletionRequest"),
}

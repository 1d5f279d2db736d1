"""What the OpenAPI page says of `/v1/files` and `/v1/batches` besides their summaries."""

from __future__ import annotations

import re
from typing import Any, Final

from trimtab.deferred.batch_order import BatchIn

_IDS: Final = {"file_id": "^file-[0-9a-f]{32}$", "batch_id": "^batch_[0-9a-f]{32}$"}
_REF: Final = "#/components/schemas/{model}"


def _query(name: str, described: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": described, "schema": schema}


def _paging(most: int) -> list[dict[str, Any]]:
    return [
        _query("after", "The id of the last item of the page before.", type="string", minLength=1, maxLength=100),
        _query("limit", "How many at most.", type="integer", minimum=1, maximum=most),
        _query("order", "By the time they were made.", type="string", enum=["asc", "desc"]),
    ]


_FORM: Final = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "purpose": {"type": "string", "enum": ["batch"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
        "file": {"type": "string", "format": "binary"},
    },
}

_OPERATIONS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/v1/files"): {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}},
    },
    ("GET", "/v1/files"): {"parameters": [*_paging(10_000), _query("purpose", "Only such.", type="string")]},
    ("POST", "/v1/batches"): {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model="BatchIn")}}},
        }
    },
    ("GET", "/v1/batches"): {"parameters": _paging(100)},
}


def schemas() -> dict[str, Any]:
    """The components that the operations refer to."""
    schema = BatchIn.model_json_schema(ref_template=_REF)
    return {**schema.pop("$defs", {}), "BatchIn": schema}


def operation(method: str, path: str) -> dict[str, Any]:
    """What is added to the description of an endpoint."""
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": _IDS[name]}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    said = _OPERATIONS.get((method, path), {})
    return {**said, "parameters": [*named, *said.get("parameters", [])]}

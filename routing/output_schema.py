"""Output schemas: what of a caller's JSON schema a provider will enforce.

Pure. A schema is either passed on so that whatever satisfies it satisfies the caller's too, or refused by the name of
the keyword that would be ignored. Annotations, which constrain nothing, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from routing.errors import UnsupportedParameter

_ANNOTATIONS: Final = frozenset(
    ("$comment", "$schema", "default", "deprecated", "example", "examples", "readOnly", "writeOnly")
)
_DEEPEST: Final = 64


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a provider enforces. `formats` are those of strings; `closed_objects` means that an object may have no
    properties beyond those listed; `const` means that it knows the keyword (else it becomes an `enum` of one);
    `least_items` is the highest `minItems` (None: any)."""

    keywords: frozenset[str]
    formats: frozenset[str]
    closed_objects: bool
    const: bool
    least_items: int | None


def enforceable(schema: object, dialect: Dialect, path: str, depth: int = 0) -> dict[str, Any]:
    """The schema as the provider takes it; raises UnsupportedParameter.

    An object that says nothing of further properties is closed where the dialect needs that: a narrower answer is
    still a valid one.
    """
    if depth > _DEEPEST:
        raise UnsupportedParameter(path, f"is nested more than {_DEEPEST} levels deep")
    if not isinstance(schema, Mapping):
        raise UnsupportedParameter(path, "must be an object: a schema that is true or false cannot be enforced")
    out: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        at = f"{path}.{keyword[:40]}"
        if keyword == "const" and not dialect.const:
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise UnsupportedParameter(at, "must be a text or a number for this provider")
            out["enum"] = [value]
            continue
        if keyword not in dialect.keywords:
            raise UnsupportedParameter(at, "is not enforced by this provider")
        out[keyword] = _keyword(keyword, value, dialect, at, depth)
    if dialect.closed_objects and _is_object(out):
        if out.setdefault("additionalProperties", False) is not False:
            raise UnsupportedParameter(f"{path}.additionalProperties", "must be false for this provider")
        out.setdefault("properties", {})
    if not out.keys() & {"type", "enum", "const", "anyOf", "allOf", "$ref"}:
        raise UnsupportedParameter(path, "must state a type: this provider cannot be asked for any value at all")
    return out


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _keyword(keyword: str, value: Any, dialect: Dialect, path: str, depth: int) -> Any:
    if keyword in ("properties", "$defs", "definitions"):
        if not isinstance(value, Mapping):
            raise UnsupportedParameter(path, "must be an object")
        return {name: enforceable(each, dialect, f"{path}.{name[:40]}", depth + 1) for name, each in value.items()}
    if keyword in ("anyOf", "allOf", "prefixItems"):
        if not isinstance(value, list):
            raise UnsupportedParameter(path, "must be an array")
        return [enforceable(each, dialect, f"{path}[{at}]", depth + 1) for at, each in enumerate(value)]
    if keyword == "items" or (keyword == "additionalProperties" and isinstance(value, Mapping)):
        return enforceable(value, dialect, path, depth + 1)
    if keyword == "format" and (not isinstance(value, str) or value not in dialect.formats):
        raise UnsupportedParameter(path, "is not enforced by this provider")
    if keyword == "minItems" and dialect.least_items is not None and value not in range(dialect.least_items + 1):
        raise UnsupportedParameter(path, f"above {dialect.least_items} is not enforced by this provider")
    return value

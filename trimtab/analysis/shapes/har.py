"""HAR: what a browser's tools or a proxy export. Of the headers only the user agent is read, of the address only its host
and path: keys stand in the rest."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from routing.offers import Usage
from trimtab.analysis.recorded import Beside, Recorded, moment, recorded
from trimtab.bills import Bill, surface_at
from trimtab.surfaces import Surface

_SELLERS: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "openrouter.ai": "openrouter",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral",
}


def recognises(entry: Mapping[str, Any]) -> bool:
    request = entry.get("request")
    return (
        isinstance(request, Mapping) and isinstance(request.get("url"), str) and isinstance(request.get("method"), str)
    )


def read(entry: Mapping[str, Any], where: str) -> Recorded | None:
    request = entry["request"]
    try:
        address = urlsplit(request["url"])
        host = address.hostname or ""
    except ValueError:
        raise ValueError("has an address that is none") from None
    surface = surface_at(address.path)
    if surface is None or request["method"].upper() != "POST":
        return None
    body = _body(request)
    response = entry.get("response")
    response = response if isinstance(response, Mapping) else {}
    status = response.get("status")
    if isinstance(status, int) and status >= 400:
        return None
    answer, usage = _answer(response, surface, stream=body.get("stream") is True)
    beside = Beside(
        model=_deployment(address.path) if "model" not in body else "",
        at=moment(entry.get("startedDateTime")),
        answer=answer,
        usage=usage,
        signs=(*_agents(request), f"path: {address.path}"),
        seller=_SELLERS.get(host, ""),
    )
    return recorded(body, where, beside)


def _body(request: Mapping[str, Any]) -> Mapping[str, Any]:
    posted = request.get("postData")
    text = posted.get("text") if isinstance(posted, Mapping) else None
    try:
        body = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, Mapping):
        raise ValueError("was posted without a JSON body (export the HAR with its contents)")
    return body


def _answer(
    response: Mapping[str, Any], surface: Surface, *, stream: bool
) -> tuple[Mapping[str, Any] | None, Usage | None]:
    content = response.get("content")
    text = content.get("text") if isinstance(content, Mapping) else None
    if not isinstance(text, str) or not isinstance(content, Mapping):
        return None, None
    if content.get("encoding") == "base64":
        try:
            text = base64.b64decode(text, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return None, None
    streams = stream or "event-stream" in str(content.get("mimeType"))
    bill = Bill(surface, stream=streams)
    bill.feed(text.encode("utf-8", "surrogatepass"))
    if streams:
        return {"events": list(_events(text))}, bill.usage
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None, None
    return (answer, bill.usage) if isinstance(answer, Mapping) else (None, None)


def _events(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        if line.startswith("data:") and line[5:].strip() != "[DONE]":
            try:
                yield json.loads(line[5:])
            except (ValueError, RecursionError):
                continue


def _agents(request: Mapping[str, Any]) -> Iterator[str]:
    headers = request.get("headers")
    for header in headers if isinstance(headers, list) else ():
        if isinstance(header, Mapping) and str(header.get("name", "")).lower() == "user-agent":
            yield str(header.get("value", ""))


def _deployment(path: str) -> str:
    """The model in an address of Azure's: /openai/deployments/NAME/chat/completions."""
    steps = path.split("/")
    at = steps.index("deployments") + 1 if "deployments" in steps else 0
    return steps[at] if 0 < at < len(steps) else ""

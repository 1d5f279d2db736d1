"""trimtab before loopback providers, as its tests set it up, and what comes back told apart from the receipt."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from typing import Any

import httpx

from tests.loopback import LoopbackProvider
from trimtab import Trimtab
from trimtab.serving import served

PRICES = {"input_mtok": "2", "output_mtok": "10", "cache_read_mtok": "0.2"}
KEY_ENV = "TRIMTAB_TEST_KEY"
KEY = "sk-provider-0123456789abcdef"
CALLERS_KEY = "sk-caller-fedcba9876543210"

CONTEXTS = [
    {"id": "limits", "title": "Limits", "text": "An upload may be 5 GB. A bucket holds 100 TB. A name has 63 letters."},
    {"id": "security", "title": "Security & keys", "text": "Uploads are encrypted at rest with AES-256. Keys rotate."},
    {"id": "regions", "title": "Regions", "text": "There are buckets in Frankfurt, Oregon and Osaka. They never move."},
]
QUESTION = "How large may one upload be?"


def provider(name: str, server: LoopbackProvider, *models: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": server.tongue.kind,
        "base_url": server.base_url,
        "models": list(models or ("m",)),
        "prices": PRICES,
        **more,
    }


@contextmanager
def serving(*providers: Mapping[str, Any], **settings: Any) -> Iterator[httpx.Client]:
    """A client of a real server that is warm; `client.base_url` is its root."""
    with serving_of(Trimtab(providers=list(providers), **settings)) as client:
        yield client


@contextmanager
def serving_of(trimtab: Trimtab) -> Iterator[httpx.Client]:
    # proxies are not for loopback, and reading the certificate authorities takes 25 ms
    with (
        served(trimtab) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False, verify=False) as client,
    ):
        while client.get("/readyz").json()["status"] == "loading":
            time.sleep(0.01)  # loading holds up the whole process, timers included
        yield client


def chat(content: Any = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def without_receipt(answer: bytes) -> tuple[bytes, dict[str, Any]]:
    """A JSON answer as the provider sent it, and the receipt that was spliced into it."""
    at = answer.rindex(b',"trimtab":')
    end = answer.rindex(b"}")
    return answer[:at] + answer[end:], json.loads(answer[at + len(b',"trimtab":') : end])


def without_receipt_event(stream: bytes) -> tuple[bytes, dict[str, Any], bytes]:
    """A stream's bytes as the provider sent them, the receipt that was put in, and the event that held it."""
    events = re.findall(rb".*?\n\n", stream, re.DOTALL)
    assert b"".join(events) == stream
    ours = [each for each in events if b'"choices":[],"trimtab":{' in each or each.startswith(b": trimtab ")]
    assert len(ours) == 1, ours
    data = ours[0].removeprefix(b": trimtab ").removeprefix(b"data: ")
    told = json.loads(data)
    return stream.replace(ours[0], b""), told.get("trimtab", told), ours[0]


def documents(message: Mapping[str, Any]) -> dict[str, str]:
    """Title and kept text of each context in the message that trimtab writes."""
    found = re.findall(r'<document title="(.*?)">\n(.*?)\n</document>', message["content"], re.DOTALL)
    return {unescape(title): text for title, text in found}


def outcomes(receipt: Mapping[str, Any]) -> list[tuple[str, str, int | None]]:
    return [(each["provider"], each["outcome"], each["status"]) for each in receipt["attempts"]]

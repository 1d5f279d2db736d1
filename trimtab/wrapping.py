"""Wrapping: an official OpenAI or Anthropic client whose requests are trimmed on their way, with nothing else changed.

The client keeps its key, its address, its connections and its retries: only the transport under its HTTP client is
another. What is done here beside that is to show the receipt where the client's users look.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from trimtab.pipeline import Trimtab
from trimtab.transport import RECEIPT, TrimtabTransport

Client = TypeVar("Client")

_ROOTS: Final = {"SyncAPIClient": False, "AsyncAPIClient": True}
"""The classes that every client of both SDKs is built on, Azure's and Bedrock's too; whether each is asynchronous."""


def wrap(client: Client, trimtab: Trimtab | None = None) -> Client:
    """A copy of `client` (OpenAI, AsyncOpenAI, Anthropic, AsyncAnthropic) that trims the context of what it sends.

    It calls the address that `client` calls, with its key and over its connections; no server of ours is needed. Options
    go into `extra_body={"trimtab": {"ratio": 0.25}}`; without any, what is expected to hold `min_coverage` (0.95, a
    setting) of the evidence is kept. An answer has the receipt as `.trimtab`, a table as the server gives it; a stream
    has it too, with the bill once it is over. `with_options` and `copy` keep all of this.

    `trimtab` None: one `Trimtab` with default settings that the whole process shares. Raises TypeError for another object.

    >>> import httpx2, openai
    >>> answer = {"id": "a", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
    >>> sender = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=answer)))
    >>> client = wrap(openai.OpenAI(api_key="yours", http_client=sender))
    >>> contexts = ["An upload may be 5 GB.", "Data is encrypted at rest.", "There are buckets in Oregon."]
    >>> question = {"role": "user", "content": "How large may an upload be?"}
    >>> options = {"trimtab": {"contexts": contexts, "ratio": 0.4}}
    >>> completion = client.chat.completions.create(model="m", messages=[question], extra_body=options)
    >>> completion.trimtab["tokens_before"], completion.trimtab["tokens_after"]
    (20, 8)
    """
    kind: Any = type(client)
    asynchronous = next((_ROOTS[each.__name__] for each in kind.__mro__ if each.__name__ in _ROOTS), None)
    if asynchronous is None or not hasattr(client, "copy"):
        name = f"{kind.__module__}.{kind.__name__}"
        raise TypeError(
            f"wrap takes a client of the openai or anthropic package (OpenAI, AsyncOpenAI, ...), not {name}"
        )
    wrapped = client.copy(http_client=_trimming(client._client, trimtab))  # type: ignore[attr-defined]
    wrapped.__class__ = _showing_receipts(kind, asynchronous)
    return wrapped  # type: ignore[no-any-return]


def _trimming(http: Any, trimtab: Trimtab | None) -> Any:
    """The same HTTP client over the same connections, with a transport of ours before its own.

    A copy whose transports are replaced, not a new client: headers, cookies, proxies, hooks and redirects stay the
    caller's. Both SDKs' own HTTP clients close when they are collected; this one must not, since the connections are
    the original's (which it keeps alive).
    """
    trimming = copy.copy(http)
    trimming.__class__ = _not_closing(http.__class__)
    trimming._original = http
    trimming._transport = _before(http._transport, trimtab)
    trimming._mounts = {pattern: each and _before(each, trimtab) for pattern, each in http._mounts.items()}
    return trimming


@functools.cache
def _not_closing(kind: Any) -> type:
    """An HTTP client class that does not close when it is collected."""
    return _variant(kind, __del__=lambda self: None)


def _before(transport: Any, trimtab: Trimtab | None) -> TrimtabTransport:
    wrapped_before = isinstance(transport, TrimtabTransport)
    return TrimtabTransport(transport.inner if wrapped_before else transport, trimtab)


@functools.cache
def _showing_receipts(kind: Any, asynchronous: bool) -> type:
    """A client class whose answers and streams show their receipt."""

    def process(self: Any, *, data: Any, cast_to: Any, response: Any) -> Any:
        answer = kind._process_response_data(self, data=data, cast_to=cast_to, response=response)
        receipt = response.extensions.get(RECEIPT)
        if receipt is not None and hasattr(answer, "model_extra") and not _is_stream(response.headers):
            answer.trimtab = receipt.to_dict()
        return answer

    def request(self: Any, *args: Any, **options: Any) -> Any:
        return _shown(kind.request(self, *args, **options))

    async def arequest(self: Any, *args: Any, **options: Any) -> Any:
        return _shown(await kind.request(self, *args, **options))

    return _variant(kind, _process_response_data=process, request=arequest if asynchronous else request)


def _is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").startswith("text/event-stream")


def _shown(result: Any) -> Any:
    """A stream with `.trimtab`, which changes when the stream is over; any other result as it is."""
    if type(result).__name__ in ("Stream", "AsyncStream") and RECEIPT in result.response.extensions:
        result.__class__ = _stream_showing_its_receipt(result.__class__)
    return result


@functools.cache
def _stream_showing_its_receipt(kind: Any) -> type:
    return _variant(kind, trimtab=property(lambda stream: stream.response.extensions[RECEIPT].to_dict()))


def _variant(kind: type, **members: Any) -> type:
    """A subclass of `kind` under its name: one for `isinstance`, and the same to whoever reads a log."""
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__, **members})

"""Wires: how a kind of provider is spoken to, as a table of frozen rows.

A row says how a request is addressed, how the key is shown, which headers may pass and how an answer is read. Every kind
has a row for chat completions: openai's passes bodies and answers as they are, the others carry a `Conversion`, and all
of it is done there. The rows for other tongues pass them as they are, and are there for what a kind speaks itself.
Pure but for the one environment variable that holds a key. Knows nothing of connections, retries or prices.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from routing import anthropic_answer, anthropic_request, gemini_answer, gemini_request
from routing.conversion import Conversion
from routing.errors import RoutingError
from routing.offers import Offer, Usage
from routing.streams import ChatProgress, Garbage, Progress, parse_object
from routing.tongues import CHAT, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES, Tongue
from routing.tongues.messages_answer import MessagesProgress
from routing.tongues.responses_answer import ResponsesProgress

if TYPE_CHECKING:
    from routing.catalog import Provider


class UnsupportedWire(RoutingError):
    """The provider's kind, or the service class bought from it, cannot be forwarded to."""


class MissingKey(RoutingError):
    """The environment variable that should hold a provider's key is unset, empty or not a possible header value."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What a provider says that a call took. `reasoning_tokens` are part of `usage.output_tokens`."""

    usage: Usage
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Wire:
    """One row: a kind of provider, in the tongue that it is asked in.

    `path` is appended to the provider's `base_url`. `authorization(key)` gives the headers that show the key.
    `request_headers` are the caller's that may pass, `response_headers` the provider's that may come back and the names
    they come back by, all in lower case; everything else is dropped, the caller's Authorization and Cookie above all.
    `service_tiers` names the processings that can be bought and the `service_tier` that buys them (None: the body is
    left as the caller wrote it). `read_usage` finds the usage in a whole answer or in one event of a stream;
    `progress` makes what follows how far a stream has come. With a `conversion`, it says where a request goes (`path`
    is empty) and reads the stream, and `read_usage` sees what it has made. `headers` are sent where the caller sends
    none of that name. `error_status` is what an error inside a success stands for, None if there is none.
    """

    kind: str
    path: str
    authorization: Callable[[str], tuple[tuple[str, str], ...]]
    request_headers: frozenset[str]
    response_headers: Mapping[str, str]
    service_tiers: Mapping[str, str | None]
    read_usage: Callable[[Mapping[str, Any]], Reported | None]
    progress: Callable[[], Progress] = ChatProgress
    conversion: Conversion | None = None
    tongue: Tongue = CHAT
    headers: tuple[tuple[str, str], ...] = ()
    error_status: Callable[[Mapping[str, Any]], int | None] = lambda answer: error_status(answer)


def read_chat_usage(answer: Mapping[str, Any]) -> Reported | None:
    """The usage of an OpenAI chat completion or chunk; None if there is none or its counts make no sense (a bool, a
    negative, more cached than there was).

    Output is all that is billed as output. OpenAI counts reasoning within `completion_tokens`; xAI and Gemini's
    compatible endpoint leave it out and put it into `total_tokens` only (docs.x.ai, "Consumption and Rate Limits"), so
    the larger of `completion_tokens` and `total_tokens - prompt_tokens` is taken. Cached tokens are OpenAI's
    `prompt_tokens_details.cached_tokens` or DeepSeek's `prompt_cache_hit_tokens`; cache writes are OpenRouter's.

    >>> read_chat_usage({"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}).usage.output_tokens
    2
    """
    usage = answer.get("usage")
    if not isinstance(usage, Mapping):
        return None
    prompt = usage.get("prompt_tokens_details")
    prompt = prompt if isinstance(prompt, Mapping) else {}
    completion = usage.get("completion_tokens_details")
    completion = completion if isinstance(completion, Mapping) else {}
    input_tokens, output_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if input_tokens is None or output_tokens is None:
        return None
    total_tokens = _count(usage, "total_tokens") or 0
    cached = _count(prompt, "cached_tokens")
    read_tokens = (_count(usage, "prompt_cache_hit_tokens") or 0) if cached is None else cached
    write_tokens = _count(prompt, "cache_write_tokens") or 0
    if read_tokens + write_tokens > input_tokens:
        return None
    return Reported(
        Usage(input_tokens, max(output_tokens, total_tokens - input_tokens), read_tokens, write_tokens),
        reasoning_tokens=_count(completion, "reasoning_tokens") or 0,
    )


def read_messages_usage(answer: Mapping[str, Any]) -> Reported | None:
    """The usage of an Anthropic message, or of the event that ends one; `input_tokens` leaves out the cached ones."""
    usage = answer.get("usage")
    if not isinstance(usage, Mapping) or answer.get("type") == "message_start":
        return None
    return read_chat_usage({"usage": anthropic_answer.usage_from(usage)})


def read_responses_usage(answer: Mapping[str, Any]) -> Reported | None:
    """The usage of an OpenAI response, or of the event that ends one."""
    response = answer.get("response", answer)
    usage = response.get("usage") if isinstance(response, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    return read_chat_usage({"usage": {_CHAT_NAMES.get(name, name): value for name, value in usage.items()}})


_CHAT_NAMES = {
    "input_tokens": "prompt_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens": "completion_tokens",
    "output_tokens_details": "completion_tokens_details",
}


def read_embeddings_usage(answer: Mapping[str, Any]) -> Reported | None:
    """The usage of a list of embeddings, which has no output."""
    usage = answer.get("usage")
    return read_chat_usage({"usage": {"completion_tokens": 0, **usage}}) if isinstance(usage, Mapping) else None


def _count(table: Mapping[str, Any], name: str) -> int | None:
    value = table.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


_OPENAI = Wire(
    kind="openai",
    path="/chat/completions",
    authorization=lambda key: (("authorization", f"Bearer {key}"),),
    # OpenAI-Organization and OpenAI-Project are left out: they select an account, and the key here is ours.
    request_headers=frozenset(("idempotency-key", "openai-beta", "x-client-request-id")),
    response_headers={
        name: name
        for name in (
            "content-type",
            "openai-model",
            "openai-processing-ms",
            "openai-version",
            "retry-after",
            "retry-after-ms",
            "x-ratelimit-limit-requests",
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-requests",
            "x-ratelimit-reset-tokens",
            "x-request-id",
        )
    },
    service_tiers={"sync": None, "flex": "flex", "priority": "priority"},
    read_usage=read_chat_usage,
)

_ANTHROPIC = Wire(
    kind="anthropic",
    path="",
    # Not Authorization: of the two this is the one that every server of this wire knows, and Anthropic takes it first.
    authorization=lambda key: (("x-api-key", key),),
    # anthropic-beta is left out: a beta changes shapes that the conversion does not know.
    request_headers=frozenset(("x-client-request-id",)),
    response_headers={
        "content-type": "content-type",
        "request-id": "x-request-id",
        "retry-after": "retry-after",
        **{
            f"anthropic-ratelimit-{what}-{figure}": f"x-ratelimit-{figure}-{what}"
            for what in ("requests", "tokens")
            for figure in ("limit", "remaining", "reset")
        },
    },
    service_tiers={"sync": None},
    read_usage=read_chat_usage,
    conversion=Conversion(
        encode=anthropic_request.encode,
        decode=anthropic_answer.decode,
        fault=anthropic_answer.fault,
        converter=anthropic_answer.AnthropicStream,
        tier_field="service_tier",
    ),
)

_GEMINI = Wire(
    kind="gemini",
    path="",
    authorization=lambda key: (("x-goog-api-key", key),),
    request_headers=frozenset(("x-client-request-id",)),
    response_headers={"content-type": "content-type", "retry-after": "retry-after"},
    service_tiers={"sync": None, "flex": "flex", "priority": "priority"},
    read_usage=read_chat_usage,
    conversion=Conversion(
        encode=gemini_request.encode,
        decode=gemini_answer.decode,
        fault=gemini_answer.fault,
        converter=gemini_answer.GeminiStream,
        tier_field="serviceTier",
    ),
)

WIRES: Mapping[str, Wire] = {wire.kind: wire for wire in (_OPENAI, _ANTHROPIC, _GEMINI)}
"""The rows for chat completions, by kind."""

_RESPONSES = replace(
    _OPENAI,
    path="/responses",
    tongue=RESPONSES,
    read_usage=read_responses_usage,
    progress=ResponsesProgress,
    # a response that failed is the answer to a request that was understood, and says so in its status
    error_status=lambda answer: None if answer.get("object") == "response" else error_status(answer),
)
_EMBEDDINGS = replace(_OPENAI, path="/embeddings", tongue=EMBEDDINGS, read_usage=read_embeddings_usage)
_MESSAGES = replace(
    _ANTHROPIC,
    path="/v1/messages",
    tongue=MESSAGES,
    # both say what shapes the body has
    request_headers=frozenset(("anthropic-beta", "anthropic-version", "idempotency-key", "x-client-request-id")),
    response_headers={
        name: name
        for name in (
            *("content-type", "request-id", "retry-after"),
            *(
                f"anthropic-ratelimit-{what}-{figure}"
                for what in ("requests", "tokens", "input-tokens", "output-tokens")
                for figure in ("limit", "remaining", "reset")
            ),
        )
    },
    headers=(("anthropic-version", anthropic_request.SAMPLING_VERSION),),
    read_usage=read_messages_usage,
    progress=MessagesProgress,
    conversion=None,
    error_status=lambda answer: anthropic_answer.fault(None, answer).status if answer.get("error") else None,
)
_COUNT_TOKENS = replace(
    _MESSAGES, path="/v1/messages/count_tokens", tongue=COUNT_TOKENS, read_usage=lambda _: Reported(Usage(0, 0))
)

NATIVE: Mapping[tuple[str, str], Wire] = {
    (wire.kind, wire.tongue.name): wire for wire in (_RESPONSES, _EMBEDDINGS, _MESSAGES, _COUNT_TOKENS)
}
"""The rows for what a kind of provider speaks itself beside chat completions, by kind and tongue."""


def wire_of(provider: Provider, tongue: Tongue = CHAT) -> Wire:
    """The row of the provider's kind: for `tongue` if it speaks it, else for chat completions.

    Raises UnsupportedWire, naming the kinds that there are.
    """
    native = NATIVE.get((provider.kind, tongue.name))
    if native is not None and (native.tongue is not RESPONSES or provider.serves_responses):
        return native
    wire = WIRES.get(provider.kind)
    if wire is None:
        raise UnsupportedWire(
            f"provider {provider.name!r} is of kind {provider.kind!r}, which cannot be forwarded to yet; "
            f"kinds that can: {', '.join(sorted(WIRES))}"
        )
    return wire


def read_key(provider: Provider, environ: Mapping[str, str]) -> str | None:
    """The provider's key as of now, so that a rotated one needs no restart; None for a provider that takes none.

    Raises MissingKey, naming the variable and never its value.
    """
    if provider.api_key_env is None:
        return None
    # A key pasted with its line end is common, and no key has white space at its ends.
    key = environ.get(provider.api_key_env, "").strip()
    if not key:
        raise MissingKey(
            f"provider {provider.name!r} needs a key: the environment variable {provider.api_key_env} is not set"
        )
    if not (key.isascii() and key.isprintable()):
        raise MissingKey(
            f"the environment variable {provider.api_key_env} of provider {provider.name!r} holds characters "
            "that no key has"
        )
    return key


TRACE_HEADERS: Final = frozenset(("traceparent", "tracestate"))
"""W3C Trace Context's. They go along with every call whose caller hands them over; the server does where it is told to."""


def headers_for(wire: Wire, key: str | None, caller: Mapping[str, str], idempotency_key: str) -> dict[str, str]:
    """The headers of one call: the caller's that the wire allows, ours, and the key."""
    wanted = wire.request_headers | TRACE_HEADERS
    allowed = {name.lower(): value for name, value in caller.items() if name.lower() in wanted}
    # A value that HTTP cannot carry as ASCII is dropped: each of these is a hint, and none is worth an error.
    headers = {name: value for name, value in allowed.items() if value.isascii() and value.isprintable()}
    headers = dict(wire.headers) | headers
    headers |= {
        "content-type": "application/json",
        # Compressed answers would have to be unpacked here to be checked, and a stream would be held up by it.
        "accept-encoding": "identity",
        "user-agent": "trimtab",
        "idempotency-key": idempotency_key,
    }
    return headers | dict(wire.authorization(key) if key is not None else ())


def tier_of(wire: Wire, offer: Offer) -> str | None:
    """The `service_tier` that buys the offer's processing, None for the ordinary one; raises UnsupportedWire."""
    if offer.processing not in wire.service_tiers:
        raise UnsupportedWire(
            f"{offer.processing!r} processing cannot be bought from {offer.provider!r} by forwarding one request"
        )
    return wire.service_tiers[offer.processing]


def body_for(wire: Wire, body: Mapping[str, Any], offer: Offer, stream: bool) -> bytes:
    """The caller's body as JSON, with the offer's model, service tier and `stream`; every other field is untouched.

    Raises UnsupportedWire for a processing that this wire cannot buy, ValueError or TypeError for a body that is not
    JSON (NaN included).
    """
    tier = tier_of(wire, offer)
    sent = {**body, "model": offer.model}
    if tier is not None:
        sent["service_tier"] = tier
    if bool(sent.get("stream")) is not stream:
        sent["stream"] = stream
    try:
        return json.dumps(sent, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair is legal in JSON, as an escape only.
        return json.dumps(sent, separators=(",", ":"), allow_nan=False).encode()


def idempotency_key_for(seed: str, offer: Offer, content: bytes) -> str:
    """One key for every attempt of one offer: the same arguments give the same key.

    Not one key a provider: another model is another body, and a key used twice with two bodies is refused as misuse.
    For the same reason `content` takes part where the seed is a caller's own: two callers may choose the same.
    """
    parts = "\0".join((seed, offer.provider, offer.model, offer.processing, ""))
    return "trimtab-" + hashlib.sha256(parts.encode(errors="surrogatepass") + content).hexdigest()[:40]


def retry_after_ms(headers: Mapping[str, str], now_s: float) -> float | None:
    """What the provider asks us to wait: `retry-after-ms`, else `retry-after` in seconds or as a date; None if neither.

    `headers` are in lower case and `now_s` is seconds since 1970, for dates.

    >>> retry_after_ms({"retry-after": "2"}, 0.0), retry_after_ms({"retry-after": "Thu, 01 Jan 1970 00:00:09 GMT"}, 4.0)
    (2000.0, 5000.0)
    """
    for name, unit_ms in (("retry-after-ms", 1.0), ("retry-after", 1000.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            return float(value) * unit_ms
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, (when.timestamp() - now_s) * 1000.0)


def error_status(answer: Mapping[str, Any]) -> int | None:
    """The status that an error object inside a success stands for; None if there is no error object.

    OpenRouter and others answer 200 first and put `{"error": {"code": 429, ...}}` into the body or an event. Without a
    numeric code it counts as 502, a provider that failed.
    """
    error = answer.get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else 502


_ERROR_CODE = re.compile(r"[a-z][a-z_]{1,47}")
_SPENT_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_error")


def error_code(body: bytes) -> str:
    """The `error.code` or `error.type` of an error body if it is one plain word, else "".

    Nothing else of an error body goes into a receipt: messages quote prompts and parts of keys.
    """
    try:
        error = parse_object(body).get("error")
    except Garbage:
        return ""
    if not isinstance(error, Mapping):
        return ""
    found = (value for value in (error.get("code"), error.get("type")) if isinstance(value, str))
    return next((value for value in found if _ERROR_CODE.fullmatch(value)), "")


def means_spent(code: str) -> bool:
    """Whether a 429 (or, from some gateways, a 400) with this code says that the money is used up: no waiting mends that."""
    return code in _SPENT_CODES

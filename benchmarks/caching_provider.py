"""A provider on loopback that caches prompts and bills them as the real ones do.

OpenAI's way: any prefix read before, in steps of 128 tokens from 1,024 on, is billed at the read price by itself.
Anthropic's way: only a prefix that `cache_control` marks is written (for a premium), and it is read where a later request
begins with it. Tokens are counted with o200k_base, the template as four tokens a message.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from compressor.tokens import count_tokens

Kind = Literal["openai", "anthropic"]

ANSWER = "It is as the manual says."
ANSWER_TOKENS = 60
STEP_TOKENS, LEAST_TOKENS = 128, 1_024
MARKED_LEAST_TOKENS = 4_096


class CachingProvider:
    """`usages` are the bills so far, in the provider's own shape; `bodies` are the requests that they are for."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.base_url = ""
        self.usages: list[Mapping[str, Any]] = []
        self.bodies: list[Mapping[str, Any]] = []
        self._held: set[str] = set()

    def bill(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The usage of one request, which is in the cache from now on."""
        usage = self._openai(body) if self.kind == "openai" else self._anthropic(body)
        self.usages.append(usage)
        self.bodies.append(body)
        return usage

    def _openai(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        # Words stand for tokens in the prefix: what matters is that it is the same to the byte.
        pieces = [piece for message in body["messages"] for piece in _pieces(message["role"], _text(message))]
        tokens = sum(count for _, count in pieces)
        prefix, total, cached = "", 0, 0
        for text, count in pieces:
            prefix, total = f"{hash((prefix, text))}", total + count
            if prefix in self._held:
                cached = total
            self._held.add(prefix)
        cached = cached // STEP_TOKENS * STEP_TOKENS if cached >= LEAST_TOKENS else 0
        cached = min(cached, tokens - 1)
        return {
            "prompt_tokens": tokens,
            "completion_tokens": ANSWER_TOKENS,
            "total_tokens": tokens + ANSWER_TOKENS,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _anthropic(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        blocks = [*_blocks("system", body.get("system"))]
        for message in body["messages"]:
            blocks += _blocks(message["role"], message["content"])
        prefix, total, read, written = "", 0, 0, 0
        for role, text, marked in blocks:
            prefix, total = f"{hash((prefix, role, text))}", total + count_tokens(text) + 4
            if prefix in self._held:
                read = total
            if marked and total >= MARKED_LEAST_TOKENS:
                written = max(written, total)
                self._held.add(prefix)
        if not written:
            read = 0  # without a mark nothing is looked up
        return {
            "input_tokens": total - max(read, written),
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": max(0, written - read),
            "output_tokens": ANSWER_TOKENS,
        }


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


def _pieces(role: str, text: str) -> Iterator[tuple[str, int]]:
    yield role, 4
    for start in range(0, len(text), 256):
        piece = text[start : start + 256]
        yield piece, count_tokens(piece)


def _blocks(role: str, content: object) -> list[tuple[str, str, bool]]:
    if isinstance(content, str):
        return [(role, content, False)]
    return [
        (role, block.get("text", ""), "cache_control" in block)
        for block in (content if isinstance(content, list) else ())
    ]


@contextmanager
def caching_provider(kind: Kind) -> Iterator[CachingProvider]:
    """The provider, serving from a thread of its own."""
    provider = CachingProvider(kind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            content = json.dumps(_answer(kind, body["model"], provider.bill(body))).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.base_url = f"http://127.0.0.1:{server.server_address[1]}" + ("/v1" if kind == "openai" else "")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(kind: Kind, model: str, usage: Mapping[str, Any]) -> Mapping[str, Any]:
    if kind == "anthropic":
        content = [{"type": "text", "text": ANSWER}]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
    choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }

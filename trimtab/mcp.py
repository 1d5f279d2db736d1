"""The MCP server: compress, expand and plan as tools for an agent. `pip install 'trimtab[mcp]'`, then `trimtab mcp`.

What `compress` drops is kept in memory for a while, under its digest, and `expand` gives it back. Nothing is sent anywhere.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from compressor.payload import BadPayload
from routing.errors import RoutingError
from trimtab import __version__
from trimtab.errors import TrimtabError
from trimtab.options import CompressIn, checked
from trimtab.pipeline import Trimtab

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
except ImportError as error:
    raise ImportError("trimtab.mcp needs the MCP SDK: pip install 'trimtab[mcp]'") from error

ORIGINALS_BYTES: Final = 64 * 2**20
"""Of texts that `expand` can give back; the oldest go first."""

_INSTRUCTIONS: Final = (
    "Trims long texts to what a question needs. Call compress before reading long retrieved texts, files or tool outputs; "
    "call expand with a text's digest if something seems to be missing; call plan to see what a chat request would cost."
)


class KeptText(BaseModel):
    """What is left of one text. `text` is verbatim, with a mark where something was left out; empty if nothing is kept."""

    text: str
    digest: str = Field(description="Give it to expand for the whole original.")
    complete: bool = Field(description="Whether nothing was left out.")


class CompressedTexts(BaseModel):
    """One entry for each text given, in order."""

    contexts: list[KeptText]
    tokens_before: int
    tokens_after: int
    coverage_estimate: float = Field(description="The share of the evidence, 0 to 1, that is expected to be kept.")


class Originals:
    """Texts by their digest, bounded in bytes: the least recently used go first. Safe to share between threads."""

    def __init__(self, limit_bytes: int = ORIGINALS_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, text: str) -> str:
        """The digest under which `text` is kept; a text larger than the whole store is not."""
        content = text.encode(errors="surrogatepass")
        digest = hashlib.sha256(content).hexdigest()[:32]
        with self._lock:
            if digest not in self._texts and len(content) <= self._limit_bytes:
                self._texts[digest] = text
                self._bytes += len(content)
            while self._bytes > self._limit_bytes:
                _, oldest = self._texts.popitem(last=False)
                self._bytes -= len(oldest.encode(errors="surrogatepass"))
        return digest

    def get(self, digest: str) -> str | None:
        with self._lock:
            if digest in self._texts:
                self._texts.move_to_end(digest)
            return self._texts.get(digest)


def mcp_server(trimtab: Trimtab, originals: Originals | None = None) -> MCPServer[Any]:
    """The server over one `Trimtab`, to be run: `mcp_server(Trimtab()).run("stdio")`."""
    originals = originals or Originals()
    server: MCPServer[Any] = MCPServer("trimtab", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING")

    @server.tool()
    def compress(
        query: Annotated[str, Field(description="What the texts are needed for.")],
        contexts: Annotated[list[str], Field(description="The texts to cut.")],
        ratio: Annotated[float | None, Field(description="Keep at most this share of the tokens, 0 to 1.")] = None,
        budget_tokens: Annotated[int | None, Field(description="Keep at most this many tokens.")] = None,
        min_coverage: Annotated[
            float | None,
            Field(description="Keep at least this expected share of the evidence; 0.95 without any limit."),
        ] = None,
    ) -> CompressedTexts:
        """Cut texts to the parts that a question needs. What is kept is verbatim and in order."""
        size = {"ratio": ratio, "budget_tokens": budget_tokens, "min_coverage": min_coverage}
        try:
            asked = checked(CompressIn, {"query": query, "contexts": contexts, **size}, None)
            result = trimtab.compress_request(asked)
        except TrimtabError as error:
            raise ToolError(str(error)) from None
        kept = [
            KeptText(text=each.text, digest=originals.keep(text), complete=each.text == text)
            for each, text in zip(result.contexts, contexts, strict=True)
        ]
        return CompressedTexts(
            contexts=kept,
            tokens_before=result.tokens_before,
            tokens_after=result.tokens_after,
            coverage_estimate=result.coverage_estimate,
        )

    @server.tool()
    def expand(digest: Annotated[str, Field(description="The digest of a text that compress has cut.")]) -> str:
        """The whole original of a text that compress has cut."""
        text = originals.get(digest)
        if text is None:
            raise ToolError(
                f"nothing is kept under {digest[:64]!r}: it was never given, or is too long ago; give it again"
            )
        return text

    @server.tool()
    def plan(
        body: Annotated[
            dict[str, Any],
            Field(description='A chat completion: {"model", "messages", "trimtab": {"contexts", "candidates", ...}}.'),
        ],
    ) -> dict[str, Any]:
        """What a chat completion would cost with its context trimmed, and what else was considered. Nothing is sent."""
        try:
            return trimtab.plan(body).to_dict()
        except (TrimtabError, RoutingError, BadPayload) as error:
            raise ToolError(str(error)) from None

    return server

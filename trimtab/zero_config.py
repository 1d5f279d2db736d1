"""Zero configuration: the makers whose keys are in the environment, each with all of its models that have a known price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from routing.catalog import Provider

MAKERS: Final = (
    Provider(
        "openai",
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        ("gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "codex-*", "text-embedding-*"),
    ),
    Provider("anthropic", "anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY", ("claude-*",)),
    Provider(
        "gemini",
        "gemini",
        "https://generativelanguage.googleapis.com",
        "GEMINI_API_KEY",
        ("gemini-*", "gemma-*"),
        prices="google",
    ),
)
"""Their own addresses, whatever OPENAI_BASE_URL and its like say: those may well lead back here."""

NO_KEY: Final = (
    "no provider: set {} in the environment, or say with --config which there are. Until then /v1/compress, /v1/inspect and "
    "/v1/plan answer, and nothing is forwarded"
)


def providers_in(environ: Mapping[str, str]) -> tuple[Provider, ...]:
    """The makers whose key is set, in the order of MAKERS; empty where none is.

    >>> [provider.name for provider in providers_in({"ANTHROPIC_API_KEY": "sk-...", "OPENAI_API_KEY": " "})]
    ['anthropic']
    """
    return tuple(maker for maker in MAKERS if environ.get(maker.api_key_env or "", "").strip())


def no_key() -> str:
    """What to tell whoever starts a server without a configuration and without a key."""
    return NO_KEY.format(" or ".join(str(maker.api_key_env) for maker in MAKERS))

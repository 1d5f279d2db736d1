"""Telling: what a process learns, in the plain values that other processes can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from routing.prompt_cache import Link

if TYPE_CHECKING:
    from trimtab.pipeline import Trimtab

Tell = Callable[[str, Mapping[str, Any]], None]
"""Is told of a kind of event, and its fields: JSON values, and nothing of a prompt. Must not block."""


def nobody(kind: str, event: Mapping[str, Any]) -> None:
    """Where there is nobody to be told."""


def plain_links(chain: Sequence[Link]) -> list[tuple[str, int]]:
    """Links as JSON has them.

    >>> links_of(plain_links([Link(b"ab", 7)])) == (Link(b"ab", 7),)
    True
    """
    return [(link.digest.hex(), link.tokens) for link in chain]


def links_of(plain: Sequence[Sequence[Any]]) -> tuple[Link, ...]:
    """The links again. Raises ValueError or TypeError for what are none."""
    return tuple(Link(bytes.fromhex(digest), int(tokens)) for digest, tokens in plain)


def together(trimtab: Trimtab) -> AbstractContextManager[None]:
    """Within it, `trimtab` and the other workers learn from each other, where the settings say that there are any."""
    if not trimtab.settings.shares:
        return nullcontext()
    from trimtab.sharing.learning import learning  # here, since SQLAlchemy takes long to load

    return learning(trimtab)

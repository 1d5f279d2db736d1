"""Caller: who asks. What is kept for one caller is found by nobody else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

_CREDENTIALS: Final = ("authorization", "x-api-key")


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant` owns what a request leaves behind: answers, contexts, jobs, lines of the ledger. It is a digest or a name
    that we gave, never a credential. `key` and `team` name a virtual key and its team, where there are any."""

    tenant: str
    key: str = ""
    team: str = ""


NOBODY: Final = Caller("")
"""Of a request that came over no network: the process's own."""


class Gate(Protocol):
    """Lets callers in."""

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        """Who sent these headers (names in lower case, or in any case where the mapping does not mind). Raises BadRequest
        with status 401 or 403 for whoever may not come in."""
        ...


class OpenGate:
    """Everybody may come in: the providers' keys are the server's, and whoever reaches its address is trusted. Callers with
    different credentials are different tenants, whatever those credentials are."""

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        return stranger(headers)


def stranger(headers: Mapping[str, str]) -> Caller:
    """A caller whom only the credential in the headers tells from others."""
    digest = hashlib.sha256()
    for name in _CREDENTIALS:
        encoded = headers.get(name, "").encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return Caller(digest.hexdigest())

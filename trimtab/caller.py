"""Caller: who asks. What is kept for one caller is found by nobody else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Protocol

from trimtab.access.rules import EVERYTHING, Rules

if TYPE_CHECKING:
    from trimtab.prepared import Prepared

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


def name_of(caller: Caller, *parts: str) -> bytes:
    """What is stored under `parts` for this caller is found by, and by nobody else."""
    digest = hashlib.sha256()
    for part in (caller.tenant, *parts):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


class Gate(Protocol):
    """Lets callers in."""

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        """Who sent these headers (names in lower case, or in any case where the mapping does not mind). Raises BadRequest
        with status 401 or 403 for whoever may not come in."""
        ...

    def rules(self, caller: Caller) -> Rules:
        """Which models and providers a caller may use. It may block: in a thread. Raises BadRequest for one that is gone."""
        ...

    async def hold(self, caller: Caller, prepared: Prepared, job_id: str | None = None) -> Mapping[str, str]:
        """Reserve what a request may cost, under its receipt's id or its job's, until it is settled. Gives the headers that
        tell the caller of limits. Raises BadRequest (429) where there is not enough left."""
        ...

    def settle(self, id: str, billed_usd: Decimal) -> None:
        """What was reserved under this id has cost so much. On the event loop. An unknown id, or one that is settled, is no
        error."""
        ...


class OpenGate:
    """Everybody may come in: the providers' keys are the server's, and whoever reaches its address is trusted. Callers with
    different credentials are different tenants, whatever those credentials are."""

    async def admit(self, headers: Mapping[str, str]) -> Caller:
        return stranger(headers)

    def rules(self, caller: Caller) -> Rules:
        return EVERYTHING

    async def hold(self, caller: Caller, prepared: Prepared, job_id: str | None = None) -> Mapping[str, str]:
        return {}

    def settle(self, id: str, billed_usd: Decimal) -> None:
        pass


def stranger(headers: Mapping[str, str]) -> Caller:
    """A caller whom only the credential in the headers tells from others."""
    digest = hashlib.sha256()
    for name in _CREDENTIALS:
        encoded = headers.get(name, "").encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return Caller(digest.hexdigest())

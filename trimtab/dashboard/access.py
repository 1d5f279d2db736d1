"""Access: who may see the dashboard. It shows every tenant's requests, so it is the operator's alone.

Without a key it opens to this machine only: both ends of the connection are loopback addresses and the Host header names
one. The Host is looked at because a web page can point a name of its own at 127.0.0.1 (DNS rebinding) and read what its
visitor's browser then gets. With a key it opens to whoever signs in, from anywhere, and to nobody else: behind a proxy on
this machine every connection comes from it, and only a key tells visitors apart.

A session is a cookie that says until when it holds, signed with the key: nothing is stored, a new key ends them all.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from starlette.requests import Request

COOKIE: Final = "trimtab_session"
SESSION_S: Final = 12 * 3600

Verdict = Literal["open", "sign in", "no key set", "not this machine", "wrong host"]


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request says of where it comes from. `server` and `client` are the two ends of its connection ("" where the
    server does not say), `host` its Host header, `session` its cookie."""

    server: str
    client: str
    host: str
    session: str = ""

    @staticmethod
    def of(request: Request) -> Visit:
        server, client = request.scope.get("server"), request.scope.get("client")
        return Visit(
            str(server[0]) if server else "",
            str(client[0]) if client else "",
            request.headers.get("host", ""),
            request.cookies.get(COOKIE, ""),
        )


class Door:
    """Lets visitors in. `key_env` names the environment variable that holds the dashboard's key; None asks for none."""

    def __init__(self, key_env: str | None, environ: Mapping[str, str]) -> None:
        self.key_env = key_env
        self._key = environ.get(key_env, "") if key_env is not None else ""

    def verdict(self, visit: Visit, now_s: float) -> Verdict:
        """`now_s` is the time in seconds since 1970.

        >>> Door(None, {}).verdict(Visit("127.0.0.1", "127.0.0.1", "localhost:8400"), 0.0)
        'open'
        """
        if self.key_env is not None:
            if not self._key:
                return "no key set"
            return "open" if self._holds(visit.session, now_s) else "sign in"
        if not (is_loopback(visit.server) and is_loopback(visit.client)):
            return "not this machine"
        return "open" if is_loopback(_name_in(visit.host)) else "wrong host"

    def session(self, key: str, now_s: float) -> str | None:
        """The cookie of whoever knows the key; None for everybody else. Takes as long for a wrong key as for the right one."""
        right = hmac.compare_digest(_digest(key), _digest(self._key))
        if not (right and self._key):
            return None
        until = str(int(now_s) + SESSION_S)
        return f"{until}.{self._signed(until)}"

    def _holds(self, session: str, now_s: float) -> bool:
        until, _, signature = session.partition(".")
        same = hmac.compare_digest(signature.encode("utf-8", "replace"), self._signed(until).encode())
        return same and until.isascii() and until.isdigit() and now_s < int(until)

    def _signed(self, until: str) -> str:
        words = f"trimtab dashboard session until {until}".encode("utf-8", "replace")
        return hmac.new(self._key.encode("utf-8", "surrogateescape"), words, "sha256").hexdigest()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_loopback(name: str) -> bool:
    """Whether an address or a host's name can only mean this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("trimtab.localhost"), is_loopback("localhost.example.com")
    (True, True, False)
    """
    lower = name.lower().rstrip(".")
    if lower == "localhost" or lower.endswith(".localhost"):  # RFC 6761, 6.3: browsers never ask the DNS for these
        return True
    try:
        address = ipaddress.ip_address(lower)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _name_in(host: str) -> str:
    """The name in a Host header, without its port and the brackets around an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]

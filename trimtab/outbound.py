"""Outbound: the guard on every request that trimtab makes to an address of a caller's choosing.

An address is checked twice. When it is accepted, by its text: `OutboundRules.check`. When it is called, after its name was
resolved: `GuardedTransport` connects to the very addresses that it checked, so that a name that means another address a
moment later changes nothing. Proxies of the environment are not used: they would resolve the name again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from trimtab.errors import BadRequest, BadSettings, TrimtabError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_CHARACTERS: Final = 2_048

# Not ipaddress's is_global: what it says of some of these has changed between releases of Python 3.11 to 3.13, and the
# address at which Azure tells a machine's secrets is global. IANA's registries of special-purpose addresses, 2025.
_REFUSED: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ipaddress.ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),  # and most clouds' metadata
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("168.63.129.16/32", "a cloud's metadata"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("2001::/23", "reserved"),  # Teredo is in it
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "for documentation"),
    )
)
_GLOBAL_V6: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "localdomain", "home.arpa")
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name, as texts. Raises OSError where it has none."""


class AddressRefused(TrimtabError):
    """The address, or one that its host's name stands for, is none that a caller may have called."""


def why_refused(address: Address) -> str | None:
    """What an address is that only this network can reach, or nobody; None for one of the public internet.

    >>> why_refused(ipaddress.ip_address("::ffff:127.0.0.1")), why_refused(ipaddress.ip_address("9.9.9.9"))
    ('loopback', None)
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return why_refused(address.ipv4_mapped)
        if address in _NAT64:  # how a network that has IPv6 alone reaches the rest
            return why_refused(ipaddress.IPv4Address(address.packed[-4:]))
        if address not in _GLOBAL_V6:
            return (
                "loopback" if address.is_loopback else "link-local" if address.is_link_local else "private or reserved"
            )
    return next((what for network, what in _REFUSED if address in network), None)


@dataclass(frozen=True, slots=True)
class OutboundRules:
    """Which addresses of a caller's choosing may be called: those of the public internet, over https; and whatever is in
    `networks` or goes by one of the names in `hosts`, over http too."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @staticmethod
    def of(allowed: Sequence[str]) -> OutboundRules:
        """The rules that also allow each of `allowed`: a network ("10.1.0.0/16"), an address, or a host's name.

        Raises BadSettings.
        """
        networks: list[Network] = []
        hosts: set[str] = set()
        for each in allowed:
            name = each.strip().lower().rstrip(".")
            try:
                networks.append(ipaddress.ip_network(name.strip("[]")))
            except ValueError:
                if not _HOST.fullmatch(name) or _looks_like_an_address(name):
                    raise BadSettings(
                        f'callback_networks: {each[:100]!r} is neither a network ("10.1.0.0/16"), an address nor a host\'s name'
                    ) from None
                hosts.add(name)
        return OutboundRules(tuple(networks), frozenset(hosts))

    def check(self, url: str, param: str) -> httpx.URL:
        """`url`, as it will be called. No name is resolved here: a caller must not learn what this network's names mean.

        Raises BadRequest, naming `param`, for what is no address of http(s), has credentials or a fragment in it, is http
        where only https is allowed, or names a host that is refused.
        """
        try:
            return self._checked(url)
        except AddressRefused as refused:
            raise BadRequest(param, str(refused)) from None

    def _checked(self, url: str) -> httpx.URL:
        if len(url) > MAX_URL_CHARACTERS:
            raise AddressRefused(f"is longer than {MAX_URL_CHARACTERS:,} characters; give a shorter address")
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise AddressRefused("is no address; write it like https://example.com/hook") from None
        if parsed.scheme not in ("https", "http") or not parsed.host:
            raise AddressRefused("must begin with https:// and a host")
        if parsed.userinfo:
            raise AddressRefused("has credentials in it; leave them out: a webhook is known by its signature")
        if parsed.fragment:
            raise AddressRefused("has a fragment (#...), which is never sent; leave it out")
        if parsed.port is not None and not 0 < parsed.port < 65_536:
            raise AddressRefused("has no port between 1 and 65535")
        host, literal = _host(parsed)
        if literal is not None:
            self.check_address(host, literal)
        elif host not in self.hosts and any(f".{host}".endswith(f".{name}") for name in _LOCAL_NAMES):
            raise AddressRefused("names a host of this network; give one of the public internet")
        if parsed.scheme == "http" and not self._listed(host, literal):
            raise AddressRefused("must begin with https://; http is only for what callback_networks lists")
        return parsed

    def check_address(self, host: str, address: Address) -> None:
        """Raises AddressRefused where `host`, whose address this is, may not be called at it."""
        what = why_refused(address)
        if what is not None and not self._listed(host, address):
            raise AddressRefused(f"leads to an address that is {what}; callback_networks in the settings can allow it")

    def _listed(self, host: str, address: Address | None) -> bool:
        if host in self.hosts:
            return True
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address is not None and any(address in network for network in self.networks)


def _host(url: httpx.URL) -> tuple[str, Address | None]:
    """The host in lower case without a final dot, and the address that it is where it is one in plain writing."""
    host = url.raw_host.decode("ascii").lower()
    try:
        if "%" not in host:  # "fe80::1%eth0" names an interface of this machine
            return host, ipaddress.ip_address(host)
    except ValueError:
        pass
    host = host.removesuffix(".")
    if not _HOST.fullmatch(host):
        raise AddressRefused("names no host; write it like https://example.com/hook")
    if _looks_like_an_address(host):
        raise AddressRefused("writes its host's address in an unusual way; use four decimal numbers, or a name")
    return host, None


def _looks_like_an_address(host: str) -> bool:
    """Whether C's inet_aton, which getaddrinfo asks, may read an address from it: "127.1", "0x7f000001", "017700000001"."""
    return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]) is not None


async def resolve(host: str, port: int) -> list[str]:
    """The system's answer, in the order in which it wants the addresses tried."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends what `rules` allow, to the addresses that were checked. For an `httpx.AsyncClient`.

    The host's name stays in the Host header and in TLS, where the certificate is checked against it. A name with any
    address that is refused is refused. Sending raises AddressRefused, or httpx's errors.
    """

    def __init__(self, rules: OutboundRules, resolver: Resolve = resolve) -> None:
        self._rules = rules
        self._resolve = resolver
        # Kept open, a connection to an address would be used for another host that has the same one, past its certificate.
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = self._rules._checked(str(request.url))  # whoever built the request may not have asked
        addresses = await self._addresses(url)
        extensions = dict(request.extensions)
        if url.scheme == "https":
            extensions["sni_hostname"] = url.host
        for left, address in enumerate(addresses, 1 - len(addresses)):
            pinned = httpx.Request(
                request.method,
                url.copy_with(host=str(address)),
                headers=request.headers,  # with the Host header that httpx wrote for the name
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent yet
                if left == 0:
                    raise
        raise httpx.ConnectError("the host's name has no address", request=request)

    async def _addresses(self, url: httpx.URL) -> list[Address]:
        host, literal = _host(url)
        if literal is not None:
            return [literal]  # checked with the URL
        try:
            texts = await self._resolve(host, url.port or (443 if url.scheme == "https" else 80))
            addresses = [ipaddress.ip_address(text) for text in texts]
        except (OSError, UnicodeError):
            raise httpx.ConnectError("the host's name cannot be resolved") from None
        except ValueError:  # with an interface in it: link-local
            raise AddressRefused("leads to an address that is of one interface of this machine") from None
        for address in addresses:
            self._rules.check_address(host, address)
        return addresses

    async def aclose(self) -> None:
        await self._inner.aclose()

"""Worded: one request as its provider takes it, and where it goes. The same for a call and for a line of a batch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from routing.catalog import OPENROUTER_FIELDS
from routing.conversion import content_of, encoded
from routing.offers import Offer
from routing.tongues import Tongue
from routing.wires import UnsupportedWire, Wire, body_for, tier_of, wire_of

if TYPE_CHECKING:
    from routing.catalog import Provider


@dataclass(frozen=True, slots=True)
class Worded:
    """`path` is appended to the provider's `base_url` (see `address_of`), `headers` are those that the body needs."""

    wire: Wire
    path: str
    content: bytes
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


def worded(provider: Provider, offer: Offer, body: Mapping[str, Any], tongue: Tongue, stream: bool) -> Worded:
    """The caller's `body`, which is in `tongue`, for this provider and the offer's model and service class.

    Raises UnsupportedParameter for what would be lost, UnsupportedWire for what cannot be bought so.
    """
    wire = wire_of(provider, tongue)
    if not provider.is_openrouter:
        body = {name: value for name, value in body.items() if name not in OPENROUTER_FIELDS}
    body = tongue.native(body) if wire.tongue is tongue else tongue.to_chat({**body, "model": offer.model})
    if wire.conversion is None:
        return Worded(wire, wire.path, body_for(wire, body, offer, stream))
    tier = tier_of(wire, offer)
    outgoing = encoded(wire.conversion, body, offer.model, stream)
    content = content_of(wire.conversion, outgoing, tier)
    return Worded(wire, outgoing.path, content, outgoing.query, outgoing.headers)


_VERSION: Final = re.compile(r"/v[0-9]+[a-z0-9]*(?=/)")


def address_of(provider: Provider, path: str, query: Sequence[tuple[str, str]] = ()) -> httpx.URL:
    """Where `path` is at this provider. Raises UnsupportedWire for a `base_url` that is no address."""
    try:
        base = httpx.URL(provider.base_url)
    except httpx.InvalidURL:
        raise UnsupportedWire(f"the base_url of provider {provider.name!r} is not an address") from None
    root = base.path.rstrip("/")
    version = _VERSION.match(path)
    if version is not None and _VERSION.match(root[root.rfind("/") :] + "/"):
        path = path[version.end() :]  # an address that says the version has the last word
    # The path alone is extended, so that a query in base_url (an API version) stays where it is.
    url = base.copy_with(path=root + path)
    return url.copy_merge_params(dict(query)) if query else url

"""Abilities: what of one request an offer's wire cannot honour, known before anything is planned or sent.

A wire that passes the caller's body as it is honours all of it as far as can be told from here; one that converts it says
what would be lost. What a model can do behind its wire is not known: the price data carries no capabilities.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from routing.catalog import Provider
from routing.chat_request import ChatRequest, read_chat_request
from routing.conversion import Conversion
from routing.errors import UnsupportedParameter
from routing.tongues import Tongue
from routing.wires import UnsupportedWire, wire_of


class Abilities:
    """Of everybody, for one request: `body` as it came, in `tongue`. Each kind of answer is worked out once."""

    def __init__(self, body: Mapping[str, Any], tongue: Tongue) -> None:
        self._body = body
        self._tongue = tongue
        self._whys: dict[tuple[str, str], str | None] = {}

    def lacking(self, provider: Provider | None, model: str) -> str | None:
        """What that provider's `model` cannot honour, as a clause; None if nothing is known to be lost."""
        if provider is None:
            return None
        try:
            wire = wire_of(provider, self._tongue)
        except UnsupportedWire:
            return None
        if wire.tongue is self._tongue and wire.conversion is None:
            return None
        key = (wire.kind, model if wire.conversion is not None else "")
        if key not in self._whys:
            self._whys[key] = self._why(wire.conversion, model)
        return self._whys[key]

    @functools.cached_property
    def _request(self) -> ChatRequest:
        return read_chat_request(self._tongue.to_chat(self._body))

    def _why(self, conversion: Conversion | None, model: str) -> str | None:
        try:
            if conversion is None:
                self._tongue.to_chat(self._body)
            else:
                conversion.encode(self._request, model, False)
        except UnsupportedParameter as error:
            return f"cannot honour {error.param}: {error.reason}"
        return None

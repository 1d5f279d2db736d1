"""Inspecting: what of a request would be cut, and why the rest would not. Nothing is ranked, and nothing is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.inspection import Inspection, inspect
from compressor.payload import parse
from compressor.tokens import encoding_for_model
from trimtab.options import read_options, sources_of
from trimtab.surfaces import surface_of


def inspected(body: Mapping[str, Any], surface: str | None = None) -> Inspection:
    """The spans of a request of the surface called `surface`, or else of the one whose shape it has.

    Raises BadRequest or BadPayload for what the caller can mend.
    """
    options = read_options(body)
    model = body.get("model")
    encoding = encoding_for_model(model if isinstance(model, str) else "")
    payload = parse(surface_of(body, surface).api, body, sources_of(options.contexts or ()), options.query)
    return inspect(payload, encoding)

"""Exporting: whether OpenTelemetry's SDK is asked to send what we tell it, by the variables that every SDK reads.

FastAPI builds the exporters (OTLP over HTTP) when the app starts, in each worker; here it is told to, for `trimtab serve`.
Whoever embeds the app configures providers of their own, or none.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, MutableMapping
from typing import Final

ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
_DEFAULTS: Final = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_SERVICE_NAME": "trimtab"}
_PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether a collector is named, and the SDK not disabled.

    >>> is_asked_for({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    True
    """
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not off and any(environ.get(name) for name in ENDPOINTS)


def is_installed() -> bool:
    """Whether the SDK and its exporter are there (the extra `telemetry`)."""
    return all(_there(name) for name in _PACKAGES)


def export(environ: MutableMapping[str, str]) -> str | None:
    """Have apps that start from now on send their telemetry, workers included, if `environ` asks for it. Gives what is
    wrong with that, if something is."""
    if not is_asked_for(environ):
        return None
    if not is_installed():
        return "OTEL_EXPORTER_OTLP_ENDPOINT is set, but nothing is sent: pip install 'trimtab[telemetry]'"
    for name, value in _DEFAULTS.items():
        environ.setdefault(name, value)
    return None


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a parent
        return False

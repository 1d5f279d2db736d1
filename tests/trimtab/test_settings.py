"""Settings: what a file may say, and that every mistake in it is told with the file, the entry and the fix."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from trimtab import Settings, Trimtab
from trimtab.errors import BadSettings

GOOD = """
cache_dir = "{cache}"
min_coverage = 0.9
marker = " [cut] "
total_timeout_ms = 1000

[[providers]]
name = "openai"
kind = "openai"
base_url = "https://api.openai.com/v1"
api_key_env = "OPENAI_API_KEY"
models = ["gpt-6.1-sol"]

[[providers]]
name = "mine"
kind = "openai"
base_url = "http://127.0.0.1:9000/v1"
models = ["m"]
prices = {{ input_mtok = 0.1, output_mtok = "0.2" }}
"""
PROVIDER = 'name = "a"\nkind = "openai"\nbase_url = "http://127.0.0.1/v1"\nmodels = ["m"]\n'


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "trimtab.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    settings = Settings.load(file(tmp_path, GOOD.format(cache=tmp_path)))
    assert (settings.cache_dir, settings.min_coverage, settings.marker) == (tmp_path, 0.9, " [cut] ")
    assert [(each.name, each.api_key_env) for each in settings.providers] == [
        ("openai", "OPENAI_API_KEY"),
        ("mine", None),
    ]
    assert settings.max_attempts == Settings().max_attempts
    with pytest.raises(FrozenInstanceError):
        settings.marker = "x"  # type: ignore[misc]


def test_keyword_arguments_go_before_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, GOOD.format(cache=tmp_path))
    trimtab = Trimtab(path, min_coverage=0.5, providers=[])
    assert (trimtab.settings.min_coverage, trimtab.settings.providers) == (0.5, ())
    assert trimtab.settings.marker == " [cut] "
    assert Trimtab(str(path), marker="…").settings.marker == "…"
    assert Trimtab(Settings(min_coverage=0.7), marker="…").settings.min_coverage == 0.7
    assert Trimtab({"min_coverage": 0.6, "cache_dir": str(tmp_path)}).settings.min_coverage == 0.6


def test_the_marker_shows_where_something_was_left_out() -> None:
    between = "The office in Graz is closed on Sundays, and the cat that lives there sleeps on the window sill all day."
    contexts = [f"An upload may be 5 GB. {between} A download may be 9 GB."]
    result = Trimtab(marker=" [cut] ").compress("How large may an upload or a download be?", contexts, budget_tokens=22)
    assert result.contexts[0].text == "An upload may be 5 GB. [cut] A download may be 9 GB."


BAD: list[tuple[str, str, str]] = [
    ("min_coverage = 0", "min_coverage", "above 0 and up to 1"),
    ("min_coverage = 1.5", "min_coverage", "above 0 and up to 1"),
    ("min_coverage = nan", "min_coverage", "above 0 and up to 1"),
    ("min_coverage = true", "min_coverage", "a number"),
    ('min_coverage = "high"', "min_coverage", "a number"),
    ("max_attempts = 0", "max_attempts", "1 or more"),
    ("max_attempts = 2.5", "max_attempts", "a whole number"),
    ("max_body_bytes = -1", "max_body_bytes", "above 0"),
    ("cache_size_bytes = 5", "cache_size_bytes", "at least"),
    ("connect_timeout_ms = 0", "connect_timeout_ms", "above 0"),
    ("idle_timeout_ms = -5", "idle_timeout_ms", "above 0"),
    ("answer_timeout_ms = 0", "answer_timeout_ms", "above 0"),
    ("cache_dir = 5", "cache_dir", "a path"),
    ("encoder = 5", "encoder", "a text"),
    ("marker = []", "marker", "a text"),
    ("min_coverge = 0.5", "'min_coverge'", "did you mean 'min_coverage'?"),
    ("zzz = 1", "'zzz'", "there are"),
    ('providers = "openai"', "providers", "[[providers]]"),
    ("providers = [5]", "providers[0]", "a table"),
    ("[providers]\nname = 5", "providers", "[[providers]]"),
    ("[[providers]]\n" + PROVIDER.replace('name = "a"\n', ""), "providers[0]", "name is missing"),
    ("[[providers]]\n" + PROVIDER.replace('models = ["m"]\n', ""), "providers[0]", "models is missing"),
    ("[[providers]]\n" + PROVIDER.replace('["m"]', '"m"'), "providers[0]", "models must be a list"),
    ("[[providers]]\n" + PROVIDER.replace('["m"]', "[]"), "providers[0]", "models"),
    ("[[providers]]\n" + PROVIDER.replace('["m"]', '["m", 5]'), "providers[0]", "models must be a list"),
    (
        "[[providers]]\n" + PROVIDER.replace('kind = "openai"', 'kind = "cohere"'),
        "providers[0]",
        "openai, anthropic, gemini",
    ),
    ("[[providers]]\n" + PROVIDER.replace('kind = "openai"', "kind = 5"), "providers[0]", "kind must be a text"),
    (
        "[[providers]]\n" + PROVIDER.replace("http://127.0.0.1/v1", "localhost:80"),
        "providers[0]",
        "http:// or https://",
    ),
    ("[[providers]]\n" + PROVIDER.replace("http://127.0.0.1/v1", "http://[::1"), "providers[0]", ""),
    ("[[providers]]\n" + PROVIDER + "api_key_env = 5", "providers[0]", "api_key_env must be a text"),
    ("[[providers]]\n" + PROVIDER + "prices = 5", "providers[0]", "prices must be"),
    ("[[providers]]\n" + PROVIDER + "prices = [5]", "providers[0]", "prices must be"),
    ("[[providers]]\n" + PROVIDER + "prices = {}", "providers[0]", "input_mtok"),
    ("[[providers]]\n" + PROVIDER + "prices = {input_mtok = -1, output_mtok = 1}", "providers[0]", "input_mtok"),
    ("[[providers]]\n" + PROVIDER + "[[providers]]\n" + PROVIDER, "providers", "two are called 'a'"),
    ("[[providers]]\n" + PROVIDER + "url = 1", "providers[0]", "'url' is no setting"),
    ("min_coverage = \n", "is not TOML", "line 1"),
    ("a = 1\na = 2\n", "is not TOML", "line 2"),
]


@pytest.mark.parametrize(("text", "entry", "says"), BAD, ids=[f"{n}-{entry}" for n, (_, entry, _) in enumerate(BAD)])
def test_a_mistake_is_told_with_file_entry_and_fix(tmp_path: Path, text: str, entry: str, says: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(BadSettings) as told:
        Trimtab(path)
    message = str(told.value)
    assert message.startswith(f"{path}: ")
    assert entry in message
    assert says in message
    assert told.value.__cause__ is None


@pytest.mark.parametrize("entry", ["api_key", "key", "token", "authorization"])
def test_a_key_in_the_file_is_refused_and_not_repeated(tmp_path: Path, entry: str) -> None:
    path = file(tmp_path, f'[[providers]]\n{PROVIDER}{entry} = "sk-secret"')
    with pytest.raises(BadSettings, match=f"'{entry}' is no setting") as told:
        Settings.load(path)
    assert "sk-secret" not in str(told.value)
    assert "api_key_env" in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        f'[[providers]]\n{PROVIDER}api_key_env = "sk-secret-0123"',
        "[[providers]]\n" + PROVIDER.replace("http://", "http://user:sk-secret-0123@"),
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadSettings) as told:
        Settings.load(file(tmp_path, text))
    assert "sk-secret" not in str(told.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "directory"),
        (file(tmp_path, b"\xff"), "TOML"),
    ):
        with pytest.raises(BadSettings, match=says) as told:
            Settings.load(path)
        assert str(told.value).startswith(f"{path}: ")


def test_wrong_keyword_arguments_are_told_too() -> None:
    with pytest.raises(BadSettings, match="'min_covrage' is no setting; did you mean 'min_coverage'"):
        Trimtab(min_covrage=0.5)
    with pytest.raises(BadSettings, match="max_attempts must be a whole number"):
        Trimtab(max_attempts=True)


def test_every_setting_has_a_default_that_works() -> None:
    assert Settings.of({}) == Settings()
    assert {each.name for each in fields(Settings)} >= {"providers", "cache_dir", "encoder", "marker"}

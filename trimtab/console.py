"""The console: what every command reads, prints and fails with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from genai_prices.data_snapshot import get_snapshot
from rich.console import Console
from rich.text import Text

from routing.catalog import Catalog
from trimtab.errors import BadSettings, problem_of
from trimtab.settings import Settings

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True, highlight=False)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="A TOML file with settings and providers.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FileArgument = Annotated[str, typer.Argument(help="A file, or - for standard input.")]


def model_names(context: typer.Context, incomplete: str) -> list[str]:
    """For a shell that completes a model's name: the configuration's, where --config was given before; else those of the
    price list. A configuration that cannot be read completes nothing: the command will say why."""
    config = context.params.get("config")
    try:
        if config is not None:
            names = [each.model for each in Catalog(Settings.load(config).providers).models()]
        else:
            names = [model.id for provider in get_snapshot().providers for model in provider.models]
    except (BadSettings, ValueError):
        return []
    return sorted({name for name in names if name.startswith(incomplete)})


def read_text(file: str) -> str:
    """The UTF-8 text of `file`, "-" being standard input; ends the command where it cannot be read."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        fail(f"{file}: cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        fail(f"{file}: is not UTF-8 text")


def payload_of(text: str) -> Mapping[str, Any] | None:
    """The JSON object with messages or contexts that `text` is; None for any other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and ("contexts" in value or "messages" in value) else None


@contextmanager
def told() -> Iterator[None]:
    """Errors that the user can mend as one line and exit status 2; a defect of ours stays a traceback."""
    try:
        yield
    except BadSettings as error:
        fail(str(error))
    except Exception as error:
        problem = problem_of(error)
        if problem is None:
            raise
        fail(problem.message)


def fail(message: str) -> NoReturn:
    """End the command with `message` on standard error and exit status 2."""
    # Not as markup: messages hold names of files and models, and "[[providers]]".
    err.print(Text.assemble(("error:", "bold red"), " ", message))
    raise typer.Exit(2)

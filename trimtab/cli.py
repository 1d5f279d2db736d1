"""The command line: serve, demo, compress, plan and bench; the other commands are in `trimtab.commands`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from trimtab.api_docs import VERSION
from trimtab.commands.analyze import analyze
from trimtab.commands.batch import batch
from trimtab.commands.doctor import doctor
from trimtab.commands.inspect import inspect
from trimtab.commands.keys import app as keys
from trimtab.commands.ledger import app as ledger
from trimtab.commands.mcp import mcp
from trimtab.commands.prices import prices
from trimtab.commands.ranker import calibrate, train_ranker
from trimtab.commands.reconcile import reconcile
from trimtab.commands.train_router import train_router
from trimtab.commands.webhooks import app as webhooks
from trimtab.commands.whatif import whatif
from trimtab.console import ConfigOption, FileArgument, JsonOption, err, fail, out, payload_of, read_text, told
from trimtab.options import CompressIn, checked
from trimtab.pipeline import Trimtab
from trimtab.settings import Settings
from trimtab.tables import plan_table
from trimtab.telemetry.exporting import export
from trimtab.telemetry.logs import LogFormat, LogLevel, configure_logging, secret_variables
from trimtab.zero_config import no_key, providers_in

if TYPE_CHECKING:
    from fastapi import FastAPI

# The panels of --help, in the order in which a newcomer needs them.
RUN: Final = "Run a server"
LOOK: Final = "Try and look"
ACCOUNT: Final = "Account for it"
TEACH: Final = "Teach it your own traffic"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold prompts
)


def main() -> None:
    """The entry point of the `trimtab` command."""
    app(prog_name="trimtab")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"trimtab {VERSION}", highlight=False)
        raise typer.Exit


@app.callback()
def trimtab_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Trim a request's context, plan the cheapest way to get it answered, and forward it."""


@app.command(rich_help_panel=RUN)
def serve(
    config: ConfigOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8400,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="How many processes serve; the settings' number, else 1.")
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Log lines to be read, or one JSON object a line.")] = "text",
    log_level: Annotated[
        LogLevel,
        typer.Option(help="The least that is logged. At debug exceptions are told whole, and may quote a prompt."),
    ] = "info",
) -> None:
    """Serve OpenAI's and Anthropic's APIs, and our own endpoints, over HTTP."""
    from trimtab.serving import run, run_workers

    with told():
        settings = settings_of(config)
        settings = settings if workers is None else replace(settings, workers=workers)
        if not settings.providers:
            err.print(no_key(), style="yellow")
        make = partial(served, config, settings.workers, log_format, log_level)
        if settings.workers > 1:
            Trimtab(replace(settings, ledger=False))  # what is wrong with the settings is said once, and here
            configure_logging(log_format, log_level, secrets_from=secret_variables(settings))
        app = make() if settings.workers == 1 else None
    # No configuration of logs: uvicorn's would put its own handlers in the place of ours.
    options: dict[str, Any] = {"host": host, "port": port, "log_config": None, "access_log": False}
    options |= {"timeout_graceful_shutdown": 30}
    if app is not None:
        run(app, **options)
    else:
        run_workers(make, settings.workers, **options)


def settings_of(config: Path | None) -> Settings:
    """The settings of the file, else what the environment's keys make of the defaults."""
    return Settings.load(config) if config else Settings.of({"providers": providers_in(os.environ)})


def served(config: Path | None, workers: int, log_format: LogFormat, log_level: LogLevel) -> FastAPI:
    """The app of one process that serves, whose logs and traces are set up."""
    from trimtab.app import create_app

    trimtab = Trimtab(replace(settings_of(config), workers=workers))
    configure_logging(log_format, log_level, secrets_from=secret_variables(trimtab.settings))
    if (wrong := export(os.environ)) is not None:
        err.print(wrong, style="yellow", markup=False)
    return create_app(trimtab)


@app.command(rich_help_panel=LOOK)
def demo(
    payload: Annotated[Path | None, typer.Argument(help="A chat completion's body with a trimtab object.")] = None,
) -> None:
    """Answer a real RAG payload with a real local model, and show the plan and the receipt."""
    from trimtab.demo import run_demo

    with told():
        run_demo(payload, out)


@app.command(rich_help_panel=LOOK)
def compress(
    file: FileArgument = "-",
    query: Annotated[str | None, typer.Option("--query", "-q", help="What the text is needed for.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Keep at most this share of the tokens.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="Keep at most this many tokens.")] = None,
    min_coverage: Annotated[
        float | None, typer.Option(help="Keep at least this expected share of the evidence.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trim a text to what a question needs: plain text, or JSON with "query" and "contexts"."""
    with told():
        asked = {"ratio": ratio, "budget_tokens": budget_tokens, "min_coverage": min_coverage, "query": query}
        given = {name: value for name, value in asked.items() if value is not None}
        text = read_text(file)
        body = payload_of(text) or {"contexts": [text]}
        if query is None and "query" not in body:
            fail("say with --query what the text is needed for")
        result = Trimtab(config).compress_request(checked(CompressIn, {**body, **given}, None))
    if as_json:
        out.print_json(data=asdict(result))
        return
    sys.stdout.write("\n\n".join(kept.text for kept in result.contexts if kept.text) + "\n")
    err.print(
        f"{result.tokens_before:,} -> {result.tokens_after:,} tokens, "
        f"expected coverage {result.coverage_estimate:.2f}, {result.ms:.0f} ms",
        style="dim",
    )


@app.command(rich_help_panel=LOOK)
def plan(file: FileArgument = "-", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what would be bought for a chat completion's body, and what else was considered. Nothing is sent."""
    with told():
        body = payload_of(read_text(file))
        if body is None:
            fail(f"{file}: is not a JSON object with messages; give the body of a chat completion")
        made: Any = Trimtab(config).plan(body).to_dict()
    if as_json:
        out.print_json(data=made)
    else:
        out.print(plan_table(made["chosen"], made["runners_up"]))


app.command(rich_help_panel=RUN)(doctor)
app.command(rich_help_panel=RUN)(mcp)
app.command(rich_help_panel=LOOK)(inspect)
app.command(rich_help_panel=LOOK)(prices)
app.command(rich_help_panel=ACCOUNT)(analyze)
app.command(rich_help_panel=ACCOUNT)(whatif)
app.command(rich_help_panel=ACCOUNT)(reconcile)
app.command("train-ranker", rich_help_panel=TEACH)(train_ranker)
app.command(rich_help_panel=TEACH)(calibrate)
app.command("train-router", rich_help_panel=TEACH)(train_router)
app.add_typer(batch, name="batch", rich_help_panel=RUN)
app.add_typer(keys, name="keys", rich_help_panel=RUN)
app.add_typer(webhooks, name="webhooks", rich_help_panel=RUN)
app.add_typer(ledger, name="ledger", rich_help_panel=ACCOUNT)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
    rich_help_panel=LOOK,
)
def bench(context: typer.Context) -> None:
    """Run the benchmarks, which are in a checkout and not in the wheel: the arguments of `python -m benchmarks`."""
    if importlib.util.find_spec("benchmarks") is None:
        fail("the benchmarks are not installed with the package: clone the repository and run `make bench` there")
    raise typer.Exit(subprocess.call([sys.executable, "-m", "benchmarks", *context.args]))  # noqa: S603 (ourselves)

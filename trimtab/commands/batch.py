"""`trimtab batch`: hand a file of requests to a running trimtab, follow it, and fetch what came of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import httpx
import typer
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from trimtab.console import JsonOption, err, fail, out

batch = typer.Typer(
    help="Batches: files of requests that may wait, and cost less for it (docs/batches.md).", no_args_is_help=True
)

DEFAULT_URL: Final = "http://127.0.0.1:8400"
KEY_ENV: Final = "TRIMTAB_API_KEY"

UrlOption = Annotated[str, typer.Option("--base-url", envvar="TRIMTAB_BASE_URL", help="Where trimtab is served.")]
KeyOption = Annotated[
    str, typer.Option("--api-key-env", help="The variable with your key, where the server wants one.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow it until it is over.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The batch's id.")]

_OVER: Final = ("completed", "failed", "expired", "cancelled")
_POLL_S: Final = (0.5, 5.0)
_SHOWN_ERRORS: Final = 5


@batch.command()
def submit(
    file: Annotated[str, typer.Argument(help="A JSONL file as OpenAI's batches have it, or - for standard input.")],
    deadline: Annotated[
        str | None, typer.Option(help='How long it may take: "6h", "20m", or a moment as RFC 3339 has it; else 24h.')
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="What the lines ask; else the first line's url.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Who is told when it is over (docs/webhooks.md).")] = None,
    wait: WaitOption = False,
    base_url: UrlOption = DEFAULT_URL,
    api_key_env: KeyOption = KEY_ENV,
    as_json: JsonOption = False,
) -> None:
    """Upload a file of requests, and have them answered until a deadline, at the least cost."""
    with _opened(file) as content, _server(base_url, api_key_env) as server:
        options = {"deadline": deadline, "callback_url": callback_url}
        order: dict[str, Any] = {
            "endpoint": endpoint or _endpoint_of(content),
            "completion_window": "24h",
            "input_file_id": _uploaded(server, content, "stdin.jsonl" if file == "-" else Path(file).name),
        }
        if given := {name: value for name, value in options.items() if value is not None}:
            order["trimtab"] = given
        made = _asked(server, "POST", "/v1/batches", json=order, headers={"idempotency-key": uuid.uuid4().hex})
        _finish(_followed(server, made) if wait else made, as_json)


@batch.command()
def status(
    batch_id: IdArgument,
    wait: WaitOption = False,
    base_url: UrlOption = DEFAULT_URL,
    api_key_env: KeyOption = KEY_ENV,
    as_json: JsonOption = False,
) -> None:
    """Show how far a batch is; once it is over, what it cost, and what it would have cost at once."""
    with _server(base_url, api_key_env) as server:
        found = _asked(server, "GET", f"/v1/batches/{batch_id}")
        _finish(_followed(server, found) if wait else found, as_json)


@batch.command()
def results(
    batch_id: IdArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write them here; lines with errors go to NAME.errors.jsonl.")
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Print the lines with errors instead.")] = False,
    base_url: UrlOption = DEFAULT_URL,
    api_key_env: KeyOption = KEY_ENV,
    as_json: JsonOption = False,
) -> None:
    """Fetch the answers of a batch that is over, a JSON object with its receipt a line."""
    with _server(base_url, api_key_env) as server:
        found = _asked(server, "GET", f"/v1/batches/{batch_id}")
        if found["status"] not in _OVER:
            fail(
                f"{batch_id} is {found['status']}: there are results when it is over (trimtab batch status {batch_id})"
            )
        if output is None:
            _copied(server, found["error_file_id" if errors else "output_file_id"], sys.stdout.buffer)
            if not as_json:
                _tell_totals(found)
            return
        written = {}
        for word, name, path in (
            ("output", "output_file_id", output),
            ("errors", "error_file_id", output.with_suffix(".errors.jsonl")),
        ):
            if found[name] is not None:
                _saved(server, found[name], path)
                written[word] = str(path)
    if as_json:
        out.print_json(data={"id": batch_id, "status": found["status"], **written, "trimtab": found["trimtab"]})
        return
    for word, name in written.items():
        err.print(Text(f"{word}: {name}"))
    _tell_totals(found)


@batch.command("list")
def list_batches(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    after: Annotated[str | None, typer.Option(help="Those before this one.")] = None,
    base_url: UrlOption = DEFAULT_URL,
    api_key_env: KeyOption = KEY_ENV,
    as_json: JsonOption = False,
) -> None:
    """Show your batches, the newest first."""
    asked = {"limit": limit, **({} if after is None else {"after": after})}
    with _server(base_url, api_key_env) as server:
        page = _asked(server, "GET", "/v1/batches", params=asked)
    if as_json:
        out.print_json(data=page)
        return
    if not page["data"]:
        err.print("No batches yet: trimtab batch submit FILE", style="dim")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("batch", no_wrap=True, min_width=len(page["data"][0]["id"]))  # whole, to be copied
    for name in ("status", "made", "answered", "failed", "billed"):
        table.add_column(name, justify="left" if name in ("status", "made") else "right")
    for each in page["data"]:
        counts, totals = each["request_counts"], each["trimtab"]
        table.add_row(
            each["id"],
            each["status"],
            f"{_moment(each['created_at']):%m-%d %H:%M}",
            f"{counts['completed']:,}/{counts['total']:,}",
            f"{counts['failed']:,}",
            _usd(totals["billed_usd"]) if totals else "",
        )
    out.print(table)
    if page["has_more"]:
        err.print(f"there are more: --after {page['last_id']}", style="dim")


@batch.command()
def cancel(
    batch_id: IdArgument,
    base_url: UrlOption = DEFAULT_URL,
    api_key_env: KeyOption = KEY_ENV,
    as_json: JsonOption = False,
) -> None:
    """Begin no more of a batch. What is answered already can be fetched."""
    with _server(base_url, api_key_env) as server:
        _finish(_asked(server, "POST", f"/v1/batches/{batch_id}/cancel"), as_json)


# --- the server ----------------------------------------------------------------------------------------------------------


@contextmanager
def _server(base_url: str, key_env: str) -> Iterator[httpx.Client]:
    """The server at `base_url`, with or without "/v1" behind it."""
    key = os.environ.get(key_env)
    if key is None and key_env != KEY_ENV:
        fail(f"the environment variable {key_env} is not set; set it, or name another with --api-key-env")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    root = base_url.rstrip("/").removesuffix("/v1")
    try:
        with httpx.Client(base_url=root, headers=headers, timeout=httpx.Timeout(60.0, write=600.0)) as client:
            yield client
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        fail(f"{base_url} is no address; write it like {DEFAULT_URL}")
    except httpx.ConnectError:
        fail(f"nothing answers at {root}: start it with `trimtab serve`, or say with --base-url where it is")
    except httpx.TransportError as error:
        fail(f"{root} did not answer to the end ({type(error).__name__})")


def _asked(server: httpx.Client, method: str, path: str, **more: Any) -> dict[str, Any]:
    return _good(server.request(method, path, **more)).json()  # type: ignore[no-any-return]


def _good(response: httpx.Response) -> httpx.Response:
    """An answer that is none of an error; ends the command with what the server says is wrong."""
    if not response.is_success:
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"HTTP {response.status_code}; is it a trimtab?"
        fail(str(message))
    return response


def _copied(server: httpx.Client, file_id: str | None, to: BinaryIO) -> None:
    if file_id is None:
        return
    with server.stream("GET", f"/v1/files/{file_id}/content") as response:
        if not response.is_success:
            response.read()
        for part in _good(response).iter_bytes():
            to.write(part)
    to.flush()


def _saved(server: httpx.Client, file_id: str, path: Path) -> None:
    """All of it or nothing under `path`."""
    half = path.with_name(f"{path.name}.part")
    try:
        with half.open("wb") as file:
            _copied(server, file_id, file)
        half.replace(path)
    except OSError as error:
        fail(f"{path}: cannot be written ({error.strerror})")
    finally:
        half.unlink(missing_ok=True)


# --- the file ------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            if file == "-":
                content: Any = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(sys.stdin.buffer, content)
                content.seek(0)
            else:
                content = stack.enter_context(Path(file).open("rb"))
        except OSError as error:
            fail(f"{file}: cannot be read ({error.strerror})")
        yield content


def _endpoint_of(content: BinaryIO) -> str:
    """What the first line asks; what the server makes of the others is its to say."""
    try:
        first = json.loads(content.readline(2**25))
        url = first["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        url = None
    content.seek(0)
    if not isinstance(url, str):
        fail('the first line has no url: each line is {"custom_id": ..., "method": "POST", "url": ..., "body": {...}}')
    return url


def _uploaded(server: httpx.Client, content: BinaryIO, name: str) -> str:
    size_bytes = os.fstat(content.fileno()).st_size
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn())
    progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    with progress, progress.wrap_file(content, size_bytes) as followed:
        parts = {"file": (name, followed, "application/jsonl")}
        return str(_asked(server, "POST", "/v1/files", data={"purpose": "batch"}, files=parts)["id"])


# --- what is shown -------------------------------------------------------------------------------------------------------


def _followed(server: httpx.Client, made: dict[str, Any]) -> dict[str, Any]:
    """The batch once it is over, with a bar on the way."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    poll_s, most_s = _POLL_S
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(made["status"], total=None)
        try:
            while made["status"] not in _OVER:
                time.sleep(poll_s)
                poll_s = min(most_s, poll_s * 1.2)
                made = _asked(server, "GET", f"/v1/batches/{made['id']}")
                counts = made["request_counts"]
                done, total = counts["completed"] + counts["failed"], counts["total"] or None
                progress.update(task, description=made["status"], completed=done, total=total)
        except KeyboardInterrupt:
            err.print(f"It goes on without you: trimtab batch status {made['id']} --wait", style="yellow")
            raise typer.Exit(130) from None
    return made


def _finish(made: Mapping[str, Any], as_json: bool) -> None:
    """Show a batch, and end with status 1 where it is over and did not complete."""
    if as_json:
        out.print_json(data=made)
    else:
        out.print(_table(made))
        _tell_totals(made)
        if made["status"] not in _OVER:
            err.print(f"Follow it with: trimtab batch status {made['id']} --wait", style="dim")
        elif made["output_file_id"] or made["error_file_id"]:
            err.print(f"Fetch it with: trimtab batch results {made['id']} -o FILE", style="dim")
    if made["status"] in ("failed", "expired"):
        raise typer.Exit(1)


def _table(made: Mapping[str, Any]) -> Table:
    counts = made["request_counts"]
    table = Table(box=None, show_header=False, pad_edge=False)
    over_at = next((made[f"{each}_at"] for each in _OVER if made[f"{each}_at"]), None)
    rows = {
        "batch": made["id"],
        "status": made["status"],
        "endpoint": made["endpoint"],
        "lines": f"{counts['total']:,}, {counts['completed']:,} answered, {counts['failed']:,} failed",
        "made": f"{_moment(made['created_at']):%Y-%m-%d %H:%M:%S}",
        "over" if over_at else "until": f"{_moment(over_at or made['expires_at']):%Y-%m-%d %H:%M:%S}",
        "output": made["output_file_id"] or "",
        "errors": made["error_file_id"] or "",
    }
    for name, value in rows.items():
        if value:
            table.add_row(Text(name, "dim"), Text(value))
    errors = (made["errors"] or {}).get("data", ())
    for each in errors[:_SHOWN_ERRORS]:
        where = f"line {each['line']:,}" if each["line"] else ""
        table.add_row(Text(where, "red"), Text(each["message"]))
    if len(errors) > _SHOWN_ERRORS:
        table.add_row("", Text(f"and more: {len(errors) - _SHOWN_ERRORS} (--json)", "dim"))
    return table


def _tell_totals(made: Mapping[str, Any]) -> None:
    """What it cost, and what it would have cost now."""
    totals = made["trimtab"]
    if not totals:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("bought at", "lines", "billed"):
        table.add_column(name, justify="left" if name == "bought at" else "right")
    for each in totals["bought"]:
        lane = "" if each["processing"] == "sync" else f" ({each['processing']})"
        table.add_row(Text(f"{each['provider']}/{each['model']}{lane}"), f"{each['lines']:,}", _usd(each["billed_usd"]))
    if totals["bought"]:
        err.print(table)
    baseline = Decimal(totals["baseline_usd"])
    share = f" ({Decimal(totals['saved_usd']) / baseline:.0%})" if baseline else ""
    err.print(
        f"It cost {_usd(totals['billed_usd'])}. At once it would have cost {_usd(totals['at_once_usd'])}, and untrimmed "
        f"{_usd(totals['baseline_usd'])}: {_usd(totals['saved_usd'])} saved{share}. "
        f"Context: {totals['tokens_before']:,} -> {totals['tokens_after']:,} tokens.",
        style="bold",
    )
    if totals["estimated_lines"]:
        err.print(
            f"of {totals['estimated_lines']:,} lines the bill is an estimate: the provider said nothing", style="dim"
        )


def _usd(amount: str) -> str:
    value = Decimal(amount)
    sign = "-" if value < 0 else ""
    return f"{sign}${abs(value):,.4f}" if abs(value) >= Decimal("0.01") or not value else f"{sign}${abs(value):.3g}"


def _moment(seconds: int) -> datetime:
    """Where the reader is."""
    return datetime.fromtimestamp(seconds, UTC).astimezone()

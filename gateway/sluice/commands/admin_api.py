"""Helpers for commands that call a running gateway's admin API: options, requests, errors, tables."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NoReturn
from urllib.parse import urlencode

import click

from sluice.commands.progress import Progress


def fail(*lines: str) -> NoReturn:
    """Print the lines on stderr, and exit with code 1."""
    with suppress(OSError):  # stderr may be full or closed; the exit code still reports the failure
        for line in lines:
            click.echo(line, err=True)
    sys.exit(1)


def of_a_running_one(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that select the running gateway: `url` and `path` (of its configuration)."""
    command = click.option(
        "--url", help="URL of the admin port. Default: that of the configuration, else http://127.0.0.1:8081."
    )(command)
    return click.option("--config", "path", metavar="PATH", help="Default: as for serve.")(command)


def call_admin(
    url: str | None, path: str | None, method: str, at: str, body: object = None
) -> tuple[int, Any]:
    """Returns the status and the JSON of the running gateway's answer. Exits with code 1 if there is none."""
    from sluice.process.asking import NoAdminAnswer, ask

    there = _admin_port(url, path)
    try:
        with Progress(f"waiting for {there}"):
            return ask(there, method, at, body=body)
    except NoAdminAnswer as error:
        fail(f"sluice: {error}")


def _admin_port(url: str | None, path: str | None) -> str:
    """Returns the given base URL, else the one in the configuration, else the default."""
    if url is not None:
        return url
    from sluice.config.loader import admin_listen_of, locate
    from sluice.config.types import Server
    from sluice.errors import ConfigError
    from sluice.process.asking import admin_url

    try:
        found = locate(path)
    except ConfigError:
        return admin_url(Server().admin_listen)
    return admin_url(admin_listen_of(found))


def problem_of(answer: Any) -> str:
    """Returns the reason in a gateway's error answer, as one line."""
    if not isinstance(answer, dict):
        return str(answer)
    details = [
        f"{one.get('field')}: {one.get('reason')}"
        for one in answer.get("details") or ()
        if isinstance(one, dict)
    ]
    error = answer.get("error", answer)
    message = error.get("message", error) if isinstance(error, dict) else error
    return "; ".join([str(message), *details, *([answer["reason"]] if answer.get("reason") else [])])


def refusal_of(status: int, answer: Any) -> str:
    """Returns the line that says why the gateway refused; for an unknown path it says what to check
    instead."""
    problem = problem_of(answer)
    if status == 404 and "nothing at this path" in problem:
        return "sluice: there is no admin API at this address: is it that of the admin port (server.admin_listen, 8081)?"
    return f"sluice: {problem}"


def wanted(url: str | None, path: str | None, method: str, at: str, body: object = None) -> Any:
    """Returns the gateway's answer; if the gateway refuses, prints the reason and exits with code 1."""
    status, answer = call_admin(url, path, method, at, body)
    if status // 100 != 2:
        fail(refusal_of(status, answer))
    return answer


def pages(
    url: str | None, path: str | None, method: str, at: str, *, what: str, **query: object
) -> Iterator[Any]:
    """Returns the gateway's answer page by page; if a page is refused, prints the reason and exits with code
    1.

    `what`: the field of a page whose entries are counted for the progress display.
    """
    from sluice.process.asking import NoAdminAnswer, ask

    there = _admin_port(url, path)
    after: str | None = ""
    count = 0
    with Progress(f"waiting for {there}") as progress:
        while after is not None:
            try:
                status, answer = ask(there, method, f"{at}?{urlencode({**query, 'after': after})}")
            except NoAdminAnswer as error:
                progress.end()
                fail(f"sluice: {error}")
            if status // 100 != 2:
                progress.end()
                fail(refusal_of(status, answer))
            yield answer
            found = answer[what]
            count += found if isinstance(found, int) else len(found)
            progress.doing = f"{count} {what}"
            after = answer["next"]


class _Counted:
    """A file that counts the bytes written to it, for the progress display."""

    def __init__(self, out: BinaryIO, progress: Progress) -> None:
        self._out = out
        self._progress = progress
        self._bytes = 0

    def write(self, data: bytes) -> int:
        self._bytes += len(data)
        self._progress.doing = f"{self._bytes / 1e6:.1f} MB"
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()


def copied(url: str | None, path: str | None, at: str) -> None:
    """Print an answer of any length as it arrives; if it is refused or incomplete, print why and exit with
    code 1."""
    from sluice.process.asking import AdminRefused, NoAdminAnswer, copy

    there = _admin_port(url, path)
    try:
        if sys.stdout.isatty():  # the user sees the output itself, so no progress is shown
            return copy(there, at, sys.stdout.buffer)
        with Progress(f"waiting for {there}") as progress:
            copy(there, at, _Counted(sys.stdout.buffer, progress))
    except AdminRefused as refused:
        fail(refusal_of(refused.status, refused.answer))
    except NoAdminAnswer as error:
        fail(f"sluice: {error}")


def live_events(url: str | None, path: str | None, at: str) -> Iterator[tuple[str, Any]]:
    """Returns the events of a stream of the running gateway; if it is refused or breaks, prints why and exits
    with code 1."""
    from sluice.process.asking import AdminRefused, NoAdminAnswer, events

    try:
        yield from events(_admin_port(url, path), at)
    except AdminRefused as refused:
        fail(refusal_of(refused.status, refused.answer))
    except NoAdminAnswer as error:
        fail(f"sluice: {error}")


def show(answer: Any, rows: Iterable[Sequence[object]], titles: Sequence[str], *, as_json: bool) -> None:
    """Print a table, or with `as_json` the whole answer as JSON."""
    if as_json:
        import json

        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    texts = [[*titles], *([_text(value) for value in row] for row in rows)]
    widths = [max(len(row[at]) for row in texts) for at in range(len(titles))]
    for row in texts:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """Returns the text with all control characters but line feeds escaped, so that a terminal obeys none."""
    return "".join([c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text])


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            from sluice.config.units import in_full

            return in_full(value, 6 if abs(value) < 1e6 else 15)
        case list() | tuple():
            return ",".join(map(str, value)) or "-"
        case _:
            text = str(value)
            return text if text.isprintable() else repr(text)

"""The command line `sluice`: the group of all commands, and the commands serve, reload, restart, drain,
status, check, explain, config, keys, token, version and healthcheck. `sluice.commands` has the others.

Each command imports what it needs when it runs, so that no command waits for the imports of another. Exit
codes: 0 success; 1 failure (the reason on stderr, one line per problem, never a traceback); 2 a wrong command
line.
"""

import os.path
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from sluice.commands import conversations, local, remote, simulate
from sluice.commands.admin_api import call_admin as _call_admin
from sluice.commands.admin_api import fail as _fail
from sluice.commands.admin_api import of_a_running_one as _of_a_running_one
from sluice.commands.admin_api import refusal_of
from sluice.commands.progress import Progress
from sluice.version import VERSION

if TYPE_CHECKING:
    from sluice.config.loader import Loaded

HEALTH_URL = "http://127.0.0.1:8081/livez"

MOST_NAMES = 20
"""Most names in an error message."""

T = TypeVar("T")


def main() -> NoReturn:
    """The entry point: prints an error of ours or of the system as one line, and exits with code 1."""
    from sluice.errors import ConfigError
    from sluice.telemetry.output import open_standard_descriptors

    open_standard_descriptors()
    try:
        cli(prog_name="sluice", standalone_mode=False)
    except ConfigError as error:
        _fail(*error.problems)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed the pipe
        sys.exit(1)
    except FileNotFoundError as error:
        folder = os.path.dirname(str(error.filename or ""))
        why = (
            "there is no such file" if not folder or os.path.isdir(folder) else f"there is no folder {folder}"
        )
        _fail(f"sluice: {error.filename}: {why}" if error.filename else f"sluice: {error}")
    except OSError as error:
        _fail(f"sluice: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    sys.exit(0)


SECTIONS = {
    "Set it up": {
        "init": "Write a first configuration, with a key",
        "import": "Convert LiteLLM's configuration",
        "check": "Check a configuration, list its problems",
        "explain": "Say which targets a request would go to, and why",
        "simulate": "Replay a trace against modelled upstreams",
        "config": "Compare configurations; print their schema",
        "models": "Show and update the table of models",
    },
    "Run it": {
        "serve": "Run the gateway",
        "chat": "Chat with a gateway in the terminal",
        "healthcheck": "Check whether a gateway is healthy",
        "token": "Mint a token for a web page",
    },
    "Manage a running gateway, with the admin key": {
        "status": "Print its status; --watch: live figures",
        "calls": "Print its last calls",
        "usage": "Print calls, tokens and cost by day, model …",
        "targets": "List its targets, switch one off or on",
        "keys": "Make, list, change keys; digests of keys",
        "conversations": "Export and delete conversations",
        "reload": "Have it reload its configuration",
        "restart": "Have it replace its workers one by one",
        "drain": "Have it finish its calls and exit",
    },
    "Other": {
        "completion": "Print shell completion for bash, zsh, fish",
        "version": "Print the version; --json: of Python, too",
    },
}
"""Sections of the help: the commands by purpose, each with a short description."""


class Sectioned(click.Group):
    """A command group whose help lists its commands by SECTIONS."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([*commands.items()])


@click.group(cls=Sectioned, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sluice", message="%(prog)s %(version)s")
def cli() -> None:
    """A streaming gateway in front of LLM providers.

    Begin with `sluice init`. `sluice COMMAND --help` describes a command.
    """


@cli.command()
@click.argument("file", required=False)
@click.option(
    "--config",
    "path",
    metavar="PATH",
    help="The same as FILE. Default: $SLUICE_CONFIG, ./gateway.yaml, /etc/sluice/gateway.yaml.",
)
@click.option(
    "--workers",
    metavar="N|auto",
    help="Number of worker processes; auto: one per processor. Default: server.workers.",
)
def serve(file: str | None, path: str | None, workers: str | None) -> None:
    """Run the gateway by FILE. SIGHUP reloads the configuration, SIGUSR2 replaces the workers, SIGTERM drains the
    gateway."""
    from sluice.config.loader import locate
    from sluice.process.signals import ignore_signals
    from sluice.process.source import ConfigSource
    from sluice.runtime.descriptors import raise_limit
    from sluice.telemetry.output import never_wait

    number = _number_of(workers)
    path = _only_one(file, path)
    never_wait()
    ignore_signals()
    raise_limit()

    source = ConfigSource(locate(path), number)
    loaded = source.load()
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    from sluice.process.serve import run

    if loaded.config.server.workers == 1:
        sys.exit(run(loaded, source))
    from sluice.process.supervisor import supervise

    part = supervise(loaded, source)
    sys.exit(part if isinstance(part, int) else run(part[0], source, part[1]))


def _only_one(file: str | None, path: str | None) -> str | None:
    if file and path:
        raise click.UsageError("FILE and --config are the same: give one of them")
    return file or path


def _number_of(workers: str | None) -> int | None:
    if workers == "auto":
        from sluice.process.processors import usable

        return usable()
    if workers is None:
        return None
    if (
        not workers.isascii()
        or not workers.isdigit()
        or not 1 <= int(workers[:6]) <= 1024
        or len(workers) > 4
    ):
        raise click.UsageError("--workers: expected a number from 1 to 1024, or auto")
    return int(workers)


def _read(path: str | None) -> "Loaded":
    """Returns the configuration in this file, or in the file that `serve` would read. Raises ConfigError."""
    from sluice.config.loader import load, locate

    file = locate(path)
    with Progress(f"reading {file}"):
        return load(file)


def _suggestions(name: str, there: Iterable[str]) -> str:
    """Returns the end of an error message about an unknown name: a similar name, or the names that exist."""
    from sluice.config.problems import suggestion

    names = sorted(there)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return suggestion(name, names) or f"; there are {', '.join(names[:MOST_NAMES]) or 'none'}{more}"


def _done(status: int, answer: Any, done: str) -> None:
    """Print `done` if the gateway succeeded; else print the reason and exit with code 1."""
    if status // 100 == 2:
        click.echo(done)
        return
    _fail(refusal_of(status, answer))


@cli.command()
@_of_a_running_one
def reload(url: str | None, path: str | None) -> None:
    """Have the running gateway reload its configuration file. The admin key is $SLUICE_ADMIN_KEY."""
    status, answer = _call_admin(url, path, "POST", "/admin/reload")
    if not isinstance(answer, dict) or "result" not in answer:
        return _done(status, answer, "")
    for warning in answer["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if answer["result"] != "ok":
        _fail(*answer["problems"], f"sluice: not reloaded ({answer['result']}); what ran before runs on")
    click.echo(f"reloaded: {answer['hash']} in {answer['seconds']} s")


@cli.command()
@_of_a_running_one
def restart(url: str | None, path: str | None) -> None:
    """Have the running gateway replace its workers, one after another. The admin key is $SLUICE_ADMIN_KEY."""
    _done(*_call_admin(url, path, "POST", "/admin/restart"), "restarting; sluice status tells how far it is")


@cli.command()
@_of_a_running_one
def drain(url: str | None, path: str | None) -> None:
    """Have the running gateway finish its calls and exit, as SIGTERM does. The admin key is
    $SLUICE_ADMIN_KEY."""
    _done(*_call_admin(url, path, "POST", "/admin/drain"), "draining")


@cli.command()
@click.option("--watch", is_flag=True, help="A line of figures every second, until Ctrl-C.")
@_of_a_running_one
def status(url: str | None, path: str | None, watch: bool) -> None:
    """Print the status of the running gateway as JSON. The admin key is $SLUICE_ADMIN_KEY."""
    import json

    if watch:
        from sluice.commands.watching import watch as watch_it

        return watch_it(url, path)
    code, answer = _call_admin(url, path, "GET", "/admin/status")
    _done(code, answer, json.dumps(answer, indent=2))


@cli.command()
@click.option("--alias", required=True, help="The alias that the call would name.")
@click.option("--config", "path", metavar="PATH", help="Default: as for serve.")
@click.option(
    "--request",
    "request_file",
    metavar="FILE",
    help="A file with a request body; targets must support what it needs.",
)
def explain(alias: str, path: str | None, request_file: str | None) -> None:
    """Print the targets that a request to ALIAS would be sent to, in order, with deadlines and reasons, and
    which fields each target accepts, refuses or drops."""
    from functools import partial
    from pathlib import Path

    from sluice.errors import BadRequest
    from sluice.routing.explain import explain as lines_of
    from sluice.routing.explain import request_in
    from sluice.runtime.abilities import abilities

    loaded = _read(path)
    if alias not in loaded.config.aliases:
        _fail(f"sluice: there is no alias {alias}{_suggestions(alias, loaded.config.aliases)}")
    try:
        chat = request_in(Path(request_file)) if request_file else None
    except BadRequest as error:
        _fail(f"{request_file}: {error.message}")
    config = loaded.config
    tell = partial(abilities, loaded, config.aliases[alias], chat=chat)
    for line in lines_of(config, alias, chat, tell):
        click.echo(line)


@cli.command()
@click.argument("file", required=False)
@click.option("--config", "path", metavar="PATH", help="The same as FILE, as for serve.")
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--no-env",
    "blind",
    is_flag=True,
    help="Do not look up ${VAR} and ${file:…}: for CI, which has no secrets.",
)
def check(file: str | None, path: str | None, style: str, blind: bool) -> None:
    """Check a configuration and print all problems, as file:line:column: path: message.

    Without FILE it checks the file that `serve` would read.
    """
    from sluice.config.loader import check as check_file
    from sluice.config.loader import locate

    file = locate(_only_one(file, path))
    with Progress(f"reading {file}"):
        checked = check_file(file, blind=blind)
    if style == "json":
        import msgspec

        report = {"ok": not checked.problems, "problems": checked.problems, "warnings": checked.warnings}
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    else:
        for problem in checked.problems:
            click.echo(str(problem), err=True)
        for warning in checked.warnings:
            click.echo(f"warning: {warning}", err=True)
        if not checked.problems:
            click.echo(f"{file}: ok")
    sys.exit(1 if checked.problems else 0)


@cli.group()
def config() -> None:
    """Compare configurations, and print their JSON Schema."""


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, with the options of all installed backends and kinds of
    credentials."""
    import json

    from msgspec import Struct

    from sluice import entrypoints
    from sluice.backends.credentials import find_kind, installed_kinds
    from sluice.backends.discovery import INTERCEPTORS, STAGES, struct_of
    from sluice.backends.protocol import find_backend, installed
    from sluice.config.schema import json_schema

    def loaded(names: Iterable[str], find: Callable[[str], T]) -> Iterator[tuple[str, T]]:
        for name in names:
            try:
                yield name, find(name)
            except LookupError as error:
                click.echo(f"warning: {error}", err=True)

    def plugins(group: str, what: str) -> dict[str, type[Struct]]:
        return dict(loaded(entrypoints.installed(group), lambda name: struct_of(group, name, what)))

    whole = json_schema(
        dict(loaded(installed(), find_backend)),
        dict(loaded(installed_kinds(), find_kind)),
        interceptors=plugins(INTERCEPTORS, "interceptor"),
        stages=plugins(STAGES, "stage"),
    )
    click.echo(json.dumps(whole, indent=2, ensure_ascii=False))


@config.command()
@click.argument("old")
@click.argument("new")
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
def diff(old: str, new: str, style: str) -> None:
    """Print what a reload from the file OLD to the file NEW would do, without secrets.

    + added, - removed, ~ changed, ! only a restart can change it (a reload would be refused).
    """
    from sluice.runtime.diff import differences

    found = differences(_read(old).config, _read(new).config)
    if style == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    for difference in found:
        click.echo(str(difference))


@cli.group()
def keys() -> None:
    """Make keys and digests of keys; list, make and change the dynamic keys of a running gateway."""


for _command in remote.KEYS:
    keys.add_command(_command)
for _command in (*local.COMMANDS, *remote.COMMANDS, conversations.conversations, simulate.simulate):
    cli.add_command(_command)


@keys.command("new")
@click.option(
    "--id",
    "key_id",
    default="my-key",
    show_default=True,
    metavar="ID",
    help="The key's name in the configuration.",
)
def new(key_id: str) -> None:
    """Print a new key, this once, and the lines for the configuration that accept it."""
    from sluice.identity.keys import digest_of, new_key

    if not _is_name(key_id):
        raise click.UsageError(
            "--id: letters, digits and . _ : / @ -, at most 128, starting with a letter or digit"
        )
    key = new_key()
    click.echo(f"# The key, shown this once:\n{key}\n\n# For the configuration:\nkeys:")
    click.echo(f"  - id: {_quoted(key_id)}\n    digest: {digest_of(key)}")


@keys.command("hash")
def hash_() -> None:
    """Read a key from standard input and print its digest."""
    from sluice.identity.keys import digest_of

    key = sys.stdin.readline().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        _fail("sluice: expected one key on standard input: printable ASCII without spaces")
    click.echo(digest_of(key))


@cli.group()
def token() -> None:
    """Make browser tokens for web pages, as POST /v1/tokens does."""


@token.command()
@click.option("--config", "path", metavar="FILE", help="Default: as for serve.")
@click.option("--key", "key_id", required=True, metavar="ID", help="Id of the key that mints it.")
@click.option("--origin", required=True, metavar="URL", help="The page's origin: one of the key's.")
@click.option("--alias", help="Default: the key's default alias.")
@click.option("--session-prefix", metavar="TEXT", help="Default: a random one.")
@click.option("--seconds", type=int, help="How long it lives. Default: 300, or tokens.longest.")
def mint(
    *,
    path: str | None,
    key_id: str,
    origin: str,
    alias: str | None,
    session_prefix: str | None,
    seconds: int | None,
) -> None:
    """Print a browser token, for development."""
    from sluice.errors import GatewayError
    from sluice.identity import Authenticator
    from sluice.identity.browser import TokenRequest

    config = _read(path).config
    authenticator = Authenticator(config)
    owner = authenticator.key(key_id)
    if owner is None:
        enabled = [key.id for key in config.keys if key.enabled]
        _fail(f"sluice: there is no key {key_id} that may be used{_suggestions(key_id, enabled)}")
    try:
        minted = authenticator.mint(owner, TokenRequest(origin, alias, session_prefix, seconds))
    except GatewayError as error:
        _fail(f"sluice: {error.message}")
    click.echo(minted.token)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def version(as_json: bool) -> None:
    """Print the version."""
    import platform

    if not as_json:
        click.echo(f"sluice {VERSION}")
        return
    import json

    click.echo(json.dumps({"version": VERSION, "python": platform.python_version()}))


@cli.command()
@click.option("--url", default=HEALTH_URL, show_default=True)
@click.option("--timeout", default=3.0, show_default=True, help="Seconds.")
def healthcheck(url: str, timeout: float) -> None:
    """Check whether a running gateway is healthy (for health checks of containers)."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    if not url.startswith(("http://", "https://")):
        raise click.UsageError("--url: expected http:// or https://")
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=timeout) as response:
            click.echo(f"{url}: {response.status}")
    except HTTPError as answer:
        _fail(f"sluice: {url}: it answered {answer.code}")
    except (OSError, HTTPException, ValueError) as error:
        from sluice.process.asking import why

        _fail(f"sluice: {url}: {why(error)}")


def _is_name(text: str) -> bool:
    import msgspec

    from sluice.config.types import Name

    try:
        msgspec.convert(text, type=Name)
    except msgspec.ValidationError:
        return False
    return True


def _quoted(text: str) -> str:
    from sluice.config.yamltext import resolve

    return text if isinstance(resolve(text), str) and ":" not in text else f'"{text}"'

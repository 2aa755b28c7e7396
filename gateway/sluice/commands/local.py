"""Commands that do not use the admin API of a running gateway: init, chat, import, models, completion."""

import sys
from typing import TextIO

import click

from sluice.commands.admin_api import fail
from sluice.commands.progress import Progress

MAX_INPUT_CHARACTERS = 16 << 20
"""Most characters of a message on standard input."""


@click.command()
@click.option(
    "--provider", "providers", multiple=True, metavar="NAME[=MODEL]", help="openai, groq=MODEL …; repeat it."
)
@click.option("--alias", default="chat", show_default=True, help="What callers name as the model.")
@click.option(
    "--key-id", default="my-app", show_default=True, metavar="ID", help="The name of the first key."
)
@click.option("--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT")
@click.option("--output", default="gateway.yaml", show_default=True, metavar="FILE")
@click.option("--ui/--no-ui", default=True, show_default=True, help="Pages for operators on the admin port.")
@click.option("--force", is_flag=True, help="Write over FILE where it is there.")
@click.pass_context
def init(
    ctx: click.Context,
    *,
    providers: tuple[str, ...],
    alias: str,
    key_id: str,
    listen: str,
    output: str,
    ui: bool,
    force: bool,
) -> None:
    """Write a first configuration, with a key and an admin key, which are printed this once.

    Without --provider it asks for providers, and for --alias and --listen unless they are given.
    """
    from pathlib import Path

    from sluice.commands.first_config import InitOptions, chosen, written

    if Path(output).exists() and not force:
        fail(f"sluice: {output} is there already; --force writes over it, --output FILE writes another")
    if not providers:
        if not sys.stdin.isatty():
            fail("sluice: --provider NAME is needed where nobody can be asked, such as --provider openai")
        text = click.prompt(
            "Providers (openai, anthropic, gemini, ollama, groq …; several with commas)", default="openai"
        )
        providers = tuple(name for name in text.replace(",", " ").split() if name)
        if _is_default(ctx, "alias"):
            alias = click.prompt("What callers name as the model", default=alias)
        if _is_default(ctx, "listen"):
            listen = click.prompt("Where it listens", default=listen)
    try:
        first = written(InitOptions(tuple(map(chosen, providers)), alias, key_id, listen, ui))
    except ValueError as error:
        fail(f"sluice: {error}")
    Path(output).write_text(first.text, encoding="utf-8")
    click.echo(f"Wrote {output}. The keys are shown this once; the file has their digests.\n")
    click.echo(f"  key of {key_id}:  {first.key}\n  admin key:  {first.admin_key}\n\nThen:")
    for variable in first.variables:
        click.echo(f"  export {variable}=…")
    from sluice.process.asking import admin_url

    sluice = _command()
    click.echo(f"  {sluice} check {output}\n  {sluice} serve --config {output}")
    click.echo(f"  SLUICE_API_KEY={first.key} {sluice} chat --url {admin_url(listen)}")
    if ui:
        click.echo(f"  {admin_url(first.admin_listen)}/ui/ has pages; sign in with the admin key")


def _command() -> str:
    """Returns the command to show in examples: by its path if a shell would not find it by its name."""
    import os
    import shutil

    called = sys.argv[0]
    return "sluice" if shutil.which("sluice") or not os.access(called, os.X_OK) else called


def _is_default(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.DEFAULT


@click.command()
@click.argument("message", nargs=-1)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="URL of the gateway.")
@click.option("--model", metavar="ALIAS", help="Default: the key's default alias, or its only one.")
@click.option("--system", help="A system prompt.")
@click.option("--raw", is_flag=True, help="Print the bytes of the stream as they come.")
def chat(*, message: tuple[str, ...], url: str, model: str | None, system: str | None, raw: bool) -> None:
    """Chat with a gateway in the terminal. The key is $SLUICE_API_KEY.

    With MESSAGE, or text on standard input, it prints one answer. Otherwise it asks for messages: /new begins
    a new conversation, Ctrl-C stops an answer, Ctrl-D ends the chat.
    """
    import os

    from sluice.commands.terminal import Refused, Talk, TerminalClient

    try:
        client = TerminalClient(url, os.environ.get("SLUICE_API_KEY", ""))
        talk = Talk(client, model or client.model(), system or "", sys.stdout, raw=raw)
        text = " ".join(message) or ("" if sys.stdin.isatty() else _typed(sys.stdin))
        if text.strip():
            talk.say(text)
        else:
            talk.loop(lambda: click.prompt("", prompt_suffix="> ", default="", show_default=False))
    except Refused as error:
        fail(f"sluice: {error}")


def _typed(source: TextIO) -> str:
    text = source.read(MAX_INPUT_CHARACTERS + 1)
    if len(text) > MAX_INPUT_CHARACTERS:
        fail(f"sluice: standard input: larger than {MAX_INPUT_CHARACTERS >> 20} MiB")
    return text


@click.group("import")
def import_() -> None:
    """Convert another gateway's configuration."""


@import_.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--output", metavar="FILE", help="Default: standard output.")
@click.option("--strict", is_flag=True, help="Exit code 1 where anything could not be carried over.")
def litellm(file: str, output: str | None, strict: bool) -> None:
    """Convert LiteLLM's config.yaml into a configuration of Sluice. Each line is converted, or reported on
    stderr with the reason why it is not."""
    from pathlib import Path

    from sluice.commands.litellm import grouped, imported
    from sluice.commands.litellm_source import MAX_FILE_BYTES, Unreadable
    from sluice.files import read_file, reason_of

    try:
        with Progress(f"reading {file}"):
            found = imported(read_file(file, MAX_FILE_BYTES))
    except Unreadable as error:
        fail(f"{file}: {error}")
    except OSError as error:
        fail(f"{file}: cannot be read: {reason_of(error)}")
    if output:
        Path(output).write_text(found.text, encoding="utf-8")
    else:
        click.echo(found.text, nl=False)
    for note in grouped(found.notes):
        click.echo(f"{file}:{note}", err=True)
    carried = f"{found.carried} of {found.carried + len(found.notes)} lines with a value carried over"
    click.echo(f"{carried}; look at the result with `sluice check`", err=True)
    if strict and found.notes:
        sys.exit(1)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what completes `sluice` in a shell.

    \b
    bash, in ~/.bashrc:                     eval "$(sluice completion bash)"
    zsh, in ~/.zshrc, behind compinit:      eval "$(sluice completion zsh)"
    fish, in ~/.config/fish/config.fish:    sluice completion fish | source
    """
    from click.shell_completion import get_completion_class

    click.echo(f"# {shell}: completes sluice")
    found = get_completion_class(shell)
    if found is None:
        fail(f"sluice: there is no completion for {shell}")
    maker = found(click.get_current_context().find_root().command, {}, "sluice", "_SLUICE_COMPLETE")
    click.echo(maker.source_template % maker.source_vars())


@click.group()
def models() -> None:
    """Show and update the table of models: which request fields they accept, and what is known of them."""


_TO = click.option("--to", "place", metavar="PATH", help="A table instead of the one that is part of Sluice.")


@models.command("list")
@click.argument("part", default="")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@_TO
def list_models(part: str, place: str | None, *, as_json: bool) -> None:
    """Print what is known of the models whose names contain PART."""
    from sluice.commands.models import show

    show(part, place, as_json=as_json)


@models.command("update")
@click.argument("file")
@_TO
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--force", is_flag=True, help="Also where FILE is older than the table.")
def update_models(file: str, place: str | None, *, dry_run: bool, force: bool) -> None:
    """Replace the table by FILE, and print the changes. FILE is validated before anything is written.

    A running gateway uses the new table after its next reload. If the package's directory is read-only, use
    --to PATH, and set models.file to PATH in the configuration.
    """
    from sluice.commands.models import update

    update(file, place, dry_run=dry_run, force=force)


COMMANDS = (init, chat, import_, models, completion)

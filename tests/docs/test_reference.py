"""The pages that list every endpoint and every command are whole and true."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from sluice.cli import cli
from tests.api.serving import shapes

ROOT = Path(__file__).parents[2]
ENDPOINTS = (ROOT / "docs/api.md").read_text()
COMMANDS = re.findall(
    r"`sluice ([^`]+)`", (ROOT / "docs/commands.md").read_text() + (ROOT / "README.md").read_text()
)


async def test_every_route_stands_among_the_endpoints() -> None:
    clients, operators = await shapes()
    assert [path for path in (*clients, *operators) if path.partition("/*")[0] not in ENDPOINTS] == []


def command_of(line: str) -> click.Command:
    command: click.Command = cli
    for name in re.findall(r"^[a-z ]*[a-z]", line)[0].split():
        if not isinstance(command, click.Group):
            break  # an argument
        command = command.commands[name]
    return command


def leaves(command: click.Command) -> Iterator[click.Command]:
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield command
    if isinstance(command, click.Group):
        for one in command.commands.values():
            yield from leaves(one)


def test_every_command_is_named() -> None:
    named = {id(command_of(line)) for line in COMMANDS}
    assert [one.name for one in leaves(cli) if id(one) not in named and not one.hidden] == []

"""Commands about the table of models: `sluice models list` and `sluice models update`."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import msgspec

from sluice.commands.admin_api import fail
from sluice.config.rule_file import ModelTable, bundled_place, bytes_of, read_table, table_of
from sluice.model.facts import Facts
from sluice.model.rules import ModelRule


def show(part: str, place: str | None, *, as_json: bool) -> None:
    """Print what is known of the models whose names contain `part`. Raises ConfigError."""
    table = read_table(Path(place) if place else bundled_place())
    found = {name: facts for name, facts in sorted(table.models.items()) if part in name}
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"updated": table.updated, "models": found})))
        return
    width = max(map(len, found), default=0)
    for name, facts in found.items():
        click.echo(f"{name:{width}}  {_summary(facts)}")
    click.echo(
        f"{len(found)} of {len(table.models)} models, {len(table.rules)} rules, updated {table.updated}",
        err=True,
    )


def update(file: str, place: str | None, *, dry_run: bool, force: bool) -> None:
    """Replace the table by a file, and print the changes. Raises ConfigError, OSError."""
    target = Path(place) if place else bundled_place()
    data = bytes_of(Path(file))
    new = table_of(data, file)
    old = read_table(target) if target.exists() else ModelTable("", (), lambda: {})
    if new.updated < old.updated and not force:
        fail(
            f"{file}: is of {new.updated}, the table of {old.updated}; --force puts it in place nevertheless"
        )
    changes = [*_of_rules(old, new), *_of_models(old.models, new.models)]
    for change in changes:
        click.echo(change)
    if dry_run:
        click.echo(f"{target}: {len(changes)} changes, not written", err=True)
        return
    _write(target, data)
    click.echo(
        f"{target}: {len(changes)} changes, updated {old.updated or 'never'} -> {new.updated}", err=True
    )


def _of_rules(old: ModelTable, new: ModelTable) -> Iterator[str]:
    before, after = ({_shown(line): line for line in table.rules} for table in (old, new))
    yield from (f"- rule {shown}" for shown in before if shown not in after)
    yield from (f"+ rule {shown}" for shown in after if shown not in before)
    if [*before] != [*after] and {*before} == {*after}:
        yield "~ rules: in another order"


def _of_models(old: Mapping[str, Facts], new: Mapping[str, Facts]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in new:
            yield f"- model {name}"
        elif name not in old:
            yield f"+ model {name}: {_summary(new[name])}"
        elif old[name] != new[name]:
            yield f"~ model {name}: {_summary(old[name])} -> {_summary(new[name])}"


def _shown(line: ModelRule) -> str:
    """Returns a rule as text, without its source: the models that it is for, and its settings."""
    fields = msgspec.to_builtins(line)
    values = {
        name: value
        for name, value in fields.items()
        if name not in ("source", "date") and value not in (None, [], {}, ())
    }
    return msgspec.json.encode(values).decode()


def _summary(facts: Facts) -> str:
    kinds = f"{'+'.join(facts.input)} -> {'+'.join(facts.answers)}"
    return f"context {facts.context or '?'}, output {facts.output or '?'}, {kinds}"


def _write(target: Path, data: bytes) -> None:
    """Replace a file atomically, with the same mode. Raises OSError."""
    import os
    import tempfile

    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o644
    target = target.resolve()
    handle, written = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(written).chmod(mode)
        Path(written).replace(target)
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise

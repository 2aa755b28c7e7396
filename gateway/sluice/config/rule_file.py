"""Reads the table of models (config/models.yaml): rules for requests, and facts for lists of models.

The bundled table is read when the first configuration is loaded, which takes some milliseconds. It is read
again if it has changed, so that a reload follows `sluice models update`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sluice.config.validation import as_builtins
from sluice.config.yamltext import YamlError, read
from sluice.errors import ConfigError
from sluice.files import read_file, reason_of
from sluice.model.facts import Facts
from sluice.model.rules import ModelRule

BESIDE = Path(__file__).parents[1] / "models.yaml"
IN_A_CLONE = Path(__file__).parents[3] / "config" / "models.yaml"
MAX_FILE = 4 << 20
Kind = Literal["text", "image", "pdf", "audio", "video"]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts about the models called `names`, read at `source` on `date`."""

    names: tuple[str, ...]
    source: str
    date: str
    context: Tokens | None = None
    output: Tokens | None = None
    input: tuple[Kind, ...] = ("text",)
    answers: tuple[Kind, ...] = ("text",)

    @property
    def facts(self) -> Facts:
        return Facts(self.context or 0, self.output or 0, self.input, self.answers)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    updated: str
    rules: tuple[ModelRule, ...]
    models: tuple[Known, ...] = ()


class ModelTable(msgspec.Struct, frozen=True):
    """A table; `updated` is a date. `known` returns the facts about models, by name."""

    updated: str
    rules: Sequence[ModelRule]
    known: Callable[[], Mapping[str, Facts]]

    @property
    def models(self) -> Mapping[str, Facts]:
        return self.known()


def bundled_place() -> Path:
    """Returns the path of the bundled table: in the package or in a clone."""
    return BESIDE if BESIDE.is_file() else IN_A_CLONE


def bundled_table() -> ModelTable:
    """Returns the bundled table. Raises ConfigError if it is broken."""
    path = bundled_place()
    try:
        stat = path.stat()
    except OSError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    return _bundled(path, stat.st_mtime_ns, stat.st_size)


def bundled_rules() -> Sequence[ModelRule]:
    """Returns the rules of the bundled table. Raises ConfigError if it is broken."""
    return bundled_table().rules


@lru_cache(2)
def _bundled(path: Path, changed: int, size: int) -> ModelTable:
    """Reads the rules of the bundled table. Its models come after them and take longer: they are read when a
    list is requested."""
    data = bytes_of(path)
    rules, behind, _ = data.partition(b"\nmodels:\n")
    if not behind:
        return table_of(data, str(path))
    return msgspec.structs.replace(
        table_of(rules, str(path)), known=cache(lambda: table_of(data, str(path)).models)
    )


def read_table(path: Path) -> ModelTable:
    """Returns the table in a file. Raises ConfigError, which names the file, for any mistake in it."""
    return table_of(bytes_of(path), str(path))


def bytes_of(path: Path) -> bytes:
    """Returns a table's text. Raises ConfigError, which names the file, if it cannot be read."""
    try:
        return read_file(path, MAX_FILE)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {reason_of(error)}"]) from None


def table_of(data: bytes, name: str) -> ModelTable:
    """Returns the table in this text; `name` is its file's. Raises ConfigError."""
    try:
        found = msgspec.convert(as_builtins(read(data)), _File)
        _check_date(found.updated, "updated")
        for index, line in enumerate(found.rules):
            _check_rule(line, f"rules[{index}]")
        models: dict[str, Facts] = {}
        for index, known in enumerate(found.models):
            _check_date(known.date, f"models[{index}].date")
            for model in known.names:
                if model in models:
                    raise ValueError(f"models[{index}]: {model} is there twice")
                models[model] = known.facts
    except YamlError as error:
        raise ConfigError([f"{name}:{error.at.line}:{error.at.column}: {error.message}"]) from None
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError([f"{name}: {error}"]) from None
    return ModelTable(found.updated, found.rules, lambda: models)


def _check_rule(line: ModelRule, at: str) -> None:
    _check_date(line.date, f"{at}.date")
    for name in ("backend", "host", "vendor", "model"):
        try:
            re.compile(getattr(line, name) or "")
        except re.error as error:
            raise ValueError(f"{at}.{name}: is no regular expression: {error}") from None


def _check_date(text: str, at: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{at}: expected a date, such as 2026-11-30, not {text!r}") from None

"""Parses a LiteLLM file, and records which of its values were converted; the others are reported with their
line and the reason."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from sluice.commands.litellm_reasons import reason_for

Path = tuple[str | int, ...]
MAX_FILE_BYTES = 4 << 20
MAX_VALUES = 200_000
"""Most values of a file, including those that YAML aliases repeat."""


class Unreadable(Exception):
    """The file is not YAML, or not a configuration of LiteLLM."""


class LiteLLMFile:
    """The values of a file, and which of them were converted ("taken")."""

    def __init__(self, data: bytes) -> None:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Unreadable(f"not UTF-8 (at byte {error.start})") from None
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            self.value: Any = loader.construct_document(root) if root is not None else None
            self.lines: dict[Path, int] = {}
            for path, line in _leaves(root, ()) if root is not None else ():
                self.lines[path] = line
                if len(self.lines) > MAX_VALUES:
                    raise Unreadable(f"more than {MAX_VALUES} values")
        except RecursionError:
            raise Unreadable("nested too deeply") from None
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}: " if mark is not None else ""
            raise Unreadable(f"{where}{getattr(error, 'problem', None) or error}") from None
        if not isinstance(self.value, dict) or root is None:
            raise Unreadable("expected sections such as model_list")
        self.variables = set(re.findall(r"os\.environ/(\w+)", text))
        """Names of environment variables that it uses."""
        self._below: dict[Path, list[Path]] = {}
        """By each path, the values at and below it."""
        for path in self.lines:
            for length in range(len(path) + 1):
                self._below.setdefault(path[:length], []).append(path)
        self.reasons: dict[Path, str] = {}
        self.taken: set[Path] = {path for path in self.lines if self.get(*path) in (None, {}, [])}
        """What is carried over; empty values hold nothing to be carried."""

    def get(self, *path: str | int) -> Any:
        """Returns a value without marking it as taken."""
        found = self.value
        for key in path:
            if isinstance(found, dict):
                found = found.get(key)
            elif isinstance(found, list) and isinstance(key, int) and key < len(found):
                found = found[key]
            else:
                return None
        return found

    def take(self, *path: str | int) -> Any:
        """Returns a value, and marks it and everything in it as taken."""
        found = self.get(*path)
        if found is not None:
            self.taken.update(self._below.get(path, ()))
        return found

    def text(self, *path: str | int) -> str:
        """Returns a text or number as text, marked as taken, with variables in Sluice's form; "" if there is
        none."""
        value = self.get(*path)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            return ""
        self.take(*path)
        return variables(str(value))

    def number(self, *path: str | int) -> float | None:
        """Returns a number, marked as taken; None if there is none, or if it is negative or at least 1e15."""
        value = self.get(*path)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
            return None
        self.take(*path)
        return value

    def leave(self, reason: str, *path: str | int) -> None:
        """Record why a value is not converted, or what is left to do about it."""
        for leaf in self._below.get(path, ()):
            self.reasons[leaf] = reason
            self.taken.discard(leaf)

    def notes(self) -> Iterator[str]:
        for path, line in sorted(self.lines.items(), key=lambda leaf: leaf[1]):
            if path not in self.taken:
                name = ".".join(map(str, path))
                yield f"{line}: {name}: {self.reasons.get(path) or reason_for(path)}"


_VARIABLE = re.compile(r"os\.environ/(\w+)|\$\{(\w+)\}")


def variable_of(text: str) -> str:
    """Returns the name of the environment variable that a text refers to: os.environ/NAME, or ${NAME} as
    templates write it; "" for any other text."""
    found = _VARIABLE.fullmatch(text)
    return found[1] or found[2] if found else ""


def variables(text: str) -> str:
    """Returns the text with a reference to a variable as ${NAME}; other dollar signs are doubled."""
    name = variable_of(text)
    return f"${{{name}}}" if name else text.replace("$", "$$")


def name_of(text: str) -> str:
    """Returns a name that is valid in Sluice's configuration; a wildcard's * stays at the end."""
    name = re.sub(r"[^A-Za-z0-9._:/@-]", "-", text.removesuffix("*")).lstrip("._:/@-")[:127] or "model"
    return name + "*" if text.endswith("*") else name


def _leaves(node: yaml.Node, path: Path, depth: int = 0) -> Iterator[tuple[Path, int]]:
    if depth > 40:
        raise Unreadable("nested too deeply")
    if isinstance(node, yaml.MappingNode) and node.value:
        for key, value in node.value:
            yield from _leaves(value, (*path, str(key.value)), depth + 1)
    elif isinstance(node, yaml.SequenceNode) and node.value:
        for at, value in enumerate(node.value):
            yield from _leaves(value, (*path, at), depth + 1)
    else:
        yield path, node.start_mark.line + 1

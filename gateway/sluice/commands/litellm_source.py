"""A file of LiteLLM's, and which of its values were carried over: the others are named with their line and
the reason."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from sluice.commands.litellm_reasons import reason_for

Path = tuple[str | int, ...]
MAX_FILE_BYTES = 4 << 20
MAX_VALUES = 200_000
"""Of a file, those that its anchors repeat included."""


class Unreadable(Exception):
    """The file is no YAML, or no configuration of LiteLLM's."""


class LiteLLMFile:
    """The values of a file, and which of them were taken."""

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
        """A value, without taking it."""
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
        """A value that is carried over, with all that is in it."""
        found = self.get(*path)
        if found is not None:
            self.taken.update(self._below.get(path, ()))
        return found

    def text(self, *path: str | int) -> str:
        """A text or a number, taken, with its variables as ours; "" where there is none."""
        value = self.get(*path)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            return ""
        self.take(*path)
        return variables(str(value))

    def number(self, *path: str | int) -> float | None:
        """A number, taken. Null: none, or one that means nothing (negative, or 1e15 and more)."""
        value = self.get(*path)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
            return None
        self.take(*path)
        return value

    def leave(self, reason: str, *path: str | int) -> None:
        """Say why a value is not carried over, or what is left to do."""
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
    """The environment variable that a text is: os.environ/NAME, or ${NAME} as templates write it. "" where it
    is none."""
    found = _VARIABLE.fullmatch(text)
    return found[1] or found[2] if found else ""


def variables(text: str) -> str:
    """A variable as ${NAME}; a dollar sign of the text's own is doubled."""
    name = variable_of(text)
    return f"${{{name}}}" if name else text.replace("$", "$$")


def name_of(text: str) -> str:
    """A name that ours may have: a wildcard's * stays at its end."""
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

"""A file of LiteLLM's, and which of its values were carried over: the others are named with their line and the reason."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Path = tuple[str | int, ...]
MOST = 4 << 20
REASONS: Mapping[str, str] = {
    "drop_params": "fields that a model refuses are left out by the table of models (config/models.yaml) anyway",
    "database_url": "no database is needed: dynamic keys and usage are kept by admin.store",
    "callbacks": "there are log lines and metrics; plugins see calls and answers",
    "success_callback": "there are log lines and metrics; plugins see calls and answers",
    "failure_callback": "there are log lines and metrics; plugins see calls and answers",
    "cache": "there is no cache of answers; an interceptor can be one",
    "cache_params": "there is no cache of answers; an interceptor can be one",
    "set_verbose": "log.level: debug",
    "json_logs": "log lines are JSON where they do not go to a terminal",
    "enable_pre_call_checks": "targets that cannot take a request are left out where `context`, `vision`, `tools` say so",
    "ui_username": "the pages are signed in to with the admin key (admin.ui)",
    "ui_password": "the pages are signed in to with the admin key (admin.ui)",
    "environment_variables": "set it in the gateway's environment",
}


class Unreadable(Exception):
    """The file is no YAML, or no configuration of LiteLLM's."""


class LiteLLMFile:
    """The values of a file, and which of them were taken."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MOST:
            raise Unreadable(f"larger than {MOST >> 20} MiB")
        try:
            root = yaml.compose(data, yaml.SafeLoader)
            self.value: Any = yaml.safe_load(data)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}: " if mark is not None else ""
            raise Unreadable(f"{where}{getattr(error, 'problem', None) or error}") from None
        if not isinstance(self.value, dict) or root is None:
            raise Unreadable("expected sections such as model_list")
        self.lines: dict[Path, int] = dict(_leaves(root, ()))
        self.reasons: dict[Path, str] = {}
        self.taken: set[Path] = set()

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
            self.taken |= {leaf for leaf in self.lines if leaf[: len(path)] == path}
        return found

    def leave(self, reason: str, *path: str | int) -> None:
        """Say why a value is not carried over, or what is left to do."""
        for leaf in self.lines:
            if leaf[: len(path)] == path:
                self.reasons[leaf] = reason
                self.taken.discard(leaf)

    def notes(self) -> Iterator[str]:
        for path, line in sorted(self.lines.items(), key=lambda leaf: leaf[1]):
            if path not in self.taken:
                name = ".".join(map(str, path))
                reason = self.reasons.get(path) or next(
                    (REASONS[str(key)] for key in path if key in REASONS), "not carried over"
                )
                yield f"{line}: {name}: {reason}"


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

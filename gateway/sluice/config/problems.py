"""Formats the problems of a configuration file, as `file:line:column: path: message`."""

from collections.abc import Callable, Iterable

import msgspec

from sluice.config.yamltext import TextPosition

Path = tuple[str | int, ...]


class Problem(msgspec.Struct, frozen=True, order=True):
    """One mistake; `str` is the line to print. `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (f"{self.file}:{self.line}:{self.column}", self.path, self.message)))


def path_text(path: Path) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def suggestion(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    import difflib  # only where something is wrong

    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=cutoff)
    return f'; did you mean "{close[0]}"?' if close else ""


class Report:
    """The problems and warnings of one file, and the position of each of its values."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._marks: dict[Path, TextPosition] = {}

    def seen(self, path: Path, at: TextPosition) -> None:
        self._marks[path] = at

    def problem(self, path: Path, message: str, at: TextPosition | None = None) -> None:
        self.problems.append(self._line(path, message, at))

    def warning(self, path: Path, message: str) -> None:
        self.warnings.append(self._line(path, message, None))

    def attempt(self, path: Path, check: Callable[[str], object], text: object) -> None:
        """Reports the ValueError that `check` raises for `text`, if it is a text."""
        if not isinstance(text, str):
            return
        try:
            check(text)
        except ValueError as error:
            self.problem(path, str(error))

    def has_problem_at(self, path: Path) -> bool:
        return any(problem.path == path_text(path) for problem in self.problems)

    def line_of(self, path: Path) -> int:
        return self._line(path, "", None).line

    def _line(self, path: Path, message: str, at: TextPosition | None) -> Problem:
        at = at or next(
            (self._marks[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self._marks),
            TextPosition(),
        )
        return Problem(self.file, at.line, at.column, path_text(path), message)

"""The last calls, in memory: what their log lines say, for operators' pages. Never content; gone with the process."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from sluice.telemetry.logs import LogLine

KEPT = 1_000
"""Calls that are remembered; the oldest are forgotten first."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """`at` in seconds since the epoch; `number` counts upwards from 1."""

    number: int
    at: float
    line: LogLine


class RecentCalls:
    """`wall` gives seconds since the epoch."""

    def __init__(self, wall: Callable[[], float], kept: int = KEPT) -> None:
        self._wall = wall
        self._seen: deque[Seen] = deque(maxlen=kept)
        self._number = 0

    def feed(self, say: Callable[[Any], None]) -> Callable[[Any], None]:
        """`say`, which writes the line of a call, and here remembers it, whatever level is logged."""

        def said(line: LogLine) -> None:
            self._number += 1
            self._seen.append(Seen(self._number, self._wall(), line))
            say(line)

        return said

    def newest(self, limit: int, before: int = 0, wanted: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The newest `limit` calls of those whose fields are as `wanted`, newest first; `before`: older than that number."""
        found: list[dict[str, Any]] = []
        for seen in self._older(before):
            if len(found) == limit:
                break
            line = msgspec.to_builtins(seen.line)
            if all(_matches(line, name, value) for name, value in (wanted or {}).items()):
                del line["event"], line["timestamp"]
                found.append({"number": seen.number, "at": round(seen.at, 3), **line})
        return found

    def __len__(self) -> int:
        return len(self._seen)

    def _older(self, before: int) -> Iterator[Seen]:
        for seen in reversed(self._seen):
            if not before or seen.number < before:
                yield seen


def _matches(line: Mapping[str, Any], name: str, value: str) -> bool:
    """ "*" is any value at all: every call with an error, say."""
    found = line.get(name)
    return found is not None if value == "*" else found == value

"""The last calls, in memory: what their log lines say, for operators' pages. Never content; gone with the
process."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sluice.telemetry.logs import LogLine

SET_BACK = 1_000_000
"""Microseconds by which a clock must have gone back to have been set."""
KEPT = 1_000
"""Calls that are remembered; the oldest are forgotten first."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """`at` in microseconds since the epoch, later for each call of a process; `number` counts upwards from
    1."""

    number: int
    at: int
    line: LogLine


class RecentCalls:
    """`wall` gives seconds since the epoch."""

    def __init__(self, wall: Callable[[], float], kept: int = KEPT) -> None:
        self._wall = wall
        self._seen: deque[Seen] = deque(maxlen=kept)
        self._number = 0
        self._last = 0

    def feed(self, say: Callable[[Any], None]) -> Callable[[Any], None]:
        """`say`, which writes the line of a call, and here remembers it, whatever level is logged."""

        def in_text(line: LogLine) -> None:
            self._number += 1
            self._last = max(self._now(), self._last + 1)
            self._seen.append(Seen(self._number, self._last, line))
            say(line)

        return in_text

    def _now(self) -> int:
        """Microseconds since the epoch. Where the clock has been set back, the calls of before are dated by the
        new time: as if the last of them had ended now."""
        now = int(self._wall() * 1e6)
        if (back := self._last - now) > SET_BACK:
            self._last = now
            older = [msgspec.structs.replace(seen, at=seen.at - back) for seen in self._seen]
            self._seen.clear()
            self._seen.extend(older)
        return now

    def within(self, seconds: float) -> tuple[list[Seen], bool]:
        """Returns the calls of the last `seconds`, newest first, and whether none of that time are
        forgotten."""
        since = self._now() - int(seconds * 1e6)
        found: list[Seen] = []
        for seen in reversed(self._seen):
            if seen.at < since:
                return found, True
            found.append(seen)
        return found, self._number == len(self._seen)

    def newest(
        self,
        limit: int,
        before: tuple[int, int] | None,
        wanted: Mapping[str, str],
        process: int,
        since: int = 0,
    ) -> list[tuple[int, dict[str, Any]]]:
        """The newest `limit` calls of those whose fields are as `wanted`, newest first, each with its `at`.

        `before`: only those whose `at`, and then the number of their `process`, is less than that; `since`:
        only those whose `at` is not less than that, in microseconds since the epoch.
        """
        found: list[tuple[int, dict[str, Any]]] = []
        for seen in reversed(self._seen):
            if len(found) == limit or seen.at < since:
                break
            if before is not None and (seen.at, process) >= before:
                continue
            if all(_matches(seen.line, name, value) for name, value in wanted.items()):
                line = msgspec.to_builtins(seen.line)
                del line["event"], line["timestamp"]
                found.append((seen.at, {"number": seen.number, "at": round(seen.at / 1e6, 3), **line}))
        return found

    def __len__(self) -> int:
        return len(self._seen)


def has_several_attempts(line: LogLine) -> bool:
    """Returns whether the call was tried again, or failed over."""
    attempts = getattr(line, "attempts", None)
    return isinstance(attempts, list) and len(attempts) > 1


def _matches(line: LogLine, name: str, value: str) -> bool:
    """ "*" is any value at all: every call with an error, say. A status may be a class of them: 4xx."""
    if name == "retried":
        return has_several_attempts(line) == (value != "false")
    found = getattr(line, name, None)
    if name == "status" and value.endswith("xx"):
        return found is not None and str(found)[:-2] == value[:-2]
    if value == "*":
        return found is not None and found is not msgspec.UNSET
    return found is not msgspec.UNSET and str(found) == value

"""The last calls, in memory: what their log lines say, for operators' pages, and of the newest ones the texts
that their call records may have. Gone with the process."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from sluice.telemetry.logs import LogLine

if TYPE_CHECKING:
    from sluice.sinks.record import Draft

SET_BACK = 1_000_000
"""Microseconds by which a clock must have gone back to count as set back."""
KEPT = 1_000
"""Maximum calls that are remembered; the oldest are forgotten first."""
MAX_TEXTS = 100
"""Maximum calls whose texts are kept."""
MAX_TEXT_BYTES = 8 << 20
"""Maximum bytes of all texts that are kept, as Python stores them."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A remembered call. `at`: microseconds since the epoch, unique and ascending in a process. `number`
    counts from 1."""

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
        self._texts = RecentTexts()

    def feed(self, say: Callable[[Any], None]) -> Callable[[Any], None]:
        """Returns a function that writes the line of a call with `say`, and remembers it, whatever level is
        logged."""

        def in_text(line: LogLine) -> None:
            self._number += 1
            self._last = max(self._now(), self._last + 1)
            self._seen.append(Seen(self._number, self._last, line))
            say(line)

        return in_text

    def keep(self, line: LogLine, draft: "Draft", size: int) -> None:
        """Keeps the texts of the call whose `line` came last. `draft`: its call record. `size`: the bytes of
        the texts."""
        if self._seen and self._seen[-1].line is line:
            self._texts.keep(self._number, draft, size)

    def draft(self, number: int) -> "Draft | None":
        """Returns the record with the texts of this call; None if they are forgotten. Raises KeyError if it
        never had any."""
        return self._texts.drafts[number]

    def _now(self) -> int:
        """Returns microseconds since the epoch. If the clock has been set back, earlier calls are dated
        again, as if the last of them had ended now."""
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
        """Returns the newest `limit` calls whose fields match `wanted`, newest first, each with its `at`.

        `before`: only calls whose (`at`, number of their `process`) is less. `since`: only calls whose `at`
        is not less. Both are in microseconds since the epoch.
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


class RecentTexts:
    """The records of the newest calls with texts, by the calls' numbers; None: the texts are forgotten."""

    def __init__(self, calls: int = MAX_TEXTS, most: int = MAX_TEXT_BYTES, kept: int = KEPT) -> None:
        self._calls = calls
        self._most = most
        self._kept = kept
        self._sizes: deque[tuple[int, int]] = deque()  # number and bytes of those that are kept
        self._size = 0
        self.drafts: dict[int, Draft | None] = {}

    def keep(self, number: int, draft: "Draft", size: int) -> None:
        """Adds a record. Older ones are forgotten to make space, and so is the new one if it alone is too
        large."""
        self.drafts[number] = draft
        self._sizes.append((number, size))
        self._size += size
        while len(self._sizes) > self._calls or self._size > self._most:
            oldest, its_size = self._sizes.popleft()
            self._size -= its_size
            self.drafts[oldest] = None
        while (first := next(iter(self.drafts))) <= number - self._kept:  # the call is forgotten as well
            del self.drafts[first]
            if self._sizes and self._sizes[0][0] == first:
                self._size -= self._sizes.popleft()[1]


def has_several_attempts(line: LogLine) -> bool:
    """Returns whether the call was tried again, or failed over."""
    attempts = getattr(line, "attempts", None)
    return isinstance(attempts, list) and len(attempts) > 1


def _matches(line: LogLine, name: str, value: str) -> bool:
    """ "*" matches any value that is not empty (every call with an error, for example). A status may be a
    class of statuses: 4xx."""
    if name == "retried":
        return has_several_attempts(line) == (value != "false")
    found = getattr(line, name, None)
    if name == "status" and value.endswith("xx"):
        return found is not None and str(found)[:-2] == value[:-2]
    if value == "*":
        return found is not None and found is not msgspec.UNSET
    return found is not msgspec.UNSET and str(found) == value

"""Reports failing stores to operators: in the log, in a metric, in /readyz?verbose."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from sluice.storage import PROBLEMS, Reason

EVERY = 60.0
"""Seconds between two lines about the same failure."""
QUIET = 5.0
"""Seconds without a failure after which a successful call ends a failure that came back within EVERY."""


class StoreWatch:
    """Reports failures of the store `name` of the kind `kind` (`sluice.storage.address.Kind`).

    The reason of a failure is logged at once, then once a minute while it lasts, and when it is over. A new
    reason is also logged at once, but at most one line per QUIET seconds. `count` gets the reason of each
    failure; `say` writes a line; `clock` in seconds.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        count: Callable[[Reason], object] = lambda reason: None,
        say: Callable[..., object] = lambda event, **fields: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.kind = kind
        self.failing: Reason | None = None
        self._count = count
        self._say = say
        self._clock = clock
        self._began = self._last = self._logged_at = 0.0
        self._ended = -math.inf
        self._logged: Reason | None = None
        self._failures = 0

    def failed(self, reason: Reason) -> None:
        """Notes that a call of the store has failed."""
        self._count(reason)
        now = self._last = self._clock()
        if self.failing is None:
            self._began, self._failures, self._logged = now, 0, None
        self.failing = reason
        self._failures += 1
        if self._logged is None or now - self._logged_at >= (EVERY if reason == self._logged else QUIET):
            self._logged, self._logged_at = reason, now
            self._line("store_failing", now, reason=reason, problem=PROBLEMS[reason], failures=self._failures)

    def succeeded(self) -> None:
        """Notes that a call of the store has succeeded. Cheap while none has failed."""
        if self.failing is None:
            return
        now = self._clock()
        if now - self._ended < EVERY and now - self._last < QUIET:  # it comes and goes
            return
        reason, self.failing, self._ended = self.failing, None, now
        self._line("store_well", now, reason=reason, failures=self._failures)

    def state(self) -> dict[str, Any]:
        """Returns the fields of /readyz?verbose: `since` and `last` in seconds ago."""
        if self.failing is None:
            return {"kind": self.kind, "state": "ok"}
        now = self._clock()
        return {
            "kind": self.kind,
            "state": "failing",
            "reason": self.failing,
            "problem": PROBLEMS[self.failing],
            "failures": self._failures,
            "since": round(now - self._began, 1),
            "last": round(now - self._last, 1),
        }

    def _line(self, event: str, now: float, **fields: Any) -> None:
        self._say(event, store=self.name, kind=self.kind, seconds=round(now - self._began, 1), **fields)


Watches = Mapping[str, StoreWatch]
"""By the store's name."""

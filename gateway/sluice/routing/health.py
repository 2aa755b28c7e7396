"""Health of a target: a circuit breaker and a cool-down. Passive (calls of callers are the probes) and pure:
the clock is passed in.

The breaker is closed until a number of calls in a row have failed. Then it is open for a time that doubles
with each failed probe, up to a maximum. Then it is half-open: one call is let through as the probe, and if it
succeeds the breaker closes at once. The next probe is due when the doubled time has passed since this one
*began*: neither a probe that hangs (the target accepts the request and never answers), nor calls that began
before the breaker opened, may block a target that has recovered meanwhile.

A 429 is not a failure: it only keeps calls away until the time that the upstream named. The same holds for an
answer which reports that its limits are now used up.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import msgspec

from sluice.errors import ACCOUNTS_FAULT, NOT_THE_TARGETS_FAULT, UpstreamError, UpstreamErrorKind


class BreakerState(IntEnum):
    """Values of the metric `breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerPolicy(msgspec.Struct, frozen=True):
    """`failures` in a row, or a share `error_rate` of the calls within RATE_WINDOW, open the breaker for
    `open_for` seconds; that doubles up to `open_max`."""

    failures: int = 5
    error_rate: float | None = None
    open_for: float = 5.0
    open_max: float = 15.0


RATE_WINDOW = 30.0
"""Seconds over which the error rate is counted, in two halves: the current one and the one before."""
HALF_WINDOW = RATE_WINDOW / 2
RATE_CALLS = 20
"""Minimum calls in the window before their error rate counts."""


class ErrorRate:
    """The share of failures among the calls of the last half to whole window."""

    __slots__ = ("_before", "_calls", "_clock", "_failures", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        self._since = self._clock()
        self._calls = self._failures = 0
        self._before = (0, 0)

    def succeeded(self) -> None:
        """Counts a call that has not failed."""
        now = self._clock()
        if now - self._since >= HALF_WINDOW:
            self._begin(now)
        self._calls += 1

    def failed(self) -> float:
        """Counts a call that has failed. Returns the share of failures, 0.0 for fewer than RATE_CALLS calls."""
        self.succeeded()
        self._failures += 1
        calls = self._calls + self._before[0]
        return (self._failures + self._before[1]) / calls if calls >= RATE_CALLS else 0.0

    def _begin(self, now: float) -> None:
        """Begins the next half of the window."""
        self._before = (self._calls, self._failures) if now - self._since < RATE_WINDOW else (0, 0)
        self._since, self._calls, self._failures = now, 0, 0


class Load:
    """Load of a target: its calls in flight, and the decaying average of its time to first token (seconds; 0:
    unknown)."""

    __slots__ = ("first_token", "in_flight", "recent")

    DECAY = 0.2
    KEPT = 100

    def __init__(self) -> None:
        self.in_flight = 0
        self.first_token = 0.0
        self.recent: list[float] = []

    def observe(self, seconds: float) -> None:
        self.first_token = (
            seconds if not self.first_token else self.first_token + self.DECAY * (seconds - self.first_token)
        )
        self.recent.append(seconds)
        if len(self.recent) > 2 * self.KEPT:
            del self.recent[: self.KEPT]

    def p95(self) -> float | None:
        """Returns the 95th percentile of the latest times to first token; None while fewer than 20 are known."""
        recent = sorted(self.recent[-self.KEPT :])
        return recent[int(0.95 * (len(recent) - 1))] if len(recent) >= 20 else None


NOT_ITS_FAULT: frozenset[UpstreamErrorKind] = NOT_THE_TARGETS_FAULT | {"rate_limited"}
COOL_DOWN = 1.0
"""Seconds of cool-down after a 429 without a Retry-After. (A 503 with a Retry-After causes a cool-down, too.)
"""
MAX_COOL_DOWN = 60.0
"""Maximum seconds of a cool-down, whatever Retry-After an upstream sends, so that a raised limit or a paid
account is noticed. Callers get the upstream's own Retry-After."""


class HealthWatcher(Protocol):
    """Is notified of changes of a target's health."""

    def changed(self, state: BreakerState, why: UpstreamError | None) -> None:
        """Called when the breaker has a new state; `why` is the error that opened it."""

    def refused(self, error: UpstreamError) -> None:
        """Called when the upstream has refused our credentials."""

    def accepted(self) -> bool:
        """Called when a call succeeds after `refused`. Returns whether the refusal is over; if not, it is
        called again after the next success."""
        return True


class NoWatcher(HealthWatcher):
    """Watches nothing."""

    def changed(self, state: BreakerState, why: UpstreamError | None) -> None:
        pass

    def refused(self, error: UpstreamError) -> None:
        pass


class Health:
    """Health of one target. Not shared between processes: each sees its own calls."""

    __slots__ = (
        "_clock", "_cool_until", "_failures", "_open_for", "_open_until", "_policy", "_probe", "_probes", "_rate",
        "_refused", "_spent_until", "_watcher", "last_error", "last_failed_at",
    )  # fmt: skip

    def __init__(
        self,
        clock: Callable[[], float],
        policy: BreakerPolicy | None = None,
        watcher: HealthWatcher | None = None,
    ) -> None:
        self._clock = clock
        self._policy = policy or BreakerPolicy()
        self._failures = 0
        self._open_for = 0.0
        self._open_until = 0.0
        self._cool_until = 0.0
        self._spent_until = 0.0
        self._probe = 0  # the number of the probe that is under way
        self._probes = 0
        self._refused = False
        self._rate = ErrorRate(clock)
        self.last_error: UpstreamErrorKind | None = None
        self.last_failed_at = 0.0
        self._watcher = watcher or NoWatcher()

    @property
    def closed(self) -> bool:
        """Whether the breaker is closed: neither open nor half-open."""
        return not self._open_for

    @property
    def state(self) -> BreakerState:
        if not self._open_for:
            return BreakerState.CLOSED
        return (
            BreakerState.HALF_OPEN if self._probe or self._clock() >= self._open_until else BreakerState.OPEN
        )

    def ready(self) -> bool:
        """Returns whether a call may be sent now. Half-open: one probe at a time, until the next is due."""
        return self._clock() >= self.ready_at()

    def healthy(self) -> bool:
        """Returns whether it is ready, and its latest call has not failed."""
        return not self._failures and self.ready()

    def ready_at(self) -> float:
        """Returns the clock's time from which the target is ready."""
        return max(self._cool_until, self._open_until, self._spent_until)

    def spent(self, seconds: float) -> None:
        """Notes an answer which reported that nothing is left of its provider's limits for `seconds`; 0.0:
        for an unknown time."""
        self._spent_until = self._clock() + min(seconds or COOL_DOWN, MAX_COOL_DOWN)

    def begin(self) -> int:
        """Counts a call that will be sent. Returns its number as a probe, for `failed` and `abandoned`; 0 if
        it is no probe.

        To be called as soon as the target is chosen, so that no other call becomes the probe meanwhile.
        """
        if not self._open_for or (now := self._clock()) < self._open_until:
            return 0
        self._open_for = min(self._open_for * 2, self._policy.open_max)
        self._open_until = now + self._open_for
        self._probes += 1
        self._probe = self._probes
        self._watcher.changed(BreakerState.HALF_OPEN, None)
        return self._probe

    def probe_succeeded(self) -> None:
        """Notes that an active probe succeeded: the next call may be the breaker's probe now, before the open
        time is over."""
        if not self._probe:
            self._open_until = min(self._open_until, self._clock())

    def abandoned(self, probe: int = 0) -> None:
        """Notes that the call ended without a result (its caller left, or it was not sent). If it was the
        probe, the next call may be."""
        if probe and probe == self._probe:
            self._probe = 0
            self._open_until = self._clock()

    def succeeded(self) -> None:
        self._failures = self._probe = 0
        self._cool_until = 0.0
        self._rate.succeeded()
        if self._refused:
            self._refused = not self._watcher.accepted()
        if self._open_for:
            self._rate.reset()
            self._open_for = self._open_until = 0.0
            self._watcher.changed(BreakerState.CLOSED, None)

    def failed(self, error: UpstreamError, probe: int = 0) -> None:
        """Counts the error against the target, unless the request itself was at fault."""
        self.last_error, self.last_failed_at = error.kind, self._clock()
        if error.kind in ("rate_limited", "billing") or error.retry_after is not None:
            self._cool_until = max(
                self._cool_until, self._clock() + min(error.retry_after or COOL_DOWN, MAX_COOL_DOWN)
            )
        if error.kind in NOT_ITS_FAULT:
            return self.abandoned(probe)
        if error.kind in ACCOUNTS_FAULT:
            self._refused = True
            self._watcher.refused(error)
        self._failures += 1
        limit = self._policy.error_rate
        too_many = self._failures >= self._policy.failures or (
            self._rate.failed() >= limit if limit else False
        )
        if not self._open_for and too_many:
            self._open_for = min(self._policy.open_for, self._policy.open_max)
            self._open_until = self._clock() + self._open_for
            self._watcher.changed(BreakerState.OPEN, error)
        elif probe and probe == self._probe:  # any other call began before the breaker opened
            self._probe = 0
            self._watcher.changed(BreakerState.OPEN, error)

"""Who is well: a circuit breaker and a cool-down per target. Passive (real calls tell), pure, with the clock passed in.

Closed, until so many failures follow one another. Open, for a while that doubles with each failed probe up to a bound.
Then half-open: one real call is let through as the probe; success closes the breaker at once, failure opens it again.
A 429 is not a failure: it only keeps calls away until the upstream said it would answer again.
"""

from collections.abc import Callable
from enum import IntEnum

import msgspec

from gateway.errors import UpstreamError, UpstreamErrorKind


class State(IntEnum):
    """Values of the metric `breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerPolicy(msgspec.Struct, frozen=True):
    """`failures` in a row open the breaker for `open_for` seconds, doubling up to `open_max`."""

    failures: int = 5
    open_for: float = 5.0
    open_max: float = 15.0


NOT_ITS_FAULT: frozenset[UpstreamErrorKind] = frozenset({"bad_request", "context_length", "content_policy", "rate_limited"})
COOL_DOWN = 1.0
"""Seconds to stay away after a 429 that does not say for how long."""


class Health:
    """One target's. Not shared between processes: each sees its own calls."""

    __slots__ = ("_clock", "_cool_until", "_failures", "_open_for", "_open_until", "_policy", "_probing", "changed")

    def __init__(
        self, clock: Callable[[], float], policy: BreakerPolicy | None = None, changed: Callable[[State], None] = lambda _: None
    ) -> None:
        self._clock = clock
        self._policy = policy or BreakerPolicy()
        self._failures = 0
        self._open_for = 0.0
        self._open_until = 0.0
        self._cool_until = 0.0
        self._probing = False
        self.changed = changed

    @property
    def state(self) -> State:
        if not self._open_for:
            return State.CLOSED
        return State.HALF_OPEN if self._clock() >= self._open_until else State.OPEN

    def ready(self) -> bool:
        """Whether a call may be sent now. Half-open: only while no probe is under way."""
        if self._clock() < self._cool_until:
            return False
        return not self._open_for or (not self._probing and self._clock() >= self._open_until)

    def ready_at(self) -> float:
        """The clock's time from which `ready` may hold."""
        return max(self._cool_until, self._open_until)

    def begin(self) -> None:
        """A call is being sent: where the breaker is half-open, it is the probe."""
        if self._open_for:
            self._probing = True
            self.changed(State.HALF_OPEN)

    def abandoned(self) -> None:
        """The call ended without telling anything (its caller left): another may probe."""
        self._probing = False

    def succeeded(self) -> None:
        self._failures = 0
        self._probing = False
        self._cool_until = 0.0
        if self._open_for:
            self._open_for = self._open_until = 0.0
            self.changed(State.CLOSED)

    def failed(self, error: UpstreamError) -> None:
        """Count what the error says about the target (nothing, where the request itself was at fault)."""
        if error.kind == "rate_limited":
            self._cool_until = max(self._cool_until, self._clock() + (error.retry_after or COOL_DOWN))
        if error.kind in NOT_ITS_FAULT:
            self._probing = False
            return
        self._failures += 1
        if self._probing or (not self._open_for and self._failures >= self._policy.failures):
            self._open_for = min(self._open_for * 2 or self._policy.open_for, self._policy.open_max)
            self._open_until = self._clock() + self._open_for
            self.changed(State.OPEN)
        self._probing = False

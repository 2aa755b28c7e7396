"""The failover plan: which target a call is sent to next. Pure: clock and randomness are passed in.

Tiers are tried in order; within a tier the strategy decides (`sluice.routing.strategies`). Targets that
cannot serve the call (no vision, no tools, too small a context) are left out. Unhealthy targets are skipped,
unless no other is left: the last one is never ejected, because trying it is better than refusing without an
attempt.

After a failure (`FailoverPlan.failed`) the next choice follows from the kind of error:
- the request itself was at fault: no further attempt; but one that is too long goes to a target with a larger
  context or with an unknown one (`context: null`), and one that a content policy refused goes to the next
  target where the alias is configured so;
- an idle connection that was closed as the request was sent: the same target once more, at once;
- a server error or a reset before headers: the same target once more after a short jittered wait, then the
  next; but a target whose breaker is not closed is not retried: a failed probe costs one attempt, and so does
  the failure that opens it;
- a Retry-After (429, 503) that ends soon: waited out on the same target; else the next at once (health keeps
  later calls away);
- silence (timeouts), broken streams, refused connections, and where our own account with the provider is at
  fault (its key, its balance): the next at once, never the same again.

A budget bounds what retries may add when everything fails: a share of the requests plus some a second. It is
charged by extra attempts that fail, and failover to a healthy target needs none: a burst of calls fails over
freely.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic

import msgspec

from sluice.errors import BadRequest, StaleConnection, UpstreamError, UpstreamErrorKind
from sluice.routing.strategies import CallTraits, Chance, RoutedTier, T, ordered, over_pods

ONCE_MORE: frozenset[UpstreamErrorKind] = frozenset({"server_error", "overloaded", "reset"})
STREAMED = 200
"""The HTTP status of an error inside a stream, which comes too late for a retry at the same target."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """`same_target`: retries at one target, each after `backoff` seconds, jittered by half. A Retry-After of
    up to `retry_after_wait` seconds is waited for."""

    same_target: int = 1
    backoff: float = 0.1
    retry_after_wait: float = 2.0
    after_content_policy: bool = False


class RetryBudget:
    """Limits the extra attempts that fail to `share` of the requests plus `per_second`; at most `reserve` are
    saved up.

    With the saved ones these are 1.2 attempts per request and 10 per second, over twenty seconds or more.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        share: float = 0.2,
        per_second: float = 9.0,
        reserve: float = 10.0,
    ) -> None:
        self._clock = clock
        self._share = share
        self._per_second = per_second
        self._reserve = reserve
        self._left = reserve
        self._at = clock()

    def request(self) -> None:
        if self._left < self._reserve:
            self._left = min(self._reserve, self._left + self._share)

    def allows(self) -> bool:
        now = self._clock()
        self._left = min(self._reserve, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left >= 1

    def charge(self) -> None:
        self._left -= 1


class NextTarget(msgspec.Struct, Generic[T], frozen=True):
    """The target of the next attempt, after `wait` seconds. `last`: no other target is left."""

    target: T
    wait: float = 0.0
    last: bool = True


def queue_of(tiers: Sequence[RoutedTier], traits: CallTraits, chance: Chance) -> list[T]:
    """Returns all targets that can serve the call, in the order of tiers and strategies. Raises BadRequest if
    none can, with the code "context_length" if only its length is the reason."""
    queue: list[T] = []
    why = ""
    for tier in tiers:
        fit = []
        for target in tier.targets:
            unfit = traits.unfit(target)
            why = why or unfit
            if not unfit:
                fit.append(target)
        if tier.pooled:
            queue += over_pods(tier, fit, traits, chance)
        else:
            queue += ordered(tier, fit, traits, chance)  # type: ignore[arg-type]
    if not queue:
        shorter = msgspec.structs.replace(traits, tokens=0)
        too_long = [target for tier in tiers for target in tier.targets if not shorter.unfit(target)]
        code, why = ("context_length", traits.unfit(too_long[0])) if too_long else ("no_fit_target", why)
        raise BadRequest(f"No target of this model can take the request: it {why}", param="model", code=code)
    return queue


class FailoverPlan(Generic[T]):
    """Chooses the target of each attempt of a call.

    `queue` has at least one target. The caller counts the request in the budget. `choice` is the latest
    choice; `passed` are the targets before it that were skipped because they were not ready.
    """

    __slots__ = ("_budget", "_chance", "_extra", "_policy", "_queue", "_tries", "choice", "passed")

    def __init__(
        self, queue: list[T], chance: Chance, budget: RetryBudget, policy: RetryPolicy | None = None
    ) -> None:
        self._queue = queue
        self._chance = chance
        self._budget = budget
        self._policy = policy or RetryPolicy()
        self._extra = False
        self._tries = 0
        self.passed: Sequence[T] = ()
        self.choice = self._choose()

    def failed(self, error: UpstreamError) -> NextTarget[T] | None:
        """Returns the next choice after the current target has failed; None if the error goes to the caller."""
        if self._extra:
            self._budget.charge()
        self._extra = True
        if not self._worth_a_try(error):
            return None
        current = self.choice.target
        wait = self._wait_for_same(error)
        allowed = current.health.closed or isinstance(
            error, StaleConnection
        )  # which is no sign of a failing target
        if wait is not None and allowed and self._budget.allows():
            self._tries += 1
            self.passed = ()
            self.choice = NextTarget(current, wait, not self._queue)
            return self.choice
        if not self._budget.allows() and not any(target.health.healthy() for target in self._queue):
            return None
        return self.pass_over()

    def pass_over(self) -> NextTarget[T] | None:
        """Returns the next choice after a target was skipped because our own limits of its upstream are used
        up; it has not failed."""
        if not self._queue:
            return None
        self.choice = self._choose()
        return self.choice

    def another(self) -> NextTarget[T] | None:
        """Returns a ready target for a hedge beside the current one; None if there is none."""
        if not self._budget.allows() or not any(target.health.ready() for target in self._queue):
            return None
        return self.pass_over()

    def _worth_a_try(self, error: UpstreamError) -> bool:
        match error.kind:
            case "context_length":
                window = self.choice.target.spec.context or 0
                self._queue = [target for target in self._queue if (target.spec.context or math.inf) > window]
                return bool(self._queue)
            case "content_policy":
                return self._policy.after_content_policy
            case _:
                return not error.callers_fault

    def _wait_for_same(self, error: UpstreamError) -> float | None:
        if self._tries > self._policy.same_target:
            return None
        if isinstance(error, StaleConnection):
            return 0.0
        once_more = error.kind in ONCE_MORE and error.status != STREAMED
        if error.retry_after is not None and (once_more or error.kind == "rate_limited"):
            return error.retry_after if error.retry_after <= self._policy.retry_after_wait else None
        return self._policy.backoff * (0.5 + self._chance()) if once_more else None

    def _choose(self) -> NextTarget[T]:
        """Returns the first ready target of the queue; if none is ready, the one that will be ready soonest."""
        queue = self._queue
        at: int | None = 0
        if len(queue) > 1:
            at = next((i for i, target in enumerate(queue) if target.health.ready()), None)
        if at is None:  # an attempt is better than a refusal
            at = min(range(len(queue)), key=lambda i: queue[i].health.ready_at())
        self.passed = queue[:at]
        self._tries = 1
        return NextTarget(queue.pop(at), last=len(queue) == 0)

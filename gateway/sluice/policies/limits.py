"""Enforces limits on calls: requests, tokens, streams, money and budgets, in every scope that has limits.

All claims of a call are taken in one operation of the store, all or none, and settled in one operation after
the call; a refused call takes nothing. Calls of which only requests are limited have nothing to settle.

A client's address is one of the scopes. It is charged together with its call; requests that never become a
call (wrong credentials, other routes, bad requests) are charged to it alone. An address whose bucket is empty
is remembered until it refills, and refused before its credentials are checked.
"""

import itertools
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import msgspec

from sluice.config.resources import SHOWN
from sluice.config.types import CallLimits, Limits, Team, Tenant, Upstream
from sluice.errors import NoCapacity, RateLimited
from sluice.identity.principal import Principal
from sluice.limits import BucketStore, Claim, Immediate, Level, Slot, Verdict
from sluice.model.chat import ChatRequest
from sluice.policies.budgets import periods, seconds_left, soft_header
from sluice.policies.claims import (
    Amounts,
    ClaimPlan,
    Counter,
    Header,
    Shown,
    View,
    bucket_of,
    claim_of_address,
    denied_of,
    differences,
    ended,
    headers_of,
    held,
    plan_of,
    reserved,
    shown_of,
    used,
)
from sluice.policies.left import left
from sluice.policies.queue import AliasQueues
from sluice.policies.scopes import Scopes, single_alias
from sluice.policies.settlements import Settlements
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import Call
from sluice.proxy.target import Route, Target

MAX_CACHED_PLANS = 4096
"""Size of the caches of plans and of claims of addresses."""
MAX_REFUSED_ADDRESSES = 10_000
"""Addresses remembered as refused; beyond it the oldest is forgotten, and its next request reads the
store."""


class _Known(msgspec.Struct, frozen=True, eq=False):
    """A cached plan, and the key's limits that it was made from: these can change at run time."""

    plan: ClaimPlan
    limits: CallLimits
    tenant: str


class Limiter:
    """The limits policy. `count` gives the series of a decision, `soft` that of a budget (scope, period)
    beyond its soft mark. That one is shown at zero from the first call that the budget holds for: an alert
    sees no increase in a new series.

    `teams` stand above tenants. `clock` monotonic and `wall` since the epoch, in seconds; `calendar` is the
    wall clock that budgets' periods go by (None: `wall`). `settlements` (of
    the same store) and `alias_queues`, which it wakes, are given where several limiters share them.
    """

    def __init__(
        self,
        store: BucketStore,
        limits: Limits,
        tenants: Mapping[str, Tenant],
        upstreams: Mapping[str, Upstream],
        *,
        count: Counter,
        soft: Callable[[str, str], Any],
        clock: Callable[[], float],
        wall: Callable[[], float],
        calendar: Callable[[], float] | None = None,
        teams: Mapping[str, Team] | None = None,
        settlements: Settlements | None = None,
        alias_queues: AliasQueues | None = None,
    ) -> None:
        self.store = store
        self._take_now = store.take_now if isinstance(store, Immediate) else None
        self._soft = soft
        self.alias_queues = alias_queues if alias_queues is not None else AliasQueues(clock)
        self.settlements = (
            settlements if settlements is not None else Settlements(store, self.alias_queues.wake)
        )
        self._address = bucket_of(limits.address) if limits.address else None
        self._output_tokens = limits.output_tokens
        self._budget_header = limits.budget_header
        self.scopes = Scopes(limits, tenants, teams or {})
        self._count = count
        self._clock = clock
        self._wall = wall
        self._calendar = calendar if calendar is not None else wall
        self._plans: dict[tuple[str, ...], _Known] = {}
        self._of_addresses: dict[str, Claim] = {}
        self._empty: dict[str, tuple[float, RateLimited]] = {}
        self._holders = (
            f"{process}:{number}" for process in [secrets.token_hex(8)] for number in itertools.count()
        )
        plans = {
            name: plan_of([View("upstream", name, of.limits)], None, count) for name, of in upstreams.items()
        }
        self._upstreams = {name: plan for name, plan in plans.items() if plan.fixed or not plan.requests_only}

    def __call__(self, call: Call) -> AbstractAsyncContextManager[None] | None:
        plan = self._plan(call)
        if not plan.admitted:
            return None
        if not plan.requests_only or call.route.config.queue is not None:
            return _Reservation(self, plan, call)
        if self._take_now is None:
            return _Admission(self, plan, call)
        claims = self.claims(plan, call)
        self.admit(plan, call, claims, self._take_now(claims))
        return None

    def admit(self, plan: ClaimPlan, call: Call, claims: Sequence[Claim], verdict: Verdict) -> None:
        """Counts the verdict on a call that has nothing to settle, and adds its headers. Raises RateLimited
        if it was refused.
        """
        if not verdict.admitted:
            raise self.refusal(plan.shown, claims, (), verdict)
        for series in plan.admitted:
            series.value += 1
        call.headers += headers_of(plan.shown, verdict.levels)

    def upstream_claims(
        self, attempt: Attempt, chat: ChatRequest
    ) -> AbstractAsyncContextManager[None] | None:
        """Returns an attempt's claims on its upstream's limits; None if it has none. Entering them raises
        NoCapacity."""
        plan = self._upstreams.get(attempt.target.upstream)
        return None if plan is None else _UpstreamClaims(self, plan, attempt, chat)

    async def close(self) -> None:
        """Waits for settlements under way."""
        await self.settlements.close()

    async def left(self, principal: Principal, route: Route | None, user: str) -> list[dict[str, Any]]:
        """Returns the remaining limits of this caller, of all or of the alias behind `route`; see
        `sluice.policies.left`.

        `user`: the owner of an end user's limits, which are included.
        """
        aliases = principal.limits.aliases
        single = [single_alias(aliases, route)] if route is not None else [*aliases]
        views = self.scopes.of_caller(principal, filter(None, single), user)
        return await left(self.store, views, self._calendar())

    # --- addresses

    def check(self, address: str) -> None:
        """Raises RateLimited if this client address is remembered as refused."""
        known = self._empty.get(address)
        if known is None:
            return
        until, refusal = known
        left = until - self._clock()
        if left <= 0:
            del self._empty[address]
            return
        self._count("address", "requests", "refused").inc()
        raise RateLimited(left, scope="address", resource="requests", headers=refusal.headers)

    async def charge(self, address: str) -> None:
        """Charges this client address for a request that is no call. Raises RateLimited if its limit is used
        up."""
        self.check(address)
        if self._address is None:
            return
        claims = (claim_of_address(address, self._address),)
        verdict = await self.settlements.take(claims)
        if not verdict.admitted:
            raise self.refusal((), claims, (), verdict)
        self._count("address", "requests", "admitted").inc()

    def _remember(self, claim: Claim, refusal: RateLimited) -> None:
        if len(self._empty) >= MAX_REFUSED_ADDRESSES:
            del self._empty[next(iter(self._empty))]
        self._empty[claim.key.removeprefix("address:")] = (self._clock() + refusal.retry_after, refusal)

    # --- calls

    def claims(self, plan: ClaimPlan, call: Call) -> tuple[Claim, ...]:
        """Returns the claims of a call with fixed amounts, its address's first."""
        if self._address is None:
            return plan.fixed
        claim = self._of_addresses.get(call.address)
        if claim is None:
            if len(self._of_addresses) >= MAX_CACHED_PLANS:
                self._of_addresses.clear()
            claim = self._of_addresses[call.address] = claim_of_address(call.address, self._address)
        return (claim, *plan.fixed)

    def metered(self, plan: ClaimPlan, amounts: Amounts, holder: str) -> list[Claim]:
        return plan.amounts(amounts, self._calendar(), holder)

    def reserved(self, chat: ChatRequest, targets: Sequence[Target]) -> Amounts:
        return reserved(chat, targets, self._output_tokens, self._wall())

    def settle(
        self,
        metered: Sequence[Claim],
        slots: Sequence[Slot],
        attempts: Sequence[Attempt],
        by: BucketStore | None,
    ) -> None:
        """Charges what these attempts used instead of what was reserved for them, and releases their slots.

        If the difference cannot be computed, the reserved amounts stay charged; reservations end and slots
        are released.
        """
        changes = [ended(claim, claim.amount) for claim in metered if claim.holder]
        try:
            if metered:
                changes = differences(metered, used(attempts))
        finally:
            self.settlements.settle(changes, slots, by)

    def warnings(self, plan: ClaimPlan, metered: Sequence[Claim], levels: Sequence[Level]) -> list[Header]:
        """Returns `x-sluice-budget` for the narrowest scope beyond a soft mark, if any, and what is left, if
        callers are shown it.

        Budgets' claims are the last ones.
        """
        count = sum(claim.resource == "budget" for claim in metered)
        budgets = levels[len(levels) - count :]
        marks = plan.marks(budgets)
        for scope, passed in marks:
            for mark in passed:
                self._soft(scope, mark.period).inc()
        headers = [("x-sluice-budget", soft_header(marks[0][1]))] if marks else []
        if self._budget_header:
            headers.append(("x-sluice-budget-remaining", plan.budgets_left(budgets)))
        return headers

    def holder(self, plan: ClaimPlan) -> str:
        """Makes a new holder's name for slots and reservations; "" if the plan has neither."""
        return next(self._holders) if plan.slots or plan.budgets else ""

    async def take(self, call: Call, claims: Sequence[Claim], slots: Sequence[Slot]) -> Verdict:
        """Takes the claims at once; if the alias has a queue, waits there for capacity."""
        config = call.route.config.queue
        if call.trace is not None:
            call.trace.wait("limits" if config is None else "queue")
        if config is None:
            verdict = await self.settlements.take(claims, slots)
        else:
            queue = self.alias_queues.queue(call.route.name, config, self.settlements, call.route.queued)
            call.phase = "waiting"
            principal = call.principal
            verdict = await queue.admit(
                principal.bucket, principal.limits.weight, claims, slots, user=call.end_user
            )
            call.phase = "admitting"
        if call.trace is not None:
            call.trace.waited()
        return verdict

    def refusal(
        self,
        shown: Sequence[Sequence[Shown]],
        claims: Sequence[Claim],
        slots: Sequence[Slot],
        verdict: Verdict,
    ) -> RateLimited:
        """Returns the error for the caller. Its headers show, for the refused resource, the bucket that
        refused it."""
        denied = denied_of(claims, slots, verdict)
        self._count(denied.scope, denied.resource, "refused").inc()
        if denied.resource in SHOWN and isinstance(denied, Claim):
            others = [windows for windows in shown if windows[0].resource != denied.resource]
            shown = [*others, (shown_of(denied, verdict.denied),)]
        retry_after, final = verdict.retry_after, verdict.retry_after == math.inf
        if (
            final
            and isinstance(denied, Claim)
            and denied.resource == "budget"
            and denied.amount <= denied.limit.capacity
        ):
            retry_after = seconds_left(denied, self._calendar())
        headers = headers_of(shown, verdict.levels)
        refusal = RateLimited(
            retry_after, scope=denied.scope, resource=denied.resource, final=final, headers=headers
        )
        if isinstance(denied, Claim) and denied.scope == "address":
            self._remember(denied, refusal)
        return refusal

    def upstream_refusal(
        self, claims: Sequence[Claim], slots: Sequence[Slot], verdict: Verdict
    ) -> NoCapacity:
        refusal = self.refusal((), claims, slots, verdict)
        return NoCapacity(refusal.retry_after, refusal.resource)

    def _plan(self, call: Call) -> ClaimPlan:
        principal, route = call.principal, call.route
        limits = principal.limits
        single = single_alias(limits.aliases, route) if limits.aliases else ""
        user = call.end_user
        place = (
            (principal.bucket, route.name, single, user) if single or user else (principal.bucket, route.name)
        )
        known = self._plans.get(place)
        if (
            known is not None
            and (known.limits is limits or known.limits == limits)
            and known.tenant == principal.tenant
        ):
            return known.plan
        plan = plan_of(self.scopes.of_call(principal, route, single, user), self._address, self._count)
        for view, budget in plan.budgets:
            for period in periods(budget):
                self._soft(view.scope, period)
        if len(self._plans) >= MAX_CACHED_PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[place] = _Known(plan, limits, principal.tenant)
        return plan


class _Admission:
    """Admits a call of which only requests are limited: charged when it begins, never refunded."""

    __slots__ = ("_call", "_limiter", "_plan")

    def __init__(self, limiter: Limiter, plan: ClaimPlan, call: Call) -> None:
        self._limiter = limiter
        self._plan = plan
        self._call = call

    async def __aenter__(self) -> None:
        limiter, plan, call = self._limiter, self._plan, self._call
        claims = limiter.claims(plan, call)
        if call.trace is not None:
            call.trace.wait("limits")
        verdict = await limiter.store.take(claims)
        if call.trace is not None:
            call.trace.waited()
        limiter.admit(plan, call, claims, verdict)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        return None


class _Reservation:
    """Holds the claims of any other call, from its admission until all its attempts are over."""

    __slots__ = ("_by", "_call", "_limiter", "_metered", "_plan", "_slots")

    def __init__(self, limiter: Limiter, plan: ClaimPlan, call: Call) -> None:
        self._limiter = limiter
        self._plan = plan
        self._call = call

    async def __aenter__(self) -> None:
        limiter, plan, call = self._limiter, self._plan, self._call
        holder = limiter.holder(plan)
        self._slots = [held(slot, holder) for slot in plan.slots]
        self._metered = (
            limiter.metered(plan, limiter.reserved(call.chat, call.route.targets), holder)
            if plan.metering
            else []
        )
        claims = (*limiter.claims(plan, call), *self._metered)
        verdict = await limiter.take(call, claims, self._slots)
        if not verdict.admitted:
            raise limiter.refusal(plan.shown, claims, self._slots, verdict)
        self._by = verdict.by
        try:
            for series in plan.admitted:
                series.inc()
            call.headers += headers_of(plan.shown, verdict.levels)
            if plan.budgets:
                call.headers += limiter.warnings(plan, self._metered, verdict.levels[: len(claims)])
        except BaseException:  # __aexit__ is not called where __aenter__ fails
            limiter.settlements.undo(claims, self._slots, self._by)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._limiter.settle(self._metered, self._slots, self._call.attempts, self._by)


class _UpstreamClaims:
    """One attempt's claims on its upstream's limits, from its start to its end."""

    __slots__ = ("_attempt", "_by", "_chat", "_limiter", "_metered", "_plan", "_slots")

    def __init__(self, limiter: Limiter, plan: ClaimPlan, attempt: Attempt, chat: ChatRequest) -> None:
        self._limiter = limiter
        self._plan = plan
        self._attempt = attempt
        self._chat = chat

    async def __aenter__(self) -> None:
        limiter, plan = self._limiter, self._plan
        holder = limiter.holder(plan)
        self._slots = [held(slot, holder) for slot in plan.slots]
        self._metered = (
            limiter.metered(plan, limiter.reserved(self._chat, [self._attempt.target]), holder)
            if plan.metering
            else []
        )
        claims = (*plan.fixed, *self._metered)
        verdict = await limiter.settlements.take(claims, self._slots)
        if not verdict.admitted:
            raise limiter.upstream_refusal(claims, self._slots, verdict)
        self._by = verdict.by
        for series in plan.admitted:
            series.inc()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._limiter.settle(self._metered, self._slots, [self._attempt], self._by)

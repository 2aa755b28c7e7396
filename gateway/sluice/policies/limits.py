"""Limits of calls: who may take how much, of requests, tokens, streams, money and budgets, by every scope that has limits.

All that a call claims is taken in one call of the store, all or none, and what it used is settled in one call after it;
a call that is refused takes nothing. Calls that only requests are counted of have nothing to settle.

A client's address is one of the scopes. It is charged together with its call; what never becomes a call (wrong
credentials, other routes, bad requests) is charged to it alone. An address without anything left is remembered until it
has something again, and refused before anybody looks at its credentials.
"""

import itertools
import math
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import msgspec

from sluice.config.types import CallLimits, Limits, Tenant, Upstream
from sluice.errors import NoRoom, RateLimited
from sluice.identity.principal import Principal
from sluice.limits import BucketStore, Claim, Immediate, Level, Slot, Verdict
from sluice.model.chat import ChatRequest
from sluice.policies.budgets import seconds_left, soft_header
from sluice.policies.claims import (
    Amounts,
    Counter,
    Header,
    Plan,
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
from sluice.policies.ledger import Ledger
from sluice.policies.queue import WaitingRoom
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import Call
from sluice.proxy.target import Route, Target

KEPT = 4096
"""Plans, and claims of addresses, that are kept: more callers at a time have theirs made anew."""
REMEMBERED = 10_000
"""Addresses that are known to be refused; those above it are asked about again."""


class _Known(msgspec.Struct, frozen=True, eq=False):
    """A plan, and whose it is: a key's limits may be changed while we run."""

    plan: Plan
    limits: CallLimits
    tenant: str


class Limiter:
    """A policy. `count` gives the series of a decision, `soft` that of a budget's (scope, period) beyond its soft mark.

    `clock` monotonic and `wall` since the epoch, in seconds.
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
    ) -> None:
        self.store = store
        self._take_now = store.take_now if isinstance(store, Immediate) else None
        self._soft = soft
        self.ledger = Ledger(store, self._settled)
        self._address = bucket_of(limits.address) if limits.address else None
        self._overall = View("overall", "all", limits.overall)
        self._output_tokens = limits.output_tokens
        self._tenants = tenants
        self._count = count
        self._clock = clock
        self._wall = wall
        self._plans: dict[tuple[str, str], _Known] = {}
        self._of_addresses: dict[str, Claim] = {}
        self._rooms: dict[str, WaitingRoom] = {}
        self._empty: dict[str, tuple[float, RateLimited]] = {}
        self._holders = (f"{process}:{number}" for process in [secrets.token_hex(8)] for number in itertools.count())
        plans = {name: plan_of([View("upstream", name, of.limits)], None, count) for name, of in upstreams.items()}
        self._upstreams = {name: plan for name, plan in plans.items() if plan.fixed or not plan.plain}

    def __call__(self, call: Call) -> AbstractAsyncContextManager[None] | None:
        plan = self._plan(call.principal, call.route)
        if not plan.admitted:
            return None
        if not plan.plain or call.route.config.queue is not None:
            return _Reservation(self, plan, call)
        if self._take_now is None:
            return _Admission(self, plan, call)
        claims = self.claims(plan, call)
        self.admit(plan, call, claims, self._take_now(claims))
        return None

    def admit(self, plan: Plan, call: Call, claims: Sequence[Claim], verdict: Verdict) -> None:
        """Count and tell what was decided of a call that has nothing to settle. Raises RateLimited."""
        if not verdict.admitted:
            raise self.refusal(plan.shown, claims, (), verdict)
        for series in plan.admitted:
            series.value += 1
        call.headers += headers_of(plan.shown, verdict.levels)

    def room(self, attempt: Attempt, chat: ChatRequest) -> AbstractAsyncContextManager[None] | None:
        """What an attempt takes of its upstream's limits; None where it has none. Entering it raises NoRoom."""
        plan = self._upstreams.get(attempt.target.upstream)
        return None if plan is None else _Room(self, plan, attempt, chat)

    async def close(self) -> None:
        """Waits for what is being settled."""
        await self.ledger.close()

    # --- addresses

    def check(self, address: str) -> None:
        """Raises RateLimited where this client address is known to have nothing left."""
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
        """Take what is no call from this client address. Raises RateLimited where it has asked too often."""
        self.check(address)
        if self._address is None:
            return
        claims = (claim_of_address(address, self._address),)
        verdict = await self.ledger.take(claims)
        if not verdict.admitted:
            raise self.refusal((), claims, (), verdict)
        self._count("address", "requests", "admitted").inc()

    def _remember(self, claim: Claim, refusal: RateLimited) -> None:
        if len(self._empty) >= REMEMBERED:
            del self._empty[next(iter(self._empty))]
        self._empty[claim.key.removeprefix("address:")] = (self._clock() + refusal.retry_after, refusal)

    # --- calls

    def claims(self, plan: Plan, call: Call) -> tuple[Claim, ...]:
        """What the call takes at once, its address's share first."""
        if self._address is None:
            return plan.fixed
        claim = self._of_addresses.get(call.address)
        if claim is None:
            if len(self._of_addresses) >= KEPT:
                self._of_addresses.clear()
            claim = self._of_addresses[call.address] = claim_of_address(call.address, self._address)
        return (claim, *plan.fixed)

    def metered(self, plan: Plan, amounts: Amounts, holder: str) -> list[Claim]:
        return plan.amounts(amounts, self._wall(), holder)

    def reserved(self, chat: ChatRequest, targets: Sequence[Target]) -> Amounts:
        return reserved(chat, targets, self._output_tokens, self._wall())

    def settle(
        self, metered: Sequence[Claim], slots: Sequence[Slot], attempts: Sequence[Attempt], by: BucketStore | None
    ) -> None:
        """Charge what these attempts used in place of what was reserved for them; give the places back.

        Where the difference cannot be told, what was reserved stays charged; reservations end and places come back.
        """
        changes = [ended(claim, claim.amount) for claim in metered if claim.holder]
        try:
            if metered:
                changes = differences(metered, used(attempts))
        finally:
            self.ledger.settle(changes, slots, by)

    def warnings(self, plan: Plan, metered: Sequence[Claim], levels: Sequence[Level]) -> list[Header]:
        """`x-sluice-budget`, where a soft mark is passed: that of the narrowest scope. Budgets' claims are the last ones."""
        budgets = sum(claim.resource == "budget" for claim in metered)
        marks = plan.marks(levels[len(levels) - budgets :])
        for scope, passed in marks:
            for mark in passed:
                self._soft(scope, mark.period).inc()
        return [("x-sluice-budget", soft_header(marks[0][1]))] if marks else []

    def holder(self, plan: Plan) -> str:
        """A new name to hold places and reservations under; "" where the plan has neither."""
        return next(self._holders) if plan.slots or plan.budgets else ""

    async def take(self, call: Call, claims: Sequence[Claim], slots: Sequence[Slot]) -> Verdict:
        """At once, or where the alias has a queue perhaps later."""
        config = call.route.config.queue
        if config is None:
            return await self.ledger.take(claims, slots)
        room = self._rooms.get(call.route.name)
        if room is None:
            room = self._rooms[call.route.name] = WaitingRoom(config, self.ledger, call.route.waiting, self._clock)
        call.phase = "waiting"
        verdict = await room.admit(call.principal.bucket, call.principal.limits.weight, claims, slots)
        call.phase = "admitting"
        return verdict

    def refusal(
        self, shown: Sequence[Sequence[Shown]], claims: Sequence[Claim], slots: Sequence[Slot], verdict: Verdict
    ) -> RateLimited:
        """What the caller is told: of the resource that was refused, the bucket that refused it."""
        denied = denied_of(claims, slots, verdict)
        self._count(denied.scope, denied.resource, "refused").inc()
        if denied.resource in ("requests", "tokens") and isinstance(denied, Claim):
            others = [windows for windows in shown if windows[0].resource != denied.resource]
            shown = [*others, (shown_of(denied, verdict.denied),)]
        retry_after, final = verdict.retry_after, verdict.retry_after == math.inf
        if final and isinstance(denied, Claim) and denied.resource == "budget" and denied.amount <= denied.limit.capacity:
            retry_after = seconds_left(denied, self._wall())
        headers = headers_of(shown, verdict.levels)
        refusal = RateLimited(retry_after, scope=denied.scope, resource=denied.resource, final=final, headers=headers)
        if isinstance(denied, Claim) and denied.scope == "address":
            self._remember(denied, refusal)
        return refusal

    def no_room(self, claims: Sequence[Claim], slots: Sequence[Slot], verdict: Verdict) -> NoRoom:
        refusal = self.refusal((), claims, slots, verdict)
        return NoRoom(refusal.retry_after, refusal.resource)

    def _plan(self, principal: Principal, route: Route) -> Plan:
        known = self._plans.get((principal.bucket, route.name))
        limits = principal.limits
        if known is not None and (known.limits is limits or known.limits == limits) and known.tenant == principal.tenant:
            return known.plan
        views = [View("key", principal.bucket, principal.limits)]
        tenant = self._tenants.get(principal.tenant)
        if tenant is not None:
            views.append(View("tenant", principal.tenant, tenant.limits))
        views += [View("alias", route.name, route.config.limits), self._overall]
        plan = plan_of(views, self._address, self._count)
        if len(self._plans) >= KEPT:
            del self._plans[next(iter(self._plans))]
        self._plans[principal.bucket, route.name] = _Known(plan, principal.limits, principal.tenant)
        return plan

    def _settled(self, keys: Collection[str]) -> None:
        for room in self._rooms.values():
            room.wake(keys)


class _Admission:
    """Of a call that only requests are counted of: it is charged when it begins, whatever becomes of it."""

    __slots__ = ("_call", "_limiter", "_plan")

    def __init__(self, limiter: Limiter, plan: Plan, call: Call) -> None:
        self._limiter = limiter
        self._plan = plan
        self._call = call

    async def __aenter__(self) -> None:
        limiter, plan, call = self._limiter, self._plan, self._call
        claims = limiter.claims(plan, call)
        limiter.admit(plan, call, claims, await limiter.store.take(claims))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


class _Reservation:
    """Of any other call: from its admission until all its attempts are over."""

    __slots__ = ("_by", "_call", "_limiter", "_metered", "_plan", "_slots")

    def __init__(self, limiter: Limiter, plan: Plan, call: Call) -> None:
        self._limiter = limiter
        self._plan = plan
        self._call = call

    async def __aenter__(self) -> None:
        limiter, plan, call = self._limiter, self._plan, self._call
        holder = limiter.holder(plan)
        self._slots = [held(slot, holder) for slot in plan.slots]
        self._metered = limiter.metered(plan, limiter.reserved(call.chat, call.route.targets), holder) if plan.metering else []
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
        except BaseException:  # nobody will leave what was never entered
            limiter.ledger.undo(claims, self._slots, self._by)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._limiter.settle(self._metered, self._slots, self._call.attempts, self._by)


class _Room:
    """One attempt's share of its upstream's limits."""

    __slots__ = ("_attempt", "_by", "_chat", "_limiter", "_metered", "_plan", "_slots")

    def __init__(self, limiter: Limiter, plan: Plan, attempt: Attempt, chat: ChatRequest) -> None:
        self._limiter = limiter
        self._plan = plan
        self._attempt = attempt
        self._chat = chat

    async def __aenter__(self) -> None:
        limiter, plan = self._limiter, self._plan
        holder = limiter.holder(plan)
        self._slots = [held(slot, holder) for slot in plan.slots]
        self._metered = (
            limiter.metered(plan, limiter.reserved(self._chat, [self._attempt.target]), holder) if plan.metering else []
        )
        claims = (*plan.fixed, *self._metered)
        verdict = await limiter.ledger.take(claims, self._slots)
        if not verdict.admitted:
            raise limiter.no_room(claims, self._slots, verdict)
        self._by = verdict.by
        for series in plan.admitted:
            series.inc()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._limiter.settle(self._metered, self._slots, [self._attempt], self._by)

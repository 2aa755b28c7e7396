"""Tries the targets of a call's route one after another until one answers; raises the error if none does.

The plan (`sluice.routing.failover`) chooses the next target. This module follows it, with hedging, and with
recovery of answers that were cut.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from sluice.config.types import Hedge
from sluice.errors import BadRequest, Forbidden, NoCapacity, Unavailable, UpstreamError
from sluice.model.chat import ChatRequest, continued, without_seals
from sluice.pricing.prices import price_at
from sluice.proxy.call import Call
from sluice.proxy.hedging import race
from sluice.proxy.outcome import failover_cause
from sluice.proxy.run import CallRun
from sluice.proxy.sending import Attempting, Sender
from sluice.proxy.shadows import Shadows
from sluice.proxy.target import Target
from sluice.routing.failover import FailoverPlan, NextTarget, RetryBudget, queue_of
from sluice.wire.upstream_errors import refuses_seals


class Failover:
    """Follows failover plans. `priced_only`: skip targets without a price. `retries` bounds retries over all calls
    (not money).

    `off`: labels of targets that operators have switched off, "disabled" or "draining": neither gets new
    calls, and disabled ones get no further attempts of running calls.
    """

    def __init__(
        self,
        sender: Sender,
        shadows: Shadows,
        metrics: Any,
        retries: RetryBudget,
        *,
        wall: Callable[[], float],
        chance: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        priced_only: bool = False,
        off: Mapping[str, str] | None = None,
    ) -> None:
        self._off: Mapping[str, str] = off if off is not None else {}
        self.retries = retries
        self._attempt = sender.attempt
        self._shadows = shadows
        self._metrics = metrics
        self._wall = wall
        self._chance = chance
        self._sleep = sleep
        self._priced_only = priced_only

    async def ask(self, run: CallRun) -> None:
        """Tries the route's targets. Raises the last target's error if none answered."""
        call = run.call
        route, chat = call.route, call.chat
        first: Target = route.tiers[0].targets[0]  # type: ignore[assignment]
        # what a dialect may send before any target has answered: it names no model (`Encoder.start`)
        opening = run.stream_encoder(verbatim=first.passes_on == call.chat.dialect).start()
        if opening:
            run.write(opening)
        if route.shadow is not None and route.shadow.label not in self._off:
            self._shadows.send(run, route.shadow)
        self.retries.request()
        plan = None
        hedge = route.config.hedge
        if route.single_target and hedge is None and not self._off:
            # the plan is made when it is needed
            choice = NextTarget(first)
        else:
            plan = self._plan(call)
            choice = plan.choice
            self._count_passed(call, plan)
        full: NoCapacity | None = (
            None  # the one with the shortest wait, raised if the last target is full, too
        )
        try:
            while True:
                if choice.wait:
                    call.phase = "waiting"
                    if call.trace is not None:
                        call.trace.wait("retry")
                    await self._sleep(choice.wait)
                    if call.trace is not None:
                        call.trace.waited()
                    choice = self._after_wait(call, plan, choice)
                try:
                    # without seals, or with one target, an attempt is neither hedged nor does it recover another
                    if chat is not call.chat or plan is None or (hedge is None and not run.resumes):
                        await self._attempt(run, choice.target, chat, last=choice.last)
                    elif run.resumes or hedge is None:
                        await self._recover(run, choice)
                    else:
                        await self._hedged(run, plan, hedge)
                    return
                except (UpstreamError, BadRequest) as error:
                    if chat is call.chat and run.winner is None and _seals_are_refused(error):
                        chat = without_seals(chat)
                        if chat is not call.chat:  # it had seals: the same target once more, without them
                            self._count(call, choice.target, choice.target, "seals_refused")
                            run.let_go()
                            choice = NextTarget(choice.target, last=choice.last)
                            continue
                    if plan is None:
                        plan = self._plan(call)
                    following = self._next(call, plan, choice.target, error) if _may_go_on(run) else None
                    if isinstance(error, NoCapacity):
                        full = error if full is None or error.wait < full.wait else full
                    if following is None:
                        raise (
                            full if full is not None and isinstance(error, NoCapacity) else error
                        ) from None
                    run.let_go()
                    choice, chat = following, call.chat
        finally:
            call.phase = "settling"

    # --- plans

    def _plan(self, call: Call) -> FailoverPlan[Target]:
        route = call.route
        queue: list[Target]
        if route.single_target:
            queue = [*route.tiers[0].targets]  # type: ignore[list-item]
        elif route.by_pods:
            queue = self._by_pods(call)
        else:
            queue = queue_of(route.tiers, call.traits, self._chance)
        if len(queue) < sum(len(tier.targets) for tier in route.tiers):
            self._count_left_out(call, queue[0])
        if self._off:
            queue = [target for target in queue if target.label not in self._off]
            if not queue:
                raise Unavailable("No target of this model takes calls now")
        if self._priced_only:
            queue = [target for target in queue if price_at(target.prices, self._wall()) is not None]
            if not queue:
                raise Forbidden("What this model costs is not known", code="price_unknown")
        return FailoverPlan(queue, self._chance, self.retries, route.retry)

    def _by_pods(self, call: Call) -> list[Target]:
        """The queue of a route on which queues or prompts decide: by the prompt as it is sent, with the
        history."""
        from sluice.routing.pods import PodChoice

        call.pod_choice = choice = PodChoice()
        traits = msgspec.structs.replace(call.traits, chat=call.chat, choice=choice)
        queue: list[Target] = queue_of(call.route.tiers, traits, self._chance)
        if choice.how:
            self._metrics.child("pod_choices", queue[0].upstream, choice.how).inc()
        return queue

    def _next(
        self, call: Call, plan: FailoverPlan[Target], failed: Target, error: UpstreamError | BadRequest
    ) -> NextTarget[Target] | None:
        if isinstance(error, BadRequest):  # this dialect cannot express the request; another one may
            error = UpstreamError("not_found", error.message)  # a kind after which the next target is asked
        choice = plan.pass_over() if isinstance(error, NoCapacity) else plan.failed(error)
        while self._off and choice is not None and self._off.get(choice.target.label) == "disabled":
            choice = plan.pass_over()
        if choice is not None and choice.target is not failed:
            self._count(call, failed, choice.target, failover_cause(error))
            self._count_passed(call, plan)
        return choice

    def _after_wait(
        self, call: Call, plan: FailoverPlan[Target] | None, choice: NextTarget[Target]
    ) -> NextTarget[Target]:
        """Returns another target if the breaker of the one to be retried has opened during the wait."""
        health = choice.target.health
        if plan is None or health.closed or health.ready():
            return choice
        following = plan.pass_over()
        if following is None:
            return choice
        self._count(call, choice.target, following.target, "breaker_open")
        self._count_passed(call, plan)
        return following

    def _count_passed(self, call: Call, plan: FailoverPlan[Target]) -> None:
        """Counts the targets before the chosen one that are not ready: their breaker is open, or their provider
        has told them to wait."""
        for passed in plan.passed:
            self._count(
                call, passed, plan.choice.target, "rate_limited" if passed.health.closed else "breaker_open"
            )

    def _count_left_out(self, call: Call, target: Target) -> None:
        """Counts the targets that cannot serve this call (pictures, tools, its length), up to the tier of the
        first one that can."""
        for tier in call.route.tiers:
            for other in cast(Sequence[Target], tier.targets):
                if lacks := call.traits.lacks(other):
                    self._count(call, other, target, lacks)
            if target in tier.targets:
                return

    def _count(self, call: Call, passed: Target, target: Target, cause: str) -> None:
        self._metrics.child("failovers", call.route.name, passed.label, target.label, cause).inc()
        if call.trace is not None:
            call.trace.note("failover", {"from": passed.label, "to": target.label, "cause": cause})

    # --- other ways to ask

    async def _hedged(self, run: CallRun, plan: FailoverPlan[Target], hedge: Hedge) -> None:
        """Sends the request to one target, and if that is slow to another one beside it."""
        chat, choice = run.call.chat, plan.choice
        patience = hedge.after if hedge.after is not None else choice.target.load.p95()
        if patience is None:
            return await self._attempt(run, choice.target, chat, last=choice.last)
        run.won = asyncio.Event()

        def second() -> Attempting | None:
            if any(answer.relay.first_content_at for answer in run.reading):
                return None  # it has begun: a whole answer is not written before its end
            other = plan.another()
            return self._attempt(run, other.target, chat, last=other.last) if other is not None else None

        first = self._attempt(run, choice.target, chat, last=choice.last)
        await race(first, second, run.won, lambda: run.winner.task if run.winner else None, patience)

    async def _recover(self, run: CallRun, choice: NextTarget[Target]) -> None:
        """Has the target continue an answer that was cut: by prefill if it can, otherwise from the beginning."""
        chat, target = run.call.chat, choice.target
        if target.spec.prefill and run.kept_text:
            try:
                return await self._continue(run, target, continued(chat, run.kept_text), how="prefill")
            except UpstreamError as error:
                if run.winner is not None or not error.callers_fault:
                    raise
        await self._continue(run, target, chat, how="fresh")

    async def _continue(self, run: CallRun, target: Target, chat: ChatRequest, *, how: str) -> None:
        """Makes one attempt that continues the answer. Counts it by the outcome of the attempt, not of the client,
        which may close its connection at the answer's last byte.
        """
        call = run.call
        before = len(call.attempts)
        if call.trace is not None:
            call.trace.note("recovery", {"target": target.label, "how": how})
        try:
            await self._attempt(run, target, chat, last=True, prefilled=how == "prefill")
        finally:
            outcome = call.attempts[-1].outcome
            if (
                len(call.attempts) > before and outcome != "stale_connection"
            ):  # else its upstream was not asked
                outcome = outcome if outcome in ("ok", "abandoned") else "failed"
                self._metrics.child("recoveries", call.route.name, how, outcome).inc()


def _seals_are_refused(error: UpstreamError | BadRequest) -> bool:
    return isinstance(error, UpstreamError) and refuses_seals(error)


def _may_go_on(run: CallRun) -> bool:
    """Returns whether another attempt may follow a failed one: always before the first content, afterwards
    only if the alias allows it.
    """
    if run.winner is None:
        return True
    call, relay = run.call, run.winner.relay
    if call.chat.n > 1:  # of several choices nobody knows what the client holds
        return False
    if run.verbatim and not getattr(run.encoder, "continues", True):
        return False
    return call.route.config.continues and relay.only_text and relay.finished is None

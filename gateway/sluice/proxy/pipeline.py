"""The whole flow of one call: policies, route, attempts, relay, and what is to be known of it afterwards.

    answer    policies admit, the answer is relayed, every way out gets its end reason, policies settle
    _relay    asks the route's targets one after another until one answers, or tells the caller why none did
    _attempt  one target: room, request, head, body through the relay; its outcome is recorded whatever happens

The bytes of an answer do not pass through a coroutine: see `sluice.proxy.flow`. Nothing here catches cancellation: when the
client leaves, the task is cancelled, the transport's exit closes the upstream connection, and the `finally` clauses
keep the books.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from sluice.aio.deferred import Schedule, at_once
from sluice.aio.scope import Scope
from sluice.backends.protocol import Backend, Decoder
from sluice.backends.transport import UpstreamResponse
from sluice.config.types import Prices
from sluice.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    NoRoom,
    RateLimited,
    StaleConnection,
    UpstreamError,
    UpstreamErrorKind,
    without_frames,
)
from sluice.frontends import Answer
from sluice.model.chat import ChatRequest, continued, estimated_tokens
from sluice.model.events import Finished, Usage
from sluice.pricing.prices import cost, price_at
from sluice.proxy.call import LARGE, NOTHING, Attempt, Call, Target
from sluice.proxy.flow import Beside, Flow, Leg, Tail
from sluice.proxy.hedging import race
from sluice.proxy.relay import Relay
from sluice.proxy.writer import NullWriter, ResponseWriter
from sluice.routing.failover import Choice, FailoverPlan, RetryBudget, queue_of
from sluice.telemetry.metrics import UNCOUNTED, TargetSeries
from sluice.wire.forwarding import forwarded, with_forwarded
from sluice.wire.upstream_errors import conceal

Policy = Callable[[Call], AbstractAsyncContextManager[None] | None]
"""None: this call is none of the policy's."""
Room = Callable[[Attempt, ChatRequest], AbstractAsyncContextManager[None] | None]
"""What an attempt takes of its upstream's limits; entering it raises NoRoom. None: there are none."""

COST = "x-sluice-cost-usd"
ERROR_BODY = 64 << 10
SHADOWS = 100
"""Shadow calls at a time; more are not sent."""
OUTCOMES: dict[UpstreamErrorKind, str] = {
    "dns_error": "connect_error", "connect_error": "connect_error", "connect_timeout": "connect_error",
    "reset": "connect_error", "tls_error": "tls_error", "headers_timeout": "headers_timeout",
    "rate_limited": "rate_limited", "server_error": "server_error", "overloaded": "server_error",
    "bad_credentials": "bad_credentials", "billing": "bad_credentials", "not_found": "client_error",
    "bad_request": "client_error", "context_length": "client_error", "content_policy": "client_error", "garbled": "garbled",
    "truncated": "truncated", "stream_error": "server_error", "first_token_timeout": "first_token_timeout",
    "idle_timeout": "idle_timeout", "total_timeout": "total_timeout", "diverged": "garbled",
}  # fmt: skip
_SECRET = re.compile(r"(?i)key|auth|token|secret|cookie|password")
UNSEEN = frozenset({"abandoned", "headers_timeout", "idle_timeout", "total_timeout", "truncated"})
"""Outcomes of an attempt that may have generated what nobody saw, as its answer was to come in one piece: its prompt counts."""
ENDS = {"stop": "done", "tool_calls": "done", "length": "length", "content_filter": "content_filter"}
ENDS_BADLY: dict[str, str] = {
    "truncated": "truncated", "first_token_timeout": "first_token_timeout", "headers_timeout": "first_token_timeout",
    "idle_timeout": "idle_timeout", "total_timeout": "total_timeout",
}  # fmt: skip


class Pipeline:
    """Answers calls. `flows` are the calls in flight, for the clock that ticks them."""

    def __init__(
        self,
        policies: Sequence[Policy],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        metrics: Any,
        room: Room = lambda attempt, chat: None,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        write_idle: float = 60.0,
        crashed: Callable[[Exception, str], object] = lambda crash, request_id: None,
        prices: Prices | None = None,
        later: Schedule = at_once,
        beside: Beside | None = None,
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._room = room
        self._chance = chance
        self._sleep = sleep
        self._budget = RetryBudget(clock)
        self._write_idle = write_idle
        self._crashed = crashed
        self._prices = prices or Prices()
        self._later = later
        self._beside = beside
        self._priced = self._told if self._prices.header else None
        self.flows: set[Flow] = set()
        self._idle: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shadows: dict[Flow, asyncio.Task[str]] = {}

    def tick(self, now: float) -> None:
        """Look at the deadlines of all calls; to be called some twenty times a second."""
        for flow in [flow for flow in (*self.flows, *self._shadows) if now >= flow.due]:
            flow.tick(now)

    async def idle(self) -> None:
        """Waits until no call is in flight."""
        if self.flows:
            self._idle = asyncio.Event()
            await self._idle.wait()

    async def answer(self, call: Call, writer: ResponseWriter) -> None:
        """Answer one call. Raises GatewayError only while nothing has been sent; later errors are said in-band."""
        call.series.in_flight.value += 1
        answer = Answer(call.id, call.route.name, int(self._wall()), reveal=call.route.config.report_model == "target")
        loop = self._loop = self._loop or asyncio.get_running_loop()
        flow = Flow(call, writer, answer, self._clock, call.route.inter_token, self._write_idle, Scope(loop))
        self.flows.add(flow)
        timeout = call.route.config.timeout
        deadline = _deadline(flow, timeout) if timeout is not None else None
        try:
            with flow.scope:
                await self._admitted(call, flow)
        except GatewayError as error:
            self._tell(call, flow, error)
        except Exception as crash:  # a fault of ours: the caller is told that much, the log where it happened
            self._crashed(crash, call.id)
            call.end = "internal_error"
            self._tell(call, flow, GatewayError("Internal server error"))
        finally:
            if deadline is not None:
                deadline.cancel()
            call.end = call.end or _end_of_answer(flow) or flow.doomed or "client_gone"
            self.flows.discard(flow)
            flow.close()
            if self._idle is not None and not self.flows:
                self._idle.set()
            call.series.in_flight.value -= 1
            (call.series.ends if writer.begun else call.series.unanswered)[call.end].value += 1
            if call.error is not None:
                without_frames(call.error)

    def _admitted(self, call: Call, flow: Flow, passed: int = 0) -> Coroutine[Any, Any, None]:
        """The policies around the call, one within the other."""
        for number in range(passed, len(self._policies)):
            policy = self._policies[number](call)
            if policy is not None:
                return self._within(policy, call, flow, number + 1)
        return self._kept(call, flow) if call.conversation else self._relay(call, flow)

    async def _within(self, policy: AbstractAsyncContextManager[None], call: Call, flow: Flow, passed: int) -> None:
        async with policy:
            await self._admitted(call, flow, passed)

    async def _kept(self, call: Call, flow: Flow) -> None:
        """A call of a conversation: it is named to the client, and its text is known to the policies."""
        flow.answer = msgspec.structs.replace(flow.answer, conversation=call.conversation)
        try:
            await self._relay(call, flow)
        finally:
            call.end = call.end or _end_of_answer(flow)
            call.text = call.text or flow.text

    def _tell(self, call: Call, flow: Flow, error: GatewayError) -> None:
        """In-band where the answer has begun; else it is the server's to say."""
        flow.send_end()
        call.error = error
        call.end = call.end or _end_of_answer(flow) or flow.doomed or _end_of(error)
        if not flow.writer.begun:
            raise error
        flow.fail(error)

    def _shadow(self, call: Call) -> None:
        """Send the call to the shadow target, too. Its answer goes nowhere, its attempt counts like any."""
        shadow, config = call.route.shadow, call.route.config.shadow
        if shadow is None or config is None or len(self._shadows) >= SHADOWS or self._chance() >= config.share:
            return
        series = call.series.of_shadow()
        double = msgspec.structs.replace(call, series=series, attempts=[], headers=[], answered=None, ttft=0.0, store_turn=None)
        answer = Answer(call.id, call.route.name, int(self._wall()))
        flow = Flow(double, NullWriter(), answer, self._clock, UNCOUNTED, self._write_idle, Scope())
        task = asyncio.create_task(self._attempt(double, flow, shadow, double.chat, last=True))
        self._shadows[flow] = task
        task.add_done_callback(lambda done: (self._shadows.pop(flow, None), done.cancelled() or done.exception()))

    async def close(self) -> None:
        """End what runs beside the calls."""
        for task in (tasks := list(self._shadows.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _relay(self, call: Call, flow: Flow) -> None:
        """Sets the end reason of the answer that was given. Raises the last target's error where none was."""
        route = call.route
        first: Target = route.tiers[0].targets[0]  # type: ignore[assignment]
        opening = flow.speak(verbatim=first.passes_on == call.frontend.dialect).start()
        if opening:
            flow.say(opening)
        if route.shadow is not None:
            self._shadow(call)
        self._budget.request()
        plan = None
        if route.plain and route.config.hedge is None:  # one target: the plan is made when it is needed
            choice = Choice(first)
        else:
            plan = self._plan(call)
            choice = plan.choice
            self._passed_over(call, plan)
        full: NoRoom | None = None  # of the upstreams without room, the one that has some first
        while True:
            if choice.wait:
                await self._sleep(choice.wait)
                choice = self._after_wait(call, plan, choice)
            try:
                if plan is None or (route.config.hedge is None and not flow.resumes):
                    call.end = await self._attempt(call, flow, choice.target, call.chat, last=choice.last)
                else:
                    call.end = await self._step(call, flow, plan)
                return
            except (UpstreamError, BadRequest) as error:
                if plan is None:
                    plan = self._plan(call)
                following = self._next(call, plan, choice.target, error) if _may_go_on(call, flow) else None
                if isinstance(error, NoRoom):
                    full = error if full is None or error.wait < full.wait else full
                if following is None:
                    raise (full if full is not None and isinstance(error, NoRoom) else error) from None
                flow.let_go()
                choice = following

    def _plan(self, call: Call) -> FailoverPlan[Target]:
        route = call.route
        queue: list[Target] = [*route.tiers[0].targets] if route.plain else queue_of(route.tiers, call.asked, self._chance)  # type: ignore[list-item]
        if len(queue) < sum(len(tier.targets) for tier in route.tiers):
            self._left_out(call, queue[0])
        if self._prices.unknown == "refuse":
            queue = [target for target in queue if price_at(target.prices, self._wall()) is not None]
            if not queue:
                raise Forbidden("What this model costs is not known", code="price_unknown")
        return FailoverPlan(queue, self._chance, self._budget, route.retry)

    def _next(
        self, call: Call, plan: FailoverPlan[Target], failed: Target, error: UpstreamError | BadRequest
    ) -> Choice[Target] | None:
        if isinstance(error, BadRequest):  # this dialect cannot express the request; another may
            error = UpstreamError("not_found", error.message)
        choice = plan.pass_over() if isinstance(error, NoRoom) else plan.failed(error)
        if choice is not None and choice.target is not failed:
            self._fails_over(call, failed, choice.target, _cause_of(error))
            self._passed_over(call, plan)
        return choice

    def _after_wait(self, call: Call, plan: FailoverPlan[Target] | None, choice: Choice[Target]) -> Choice[Target]:
        """Another target, where the breaker of the one that was to be asked again opened meanwhile."""
        health = choice.target.health
        if plan is None or health.closed or health.ready():
            return choice
        following = plan.pass_over()
        if following is None:
            return choice
        self._fails_over(call, choice.target, following.target, "breaker_open")
        self._passed_over(call, plan)
        return following

    def _passed_over(self, call: Call, plan: FailoverPlan[Target]) -> None:
        """Count those that would have been asked before the chosen one, had they been healthy."""
        for passed in plan.passed:
            self._fails_over(call, passed, plan.choice.target, "rate_limited" if passed.health.closed else "breaker_open")

    def _left_out(self, call: Call, target: Target) -> None:
        """Count those that cannot take the call, up to the tier of the one that is asked first."""
        for tier in call.route.tiers:
            for other in cast(Sequence[Target], tier.targets):
                if lacks := call.asked.lacks(other):
                    self._fails_over(call, other, target, lacks)
            if target in tier.targets:
                return

    def _fails_over(self, call: Call, passed: Target, target: Target, cause: str) -> None:
        self._metrics.child("failovers", call.route.name, passed.label, target.label, cause).inc()

    async def _step(self, call: Call, flow: Flow, plan: FailoverPlan[Target]) -> str:
        """Ask one target; where the alias hedges and it is slow, another beside it."""
        hedge, choice = call.route.config.hedge, plan.choice
        patience = None
        if hedge is not None and not flow.resumes:
            patience = hedge.after if hedge.after is not None else choice.target.load.p95()
        if patience is None:
            return await self._ask(call, flow, choice.target, last=choice.last)
        flow.won = asyncio.Event()

        def asks(choice: Choice[Target]) -> Coroutine[Any, Any, str]:
            return self._attempt(call, flow, choice.target, call.chat, last=choice.last)

        def second() -> Coroutine[Any, Any, str] | None:
            if any(leg.relay is not None and leg.relay.first_content_at for leg in flow.legs):
                return None  # it has begun: a whole answer is not said before its end
            other = plan.another()
            return asks(other) if other is not None else None

        return await race(asks(choice), second, flow.won, lambda: flow.winner.task if flow.winner else None, patience)

    async def _ask(self, call: Call, flow: Flow, target: Target, *, last: bool) -> str:
        """One step. Where an answer was cut, the target is asked to go on with it: by prefill if it can, else afresh."""
        if not flow.resumes:
            return await self._attempt(call, flow, target, call.chat, last=last)
        if target.spec.prefill and flow.said:
            try:
                return await self._recover(call, flow, target, continued(call.chat, flow.said), how="prefill")
            except UpstreamError as error:
                if flow.winner is not None or not error.callers_fault:
                    raise
        return await self._recover(call, flow, target, call.chat, how="fresh")

    async def _recover(self, call: Call, flow: Flow, target: Target, chat: ChatRequest, *, how: str) -> str:
        """Counted by what became of the attempt, not of the client, who may close its connection at the answer's last byte."""
        before = len(call.attempts)
        try:
            return await self._attempt(call, flow, target, chat, last=True, prefilled=how == "prefill")
        finally:
            outcome = call.attempts[-1].outcome
            if len(call.attempts) > before and outcome != "stale_connection":  # else its upstream was not asked
                outcome = outcome if outcome in ("ok", "abandoned") else "failed"
                self._metrics.child("recoveries", call.route.name, how, outcome).inc()

    def _attempt(
        self, call: Call, flow: Flow, target: Target, chat: ChatRequest, *, last: bool, prefilled: bool = False
    ) -> Coroutine[Any, Any, str]:
        """One target, within the limits of its upstream. The target's breaker knows at once: while the limits are asked for, no
        other call is let through beside this one."""
        attempt = Attempt(target, self._clock(), probe=target.health.begin())
        room = self._room(attempt, chat)
        if room is None:
            trying = self._try(call, flow, attempt, chat, last=last, prefilled=prefilled)
        else:
            trying = self._try_within(room, call, flow, attempt, chat, last=last, prefilled=prefilled)
        return self._probe(attempt, trying) if attempt.probe else trying

    async def _probe(self, attempt: Attempt, trying: Coroutine[Any, Any, str]) -> str:
        """The call that finds out whether a target is well again; where it was not sent after all, another call may."""
        try:
            return await trying
        finally:
            attempt.target.health.abandoned(attempt.probe)

    async def _try_within(
        self,
        room: AbstractAsyncContextManager[None],
        call: Call,
        flow: Flow,
        attempt: Attempt,
        chat: ChatRequest,
        *,
        last: bool,
        prefilled: bool,
    ) -> str:
        async with room:
            return await self._try(call, flow, attempt, chat, last=last, prefilled=prefilled)

    async def _try(self, call: Call, flow: Flow, attempt: Attempt, chat: ChatRequest, *, last: bool, prefilled: bool) -> str:
        target = attempt.target
        if chat.n > 1 and target.passes_on != call.frontend.dialect:
            raise BadRequest("This model gives one choice per request", param="n", code="unsupported_parameter")
        if target.fit is not None:
            chat = target.fit(chat)
        if not chat.stream and target.whole is not None and target.passes_on == call.frontend.dialect:
            attempt.whole = target.whole
            write = target.whole.whole_request
        else:
            write = target.backend.request
        if call.size <= LARGE or self._beside is None:
            request = write(chat, target.model)
        else:
            request = await self._beside(write, chat, target.model)
        request.lines = call.lines
        if target.forward and call.forward:
            request.headers = with_forwarded(request.headers, forwarded(target.forward, call.forward))
        if not call.attempts:
            call.series.request_overhead.observe(attempt.started - call.received)
        call.attempts.append(attempt)
        task = asyncio.current_task() if flow.won is not None else None  # only one of several has to be told apart
        leg = Leg(flow, attempt, last, task, prefilled, self._priced if not flow.resumes else self._summed, self._beside)
        flow.legs.append(leg)
        timeouts = target.timeouts
        connect, headers = timeouts.connect, timeouts.headers if attempt.whole is None else timeouts.whole
        if timeouts.total is not None:
            connect, headers = min(connect, timeouts.total), min(headers, timeouts.total)
        target.load.in_flight += 1
        try:
            async with target.transport.send(request, connect=connect, headers=headers, reader=leg) as response:
                if leg.relay is None:
                    leg.begin(response)
                relay = leg.relay
                assert relay is not None
                try:
                    if response.status // 100 != 2:  # any 2xx with a body is an answer (RFC 9110 15.3)
                        raise await _refused(target, response)
                    await response.pump(leg.sink)
                    if leg.working is None and relay.unsaid <= LARGE:
                        leg.close()
                    else:
                        await leg.close_beside()
                except (Tail, UpstreamError):
                    if relay.finished is None:
                        raise
            assert relay.finished is not None
            attempt.outcome = "ok"
            target.health.succeeded()
            return ENDS[relay.finished.reason]
        except UpstreamError as error:
            if isinstance(error, StaleConnection):
                attempt.outcome = "stale_connection"
                target.health.abandoned(attempt.probe)
            else:
                attempt.outcome = OUTCOMES[error.kind]
                conceal(error, secrets_of(target.backend, target.transport))
                target.health.failed(error, attempt.probe)
            raise
        finally:
            target.load.in_flight -= 1
            flow.legs.remove(leg)
            leg.part()
            decoder = leg.decoder
            if decoder is not None and (decoder.skipped or decoder.skipped_fields or decoder.finish_missing):
                _count_oddities(decoder, target.series)
            if attempt.outcome == "abandoned":
                self._abandoned(call, leg)
            self._record(attempt, leg.relay, chat, leg.tail_from or self._clock())

    def _abandoned(self, call: Call, leg: Leg) -> None:
        """The call ended before the attempt did: what that says of the target."""
        attempt, health = leg.attempt, leg.attempt.target.health
        if leg.relay is not None and leg.relay.finished is not None:
            attempt.outcome = "ok"  # the client left between the answer's end and the body's
            health.succeeded()
        elif self._was_silent(call, leg):
            attempt.outcome = "total_timeout"
            health.failed(UpstreamError("total_timeout"), attempt.probe)
        else:
            health.abandoned(attempt.probe)

    def _was_silent(self, call: Call, leg: Leg) -> bool:
        """Whether the alias's deadline ended this attempt, which had most of the call's time and said nothing: else a
        target that never answers would never be found out where the alias's deadline is shorter than its own."""
        timeout, now = call.route.config.timeout, self._clock()
        if timeout is None or now - call.received < timeout or (leg.relay is not None and leg.relay.first_content_at):
            return False
        return now - leg.attempt.started > timeout / 2

    def _told(self, leg: Leg, finished: Finished) -> Finished:
        """The answer's end with what the call has cost so far, where that is known; a whole answer says it in a header."""
        call = leg.flow.call
        price = price_at(leg.attempt.target.prices, self._wall())
        if price is None or finished.usage is None:
            return finished
        dollars = round((call.cost or 0.0) + cost(price, finished.usage), 9)
        if not call.chat.stream:
            others = [(name, value) for name, value in call.headers if name != COST]  # of an answer that was none
            call.headers = [*others, (COST, f"{dollars:.9f}")]
        return msgspec.structs.replace(finished, cost=dollars)

    def _summed(self, leg: Leg, finished: Finished) -> Finished:
        """The end of an answer that others had begun: with what all of its attempts used."""
        told = finished if self._priced is None else self._priced(leg, finished)
        if told.usage is None:
            return told
        usage = told.usage
        for attempt in leg.flow.call.attempts:
            if attempt is not leg.attempt and attempt.used is not NOTHING:
                usage = usage.plus(attempt.used)
        return msgspec.structs.replace(told, usage=usage)

    def _record(self, attempt: Attempt, relay: Relay | None, chat: ChatRequest, ended: float) -> None:
        """The attempt's outcome and tokens, whatever became of it. `ended`: when its answer was complete, or it was over."""
        used = NOTHING
        if relay is not None and (relay.first_content_at or relay.finished):
            attempt.characters = relay.characters
            attempt.model = relay.model
            if relay.usage_refused:
                attempt.target.series.usage_refused.inc()
            attempt.usage = relay.usage
            used = relay.used(estimated_tokens(chat)) if relay.usage is None else relay.usage
        elif attempt.whole is not None and attempt.outcome in UNSEEN:
            used = Usage(estimated_tokens(chat), 0)
        if used is not NOTHING:
            attempt.used = used
            price = price_at(attempt.target.prices, self._wall())
            attempt.cost = cost(price, used) if price is not None else None
        self._later(_count, attempt, ended)


def _count_oddities(decoder: Decoder, series: TargetSeries) -> None:
    """What a decoder had to overlook in its answer."""
    series.skipped.inc(decoder.skipped)
    series.skipped_fields.inc(decoder.skipped_fields)
    series.finish_missing.inc(decoder.finish_missing)


def _count(attempt: Attempt, ended: float) -> None:
    """What metrics are to know of an attempt that has ended."""
    series = attempt.target.series
    series.attempts[attempt.outcome].value += 1
    usage, used = attempt.usage, attempt.used
    if used is NOTHING:
        return
    if attempt.cost is not None:
        series.cost.value += attempt.cost
    else:
        series.unpriced.value += 1
    if usage is None:
        series.estimated["input"].inc(used.input)
        series.estimated["output"].inc(used.output)
        return
    reported = series.reported
    reported["input"].value += usage.input
    reported["output"].value += usage.output
    if usage.cached_input:
        reported["cached_input"].value += usage.cached_input
    if usage.reasoning:
        reported["reasoning"].value += usage.reasoning
    if attempt.first_token is not None and usage.output > 1 and attempt.whole is None:
        series.per_token.observe((ended - attempt.started - attempt.first_token) / (usage.output - 1))


def _end_of_answer(flow: Flow) -> str:
    """How the answer ended, where its end has been said: then it does not matter that the client left."""
    relay = flow.winner.relay if flow.winner is not None else None
    return ENDS[relay.finished.reason] if flow.ended and relay is not None and relay.finished is not None else ""


def _cause_of(error: UpstreamError) -> str:
    """Why a call goes on to another target, as `failovers_total` says it."""
    if isinstance(error, NoRoom):
        return "no_room"
    if isinstance(error, StaleConnection):
        return "stale_connection"
    return "context" if error.kind == "context_length" else OUTCOMES[error.kind]


def _deadline(flow: Flow, timeout: float) -> asyncio.TimerHandle:
    """The whole call's: waiting for a turn included."""
    late = UpstreamError("total_timeout", "The call took too long")
    return asyncio.get_running_loop().call_later(timeout, flow.scope.end, late)


def secrets_of(backend: Backend, transport: object = None) -> list[str]:
    """What an upstream is sent to know the gateway by, of now: not to be read in its errors by callers."""
    named = (value for name, value in getattr(backend, "headers", {}).items() if _SECRET.search(name))
    signing: Callable[[], Iterable[str]] = getattr(transport, "secrets", tuple)
    values = [*(value for _, value in backend.credentials()), *named, *signing()]
    return [part for value in values for part in (value, value.partition(" ")[2]) if part]


async def _reason(response: UpstreamResponse) -> bytes:
    """The body of an error answer; where it is cut or does not come, the status alone has to do."""
    try:
        return await response.read(ERROR_BODY)
    except UpstreamError:
        return b""


async def _refused(target: Target, response: UpstreamResponse) -> UpstreamError:
    """What an answer that is none means."""
    status, headers = response.status, response.headers
    if 300 <= status < 400:  # those that may be followed have been
        error = UpstreamError("not_found", "The upstream redirects to where requests are not sent", status=status)
        where = _host(headers.get("location", ""))
        error.detail = f"{target.upstream} answered {status}: set its base_url to where that leads ({where})"
        return error
    return target.backend.error(status, headers, await _reason(response))


def _host(location: str) -> str:
    """The host of a URL, for the log; the rest of one may hold a key."""
    try:
        return urlsplit(location).hostname or "the same host"
    except ValueError:
        return "no URL"


def _may_go_on(call: Call, flow: Flow) -> bool:
    """Whether a failed attempt may be followed by another: before any content always, afterwards where the alias says so."""
    if flow.winner is None:
        return True
    relay = flow.winner.relay
    if call.chat.n > 1:  # of several choices nobody knows what the client holds
        return False
    return call.route.config.continues and relay is not None and relay.only_text and relay.finished is None


def _end_of(error: GatewayError) -> str:
    match error:
        case RateLimited() | NoRoom():
            return "limit"
        case UpstreamError(kind=kind):
            return ENDS_BADLY.get(kind, "upstream_error")
        case _:
            return "upstream_error"

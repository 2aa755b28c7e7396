"""The whole flow of one call: policies, route, attempts, relay, and what is to be known of it afterwards.

    answer   policies admit, the answer is relayed, every way out gets its end reason, policies settle
    _follow  asks the route's targets one after another until one answers, or tells the caller why none did
    _attempt one target: request, head, body through the relay; its outcome is recorded whatever happens

The bytes of an answer do not pass through a coroutine: the transport calls `Flow.sink` for each read, which relays
and writes. `Flow.tick` is called a few times a second for every call in flight and looks at its deadlines, so no
event needs a timer of its own. Nothing here catches cancellation: when the client leaves, the task is cancelled, the
transport's exit closes the upstream connection, and the `finally` clauses keep the books.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from gateway.call import Attempt, Call, Outlet, Target
from gateway.errors import BadRequest, GatewayError, RateLimited, Unavailable, UpstreamError, UpstreamErrorKind
from gateway.frontends import Answer, Encoder
from gateway.relay import Relay
from gateway.routing import Journey, RetryBudget, RetryPolicy, Step
from gateway.transport import UpstreamResponse

Policy = Callable[[Call], AbstractAsyncContextManager[None]]

ERROR_BODY = 64 << 10
TAIL = 0.25
"""Seconds that an upstream may take to end its body after the answer is complete; then the connection is closed."""

OUTCOMES: dict[UpstreamErrorKind, str] = {
    "dns_error": "connect_error", "connect_error": "connect_error", "connect_timeout": "connect_error",
    "reset": "connect_error", "tls_error": "tls_error", "headers_timeout": "headers_timeout",
    "rate_limited": "rate_limited", "server_error": "server_error", "overloaded": "server_error",
    "bad_credentials": "bad_credentials", "not_found": "client_error", "bad_request": "client_error",
    "context_length": "client_error", "content_policy": "client_error", "garbled": "garbled",
    "truncated": "truncated", "stream_error": "server_error", "first_token_timeout": "first_token_timeout",
    "idle_timeout": "idle_timeout", "total_timeout": "total_timeout",
}  # fmt: skip
ENDS = {"stop": "done", "tool_calls": "done", "length": "length", "content_filter": "content_filter"}
ENDS_BADLY: dict[str, str] = {
    "truncated": "truncated", "first_token_timeout": "first_token_timeout", "headers_timeout": "first_token_timeout",
    "idle_timeout": "idle_timeout", "total_timeout": "total_timeout",
}  # fmt: skip


class _Tail(Exception):
    """The answer is complete, but its upstream does not end the body."""


class Flow:
    """One call in flight: the relay, both ends, and the deadlines of the phase it is in."""

    __slots__ = (
        "_answer", "_clock", "_inter_token", "_response", "_write_idle", "attempt", "call", "doomed", "encoder", "out",
        "relay", "tail_from", "verbatim",
    )  # fmt: skip

    def __init__(
        self, call: Call, out: Outlet, answer: Answer, clock: Callable[[], float], inter_token: Any, write_idle: float
    ) -> None:
        self.call = call
        self.out = out
        self.relay = Relay(whole=not call.chat.stream)
        self.encoder: Encoder | None = None
        self.verbatim = False
        self._answer = answer
        self._write_idle = write_idle
        self.doomed = ""  # the end reason of a call that is being closed from our side
        self.tail_from = 0.0
        self._clock = clock
        self._inter_token = inter_token
        self._response: UpstreamResponse | None = None
        self.attempt: Attempt | None = None

    def speak(self, *, verbatim: bool) -> Encoder:
        """The call's encoder: kept over failed attempts, for nothing is encoded before one commits."""
        if self.encoder is None or verbatim is not self.verbatim:
            self.encoder = self.call.frontend.encoder(self.call.chat, self._answer, verbatim=verbatim)
            self.verbatim = verbatim
        return self.encoder

    def watch(self, attempt: Attempt, response: UpstreamResponse) -> None:
        self.attempt = attempt
        self._response = response
        self.out.attach(response)

    def unwatch(self) -> None:
        self._response = None
        self.out.attach(None)

    def sink(self, data: bytes) -> None:
        """One read of the upstream's: relay it, and write what the client is to have of it."""
        now = self._clock()
        relay = self.relay
        first = not relay.committed
        chunk = relay.feed(data, now)
        if chunk:
            self.say(chunk)
            if first:
                self._first_token(now)
            elif relay.gap:
                self._inter_token.observe(relay.gap)
        if relay.finished is not None and not self.tail_from:
            self.tail_from = now

    def say(self, chunk: bytes) -> None:
        out = self.out
        if not out.begun:
            out.begin(self.speak(verbatim=self.verbatim).content_type, self.call.headers)
        out.write(chunk, last=self.relay.finished is not None or self.relay.failed)

    def close(self) -> None:
        """The upstream's body has ended. Raises UpstreamTruncated where the answer has not."""
        now = self._clock()
        first = not self.relay.committed
        chunk = self.relay.close(now)
        if chunk:
            self.say(chunk)
            if first:
                self._first_token(now)

    def _first_token(self, now: float) -> None:
        if not self.relay.first_content_at:
            return
        call, attempt = self.call, self.attempt
        assert attempt is not None
        call.ttft = self._clock() - call.received
        call.series.first_token.observe(call.ttft)
        attempt.first_token = self.relay.first_content_at - attempt.started
        attempt.target.series.first_token.observe(attempt.first_token)

    def tick(self, now: float) -> None:
        """Deadlines and heartbeats, looked at a few times a second."""
        out = self.out
        blocked = out.blocked_since
        if blocked:
            self.relay.content_at = now  # a client that does not read is not the upstream's silence
            if now - blocked > self._write_idle:
                self.doomed = "slow_reader"
                out.abort()
            return
        if self._response is not None:
            self._check_phase(self._response, now)
        heartbeat = self.call.route.config.heartbeat
        if heartbeat and self.call.chat.stream and now - max(out.last_write, self.call.received) >= heartbeat:
            beat = self.speak(verbatim=self.verbatim).heartbeat()
            if beat:
                self.say(beat)

    def end_by_drain(self) -> None:
        """The process is leaving: say so in-band where the answer has begun, and close."""
        self.doomed = "drain"
        if self.out.begun and self.relay.finished is None and not self.relay.failed:
            self.relay.failed = True
            self.say(self.speak(verbatim=self.verbatim).fail(Unavailable("The gateway is shutting down")))
        if self._response is not None:
            self._response.abort(Unavailable("The gateway is shutting down"))

    def _check_phase(self, response: UpstreamResponse, now: float) -> None:
        relay, attempt = self.relay, self.attempt
        assert attempt is not None
        timeouts = attempt.target.timeouts
        if self.tail_from:
            if now - self.tail_from > TAIL:
                response.abort(_Tail())
        elif timeouts.total is not None and now - attempt.started > timeouts.total:
            response.abort(UpstreamError("total_timeout", "The upstream took too long for its answer"))
        elif not relay.first_content_at:
            if now - relay.content_at > timeouts.first_token:
                response.abort(UpstreamError("first_token_timeout", "The upstream sent no token in time"))
        elif now - relay.content_at > timeouts.idle:
            response.abort(UpstreamError("idle_timeout", "The upstream stopped sending"))


class Pipeline:
    """Answers calls. `flows` are the calls in flight, for the clock that ticks them."""

    def __init__(
        self,
        policies: Sequence[Policy],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        metrics: Any,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        retry: RetryPolicy | None = None,
        write_idle: float = 60.0,
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._chance = chance
        self._sleep = sleep
        self._retry = retry or RetryPolicy()
        self._budget = RetryBudget(clock)
        self._write_idle = write_idle
        self._overhead = metrics.child("overhead_seconds", "request")
        self.flows: set[Flow] = set()

    async def answer(self, call: Call, out: Outlet) -> None:
        """Answer one call. Raises GatewayError only while nothing has been sent; later errors are said in-band."""
        call.series.in_flight.inc()
        try:
            async with AsyncExitStack() as stack:
                for policy in self._policies:
                    await stack.enter_async_context(policy(call))
                await self._relay(call, out)
        except GatewayError as error:
            call.error = error
            call.end = _end_of(error)
            raise
        finally:
            call.end = call.end or "client_gone"
            call.series.in_flight.dec()
            call.series.ends[call.end].inc()

    async def _relay(self, call: Call, out: Outlet) -> None:
        route = call.route
        answer = Answer(call.id, route.name, int(self._wall()), call.conversation, route.config.report_model == "target")
        inter_token = self._metrics.child("inter_token_seconds", route.name)
        flow = Flow(call, out, answer, self._clock, inter_token, self._write_idle)
        self.flows.add(flow)
        try:
            opening = flow.speak(verbatim=_verbatim(call, route.tiers[0][0])).start()
            if opening:
                flow.say(opening)
            async with asyncio.timeout(call.route.config.timeout):
                await self._follow(call, flow)
            finished = flow.relay.finished
            call.end = ENDS[finished.reason] if finished is not None else "upstream_error"
        except TimeoutError:
            self._tell(call, flow, UpstreamError("total_timeout", "The call took too long"))
        except GatewayError as error:
            self._tell(call, flow, error)
        finally:
            self.flows.discard(flow)
            call.end = call.end or flow.doomed
            if flow.relay.committed:
                call.text = flow.relay.text

    def _tell(self, call: Call, flow: Flow, error: GatewayError) -> None:
        """In-band where the answer has begun; else it is the server's to say."""
        if not flow.out.begun:
            raise error
        call.error = error
        call.end = flow.doomed or _end_of(error)
        if flow.relay.failed:
            return
        flow.relay.failed = True
        flow.say(flow.speak(verbatim=flow.verbatim).fail(error))

    async def _follow(self, call: Call, flow: Flow) -> None:
        journey = Journey(call.route.tiers, self._chance, self._budget, self._retry)
        step: Step[Target] | None = journey.first()
        while step is not None:
            if step.wait:
                await self._sleep(step.wait)
            try:
                await self._attempt(call, flow, step.target, last=journey.alone)
                return
            except UpstreamError as error:
                step = None if flow.relay.committed else self._next(call, journey, step.target, error)
                if step is None:
                    raise
            except BadRequest as error:  # this dialect cannot express it; another may
                step = self._next(call, journey, step.target, UpstreamError("not_found", error.message))
                if step is None:
                    raise

    def _next(self, call: Call, journey: Journey[Target], failed: Target, error: UpstreamError) -> Step[Target] | None:
        step = journey.failed(error)
        if step is not None and step.target is not failed:
            self._metrics.child("failovers", call.route.name, failed.label, step.target.label, OUTCOMES[error.kind]).inc()
        return step

    async def _attempt(self, call: Call, flow: Flow, target: Target, *, last: bool) -> None:
        attempt = Attempt(target, self._clock())
        request = target.backend.request(call.chat, target.model)
        if not call.attempts:
            self._overhead.observe(attempt.started - call.received)
        call.attempts.append(attempt)
        target.health.begin()
        try:
            await self._exchange(call, flow, attempt, request, last=last)
            attempt.outcome = "ok"
            target.health.succeeded()
        except UpstreamError as error:
            attempt.outcome = OUTCOMES[error.kind]
            target.health.failed(error)
            raise
        finally:
            self._record(attempt, flow)

    async def _exchange(self, call: Call, flow: Flow, attempt: Attempt, request: Any, *, last: bool) -> None:
        target = attempt.target
        verbatim = _verbatim(call, target)
        timeouts = target.timeouts
        async with target.transport.send(request, connect=timeouts.connect, headers=timeouts.headers) as response:
            decoder = target.backend.decoder(verbatim=verbatim)
            flow.relay.attach(decoder, flow.speak(verbatim=verbatim), accept_empty=last, now=self._clock())
            flow.watch(attempt, response)
            try:
                if response.status != 200:
                    raise target.backend.error(response.status, response.headers, await response.read(ERROR_BODY))
                await response.pump(flow.sink)
                flow.close()
            except _Tail:
                pass
            except UpstreamError:
                if flow.relay.finished is None:
                    raise
            finally:
                flow.unwatch()
                target.series.skipped.inc(getattr(decoder, "skipped", 0))

    def _record(self, attempt: Attempt, flow: Flow) -> None:
        """The attempt's outcome and tokens, whatever became of it."""
        series = attempt.target.series
        series.attempts[attempt.outcome].inc()
        if attempt.outcome == "abandoned":
            attempt.target.health.abandoned()
        relay = flow.relay
        if flow.attempt is not attempt:  # it never came to a response
            return
        attempt.characters = relay.characters
        attempt.model = relay.model
        attempt.usage = usage = relay.finished.usage if relay.finished is not None else None
        if usage is None:
            series.estimated["output"].inc(relay.characters // 4)
            return
        for kind, series_of_kind in series.reported.items():
            series_of_kind.inc(getattr(usage, kind))
        if attempt.first_token is not None and usage.output > 1:
            took = self._clock() - attempt.started - attempt.first_token
            series.per_token.observe(took / (usage.output - 1))


def _verbatim(call: Call, target: Target) -> bool:
    """Whether client and target speak the same dialect, and the target's name need not be hidden."""
    dialect = call.frontend.dialect
    return bool(dialect) and target.backend.dialect == dialect and call.route.config.report_model == "target"


def _end_of(error: GatewayError) -> str:
    match error:
        case UpstreamError(kind=kind):
            return ENDS_BADLY.get(kind, "upstream_error")
        case RateLimited():
            return "limit"
        case _:
            return "upstream_error"

"""Answers calls, each from its admission to its end.

Policies admit a call; `sluice.proxy.failover` asks the targets of its route one after another;
`sluice.proxy.sending` makes one attempt at one target: the upstream's limits, the request, the response's
head, and the body through the relay. Whatever ends the call, its end is recorded once, and then the policies
settle.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from sluice.aio.deferred import Schedule, at_once
from sluice.aio.scope import scope_here
from sluice.config.types import Prices
from sluice.errors import GatewayError, StageFault, UpstreamError, without_frames
from sluice.frontends import Answer
from sluice.proxy.call import Call, end_of
from sluice.proxy.failover import Failover
from sluice.proxy.interceptors import Interceptor, by_alias
from sluice.proxy.outcome import Bookkeeper
from sluice.proxy.reader import Beside
from sluice.proxy.run import CallRun
from sluice.proxy.sending import Sender, UpstreamClaims
from sluice.proxy.shadows import Shadows
from sluice.proxy.writer import ResponseWriter
from sluice.routing.failover import RetryBudget

Policy = Callable[[Call], AbstractAsyncContextManager[None] | None]
"""The policy's context for a call; None: the policy does not apply to it."""


class Pipeline:
    """Answers calls. `runs` are the calls in flight, for the clock that ticks them.

    `interceptors` are those of each alias that has any. `crashed` is called with an unexpected exception and
    the id of the call that it ended. `claims` charge an attempt to its upstream's limits. `later` puts accounts
    off until the client has its answer, `beside` runs heavy work in a thread. `retries` and `off`: see Failover.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        metrics: Any,
        claims: UpstreamClaims = lambda attempt, chat: None,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        write_idle: float = 60.0,
        crashed: Callable[[Exception, str], object] = lambda crash, request_id: None,
        prices: Prices | None = None,
        later: Schedule = at_once,
        beside: Beside | None = None,
        interceptors: Mapping[str, Sequence[Interceptor]] | None = None,
        retries: RetryBudget | None = None,
        off: Mapping[str, str] | None = None,
    ) -> None:
        prices = prices or Prices()
        self.policies = policies
        self.runs: set[CallRun] = set()
        self._clock = clock
        self._wall = wall
        self._write_idle = write_idle
        self.crashed = crashed
        self._idle: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        sender = Sender(
            Bookkeeper(wall, later),
            claims,
            clock=clock,
            wall=wall,
            tells_cost=prices.header,
            beside=beside,
            crashed=self._report,
        )
        self.shadows = Shadows(sender, chance, self._report)
        self.failover = Failover(
            sender,
            self.shadows,
            metrics,
            retries or RetryBudget(clock),
            wall=wall,
            chance=chance,
            sleep=sleep,
            priced_only=prices.unknown == "refuse",
            off=off,
        )
        self._ask = by_alias(interceptors or {}, self.failover.ask)

    def _report(self, crash: Exception, request_id: str) -> object:
        """Looks `crashed` up at each call: it may be set later."""
        return self.crashed(crash, request_id)

    def tick(self, now: float) -> None:
        """Checks the deadlines of all calls; to be called some twenty times a second."""
        for run in [run for run in (*self.runs, *self.shadows.runs) if now >= run.due]:
            run.tick(now)

    async def idle(self) -> None:
        """Waits until no call is in flight."""
        if self.runs:
            if self._idle is None or self._idle.is_set():
                self._idle = asyncio.Event()
            await self._idle.wait()

    async def answer(self, call: Call, writer: ResponseWriter) -> None:
        """Answers one call. Raises GatewayError only while nothing has been sent; later errors are written
        into the answer.
        """
        call.series.in_flight.value += 1
        loop = self._loop = self._loop or asyncio.get_running_loop()
        route = call.route
        answer = Answer(
            call.id,
            route.called or route.name,
            int(self._wall()),
            reveal=route.config.report_model == "target",
            clock=self._clock,
            received=call.received,
        )
        run = CallRun(
            call,
            writer,
            answer,
            scope_here(loop),
            clock=self._clock,
            inter_token=route.inter_token,
            write_idle=self._write_idle,
        )
        self.runs.add(run)
        timeout = route.config.timeout
        if timeout is not None:  # the whole call's: waiting for a turn included
            late = UpstreamError("total_timeout", "The call took too long")
            run.deadline = loop.call_later(timeout, run.scope.end, late)
        try:
            with run.scope:
                await self._admitted(run, iter(self.policies))
        except GatewayError as error:
            self._end_in_error(run, error)
        except Exception as crash:  # unexpected: the caller gets no details, the log says where it happened
            cause = crash.__cause__ if isinstance(crash, StageFault) else crash
            self.crashed(cause if isinstance(cause, Exception) else crash, call.id)
            call.finish("internal_error")
            self._end_in_error(run, GatewayError("Internal server error"))
        finally:
            if not call.end:
                call.finish("client_gone")
            call.phase = "over"
            self.runs.discard(run)
            if call.content != "none":
                call.text = call.text or run.text
            run.close()
            if self._idle is not None and not self.runs:
                self._idle.set()
            call.series.in_flight.value -= 1
            (call.series.ends if writer.begun else call.series.unanswered)[call.end].value += 1
            if call.error is not None:
                without_frames(call.error)

    def _admitted(self, run: CallRun, policies: Iterator[Policy]) -> Coroutine[Any, Any, None]:
        """Enters the policies of the call, one within the other."""
        call = run.call
        for policy in policies:
            entered = policy(call)
            if entered is not None:
                return self._within(entered, run, policies)
        return self._in_conversation(run) if call.conversation else self._ask(run)

    async def _within(
        self, entered: AbstractAsyncContextManager[None], run: CallRun, policies: Iterator[Policy]
    ) -> None:
        async with entered:
            await self._admitted(run, policies)

    async def _in_conversation(self, run: CallRun) -> None:
        """Prepares a call of a conversation: the client gets its id, and the policies get the answer's
        text."""
        call = run.call
        run.answer = msgspec.structs.replace(run.answer, conversation=call.conversation)
        try:
            await self._ask(run)
        finally:
            call.text = call.text or run.text

    def _end_in_error(self, run: CallRun, error: GatewayError) -> None:
        """Writes the error into an answer that has begun; otherwise raises it, for the server to render."""
        call = run.call
        run.send_end()  # of an answer that is complete and only waited for its turn to be stored
        call.error = error
        call.finish(end_of(error))
        if not run.writer.begun:
            raise error
        run.fail(error)

    async def close(self) -> None:
        """Ends shadow calls and other work beside the calls."""
        await self.shadows.close()

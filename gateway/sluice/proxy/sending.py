"""Sends one attempt to its target, within the limits of its upstream, and sees to it that its outcome is
recorded.

The bytes of an answer do not pass through a coroutine: see `sluice.proxy.reader`. Nothing here catches
cancellation: when the client leaves, the task is cancelled, the transport's exit closes the upstream
connection, and `finally` clauses record the outcome.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from sluice.errors import BadRequest, DecoderCrashed, StaleConnection, TlsFailed, UpstreamError
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished
from sluice.pricing.prices import cost, price_at
from sluice.proxy.attempt import NO_USAGE, Attempt
from sluice.proxy.call import MAX_INLINE_BYTES, Call
from sluice.proxy.deadlines import BodyLingers
from sluice.proxy.outcome import OUTCOMES, Bookkeeper, count_oddities, refused, secrets_of
from sluice.proxy.reader import AnswerReader, AttemptReader, Beside
from sluice.proxy.run import CallRun
from sluice.proxy.target import Target
from sluice.wire.forwarding import forwarded
from sluice.wire.upstream_errors import conceal

UpstreamClaims = Callable[[Attempt, ChatRequest], AbstractAsyncContextManager[None] | None]
"""The claims of an attempt on its upstream's limits, as a context manager; entering it raises NoCapacity.
None: the upstream has no limits."""
Attempting = Coroutine[Any, Any, None]
COST = "x-sluice-cost-usd"


class Sender:
    """Makes attempts.

    `tells_cost`: answers have a header with the cost of their call. `crashed` gets faults of the gateway's
    own code that another attempt may make good. `clock` (monotonic) and `wall` (since the epoch) give
    seconds.
    """

    def __init__(
        self,
        books: Bookkeeper,
        claims: UpstreamClaims,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        tells_cost: bool = False,
        beside: Beside | None = None,
        crashed: Callable[[Exception, str], object] = lambda crash, request_id: None,
    ) -> None:
        self._crashed = crashed
        self._record = books.record
        self._claims_of = claims
        self._clock = clock
        self._wall = wall
        self._beside = beside
        self._price = self._with_cost if tells_cost else None

    def attempt(
        self, run: CallRun, target: Target, chat: ChatRequest, *, last: bool, prefilled: bool = False
    ) -> Attempting:
        """Sends the request to one target. A half-open breaker counts the attempt as its probe at once, so
        that no second call is let through while the limits are checked. Raises UpstreamError (such as
        NoCapacity), and BadRequest if the target's dialect cannot express the request."""
        attempt = Attempt(target, self._clock(), probe=target.health.begin())
        reader = AttemptReader(run, attempt, last, prefilled, self._price, beside=self._beside)
        if run.resumes:
            reader.price = self._with_all_usage
        claims = self._claims_of(attempt, chat)
        trying = self._try(reader, chat) if claims is None else self._try_within(claims, reader, chat)
        return self._probe(attempt, trying) if attempt.probe else trying

    async def _probe(self, attempt: Attempt, trying: Attempting) -> None:
        """Marks the call as the probe of a half-open target; if it is not sent after all, another call may be
        the probe.
        """
        try:
            await trying
        finally:
            attempt.target.health.abandoned(attempt.probe)

    async def _try_within(
        self, claims: AbstractAsyncContextManager[None], reader: AttemptReader, chat: ChatRequest
    ) -> None:
        async with claims:
            await self._try(reader, chat)

    async def _try(self, reader: AttemptReader, chat: ChatRequest) -> None:
        run, attempt = reader.run, reader.attempt
        call, target = run.call, attempt.target
        timeouts = target.timeouts
        connect = timeouts.connect
        chat = _adapted(reader, chat)
        if not chat.stream and target.whole is not None and target.passes_on == chat.dialect:
            attempt.whole = target.whole
            write, headers = target.whole.whole_request, timeouts.whole
        else:
            write, headers = target.backend.request, timeouts.headers
        if call.size <= MAX_INLINE_BYTES or self._beside is None:
            request = write(chat, target.model)
        else:
            request = await self._beside(write, chat, target.model)
        request.lines = call.lines if call.trace is None else call.lines + call.trace.attempt_lines()
        if (
            target.forward
            and call.forward
            and (more := forwarded(target.forward, call.forward, target.dropped))
        ):
            target.tell(request, more)
        if not call.attempts:
            call.series.request_overhead.observe(attempt.started - call.received)
        call.attempts.append(attempt)
        call.phase = "connecting"
        if run.won is not None:  # the winner is known by its task
            reader.task = asyncio.current_task()
        if timeouts.total is not None:
            connect, headers = min(connect, timeouts.total), min(headers, timeouts.total)
        target.load.in_flight += 1
        try:
            async with target.transport.send(
                request, connect=connect, headers=headers, reader=reader
            ) as response:
                answer = reader.answer or reader.read(response)
                try:
                    if response.status // 100 != 2:  # any 2xx with a body is an answer (RFC 9110 15.3)
                        raise await refused(target, response)
                    await response.pump(answer.sink)
                    if answer.working is None and answer.relay.uncommitted <= MAX_INLINE_BYTES:
                        answer.close()
                    else:
                        await answer.close_beside()
                except (BodyLingers, UpstreamError):
                    if answer.relay.finished is None:
                        raise
            attempt.outcome = "ok"
            target.health.succeeded()
        except UpstreamError as error:
            if isinstance(error, DecoderCrashed):
                self._crashed(error.crash, call.id)
                error.crash.__traceback__ = None  # its frames know the call
            self._failed(attempt, chat, error)
            raise
        finally:
            target.load.in_flight -= 1
            self._over(reader, chat)

    def _failed(self, attempt: Attempt, chat: ChatRequest, error: UpstreamError) -> None:
        health, backend = attempt.target.health, attempt.target.backend
        if isinstance(error, StaleConnection | DecoderCrashed):  # of which the target may know nothing
            attempt.outcome = (
                OUTCOMES[error.kind] if isinstance(error, DecoderCrashed) else "stale_connection"
            )
            health.abandoned(attempt.probe)
        else:
            attempt.outcome = OUTCOMES[error.kind]
            if isinstance(error, TlsFailed):
                attempt.target.series.tls[error.reason].inc()
            secrets = secrets_of(backend, attempt.target.transport)
            conceal(error, secrets, same_dialect=bool(chat.dialect) and chat.dialect == backend.dialect)
            if error.kind == "not_found" and "*" in attempt.target.spec.model:
                health.abandoned(
                    attempt.probe
                )  # the caller made the model up: the others of its wildcard are as healthy
            else:
                health.failed(error, attempt.probe)

    def _over(self, reader: AttemptReader, chat: ChatRequest) -> None:
        """Ends the attempt, whatever its outcome is."""
        attempt, answer = reader.attempt, reader.answer
        if attempt.outcome == "abandoned":
            self._abandoned(reader.run.call, attempt, answer)
        if answer is None:
            return self._record(attempt, None, chat, self._clock())
        answer.part()
        decoder = answer.relay.decoder
        if decoder.skipped or decoder.skipped_fields or decoder.finish_missing:
            count_oddities(decoder, attempt.target.series)
        self._record(attempt, answer.relay, chat, answer.complete_at or self._clock())

    def _abandoned(self, call: Call, attempt: Attempt, answer: AnswerReader | None) -> None:
        """Records for the target that the call ended before the attempt did."""
        health = attempt.target.health
        if answer is not None and answer.relay.finished is not None:
            attempt.outcome = "ok"  # the client left between the answer's end and the body's
            health.succeeded()
        elif self._was_silent(call, attempt, answer):
            attempt.outcome = "total_timeout"
            health.failed(UpstreamError("total_timeout"), attempt.probe)
        else:
            health.abandoned(attempt.probe)

    def _was_silent(self, call: Call, attempt: Attempt, answer: AnswerReader | None) -> bool:
        """Returns whether the alias's deadline ended this attempt, which had most of the call's time and no
        output.

        Otherwise a target that never answers would never be noticed if the alias's deadline is shorter than
        its own.
        """
        now = self._clock()
        timeout = call.route.config.timeout
        if (
            timeout is None
            or now - call.received < timeout
            or (answer is not None and answer.relay.first_content_at)
        ):
            return False
        return now - attempt.started > timeout / 2

    def _with_cost(self, run: CallRun, attempt: Attempt, finished: Finished) -> Finished:
        """Adds the call's cost so far, if it is known, to the end of the answer; a whole answer has it in a
        header."""
        call = run.call
        price = price_at(attempt.target.prices, self._wall())
        if price is None or finished.usage is None:
            return finished
        dollars = round((call.cost or 0.0) + cost(price, finished.usage), 9)
        if not call.chat.stream:
            others = [
                (name, value) for name, value in call.headers if name != COST
            ]  # set by an earlier attempt that failed
            call.headers = [*others, (COST, f"{dollars:.9f}")]
        return msgspec.structs.replace(finished, cost=dollars)

    def _with_all_usage(self, run: CallRun, attempt: Attempt, finished: Finished) -> Finished:
        """Adds the usage of all attempts to the end of an answer that several have written."""
        finished = finished if self._price is None else self._price(run, attempt, finished)
        if finished.usage is None:
            return finished
        usage = finished.usage
        for other in run.call.attempts:
            if other is not attempt and other.used is not NO_USAGE:
                usage = usage.plus(other.used)
        return msgspec.structs.replace(finished, usage=usage)


def _adapted(reader: AttemptReader, chat: ChatRequest) -> ChatRequest:
    """Returns the request as the attempt's target takes it: by the rules of its model, without features that it
    lacks, and with names of tools that fit it.

    Raises BadRequest for what the target lacks and the alias does not allow to be left out.
    """
    target = reader.attempt.target
    capable = target.capable
    if (
        chat.only_texts
        or chat.dialect in ("", target.backend.dialect)
        or (capable and not capable.check(chat))
    ):
        capable = None
    if target.fit is not None:
        chat = target.fit(chat)
    if capable is not None:
        chat = capable.without(chat)
    if target.names is not None and not chat.only_texts and chat.dialect != target.backend.dialect:
        chat, reader.names = target.names(chat)
    if chat.n > 1 or chat.dialect_only:
        _check_dialect(chat, same=target.passes_on == chat.dialect)
    return chat


def _check_dialect(chat: ChatRequest, *, same: bool) -> None:
    """Raises BadRequest if only the caller's dialect can express the request, and the target speaks
    another."""
    if chat.n > 1 and not same:
        raise BadRequest("This model gives one choice per request", param="n", code="unsupported_parameter")
    if chat.dialect_only and (not same or chat.wire is None):  # an interceptor has changed its messages
        reason = f"{chat.dialect_only} cannot be given to this model"
        raise BadRequest(reason, param=chat.dialect_only.partition(":")[0], code="unsupported_parameter")

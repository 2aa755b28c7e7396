"""Counts and logs requests and failures: one line and one count each. Never logs content."""

import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from sluice.aio.deferred import NOW, Schedule, at_once
from sluice.conversations import Swept
from sluice.errors import GatewayError, NoCapacity, RateLimited, TlsFailed, Unauthorized, UpstreamError
from sluice.identity.principal import Principal
from sluice.proxy.attempt import NO_USAGE, Attempt
from sluice.proxy.call import Call
from sluice.storage import reason_of_file
from sluice.telemetry.logs import LogLine
from sluice.telemetry.metrics import CallSeries, Lazy, Metrics, zero_of_alias
from sluice.telemetry.series import Value
from sluice.telemetry.table import AUTH_REASONS, CODES

OTHER = "other"
"""The alias label of requests for an unknown alias."""
MIN_WAIT_SHOWN = 0.001
"""Minimum seconds of a wait (before the first attempt, or after the last byte) for which a line shows it."""
MICRO, NANO = 1e6, 1e9
"""Figures of a line are rounded to these fractions with `int`, because `round` makes a text of each
internally, at twice the price."""


class CallLine(LogLine, kw_only=True):
    """The fields of a call in a log line; unknown ones are left out."""

    alias: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    target: str | UnsetType | None = UNSET
    attempts: list[str] | UnsetType = UNSET
    pod: str | UnsetType = UNSET
    pod_choice: str | UnsetType = UNSET
    attempt_times: list[tuple[float, float]] | UnsetType = UNSET
    attempt_costs: list[float | None] | UnsetType = UNSET
    waited: float | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    end: str = "client_gone"
    ttft: float | UnsetType | None = UNSET
    tokens_in: int | UnsetType | None = UNSET
    tokens_out: int | UnsetType | None = UNSET
    estimated: bool | UnsetType = UNSET
    cost_usd: float | UnsetType | None = UNSET
    detail: str | UnsetType | None = UNSET
    tls_error: str | UnsetType = UNSET
    upstream_status: int | UnsetType | None = UNSET
    trace_id: str | UnsetType = UNSET

    def tell(self, call: Call) -> None:
        if call.trace is not None:
            self.trace_id = call.trace.trace
        attempts, ttft, error = call.attempts, call.ttft, call.error
        answered = call.answered or (attempts[-1] if attempts else None)
        self.alias = call.route.name
        if call.route.called:
            self.model = call.route.called
        self.attempts = [f"{attempt.target.label} {attempt.outcome}" for attempt in attempts]
        if attempts and (waited := attempts[0].started - call.received) >= MIN_WAIT_SHOWN:
            self.waited = int(waited * MICRO + 0.5) / MICRO
        if answered is not None and (answered.picked or answered.target.pod is not None):
            self._tell_pod(call, answered)
        self.stream = call.chat.stream
        self.end = call.end
        self.ttft = int(ttft * MICRO + 0.5) / MICRO if ttft is not None else None
        if answered is None:
            self.target = self.tokens_in = self.tokens_out = self.cost_usd = None
        else:
            self.target = answered.target.label
            self._tell_use(call, answered)
        if error is None:
            self.detail = self.upstream_status = None
        else:
            failed = error if isinstance(error, UpstreamError) else None
            self.detail = (failed.detail or None) if failed is not None else None
            self.upstream_status = (failed.status or None) if failed is not None else None
            if isinstance(error, TlsFailed):
                self.tls_error = error.reason

    def _tell_pod(self, call: Call, answered: Attempt) -> None:
        """Records which servers of its upstreams got the call, and why the first of them was chosen."""
        self.attempts = [
            f"{told} {attempt.server}" if attempt.server else told
            for told, attempt in zip(self.attempts or (), call.attempts, strict=True)
        ]
        self.pod = answered.server
        if call.pod_choice is not None and call.pod_choice.how:
            self.pod_choice = str(call.pod_choice)

    def _tell_use(self, call: Call, answered: Attempt) -> None:
        """Records the usage and cost of the call."""
        used, cost = answered.used, answered.cost
        if len(call.attempts) > 1:
            cost = call.cost
            self._tell_each(call)
            if used is not NO_USAGE:
                for attempt in call.attempts:
                    used = (
                        used if attempt is answered or attempt.used is NO_USAGE else used.plus(attempt.used)
                    )
        self.cost_usd = int(cost * NANO + 0.5) / NANO if cost is not None else None
        if used is NO_USAGE:
            self.tokens_in = self.tokens_out = None
            return
        self.tokens_in = used.input
        self.tokens_out = used.output
        if answered.usage is None:
            self.estimated = True  # the provider reported none: its answer was cut, or it never reports any

    def _tell_each(self, call: Call) -> None:
        """Records when each attempt began, and how long it lasted; and its cost, if several attempts
        generated something."""
        self.attempt_times = [
            (round(attempt.started - call.received, 6), round(max(0.0, attempt.ended - attempt.started), 6))
            for attempt in call.attempts
        ]
        costs = [attempt.cost for attempt in call.attempts]
        if sum(attempt.used is not NO_USAGE for attempt in call.attempts) > 1:
            self.attempt_costs = [round(cost, 9) if cost is not None else None for cost in costs]


class RequestLine(CallLine, kw_only=True):
    """The line of one chat request. Without a call: it was refused, or its call continues.

    `scope` and `resource` name the limit that refused it, `address` the client whose credentials were wrong.
    `bytes_in`, `bytes_out`: of the bodies of the request and of its answer. `last_byte`: seconds until the
    last byte of the answer was written, if the call ended later.
    """

    request_id: str
    route: str
    frontend: str
    key: str | None
    status: int | None
    duration: float
    bytes_in: int = 0
    bytes_out: int = 0
    last_byte: float | UnsetType = UNSET
    error: str | None = None
    reason: str | None = None
    scope: str | UnsetType = UNSET
    resource: str | UnsetType = UNSET
    address: str | UnsetType = UNSET
    event: str = "request"


class DetachedLine(CallLine, kw_only=True):
    """The line of a call that continued without its client. `error`: the name of a type."""

    request_id: str
    error: str | None
    event: str = "detached"


def _level(status: int, error: GatewayError | None) -> str:
    """Returns the level of a request's line: a warning for a 5xx response, and for an error within a 200."""
    return "warning" if status >= 500 or (status == 200 and error is not None) else "info"


def _more(error: GatewayError | None, address: str) -> dict[str, str]:
    """Additional fields for some refusals: the limit, or the address that wrong credentials came from."""
    match error:
        case RateLimited() | NoCapacity():
            return {"scope": error.scope, "resource": error.resource}
        case Unauthorized():
            return {"address": address}
        case _:
            return {}


_CLASSES = {number: f"{number}xx" for number in range(1, 6)}


class Records:
    """Counts and logs requests.

    `say` writes the line of a request, `log` all others. `clock` is the monotonic clock on which calls are
    received. `conversations`: the kind of that store. `keys`: those that requests are also counted by. `used`
    is called once with each finished call, and whether it ended in an error. `later` schedules the counting
    and logging of calls that ended without an error.
    """

    def __init__(
        self,
        metrics: Metrics,
        log: Any,
        say: Callable[[CallLine], None],
        clock: Callable[[], float],
        *,
        aliases: Iterable[str],
        conversations: str,
        keys: Iterable[str],
        frontends: Sequence[str],
        used: Callable[[Call, bool], object] = lambda call, failed: None,
        later: Schedule = at_once,
    ) -> None:
        self._metrics = metrics
        self._say = say
        self._clock = clock
        self._conversations = conversations
        self._unread = "widget" if "widget" in frontends else OTHER
        self._used = used
        self._later = later
        self._fetches: dict[str, str] = {}
        self._by_key: dict[str | None, Any] = {}
        self.recorded: Callable[[CallLine, Call], object] | None = None
        """Called once with each finished call, and with its log line."""
        self.log = log
        self.traced: Callable[[Call, float, bool], object] = lambda call, duration, failed: None
        """Called with each traced call that is finished, how long it took, and whether it ended in an error.
        """
        self.auth_failures = metrics.children("auth_failures", (), AUTH_REASONS)
        self.series = Lazy[tuple[str, str], CallSeries](lambda pair: CallSeries(metrics, *pair))
        self._unreadable: set[str] = set()
        for reason in AUTH_REASONS:
            self.auth_failures[reason].kept = True
        self.expect(aliases, keys, frontends)

    def expect(self, aliases: Iterable[str], keys: Iterable[str], frontends: Collection[str]) -> None:
        """Prepares for calls of these aliases by these frontends; those of `keys` are also counted by key."""
        for alias in (*aliases, OTHER):
            for frontend in frontends:
                zero_of_alias(self._metrics, frontend, alias)
        self._by_key |= {key: self._metrics.children("key_requests", (key,), CODES) for key in keys}

    def forget(self, aliases: Collection[str], keys: Iterable[str], frontends: Collection[str]) -> None:
        """Ends that: no more such calls come. Their series are dropped by `Metrics.forget`."""
        for pair in [
            (frontend, alias) for frontend, alias in self.series if frontend in frontends or alias in aliases
        ]:
            del self.series[pair]
        for key in keys:
            self._by_key.pop(key, None)

    def decisions(self, scope: str, resource: str, decision: str) -> Value:
        """Returns the series of a decision about limits."""
        found: Value = self._metrics.child("ratelimit_decisions", scope, resource, decision)
        return found

    def keys_fetched(self, issuer: str, outcome: str, keys: int) -> None:
        """Counts the result of fetching an issuer's key set, and logs a change."""
        self._metrics.child("jwks_fetches", issuer, outcome).inc()
        if self._fetches.get(issuer) != outcome:
            self._fetches[issuer] = outcome
            say = self.log.info if outcome == "ok" else self.log.warning
            say("jwks", issuer=issuer, outcome=outcome, keys=keys)

    def not_kept(self, operation: str, error: Exception) -> None:
        """Logs a failed operation of a conversation store: a call went without its history, or its turn was
        not stored."""
        self._metrics.child("conversation_store_errors", self._conversations, operation).inc()
        reason = getattr(error, "reason", None) or (
            reason_of_file(error) if getattr(error, "errno", 0) else None
        )
        why = {"reason": reason} if reason else {}
        self.log.error("conversation_not_kept", operation=operation, error=type(error).__name__, **why)

    def swept(self, swept: Swept) -> None:
        """Logs that conversations, or messages of them, were deleted because they are not to be kept."""
        for what, number in (("conversations", swept.conversations), ("messages", swept.messages)):
            if number:
                self._metrics.child("retention_deleted", what).inc(number)
        self.log.info("conversations_swept", conversations=swept.conversations, messages=swept.messages)

    def not_journaled(self) -> None:
        """Counts a failure of the store of resumable streams: running streams continue, but cannot be
        resumed."""
        self._metrics.child("conversation_store_errors", "redis", "journal").inc()

    def address_unreadable(self, header: str) -> None:
        """Notes that a trusted proxy's header cannot be parsed, so that the client counts as the proxy's own
        address. Logged once per header."""
        self._metrics.child("client_address_unreadable", header).inc()
        if header not in self._unreadable:
            self._unreadable.add(header)
            self.log.warning(
                "client_address_unreadable", header=header, counted_as="the connection's own address"
            )

    def address_unheeded(self, header: str) -> None:
        """Logs that there seems to be a proxy in front, although none is configured."""
        hint = "server.trusted_proxies is empty: all callers behind a proxy count as its address"
        self.log.warning("client_address_unheeded", header=header, hint=hint)

    def broken(self, status: int) -> None:
        """Counts a response to an invalid request: not HTTP (400), too slow (408), one connection too many
        (503)."""
        self.series[self._unread, OTHER].requests[f"{status // 100}xx"].inc()

    def crashed(self, crash: Exception, request_id: str) -> None:
        """Logs a fault of the gateway: where it occurred, without values, because these may contain data of a
        caller."""
        frames = [
            f"{frame.filename}:{frame.lineno}:{frame.name}"
            for frame in traceback.extract_tb(crash.__traceback__)
        ]
        self.log.error("crash", request_id=request_id, error=type(crash).__name__, at=frames[-6:])

    def finished(
        self,
        exchange: Any,
        call: Call | None,
        error: GatewayError | None,
        *,
        request_id: str,
        frontend: str,
        principal: Principal | None,
        address: str = "",
    ) -> None:
        """Counts and logs one chat request, however it ended.

        This is done later, except for errors, which refer to more than is worth keeping. `address`: the
        client's.
        """
        size = NOW
        if call is not None:
            error = error or call.error
            if error is None:
                size = call.size
        line = RequestLine(
            request_id=request_id,
            route=exchange.path.rstrip("/"),  # one of the served dialects; otherwise it would not be a chat
            frontend=frontend,
            key=principal.key_id if principal is not None else None,
            status=exchange.status or None,
            duration=self._clock() - exchange.received,
            bytes_in=exchange.bytes_in,
            bytes_out=exchange.bytes_out,
        )
        last = exchange.last_write - exchange.received
        if exchange.last_write and line.duration - last >= MIN_WAIT_SHOWN:
            line.last_byte = int(last * MICRO + 0.5) / MICRO
        self._later(self._finished, line, call, error, address, size=size)

    def _finished(
        self, line: RequestLine, call: Call | None, error: GatewayError | None, address: str
    ) -> None:
        series = call.series if call is not None else self.series[line.frontend, OTHER]
        status = line.status
        if status:
            code = _CLASSES[status // 100]
            series.requests[code].value += 1
            if line.key in self._by_key:
                self._by_key[line.key][code].inc()
        series.duration.observe(line.duration)
        line.duration = int(line.duration * MICRO + 0.5) / MICRO
        if error is not None:
            line.error = error.code
            line.reason = error.reason if isinstance(error, Unauthorized) else None
            line.level = _level(status or 0, error)
            for name, value in _more(error, address).items():
                setattr(line, name, value)
            if status == 429:
                self._rate_limited(call.route.name if call is not None else OTHER, error)
        if call is not None and not call.detached:
            line.tell(call)
            self._over(call, error is not None, line.duration)
        elif error is not None:
            line.end = "refused"
        self._say(line)
        if self.recorded is not None and call is not None and not call.detached:
            self.recorded(line, call)

    def _rate_limited(self, alias: str, error: GatewayError) -> None:
        """Counts a 429: by the gateway's own limit, or by a provider's."""
        whose = ("provider", "")
        if isinstance(error, RateLimited | NoCapacity):
            whose = (error.scope, error.resource)
        self._metrics.child("rate_limited", alias, *whose).inc()

    def _over(self, call: Call, failed: bool, duration: float) -> None:
        """Counts a finished call: its usage, and the target that answered. `duration` in seconds."""
        self._used(call, failed)
        if call.trace is not None:
            self.traced(call, duration, failed)
        answered = call.answered
        if answered is not None and (counted := answered.target.answered) is not None:
            counted.value += 1

    def other(
        self,
        exchange: Any,
        error: GatewayError | None = None,
        *,
        request_id: str,
        frontend: str,
        route: str,
        address: str = "",
        counted: bool = True,
    ) -> None:
        """Counts and logs a request that is not a chat.

        `route` is a pattern, never a path as the caller wrote it; `address` is the client's. Requests of
        operators are not `counted`, because a page that shows the figures would increase them.
        """
        if exchange.status and counted:
            self.series[frontend, OTHER].requests[f"{exchange.status // 100}xx"].inc()
        if exchange.status == 429 and error is not None and counted:
            self._rate_limited(OTHER, error)
        duration = round(self._clock() - exchange.received, 6)
        status = exchange.status or None
        fields = {"key": exchange.caller, "status": status, "duration": duration, **_more(error, address)}
        say = self.log.warning if exchange.status >= 500 else self.log.info
        say("request", request_id=request_id, route=route, **fields)

    def resumed(self, exchange: Any, request_id: str, principal: Principal, stream: str) -> None:
        """Logs one request that resumed a stream; the call itself is counted where it was made."""
        duration = round(self._clock() - exchange.received, 6)
        status = exchange.status or None
        self.log.info(
            "resume",
            request_id=request_id,
            key=principal.key_id,
            status=status,
            duration=duration,
            resumed=stream,
        )

    def detached(self, call: Call, error: BaseException | None) -> None:
        """Logs that a call that continued without its client has ended."""
        self._over(call, error is not None or call.error is not None, self._clock() - call.received)
        line = DetachedLine(request_id=call.id, error=type(error).__name__ if error else None)
        line.tell(call)
        line.level = "info" if call.error is None else "warning"
        self._say(line)
        if self.recorded is not None:
            self.recorded(line, call)

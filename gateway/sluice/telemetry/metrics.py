"""Every metric's name, labels, buckets and help, in one table; and the series that the hot path holds on to.

Labels come from the configuration or from closed sets, never from a caller. What calls count is looked up
once for each pair of frontend and alias, when the first such call comes. From the start there are only the
series at zero that alerts need (`zero_of_alias`, `zero_of_target`): a rate sees a first error only where
there was a zero before it.
"""

import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import copy
from itertools import islice
from typing import Any, Literal, TypeVar, get_args

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from sluice.errors import TlsReason
from sluice.telemetry import messages, points
from sluice.telemetry.board import BoardSlot
from sluice.telemetry.exemplars import Exemplar
from sluice.telemetry.formats import Format
from sluice.telemetry.series import Computed, Family, Kind, Series, Times, slices

FIRST_TOKEN = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120,
)  # fmt: skip
PER_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5)
DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
OVERHEAD = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3)

CODES = ("2xx", "4xx", "5xx")
END_REASONS = (
    "done", "length", "content_filter", "client_gone", "upstream_error", "truncated", "first_token_timeout",
    "idle_timeout", "total_timeout", "slow_reader", "drain", "limit", "internal_error",
)  # fmt: skip
OUTCOMES = (
    "ok", "connect_error", "tls_error", "headers_timeout", "first_token_timeout", "idle_timeout", "total_timeout",
    "rate_limited", "server_error", "bad_credentials", "client_error", "truncated", "garbled", "abandoned", "stale_connection",
)  # fmt: skip
ERROR_ENDS = ("upstream_error", "truncated", "idle_timeout", "internal_error")
"""Ends of answers that had begun, of which there is a zero from the start."""
ERROR_OUTCOMES = ("connect_error", "server_error", "bad_credentials")
"""Outcomes of attempts of which there is a zero from the start."""
AUTH_REASONS = (
    "missing",
    "unknown_key",
    "expired",
    "revoked",
    "bad_signature",
    "wrong_audience",
    "ambiguous",
)


K = TypeVar("K")
V = TypeVar("V")


Merge = Literal["sum", "max", "apart"]
"""What of several processes' values is shown: their sum, the greatest of those that run, or nothing."""


class Spec(msgspec.Struct, frozen=True):
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    merge: Merge = "sum"


TABLE: Mapping[str, Spec] = {
    "requests": Spec("counter", ("frontend", "alias", "code"), "Answered requests, by status class"),
    "operation_requests": Spec(
        "counter",
        ("operation", "frontend", "code"),
        "Answered requests of other operations than chat, which requests has, too",
    ),
    "key_requests": Spec(
        "counter", ("key", "code"), "Answered requests by key, where metrics.key_label is set"
    ),
    "request_duration_seconds": Spec(
        "histogram", ("frontend", "alias"), "Request accepted to last byte", DURATION
    ),
    "time_to_first_token_seconds": Spec(
        "histogram",
        ("frontend", "alias"),
        "Streams only: request accepted to first content handed to the client's transport, failed attempts included",
        FIRST_TOKEN,
    ),
    "upstream_time_to_first_token_seconds": Spec(
        "histogram", ("upstream", "model"), "Attempt started to its first content event", FIRST_TOKEN
    ),
    "inter_token_seconds": Spec(
        "histogram",
        ("alias",),
        "Gap between reads that brought content to a client (per read, not per event)",
        PER_TOKEN,
    ),
    "time_per_output_token_seconds": Spec(
        "histogram",
        ("upstream", "model"),
        "Streams only: (duration - time to first token) / (output tokens - 1)",
        PER_TOKEN,
    ),
    "overhead_seconds": Spec(
        "histogram",
        ("phase",),
        "Time that was ours: accepted to upstream request sent; first content in to out",
        OVERHEAD,
    ),
    "streams_in_flight": Spec("gauge", ("frontend", "alias"), "Calls being answered"),
    "requests_waiting": Spec(
        "gauge", ("alias",), "Calls that wait for their session's turn, or in their alias's queue"
    ),
    "queue_length": Spec("gauge", ("alias",), "Those of requests_waiting that wait in their alias's queue"),
    "queue_length_max": Spec(
        "gauge", ("alias",), "Calls that may wait in their alias's queue, in all processes"
    ),
    "oldest_stream_age_seconds": Spec("gauge", (), "Age of the oldest call being answered", merge="max"),
    "stream_end": Spec(
        "counter", ("frontend", "alias", "reason"), "Answers that had begun, by how they ended"
    ),
    "unanswered": Spec(
        "counter", ("frontend", "alias", "reason"), "Calls that ended before an answer began, by how"
    ),
    "answered": Spec(
        "counter",
        ("alias", "upstream", "model", "rank"),
        "Calls by the target whose content the caller got; rank: its tier",
    ),
    "tokens": Spec(
        "counter",
        ("upstream", "model", "kind", "source"),
        "Tokens as the provider reports them, else estimated",
    ),
    "usage_refused": Spec(
        "counter",
        ("upstream", "model"),
        "Answers whose reported usage was not believed (negative, huge, no number)",
    ),
    "cost_usd": Spec(
        "counter", ("upstream", "model"), "US dollars by the price table, estimated tokens included"
    ),
    "unpriced_requests": Spec(
        "counter", ("upstream", "model"), "Attempts that generated something whose price is not known"
    ),
    "budget_soft": Spec(
        "counter", ("scope", "period"), "Calls that were admitted beyond a budget's soft mark"
    ),
    "usage_store_errors": Spec(
        "counter", (), "Batches that the usage store did not take; they are kept and brought again"
    ),
    "usage_folded": Spec(
        "counter", (), "Calls counted under other, because too much waits for the usage store"
    ),
    "usage_put_aside": Spec(
        "counter", (), "Rows of usage that no store can keep; each is logged and left out"
    ),
    "upstream_attempts": Spec(
        "counter", ("upstream", "model", "outcome"), "Upstream attempts, by how they ended"
    ),
    "upstream_tls_errors": Spec("counter", ("upstream", "reason"), "Connections that failed of TLS, by why"),
    "dropped_fields": Spec(
        "counter", ("upstream", "model", "field"), "Fields of requests left out by a target's rules"
    ),
    "skipped_events": Spec("counter", ("upstream", "model"), "Malformed events skipped inside good streams"),
    "skipped_fields": Spec(
        "counter",
        ("upstream", "model"),
        "Fields of another type than they should be, read for what they could be or left out",
    ),
    "finish_missing": Spec(
        "counter", ("upstream", "model"), "Answers that were complete, though no finish reason came"
    ),
    "failovers": Spec(
        "counter", ("alias", "from", "to", "cause"), "Calls that went on to a target past another, by why"
    ),
    "recoveries": Spec(
        "counter", ("alias", "how", "outcome"), "Tries to continue a cut stream on another target"
    ),
    "breaker_state": Spec("gauge", ("upstream", "model"), "0 closed, 1 half-open, 2 open", merge="max"),
    "pods": Spec(
        "gauge",
        ("upstream", "state"),
        "Servers of an upstream with pods, by whether their figures are fresh",
        merge="max",
    ),
    "pod_requests_waiting": Spec(
        "gauge", ("upstream",), "Requests that wait in an upstream's servers, as these report", merge="max"
    ),
    "pod_polls": Spec("counter", ("upstream", "result"), "Readings of servers' metrics: ok, or failed"),
    "picks": Spec(
        "counter",
        ("upstream", "result"),
        "Answers of an upstream's endpoint picker: picked, refused; none: failed, bypassed",
    ),
    "pod_choices": Spec(
        "counter", ("upstream", "how"), "Calls by why they went to one of an upstream's servers"
    ),
    "breaker_transitions": Spec(
        "counter",
        ("upstream", "model", "state"),
        "Changes of a target's breaker in any process, by its new state",
    ),
    "credential_state": Spec(
        "gauge", ("upstream", "credential"), "0 usable, 1 left alone after a refusal", merge="max"
    ),
    "credential_errors": Spec(
        "counter",
        ("upstream", "credential", "reason"),
        "What failed by one of an upstream's credentials, by why",
    ),
    "ratelimit_decisions": Spec(
        "counter",
        ("scope", "resource", "decision"),
        "Decisions of limits: an admitted call counts for each of its scopes, a refused one for that which refused it",
    ),
    "rate_limited": Spec(
        "counter",
        ("alias", "scope", "resource"),
        "Requests answered 429, by whose limit it was; provider: not one of ours",
    ),
    "limit_rate": Spec(
        "gauge",
        ("scope", "name", "resource", "window"),
        "Configured limits: units per second that a bucket gains",
        merge="max",
    ),
    "limit_capacity": Spec(
        "gauge",
        ("scope", "name", "resource", "window"),
        "Configured limits: units that a bucket holds, streams at a time, or US dollars of a budget's period",
        merge="max",
    ),
    "end_users_folded": Spec(
        "counter", (), "Calls of end users that share one's limits, because too many are told apart"
    ),
    "ratelimit_store_errors": Spec("counter", ("store",), "Failed calls of the store of limits"),
    "ratelimit_forgotten": Spec(
        "counter", ("store",), "Buckets forgotten before they were full, for want of room"
    ),
    "ratelimit_store_seconds": Spec(
        "histogram", ("store",), "Time for one decision of the store of limits", OVERHEAD
    ),
    "store_errors": Spec(
        "counter",
        ("reason", "store"),
        "Failed calls of a store (conversations, responses, limits, keys, usage, resume)",
    ),
    "dynamic_keys": Spec("gauge", (), "Keys of the admin API that this process knows", merge="max"),
    "key_store_errors": Spec("counter", (), "Failed calls of the store of dynamic keys"),
    "client_address_unreadable": Spec(
        "counter", ("header",), "Requests whose proxies named the client illegibly"
    ),
    "auth_failures": Spec("counter", ("reason",), "Refused credentials"),
    "jwks_fetches": Spec("counter", ("issuer", "outcome"), "Fetches of issuers' key sets, by how they ended"),
    "conversation_store_errors": Spec("counter", ("store", "op"), "Failed calls of the conversation store"),
    "retention_deleted": Spec(
        "counter", ("what",), "Conversations deleted by retention, and messages of others"
    ),
    "conversation_store_seconds": Spec(
        "histogram", ("store", "op"), "Time for one call of the conversation store", OVERHEAD
    ),
    "upstream_connections": Spec(
        "gauge", ("upstream", "state"), "Connections to an upstream (open, idle) and calls waiting"
    ),
    "tls_handshake_errors": Spec(
        "counter", ("reason",), "Clients' connections whose TLS handshake failed, by why"
    ),
    "tls_certificate_end_timestamp_seconds": Spec(
        "gauge",
        (),
        "When the certificate that is shown, or the first of its chain, expires; 0: no TLS",
        merge="max",
    ),
    "tls_files_replaced": Spec(
        "counter", ("result",), "Times that a certificate's files were replaced: ok, or failed"
    ),
    "upstream_connections_max": Spec(
        "gauge", ("upstream",), "Connections to an upstream that all processes may have open"
    ),
    "client_connections": Spec("gauge", ("port",), "Open connections to the API, and to the admin port"),
    "client_connections_max": Spec(
        "gauge", ("port",), "Connections that all processes accept; further ones are answered 503"
    ),
    "event_loop_lag_seconds": Spec(
        "histogram",
        ("worker",),
        "How late a worker's event loop ran a timer; worker 0: there is only one process",
        OVERHEAD,
    ),
    "trace_spans": Spec("counter", ("result",), "Spans by what became of them: exported, failed or dropped"),
    "metrics_pushes": Spec("counter", ("result",), "Requests by which metrics were pushed: ok, or failed"),
    "log_errors": Spec(
        "counter", (), "Log lines that were dropped: they could not be written, or nobody read them"
    ),
    "call_records": Spec(
        "counter", ("sink", "result"), "Records of calls by what became of them at each sink"
    ),
    "call_record_failures": Spec(
        "counter",
        ("sink", "reason"),
        "Batches of call records that a sink did not take, or not whole, by why",
    ),
    "call_records_waiting": Spec("gauge", ("sink",), "Records of calls that wait in memory"),
    "config_reloads": Spec(
        "counter", ("result",), "Attempts to reload the configuration, by what became of them", merge="max"
    ),
    "config_last_reload_timestamp_seconds": Spec(
        "gauge", (), "When the configuration was last read, at the start or again", merge="max"
    ),
    "config_last_reload_duration_seconds": Spec(
        "gauge",
        (),
        "Time that the last attempt to reload the configuration took; 0: there was none",
        merge="max",
    ),
    "config_last_reload_success_timestamp_seconds": Spec(
        "gauge", (), "When the configuration that is followed was read", merge="max"
    ),
    "config_last_reload_successful": Spec(
        "gauge", (), "1: the file that was read last is followed; 0: an older one is", merge="max"
    ),
    "config_info": Spec(
        "gauge",
        ("hash",),
        "Always 1; hash: the beginning of the SHA-256 of the file that is followed",
        merge="max",
    ),
    "worker": Spec(
        "gauge",
        (),
        "Number of the worker process that answered, from 1; 0 where there is only one process",
        merge="apart",
    ),
    "workers": Spec("gauge", (), "Worker processes that listen; 0 where there is only one process"),
    "worker_restarts": Spec(
        "counter", ("reason",), "Workers that were started in the place of another, by why"
    ),
    "build_info": Spec("gauge", ("version", "python"), "Always 1", merge="max"),
}


SLICE = 0.002
"""Seconds of the event loop that one piece of a scrape may take."""


PUBLISHED = 256
"""Computed series that one `publish` looks up."""


class Metrics:
    """All metrics of one process. What prometheus-client knows of the process itself comes from its own
    registry.

    `slot`: where they are counted, if others are to see them (`sluice.telemetry.board`).
    """

    def __init__(self, version: str, slot: BoardSlot | None = None) -> None:
        self._publishing: Iterator[None] | None = None
        self._slot = slot
        self._refined = False
        self._started = time.time_ns()
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        self._families: dict[str, Family] = {}
        for name, spec in TABLE.items():
            self._families[name] = Family(
                spec.kind, "sluice_" + name, spec.help, spec.labels, spec.buckets, slot=slot
            )
            if not spec.labels:
                self.zero(name)
        self.child("build_info", version, platform.python_version()).set(1)

    def child(self, name: str, *labels: str) -> Any:
        """The series of `name` with these label values, created at zero if it is new; shown when it has
        counted something."""
        return self._families[name].child(labels)

    def zero(self, name: str, *labels: str) -> Any:
        """The series of `name` with these label values, shown from now on, even at zero."""
        found = self.child(name, *labels)
        found.kept = True
        return found

    def computed(self, name: str, read: Callable[[], float], *labels: str) -> Computed:
        """A gauge's series whose value is what `read` gives at each scrape; shown once that is not zero."""
        return self._families[name].computed(labels, read)

    def forget(self, labels: tuple[str, ...], gone: Collection[tuple[str, ...]]) -> None:
        """Drop all series that have these labels, with values that are among `gone`: nothing counts them any
        more."""
        if gone:
            for family in self._families.values():
                family.forget(labels, gone)

    def forget_one(self, name: str, *labels: str) -> None:
        """Drop the series with these label values, if there is one."""
        self._families[name].forget_one(labels)

    def children(self, name: str, before: Iterable[str], last: Iterable[str]) -> "Lazy[str, Any]":
        """The series for each value of the last label, by that value, each created at its first use.

        Asking for a value that is not among `last` raises KeyError.
        """
        family, before, closed = self._families[name], tuple(before), frozenset(last)

        def series(value: str) -> Series:
            if value not in closed:
                raise KeyError(value)
            return family.child((*before, value))

        return Lazy(series)

    def exemplify(self, name: str, labels: tuple[str, ...], exemplar: Exemplar) -> None:
        """The call of this trace was counted in the series of the histogram `name` with these label
        values."""
        self._families[name].exemplify(labels, exemplar)

    def refined(self) -> Iterator[None]:
        """Have all histograms count for native ones, too, from now on: a series at a time."""
        if not self._refined:
            self._refined = True
            for family in self._families.values():
                yield from family.refined()

    def publish(self) -> None:
        """Show others the values of computed series: a part of them each time, in turn."""
        if self._publishing is None:
            self._publishing = self._publish()
        if sum(1 for _ in islice(self._publishing, PUBLISHED)) < PUBLISHED:
            self._publishing = None

    def _publish(self) -> Iterator[None]:
        if self._slot is not None and self._slot.board.refined:
            yield from self.refined()
        for family in self._families.values():
            yield from family.publish()

    def slices(self, clock: Callable[[], float], format: Format = "text") -> Iterator[bytes]:
        """All of it, in pieces that each take about SLICE seconds of `clock` to make. Some may be empty."""
        if format == "protobuf":
            due = clock() + SLICE
            for _ in self.refined():
                if clock() >= due:
                    yield b""
                    due = clock() + SLICE
        times = (self._started, time.time_ns()) if format == "otlp" else None
        yield from slices(tuple(self._families.values()), clock, SLICE, format, times)
        yield of_process(self._process, format, times)

    def exposition(self) -> bytes:
        """All of it at once."""
        return b"".join(self.slices(lambda: 0.0))


def of_process(registry: CollectorRegistry, format: Format, times: Times | None = None) -> bytes:
    """Returns the output of prometheus-client's own collectors, for the end of a scrape."""
    if times is not None:
        return points.foreign(registry.collect(), *times)
    if format == "protobuf":
        return messages.foreign(registry.collect())
    if format == "openmetrics":
        text: bytes = openmetrics(registry)  # type: ignore[no-untyped-call]
        return text
    return generate_latest(registry)


class Lazy(dict[K, V]):
    """A dict whose values `make` creates from their keys at first use."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        found = self[key] = self._make(key)
        return found


class Uncounted:
    """A series that nobody looks at."""

    def observe(self, value: float) -> None:
        pass


UNCOUNTED = Uncounted()


class CallSeries:
    """The series of one (frontend, alias) pair. Shadow calls count in none of them."""

    __slots__ = (
        "duration",
        "ends",
        "first_token",
        "in_flight",
        "overhead",
        "request_overhead",
        "requests",
        "unanswered",
    )

    def __init__(self, metrics: Metrics, frontend: str, alias: str) -> None:
        pair = (frontend, alias)
        self.requests = metrics.children("requests", pair, CODES)
        self.duration = metrics.child("request_duration_seconds", *pair)
        self.first_token = metrics.child("time_to_first_token_seconds", *pair)
        self.in_flight = metrics.child("streams_in_flight", *pair)
        self.request_overhead: Any = metrics.child("overhead_seconds", "request")
        self.overhead: Any = metrics.child("overhead_seconds", "first_token")
        self.ends = metrics.children("stream_end", pair, END_REASONS)
        self.unanswered = metrics.children("unanswered", pair, END_REASONS)

    def of_shadow(self) -> "CallSeries":
        """The series for a shadow, whose answer no caller waits for: its times are not counted."""
        double = copy(self)
        double.overhead = double.request_overhead = double.first_token = UNCOUNTED
        return double


def zero_of_alias(metrics: Metrics, frontend: str, alias: str) -> None:
    """Show the series of an alias that alerts need from the start: server errors, and answers that were cut."""
    metrics.zero("requests", frontend, alias, "5xx")
    for reason in ERROR_ENDS:
        metrics.zero("stream_end", frontend, alias, reason)


def zero_of_target(metrics: Metrics, upstream: str, model: str) -> None:
    """Show the series of a target that alerts need from the start: attempts that failed by its fault, and
    calls without a known price."""
    metrics.zero("unpriced_requests", upstream, model)
    for outcome in ERROR_OUTCOMES:
        metrics.zero("upstream_attempts", upstream, model, outcome)


class TargetSeries:
    """The series of one target (upstream, model)."""

    __slots__ = (
        "attempts",
        "cost",
        "estimated",
        "finish_missing",
        "first_token",
        "per_token",
        "reported",
        "skipped",
        "skipped_fields",
        "tls",
        "unpriced",
        "usage_refused",
    )

    def __init__(self, metrics: Metrics, upstream: str, model: str) -> None:
        pair = (upstream, model)
        self.first_token = metrics.child("upstream_time_to_first_token_seconds", *pair)
        self.per_token = metrics.child("time_per_output_token_seconds", *pair)
        self.attempts = metrics.children("upstream_attempts", pair, OUTCOMES)
        self.tls = metrics.children("upstream_tls_errors", (upstream,), get_args(TlsReason))
        self.reported = Lazy[str, Any](lambda kind: metrics.child("tokens", *pair, kind, "provider"))
        self.estimated = Lazy[str, Any](lambda kind: metrics.child("tokens", *pair, kind, "estimate"))
        self.skipped = metrics.child("skipped_events", *pair)
        self.usage_refused = metrics.child("usage_refused", *pair)
        self.skipped_fields = metrics.child("skipped_fields", *pair)
        self.finish_missing = metrics.child("finish_missing", *pair)
        self.cost = metrics.child("cost_usd", *pair)
        self.unpriced = metrics.child("unpriced_requests", *pair)

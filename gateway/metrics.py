"""Every metric's name, labels, buckets and help, in one table; and the children that the hot path holds on to.

Labels come from the configuration or from closed sets, never from a caller. Children are resolved when the runtime
is built, so that all series of a configuration exist from the start (at zero) and a call costs no look-up.
"""

import platform
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from gateway.series import Family, Kind

FIRST_TOKEN = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120)
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
TOKEN_KINDS = ("input", "output", "cached_input", "reasoning")
AUTH_REASONS = ("missing", "unknown_key", "expired", "revoked", "bad_signature", "wrong_audience", "ambiguous")


class Spec(msgspec.Struct, frozen=True):
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


TABLE: Mapping[str, Spec] = {
    "requests": Spec("counter", ("frontend", "alias", "code"), "Answered requests, by status class"),
    "key_requests": Spec("counter", ("key", "code"), "Answered requests by key, where metrics.key_label is set"),
    "request_duration_seconds": Spec("histogram", ("frontend", "alias"), "Request accepted to last byte", DURATION),
    "time_to_first_token_seconds": Spec(
        "histogram",
        ("frontend", "alias"),
        "Request accepted to first content event handed to the client's transport, failed attempts included",
        FIRST_TOKEN,
    ),
    "upstream_time_to_first_token_seconds": Spec(
        "histogram", ("upstream", "model"), "Attempt started to its first content event", FIRST_TOKEN
    ),
    "inter_token_seconds": Spec(
        "histogram", ("alias",), "Gap between reads that brought content to a client (per read, not per event)", PER_TOKEN
    ),
    "time_per_output_token_seconds": Spec(
        "histogram", ("upstream", "model"), "(duration - time to first token) / (output tokens - 1)", PER_TOKEN
    ),
    "overhead_seconds": Spec(
        "histogram", ("phase",), "Time that was ours: accepted to upstream request sent; first content in to out", OVERHEAD
    ),
    "streams_in_flight": Spec("gauge", ("frontend", "alias"), "Calls being answered"),
    "requests_waiting": Spec("gauge", ("alias",), "Calls that wait for their session's turn, or in their alias's queue"),
    "oldest_stream_age_seconds": Spec("gauge", (), "Age of the oldest call being answered"),
    "stream_end": Spec("counter", ("frontend", "alias", "reason"), "Ended calls, by how they ended"),
    "tokens": Spec("counter", ("upstream", "model", "kind", "source"), "Tokens as the provider reports them, else estimated"),
    "usage_refused": Spec(
        "counter", ("upstream", "model"), "Answers whose reported usage was not believed (negative, huge, no number)"
    ),
    "cost_usd": Spec("counter", ("upstream", "model"), "US dollars by the price table, estimated tokens included"),
    "unpriced_requests": Spec("counter", ("upstream", "model"), "Attempts that generated something whose price is not known"),
    "budget_soft": Spec("counter", ("scope", "period"), "Calls that were admitted beyond a budget's soft mark"),
    "usage_store_errors": Spec("counter", (), "Batches that the usage store did not take; they are kept and brought again"),
    "usage_folded": Spec("counter", (), "Calls counted under other, because too much waits for the usage store"),
    "usage_put_aside": Spec("counter", (), "Rows of usage that no store can keep; each is logged and left out"),
    "upstream_attempts": Spec("counter", ("upstream", "model", "outcome"), "Upstream attempts, by how they ended"),
    "skipped_events": Spec("counter", ("upstream", "model"), "Malformed events skipped inside good streams"),
    "failovers": Spec("counter", ("alias", "from", "to", "cause"), "Attempts handed to the next target"),
    "recoveries": Spec("counter", ("alias", "how", "outcome"), "Streams continued on another target after a cut"),
    "breaker_state": Spec("gauge", ("upstream", "model"), "0 closed, 1 half-open, 2 open"),
    "ratelimit_decisions": Spec(
        "counter",
        ("scope", "resource", "decision"),
        "Decisions of limits: an admitted call counts for each of its scopes, a refused one for that which refused it",
    ),
    "ratelimit_store_errors": Spec("counter", ("store",), "Failed calls of the bucket store"),
    "ratelimit_forgotten": Spec("counter", ("store",), "Buckets forgotten before they were full, for want of room"),
    "ratelimit_store_seconds": Spec("histogram", ("store",), "Time for one decision of the bucket store", OVERHEAD),
    "store_errors": Spec("counter", ("reason", "store"), "Failed calls of a store (limits, keys, usage, resume), by reason"),
    "dynamic_keys": Spec("gauge", (), "Keys of the admin API that this process knows"),
    "key_store_errors": Spec("counter", (), "Failed calls of the store of dynamic keys"),
    "auth_failures": Spec("counter", ("reason",), "Refused credentials"),
    "jwks_fetches": Spec("counter", ("issuer", "outcome"), "Fetches of issuers' key sets, by how they ended"),
    "conversation_store_errors": Spec("counter", ("store", "op"), "Failed calls of the conversation store"),
    "conversation_store_seconds": Spec("histogram", ("store", "op"), "Time for one call of the conversation store", OVERHEAD),
    "upstream_connections": Spec("gauge", ("upstream", "state"), "Connections to an upstream (open, idle) and calls waiting"),
    "event_loop_lag_seconds": Spec("histogram", (), "How late the event loop ran a timer", OVERHEAD),
    "log_errors": Spec("counter", (), "Log lines that were dropped: they could not be written, or nobody read them"),
    "worker": Spec("gauge", (), "Number of the worker process that answered, from 1; 0 where there is only one process"),
    "build_info": Spec("gauge", ("version", "python"), "Always 1"),
}


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._families: dict[str, Family] = {}
        for name, spec in TABLE.items():
            family = self._families[name] = Family(spec.kind, "sluice_" + name, spec.help, spec.labels, spec.buckets)
            if not spec.labels:
                family.child(())
            self.registry.register(family)
        self.child("build_info", version, platform.python_version()).set(1)

    def child(self, name: str, *labels: str) -> Any:
        """The series of `name` with these label values, created at zero if it is new."""
        return self._families[name].child(labels)

    def children(self, name: str, before: Iterable[str], last: Iterable[str]) -> dict[str, Any]:
        """A series for each value of the last label, by that value."""
        return {value: self.child(name, *before, value) for value in last}

    def exposition(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)


class CallSeries:
    """What one (frontend, alias) pair counts."""

    def __init__(self, metrics: Metrics, frontend: str, alias: str) -> None:
        pair = (frontend, alias)
        self.requests = metrics.children("requests", pair, CODES)
        self.duration = metrics.child("request_duration_seconds", *pair)
        self.first_token = metrics.child("time_to_first_token_seconds", *pair)
        self.in_flight = metrics.child("streams_in_flight", *pair)
        self.overhead = metrics.child("overhead_seconds", "first_token")
        self.ends = metrics.children("stream_end", pair, END_REASONS)


class TargetSeries:
    """What one target (upstream, model) counts."""

    def __init__(self, metrics: Metrics, upstream: str, model: str) -> None:
        pair = (upstream, model)
        self.first_token = metrics.child("upstream_time_to_first_token_seconds", *pair)
        self.per_token = metrics.child("time_per_output_token_seconds", *pair)
        self.attempts = metrics.children("upstream_attempts", pair, OUTCOMES)
        self.reported = {kind: metrics.child("tokens", *pair, kind, "provider") for kind in TOKEN_KINDS}
        self.estimated = {kind: metrics.child("tokens", *pair, kind, "estimate") for kind in ("input", "output")}
        self.skipped = metrics.child("skipped_events", *pair)
        self.usage_refused = metrics.child("usage_refused", *pair)
        self.cost = metrics.child("cost_usd", *pair)
        self.unpriced = metrics.child("unpriced_requests", *pair)
        self.breaker = metrics.child("breaker_state", *pair)

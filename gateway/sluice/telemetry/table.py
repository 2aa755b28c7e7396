"""Every metric's name, labels, buckets and help, in one table, and the closed sets of labels' values.

Labels come from the configuration or from closed sets, never from a caller.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from sluice.telemetry.series import Kind

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
    "rate_limited", "server_error", "bad_credentials", "billing", "client_error", "truncated", "garbled", "abandoned",
    "stale_connection",
)  # fmt: skip
ERROR_ENDS = ("upstream_error", "truncated", "idle_timeout", "internal_error")
"""Ends of answers that had begun, which are shown at zero from the start."""
ERROR_OUTCOMES = ("connect_error", "server_error", "bad_credentials", "billing")
"""Outcomes of attempts that are shown at zero from the start."""
FAILOVER_CAUSES = ("connect_error", "server_error", "rate_limited", "bad_credentials")
"""Causes of failovers that are shown at zero from the start."""
BREAKER_STATES = ("closed", "half_open", "open")
"""New states of breakers that are shown at zero from the start, because most breakers open only once."""
AUTH_REASONS = (
    "missing",
    "unknown_key",
    "expired",
    "revoked",
    "bad_signature",
    "wrong_audience",
    "ambiguous",
)

Merge = Literal["sum", "max", "apart"]
"""How the values of several processes are combined: their sum, the greatest value of the running ones, or not
at all."""


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

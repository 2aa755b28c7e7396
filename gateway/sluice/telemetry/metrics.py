"""The metrics of one process, and the series that calls hold on to. Names are in `sluice.telemetry.table`.

The series that calls count in are looked up once for each pair of frontend and alias, at the first such call.
From the start there are only the series that alerts and panels need at zero (`zero_of_alias` and the like),
because a rate shows a first event only if there was a zero before it.
"""

import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from itertools import chain, islice, pairwise, permutations, product
from typing import Any, TypeVar, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from sluice.errors import TlsReason
from sluice.telemetry import messages, points
from sluice.telemetry.board import BoardSlot
from sluice.telemetry.exemplars import Exemplar
from sluice.telemetry.formats import Format
from sluice.telemetry.series import Computed, Family, Series, Times, slices
from sluice.telemetry.table import (
    BREAKER_STATES,
    CODES,
    END_REASONS,
    ERROR_ENDS,
    ERROR_OUTCOMES,
    FAILOVER_CAUSES,
    OUTCOMES,
    TABLE,
)

K = TypeVar("K")
V = TypeVar("V")


SLICE = 0.002
"""Seconds of the event loop that one piece of a scrape may take."""


FAILOVERS = 6
"""Maximum pairs of an alias's targets whose failovers are shown at zero from the start."""


PUBLISHED = 256
"""Computed series that one `publish` updates."""


class Metrics:
    """All metrics of one process. Metrics of the process itself come from prometheus-client's own registry.
    `slot`: where they are counted, if other processes need them (`sluice.telemetry.board`)."""

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
        """Returns the series of `name` with these label values, created at zero if it is new. It is shown
        when it has counted something."""
        return self._families[name].child(labels)

    def zero(self, name: str, *labels: str) -> Any:
        """Returns the series of `name` with these label values, which is shown from now on, even at zero."""
        found = self.child(name, *labels)
        found.kept = True
        return found

    def computed(self, name: str, read: Callable[[], float], *labels: str) -> Computed:
        """Makes a gauge's series whose value is the result of `read` at each scrape; it is shown once that is
        not zero."""
        return self._families[name].computed(labels, read)

    def forget(self, labels: tuple[str, ...], gone: Collection[tuple[str, ...]]) -> None:
        """Drops all series whose value of one of these labels is among `gone`: nothing counts them any more."""
        if gone:
            for family in self._families.values():
                family.forget(labels, gone)

    def forget_one(self, name: str, *labels: str) -> None:
        """Drop the series with these label values, if there is one."""
        self._families[name].forget_one(labels)

    def children(self, name: str, before: Iterable[str], last: Iterable[str]) -> "Lazy[str, Any]":
        """Returns the series for each value of the last label, by that value, each created at its first use.
        Raises KeyError for a value that is not in `last`."""
        family, before, closed = self._families[name], tuple(before), frozenset(last)

        def series(value: str) -> Series:
            if value not in closed:
                raise KeyError(value)
            return family.child((*before, value))

        return Lazy(series)

    def exemplify(self, name: str, labels: tuple[str, ...], exemplar: Exemplar) -> None:
        """Notes that the call of this trace was counted in the histogram `name` with these label values."""
        self._families[name].exemplify(labels, exemplar)

    def refined(self) -> Iterator[None]:
        """Makes all histograms count for native ones too, from now on, one series at a time."""
        if not self._refined:
            self._refined = True
            for family in self._families.values():
                yield from family.refined()

    def publish(self) -> None:
        """Publishes the values of computed series to other processes: a part of them each time, in turn."""
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
        """Yields all metrics, in pieces that each take about SLICE seconds of `clock` to make. Some may be
        empty."""
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
        """Returns all metrics at once."""
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
    """A dict in which `make` creates the value of a key at its first use."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        found = self[key] = self._make(key)
        return found


class Uncounted:
    """A series that is not counted."""

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
        """Returns the series for a shadow call: its times are not counted, because no caller waits for it."""
        double = copy(self)
        double.overhead = double.request_overhead = double.first_token = UNCOUNTED
        return double


def zero_of_alias(metrics: Metrics, frontend: str, alias: str) -> None:
    """Shows the series of an alias that alerts need from the start: server errors, and answers that were cut."""
    metrics.zero("requests", frontend, alias, "5xx")
    for reason in ERROR_ENDS:
        metrics.zero("stream_end", frontend, alias, reason)


def zero_of_target(metrics: Metrics, upstream: str, model: str) -> None:
    """Shows the series of a target that alerts and panels need from the start: failed attempts that are its
    fault, calls without a known price, and changes of its breaker."""
    metrics.zero("unpriced_requests", upstream, model)
    for outcome in ERROR_OUTCOMES:
        metrics.zero("upstream_attempts", upstream, model, outcome)
    for state in BREAKER_STATES:
        metrics.zero("breaker_transitions", upstream, model, state)


def zero_of_failovers(metrics: Metrics, alias: str, tiers: Sequence[Sequence[str]]) -> None:
    """Shows the series of the failovers that an alias is likely to have: within a tier, and from one to the
    next, for at most FAILOVERS pairs of targets. `tiers`: the labels of the alias's targets."""
    within = (pair for tier in tiers for pair in permutations(tier, 2))
    onward = (pair for tier, following in pairwise(tiers) for pair in product(tier, following))
    for before, after in islice((pair for pair in chain(onward, within) if pair[0] != pair[1]), FAILOVERS):
        for cause in FAILOVER_CAUSES:
            metrics.zero("failovers", alias, before, after, cause)


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

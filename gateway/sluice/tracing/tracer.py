"""Decides which calls are traced, and has their spans sent."""

import os
import platform
import random
from collections.abc import Callable, Mapping

from sluice.config.types import Tracing
from sluice.proxy.call import Call
from sluice.tracing.context import Bits, TraceContext, context_of
from sluice.tracing.exporter import Count, Exporter
from sluice.tracing.otlp import Value, traces
from sluice.tracing.spans import SCHEMA, SpanMaker
from sluice.version import VERSION


class Tracer:
    """Decides and sends.

    `vendors`: upstream -> its vendor or backend. `clock` (monotonic) and `wall` (since the epoch) give
    seconds. `exemplify` is called with each call whose spans are sent, its trace, and how many seconds it
    took.
    """

    def __init__(
        self,
        config: Tracing,
        vendors: Callable[[str], str],
        count: Count,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        bits: Bits | None = None,
        exemplify: Callable[[Call, str, float], object] = lambda call, trace, duration: None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._exemplify = exemplify
        self._bits = bits or random.Random().getrandbits  # noqa: S311  # ids are no secrets
        self._maker = SpanMaker(config.semconv, vendors, clock, wall)
        resource: Mapping[str, Value] = {
            "service.name": config.service, "service.version": VERSION,
            "service.instance.id": f"{platform.node()}:{os.getpid()}", **config.attributes,
        }  # fmt: skip
        schema = SCHEMA.format(config.semconv)
        self._exporter = Exporter(
            config,
            lambda spans: traces(spans, resource, scope="sluice", version=VERSION, schema=schema),
            count,
        )
        self.run = self._exporter.run

    def begin(self, headers: Mapping[str, str]) -> TraceContext:
        """Returns the place in a trace of a call with these headers (names in lower case)."""
        return context_of(headers, self._config.sample, self._bits, self._clock)

    def over(self, call: Call, duration: float, failed: bool) -> None:
        """Handles the end of a call after `duration` seconds. Its spans are sent if its caller decides so, or
        the sampled share includes it, or a rule about the end of calls does."""
        context, config = call.trace, self._config
        if not isinstance(context, TraceContext):
            return
        slow = config.slow is not None and duration >= config.slow
        if context.sampled or slow or (config.errors and failed):
            self._exporter.add(self._maker.spans(call, context, duration))
            self._exemplify(call, context.trace, duration)

"""Makes a traced call the exemplar of the histograms that counted it, so that a slow bucket leads to a
call."""

from collections.abc import Callable

from sluice.proxy.call import Call
from sluice.telemetry.exemplars import Exemplar
from sluice.telemetry.metrics import Metrics


class CallExemplars:
    """`wall` gives seconds since the epoch."""

    def __init__(self, metrics: Metrics, wall: Callable[[], float]) -> None:
        self._metrics = metrics
        self._wall = wall

    def add(self, call: Call, trace: str, duration: float) -> None:
        """Makes the call the exemplar of its histograms. Its spans are exported; it has ended after
        `duration` seconds."""
        put, at = self._metrics.exemplify, self._wall()
        pair = (call.frontend.name, call.route.name)
        if not call.detached:  # otherwise its duration was counted when its client left
            put("request_duration_seconds", pair, Exemplar(duration, at, trace))
        if call.ttft is not None and call.chat.stream:
            put("time_to_first_token_seconds", pair, Exemplar(call.ttft, at, trace))
        for attempt in call.attempts:
            if attempt.first_token is not None and attempt.whole is None:
                target = (attempt.target.upstream, attempt.target.model)
                put("upstream_time_to_first_token_seconds", target, Exemplar(attempt.first_token, at, trace))

"""One server of an upstream that has several (a pod of vLLM or SGLang): the load that it reports, and what
this process knows of it. Pure: the bytes of its metrics are passed in.

Figures are read from the Prometheus text format.

vLLM:   https://docs.vllm.ai/en/stable/usage/metrics/
        (`gpu_cache_usage_perc` is the older name of `kv_cache_usage_perc`)
SGLang: https://docs.sglang.io/docs/references/production_metrics (with --enable-metrics)
"""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from sluice.routing.health import Load
from sluice.routing.prefixes import SeenPrefixes

WAITING = (b"vllm:num_requests_waiting", b"sglang:num_queue_reqs")
RUNNING = (b"vllm:num_requests_running", b"sglang:num_running_reqs")
CACHE = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc", b"sglang:token_usage")
MAX_COUNT = 1e6
"""The largest count that is accepted as plausible."""
FULL = 0.95
"""The share of the KV cache in use from which on further requests are expected to wait."""
BURST = 4
"""Calls sent since the last figures that are expected to run at once; or half of those that ran then, if that
is more."""
OTHERS = 64.0
"""Maximum factor by which our own calls are multiplied to account for other gateways that send to the same
servers."""


class Figures(msgspec.Struct, frozen=True):
    """A server's report: requests waiting and running, and the share of its KV cache that is in use (0 to
    1)."""

    waiting: float
    running: float
    cache: float = 0.0


def figures_in(body: bytes) -> Figures | None:
    """Returns the figures in a server's metrics; None if it does not report how many requests wait and run.

    Counts of several engines or ranks in one server are added up; of the cache the fullest one's share is
    taken.
    """
    body = b"\n" + body
    waiting, running = _values(body, WAITING), _values(body, RUNNING)
    if not waiting or not running:
        return None
    cache = [value for value in _values(body, CACHE) if value <= 1]
    return Figures(sum(waiting), sum(running), max(cache, default=0.0))


def _values(body: bytes, names: Iterable[bytes]) -> list[float]:
    """Returns the values of all series of the first of these metrics that exists."""
    for name in names:
        found = list[float]()
        at = 0
        while (at := body.find(b"\n" + name, at)) >= 0:
            end = body.find(b"\n", at + 1)
            line = body[at + 1 + len(name) : end if end >= 0 else len(body)]
            at += 1
            # After the labels, in which a model's name may have any character, come the value and perhaps
            # a time.
            rest = line[line.rfind(b"}") + 1 :] if line[:1] == b"{" else line
            if rest[:1] in (b" ", b"\t") and (value := _number(rest)) is not None:
                found.append(value)
        if found:
            return found
    return []


def _number(text: bytes) -> float | None:
    try:
        value = float(text.split()[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) and 0 <= value <= MAX_COUNT else None


class Pod(msgspec.Struct, eq=False):
    """One server; `address` is host:port.

    `begun`: calls that were sent to it. `counted`: those of them that its latest figures can include.
    `loads`: our own calls in flight, by model. `read_at`: the clock's time at which the figures were
    requested; they are fresh for `stale` seconds.
    """

    address: str
    clock: Callable[[], float]
    stale: float
    figures: Figures | None = None
    read_at: float = -math.inf
    begun: int = 0
    counted: int = 0
    loads: dict[str, Load] = {}
    seen: SeenPrefixes = msgspec.field(default_factory=SeenPrefixes)

    def reported(self, figures: Figures, read_at: float, begun: int) -> None:
        """Takes new figures, which were requested at `read_at`, when `begun` calls had been sent."""
        self.figures, self.read_at, self.counted = figures, read_at, begun

    @property
    def fresh(self) -> bool:
        return self.clock() - self.read_at <= self.stale

    @property
    def in_flight(self) -> int:
        """Returns the number of our own calls in flight."""
        return sum(load.in_flight for load in self.loads.values())


class Depth(msgspec.Struct, frozen=True):
    """The expected load of a server. Sorted, servers with fresh figures come first, then those with the
    fewest waiting requests, then with the fewest running ones."""

    fresh: bool
    waiting: float
    running: float
    cache: float

    @property
    def all(self) -> float:
        return self.waiting + self.running


def depths(pods: Sequence[Pod]) -> list[Depth]:
    """Returns the expected load of each server: its figures, if they are fresh, plus what was sent since.

    What this process has sent since the figures were read is multiplied by the inverse of its share in the
    load: other gateways read the same figures, and are assumed to do the same. Otherwise all of them would
    send to the server that reported the least until the next figures come. A server without fresh figures is
    judged by our own calls in flight.
    """
    fresh = [pod.fresh for pod in pods]
    reported = sum(
        pod.figures.waiting + pod.figures.running
        for pod, ok in zip(pods, fresh, strict=True)
        if ok and pod.figures
    )
    ours = sum(pod.in_flight for pod, ok in zip(pods, fresh, strict=True) if ok)
    others = min(OTHERS, max(1.0, reported / ours if ours else 1.0))
    return [
        _depth(pod, others) if ok else Depth(False, 0.0, pod.in_flight, 0.0)
        for pod, ok in zip(pods, fresh, strict=True)
    ]


def _depth(pod: Pod, others: float) -> Depth:
    figures = pod.figures
    assert figures is not None
    since = (pod.begun - pod.counted) * others
    if figures.waiting or figures.cache >= FULL:  # what is sent to it has to wait
        return Depth(True, figures.waiting + since, figures.running, figures.cache)
    beyond = max(0.0, since - max(BURST, figures.running / 2))
    return Depth(True, beyond, figures.running + since - beyond, figures.cache)


class PodChoice(msgspec.Struct):
    """The reason why a call goes to a server, for its log line. `how` is one of:

    prefix     the server has seen most of the prompt
    hash       none has; the prompt's beginning decides
    load       the server chosen by these is too busy
    queue      the server has the shortest queue
    in_flight  no server has fresh figures
    """

    how: str = ""
    matched: int = 0
    blocks: int = 0

    def __str__(self) -> str:
        return f"{self.how} {self.matched}/{self.blocks}" if self.matched else self.how


Chance = Callable[[], float]

"""The scenario of a simulation, beside the gateway's configuration: arrivals, clients, upstreams, and what a
replica can do.

It is read as strictly as the configuration, with the same messages. Durations, sizes and rates are written as
there.
"""

import math
import random
from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from sluice.config.problems import Report
from sluice.config.types import Limit
from sluice.config.units import Bytes, Rate, Seconds
from sluice.config.validation import Walk, type_info
from sluice.config.yamltext import TextPosition, YamlError, read
from sluice.errors import ConfigError
from sluice.files import read_file, reason_of

MAX_FILE = 4 << 20
NORMAL_95 = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=10**9)]
Weight = Annotated[float, Meta(ge=0)]


class Dice(Protocol):
    """A source of randomness: `random.Random`."""

    def random(self) -> float: ...
    def gauss(self) -> float: ...
    def expovariate(self, lambd: float, /) -> float: ...
    def randrange(self, start: int, /) -> int: ...


def dice_of(seed: int, what: str) -> random.Random:
    """Returns a source that is the same for the same seed, and independent for each use."""
    return random.Random(f"{seed} {what}")  # noqa: S311 (nothing here is secret)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class TimeSpread(_Section, frozen=True):
    """Durations with this median and 95th percentile, log-normally distributed; without the latter all are
    equal."""

    median: Seconds
    p95: Seconds | None = None


class CountSpread(_Section, frozen=True):
    """Numbers of tokens, distributed in the same way."""

    median: Positive
    p95: Positive | None = None


class Observed(msgspec.Struct, frozen=True):
    """Observed values, each as likely as the others. `values` has at least one."""

    values: tuple[float, ...]


Spread = TimeSpread | CountSpread | Observed


def draw(of: Spread, dice: Dice) -> float:
    """Draws one value."""
    if isinstance(of, Observed):
        return of.values[dice.randrange(len(of.values))]
    median = float(of.median)
    if of.p95 is None or not 0 < median < of.p95:
        return median
    return median * math.exp(math.log(of.p95 / median) / NORMAL_95 * dice.gauss())


class Outage(_Section, frozen=True):
    """A time during which an upstream fails a share of its calls.

    error: answers 500; overloaded: 503; refuse: no connection; hang: never answers; stall: stops after its
    first token; cut: the stream ends early; slow: first tokens and tokens take `factor` times as long.
    """

    at: Seconds  # since the beginning of the simulation
    lasts: Seconds
    kind: Literal["error", "overloaded", "refuse", "hang", "stall", "cut", "slow"] = "error"
    share: Share = 1.0
    factor: Positive = 10.0


class UpstreamModel(_Section, frozen=True):
    """The model of an upstream's answers, or of one model's."""

    first_token: TimeSpread = TimeSpread(
        median=Seconds(0.4), p95=Seconds(1.2)
    )  # from the request to the first token, where it is free
    prefill: Seconds = Seconds(0)  # more of it for each 1000 tokens of the prompt
    token: TimeSpread = TimeSpread(
        median=Seconds(0.012), p95=Seconds(0.03)
    )  # between two tokens; drawn once for each answer
    slowed_by: Count | None = (
        None  # so many answers at a time double the time of a token; null: load changes nothing
    )
    places: Count | None = (
        None  # answers at a time; more wait for a place, the oldest first; null: any number
    )
    requests: Limit | None = (
        None  # the provider's own limit of requests; beyond it it answers 429 with a Retry-After
    )
    tokens: Limit | None = None  # its limit of tokens, prompt and max_tokens together
    errors: Share = 0.0  # of the calls are answered 500
    cuts: Share = 0.0  # of the streams end before their end
    error_after: Seconds = Seconds(0.05)  # until an error is answered
    outages: tuple[Outage, ...] = ()


class Arrivals(_Section, frozen=True):
    """Generated calls. Of `aliases` and `keys` each is drawn by its weight; left out: all, with the same
    weight."""

    rate: Rate = Rate(10)  # on the average; with bursts: between them
    lasts: Seconds = Seconds(600)
    burst_factor: Positive = 5.0  # bursts: how many times the rate in one
    burst_every: Seconds = Seconds(120)  # from the end of one to the next, on the average
    burst_lasts: Seconds = Seconds(15)  # on the average
    day: Seconds = Seconds(86400)  # diurnal: from one highest rate to the next
    swing: Share = 0.8  # diurnal: how far it goes up and down from the average
    aliases: dict[str, Weight] = {}
    keys: dict[str, Weight] = {}
    input: CountSpread = CountSpread(median=600, p95=4000)
    output: CountSpread = CountSpread(median=200, p95=900)
    max_tokens: Count | None = None  # what requests say; null: nothing
    sessions: Count | None = None  # different ones, for `affinity`; null: none
    streamed: Share = 1.0  # of the calls; the others want whole answers


class Clients(_Section, frozen=True):
    """The behaviour of callers. By default they wait for as long as it takes, and do not retry."""

    patience: Seconds | None = None  # they leave when the first token has not come by then
    retries: Annotated[int, Meta(ge=0, le=100)] = 0  # after 429, 500, 502, 503 and 504
    backoff: Seconds = Seconds(
        0.5
    )  # doubled each time, up to 8 s, plus a quarter at random; a Retry-After up to 60 s counts more


class ReplicaModel(_Section, frozen=True):
    """The resources that one process of the gateway needs and may use; docs/scale.md tells how the figures
    were measured."""

    request: Seconds = Seconds(0.000358)  # of processor time for a call
    token: Seconds = Seconds(0.0000394)  # of processor time for a token that comes alone
    stream: Bytes = Bytes(23 << 10)  # of memory for an open stream
    memory: Bytes = Bytes(512 << 20)  # that it may use
    idle: Bytes = Bytes(64 << 20)  # of it without any stream
    load: Annotated[float, Meta(gt=0, le=1)] = 0.6  # the share of one core that it shall use at most
    streams: Count = 10_000  # that it shall hold at most: a restart cuts or drains no more


class Scenario(_Section, frozen=True):
    """All of it has defaults. `upstreams` by "upstream/model" or "upstream"; the first one found counts."""

    seed: int = 1
    replicas: Annotated[int, Meta(ge=1, le=1000)] = (
        1  # calls go to them in turn; they share their limits as by Redis
    )
    warmup: Seconds = Seconds(0)  # calls that arrive before are simulated, and not counted
    arrivals: Arrivals = Arrivals()
    clients: Clients = Clients()
    upstreams: dict[str, UpstreamModel] = {}
    replica: ReplicaModel = ReplicaModel()
    names: dict[str, str] = {}  # an alias of the configuration for a model's name in the trace


def load_scenario(path: str) -> Scenario:
    """Raises ConfigError with every problem as file:line:column: path: message."""
    report = Report(path)
    try:
        found = Walk(report).value(read(read_file(path, MAX_FILE)), type_info(Scenario))
    except YamlError as error:
        report.problem((), error.message, error.at)
    except OSError as error:
        report.problem((), f"cannot be read: {reason_of(error)}", TextPosition())
    if report.problems:
        raise ConfigError([str(problem) for problem in sorted(report.problems)])
    assert isinstance(found, Scenario)
    return found


Clock = Callable[[], float]

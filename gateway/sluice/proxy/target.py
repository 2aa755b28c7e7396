"""An alias as a route of targets. Built from the configuration, then only read."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from msgspec.structs import force_setattr

from sluice.backends.protocol import Backend, Decoder, Operation
from sluice.backends.transport import Headers, Transport, UpstreamRequest
from sluice.config.types import Alias, Timeouts
from sluice.config.types import Target as TargetConfig
from sluice.model.chat import ChatRequest
from sluice.pricing.prices import Dated
from sluice.proxy.capable import Capable
from sluice.proxy.stages import StageKind, staged
from sluice.routing.failover import RetryPolicy
from sluice.routing.health import Health, Load
from sluice.routing.strategies import RoutedTier
from sluice.telemetry.metrics import TargetSeries
from sluice.telemetry.series import Value
from sluice.wire.forwarding import Allowed, with_forwarded


def _backends_own(*, verbatim: bool = False) -> Decoder:
    """Stands for the decoder of the target's backend."""
    raise NotImplementedError


def add_headers(request: UpstreamRequest, more: Headers) -> None:
    """Adds a caller's headers to a request."""
    request.headers = with_forwarded(request.headers, more)


def _nobody(name: str) -> None:
    """Ignores a dropped field."""


class Target(msgspec.Struct, frozen=True, eq=False):
    """One model of one upstream, ready for requests. `label` is "upstream/model"."""

    label: str
    upstream: str
    model: str
    spec: TargetConfig
    backend: Backend
    transport: Transport
    timeouts: Timeouts
    health: Health
    load: Load
    series: TargetSeries
    prices: tuple[Dated, ...] = ()  # the latest first; empty: nobody knows what it costs
    passes_on: str | None = None  # the client dialect whose callers get its frames as they came
    fit: Callable[[ChatRequest], ChatRequest] | None = None  # a request as this target takes it; None: it takes all of them
    capable: Capable | None = None  # what it cannot do of requests of other dialects; None: it can do all of it
    whole: Operation | None = None  # how it answers in one piece; None: it always streams
    max_before_content: int = 1 << 20  # bytes
    max_answer: int = 64 << 20
    forward: Allowed = {}  # the caller's headers that it gets
    dropped: Callable[[str], object] = _nobody  # is told the name of a field that it does not get
    tell: Callable[[UpstreamRequest, Headers], None] = add_headers  # adds them to a request
    shown: str = ""  # its label as callers see it; "": they do not
    attribution: tuple[tuple[str, str], ...] = ()  # headers that name it where it is the first, and has answered
    heeds_limits: bool = False  # whether calls go elsewhere while it says that its limits are used up
    answered: Value | None = None  # counts the calls whose content came from it, in its place in its alias
    decoder: Callable[..., Decoder] = _backends_own  # of its streams: the backend's, or with the alias's stages behind it

    def __post_init__(self) -> None:
        if self.decoder is _backends_own:
            force_setattr(self, "decoder", self.backend.decoder)

    def with_stages(self, kinds: Sequence[StageKind]) -> "Target":
        """A copy of the target whose answers pass these stages: all are streamed to us, none is passed on verbatim."""
        decoder = staged(self.backend.decoder, kinds)
        return msgspec.structs.replace(self, decoder=decoder, passes_on=None, whole=None) if kinds else self


class Route(msgspec.Struct, frozen=True, eq=False):
    """An alias's targets in tiers, with everything that a call needs of the alias."""

    name: str
    config: Alias
    tiers: Sequence[RoutedTier]
    retry: RetryPolicy
    shadow: Target | None
    inter_token: Any
    waiting: Callable[[int], Any] = lambda _: None  # is called with +1 and -1 as calls begin and end to wait for their turn
    queued: Callable[[int], Any] = lambda _: None  # the same, as they wait in the alias's queue
    wildcard: bool = False  # it stands for all names that begin as its own: `sluice.runtime.wildcards` makes the route of one
    called: str = ""  # the name that the caller gave, where that is one of a wildcard's
    operation: str = ""  # which other one than chat it is the route of
    single_target: bool = False  # one target that takes every call: nothing of a call decides about its route

    @property
    def targets(self) -> list[Target]:
        return cast(list[Target], [target for tier in self.tiers for target in tier.targets])

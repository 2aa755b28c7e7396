"""Targets, and an alias's route over them. Built from the configuration, then only read."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

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
from sluice.proxy.tool_names import NamesFitting
from sluice.routing.failover import RetryPolicy
from sluice.routing.health import Health, Load
from sluice.routing.strategies import RoutedTier
from sluice.telemetry.metrics import TargetSeries
from sluice.telemetry.series import Value
from sluice.wire.forwarding import Allowed, with_forwarded

if TYPE_CHECKING:
    from sluice.routing.pods import Pod


def _backends_own(*, verbatim: bool = False) -> Decoder:
    """Stands for the decoder of the target's backend; it is replaced before the target is used."""
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
    prices: tuple[Dated, ...] = ()  # the latest first; empty: unknown
    passes_on: str | None = None  # the client dialect whose callers get its frames as they came
    fit: Callable[[ChatRequest], ChatRequest] | None = (
        None  # adapts a request to this target; None: it takes all requests
    )
    names: NamesFitting | None = None  # gives tools of other dialects names that it takes; None: it takes all
    capable: Capable | None = None  # its capabilities, for requests of other dialects; None: it can do all
    whole: Operation | None = None  # how it answers in one piece; None: it always streams
    max_before_content: int = 1 << 20  # bytes
    max_answer: int = 64 << 20
    forward: Allowed = {}  # the caller's headers that are forwarded to it
    dropped: Callable[[str], object] = _nobody  # is called with the name of a field that is left out
    tell: Callable[[UpstreamRequest, Headers], None] = add_headers  # adds the caller's headers to a request
    shown: str = ""  # its label as callers see it; "": hidden
    attribution: tuple[tuple[str, str], ...] = ()  # headers that name it, if it answers as the first target
    heeds_limits: bool = False  # whether calls avoid it while it reports that its limits are used up
    answered: Value | None = None  # counts the calls that it answered, at its place in its alias
    decoder: Callable[..., Decoder] = (
        _backends_own  # of streams: the backend's, or with the alias's stages behind it
    )
    pods: Callable[["Target"], Sequence["Target"]] | None = (
        None  # one target for each server, if its upstream has several
    )
    pod: "Pod | None" = None  # the server, if it is one of these

    def __post_init__(self) -> None:
        if self.decoder is _backends_own:
            force_setattr(self, "decoder", self.backend.decoder)

    def with_stages(self, kinds: Sequence[StageKind]) -> "Target":
        """Copies the target with these stages: all answers are streamed to us, none is forwarded verbatim."""
        decoder = staged(self.backend.decoder, kinds)
        return msgspec.structs.replace(self, decoder=decoder, passes_on=None, whole=None) if kinds else self


class Route(msgspec.Struct, frozen=True, eq=False):
    """An alias's targets in tiers, with the alias's settings."""

    name: str
    config: Alias
    tiers: Sequence[RoutedTier]
    retry: RetryPolicy
    shadow: Target | None
    inter_token: Any
    waiting: Callable[[int], Any] = lambda _: (
        None
    )  # is called with +1 and -1 as calls begin and end to wait for their turn
    queued: Callable[[int], Any] = lambda _: None  # the same for calls in the alias's queue
    wildcard: bool = (
        False  # it stands for all names with its prefix: `sluice.runtime.wildcards` makes a route for each
    )
    called: str = ""  # the name that the caller gave, if a wildcard covers it
    operation: str = ""  # the operation that it is the route of; "": chat
    single_target: bool = False  # one target without conditions: no property of a call affects the choice
    by_pods: bool = False  # queues or prompts decide which server of an upstream is asked

    @property
    def targets(self) -> list[Target]:
        return cast(list[Target], [target for tier in self.tiers for target in tier.targets])

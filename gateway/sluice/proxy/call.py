"""One call, from the accepted request to its log line: what the server, the policies and the pipeline know of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from sluice.backends.protocol import AnswersWhole, Backend
from sluice.backends.transport import Transport
from sluice.config.types import Alias, Timeouts
from sluice.config.types import Target as TargetConfig
from sluice.errors import GatewayError
from sluice.frontends import Frontend
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest, Thought
from sluice.model.events import Usage
from sluice.pricing.prices import Dated
from sluice.routing.failover import RetryPolicy
from sluice.routing.health import Health, Load
from sluice.routing.strategies import Asked, RoutedTier
from sluice.telemetry.metrics import CallSeries, TargetSeries
from sluice.telemetry.series import Value
from sluice.wire.forwarding import Allowed


class Target(msgspec.Struct, frozen=True, eq=False):
    """One model of one upstream, ready to be asked. `label` is "upstream/model"."""

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
    whole: AnswersWhole | None = None  # how it is asked for an answer in one piece; None: it is always asked for a stream
    max_before_content: int = 1 << 20  # bytes
    max_answer: int = 64 << 20
    forward: Allowed = {}  # the caller's headers that it gets
    shown: str = ""  # its label as callers are told it; "": they are not
    attribution: tuple[tuple[str, str], ...] = ()  # what callers are told of it where it is asked first, and has answered
    answered: Value | None = None  # counts the calls whose content came from it, in its place in its alias


class Route(msgspec.Struct, frozen=True, eq=False):
    """An alias, ready to be followed."""

    name: str
    config: Alias
    tiers: Sequence[RoutedTier]
    retry: RetryPolicy
    shadow: Target | None
    inter_token: Any
    waiting: Callable[[int], Any] = lambda _: None  # told +1 and -1 as calls begin and end to wait for their turn
    plain: bool = False  # one target that takes every call: nothing of a call decides about its route

    @property
    def targets(self) -> list[Target]:
        return cast(list[Target], [target for tier in self.tiers for target in tier.targets])


LARGE = 256 << 10
"""Bytes of a request's body whose parsing and translation take a thread: for the largest one Python needs some 100 ms each."""
NOTHING = Usage()
"""What an attempt used that generated nothing."""


class Attempt(msgspec.Struct, eq=False):
    """One try at one target. `outcome` is of the closed set of `upstream_attempts_total`; times on the monotonic clock.

    `usage` is what the provider reported; `used` the same, or an estimate of what was said, or nothing where nothing was.
    `cost` is what that comes to in US dollars; None where nothing was said, or the target has no price.
    """

    target: Target
    started: float
    outcome: str = "abandoned"
    first_token: float | None = None
    usage: Usage | None = None
    used: Usage = NOTHING
    characters: int = 0
    model: str = ""
    cost: float | None = None
    whole: AnswersWhole | None = None  # the answer was asked for in one piece
    provider_id: str = ""  # the provider's own id of the request
    probe: int = 0  # its number among its target's, where it finds out whether the target is well again


class Call(msgspec.Struct, eq=False):
    """`received` on the monotonic clock; `ttft` in seconds, of streams only; `end` of the closed set of `stream_end_total`.

    `store_turn` stores the turn of a conversation, given the text of the complete answer; it is called before the end of
    the answer is sent. It returns the task that stores, or None where nothing has to be waited for.
    """

    id: str
    received: float
    frontend: Frontend
    principal: Principal
    route: Route
    chat: ChatRequest
    series: CallSeries
    asked: Asked = Asked()
    address: str = ""  # the client's, as limits count it
    size: int = 0  # bytes of the request's body
    conversation: str = ""
    text: str = ""
    thoughts: list[Thought] = []  # blocks of reasoning of a complete answer, for its provider to have back
    attempts: list[Attempt] = []
    answered: Attempt | None = None
    headers: list[tuple[str, str]] = []
    lines: bytes = b""  # header lines that every upstream gets
    forward: Mapping[str, str] = {}  # the caller's headers that an upstream may get, by lower-case name
    ttft: float | None = None
    end: str = ""
    error: GatewayError | None = None
    detached: bool = False  # the client has left, and the call goes on
    store_turn: "Callable[[str], asyncio.Task[None] | None] | None" = None

    @property
    def usage(self) -> Usage | None:
        """Of the attempt that answered."""
        return self.answered.usage if self.answered is not None else None

    def attribution(self) -> Sequence[tuple[str, str]]:
        """Headers that say who answered, after how many attempts, and by which id the provider knows it."""
        attempt = self.answered
        if attempt is None:
            if not self.attempts:
                return ()
            attempt = self.attempts[-1]
        if not attempt.provider_id and len(self.attempts) == 1:  # most answers
            return attempt.target.attribution
        told = [("x-sluice-attempts", str(len(self.attempts)))]
        if attempt.target.shown:
            told.append(("x-sluice-target", attempt.target.shown))
        if attempt.provider_id:
            told.append(("x-sluice-upstream-request-id", attempt.provider_id))
        return told

    @property
    def cost(self) -> float | None:
        """US dollars of all attempts that generated something, as far as they have a price; None where none has."""
        if len(self.attempts) == 1:
            return self.attempts[0].cost
        known = [attempt.cost for attempt in self.attempts if attempt.cost is not None]
        return sum(known) if known else None

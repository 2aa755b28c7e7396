"""Calls for policies, without a pipeline; a clock that the test moves; stores that are slow."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sluice.config.types import Alias, KeyLimits, Limit, Limits, Team, Tenant, Upstream
from sluice.frontends.openai.dialect import OpenAI
from sluice.identity.principal import Principal
from sluice.limits import BucketStore, Claim, Slot, Verdict
from sluice.limits.memory import MemoryStore
from sluice.model.chat import ChatRequest, Message, Sampling, Text
from sluice.policies.claims import bucket_of
from sluice.policies.limits import Limiter
from sluice.proxy.call import Call
from sluice.proxy.target import Route
from sluice.routing.failover import RetryPolicy
from sluice.telemetry.metrics import CallSeries, Metrics

UNLIMITED = KeyLimits()


class Desk:
    """A limiter at a time of the test's choosing, in seconds from 1000 on."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        tenants: dict[str, Tenant] | None = None,
        upstreams: dict[str, Upstream] | None = None,
        teams: dict[str, Team] | None = None,
        store: BucketStore | None = None,
    ) -> None:
        self.now = 1000.0
        self.metrics = Metrics("test")
        self.store = store or MemoryStore(self.clock)
        self.limiter = Limiter(
            self.store,
            limits or Limits(address=None),
            tenants or {},
            upstreams or {},
            count=lambda *labels: self.metrics.child("ratelimit_decisions", *labels),
            soft=lambda *labels: self.metrics.child("budget_soft", *labels),
            clock=self.clock,
            wall=self.clock,
            teams=teams,
        )

    def clock(self) -> float:
        return self.now

    def call(
        self,
        key: KeyLimits = UNLIMITED,
        alias: Alias | None = None,
        *,
        name: str = "k",
        tokens: int | None = None,
    ) -> Call:
        chat = ChatRequest(
            "openai", "chat", (Message("user", (Text("12345678"),)),), sampling=Sampling(max_tokens=tokens)
        )
        principal = Principal(name, "tenant", name, frozenset("*"), limits=key)
        route = Route("chat", alias or Alias(tiers=()), [], RetryPolicy(), None, None)
        series = CallSeries(self.metrics, "openai", "chat")
        return Call("id", self.now, OpenAI(), principal, route, chat, series, address="192.0.2.1")

    async def enter(self, call: Call) -> Any:
        """The call's place behind the policy. Raises RateLimited."""
        admission = self.limiter(call)
        assert admission is not None
        await admission.__aenter__()
        return admission

    async def leave(self, admission: Any) -> None:
        await admission.__aexit__(None, None, None)
        await turns()

    async def bucket_level(self, key: str, limit: Limit) -> float:
        """What is left in the bucket of this key."""
        return await self.level(Claim(key, bucket_of(limit)))

    async def level(self, claim: Claim) -> float:
        """What is left in its bucket."""
        verdict = await self.store.take([Claim(claim.key, claim.limit, 0.0)])
        return verdict.levels[0].remaining


async def turns(count: int = 10) -> None:
    """Let everything that can run run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Slow:
    """A store that answers after a few turns of the loop, or when `gate` is open; a cancelled take takes
    nothing."""

    def __init__(self, store: MemoryStore, *, lease: float = 30.0) -> None:
        self.store = store
        self.lease = lease
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.renewed: list[tuple[Slot, ...]] = []

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        self.asked.append("take")
        await turns(3)
        await self.gate.wait()
        return await self.store.take(claims, slots)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> None:
        self.asked.append("settle")
        await turns(3)
        await self.gate.wait()
        await self.store.settle(claims, slots)

    async def renew(self, slots: Sequence[Slot]) -> None:
        self.renewed.append(tuple(slots))

    async def close(self) -> None:
        await self.store.close()

"""Proof 3 of the limits: callers leave, in five phases of a call; what they hold is given back, what was sent
is charged.

In each phase N callers are brought to the same point and then leave all at once, or each at a moment of its
own. Every token of the fake provider is one event of four characters, so what it sends is what an estimate
charges for it; where an answer was complete it reports its usage, which counts.

SLUICE_FULL=1: 10,000 in all, in place of 80 a phase.
"""

import asyncio
import os
import random

import pytest

from tests.e2e.buckets import left, taken
from tests.e2e.gateways import HEAD, Running, gateway
from tests.e2e.test_disconnect import Caller, callers
from tests.fakes.dialects import INPUT, OPENAI
from tests.fakes.faulty import Behaviour, Provider, Turn, refusing
from tests.upstream.calls import until

FULL = os.environ.get("SLUICE_FULL") == "1"
AT_ONCE = 40
ROUNDS = -(-10_000 // (8 * AT_ONCE)) if FULL else 2
PLENTY = 1_000_000
PROMPT = 1
"""Tokens that "Count" is estimated at."""
PLACES = 8
LIMITS = f"tokens: {{rate: 87/day, burst: {PLENTY}}}"


class Teller:
    """A provider whose answers are of any length and may stop anywhere. It knows what they should cost."""

    def __init__(self, seed: int, *, least: int = 1, finishes: float = 0.3, pause: bool = False) -> None:
        self._chance = random.Random(seed)
        self._least = least
        self._finishes = finishes
        self._pause = pause
        self.tokens: dict[int, int] = {}
        self.finished: set[int] = set()

    async def __call__(self, turn: Turn) -> None:
        me = id(turn)
        self.tokens[me] = 0
        turn.begin()
        for _ in range(self._chance.randint(self._least, 60) if self._least else 0):
            turn.write(OPENAI.token("abcd"))
            self.tokens[me] += 1
            if self._pause:
                await asyncio.sleep(0)
        if self._chance.random() < self._finishes:
            turn.write(OPENAI.finish(self.tokens[me]))
            self.finished.add(me)
            turn.end()
        else:
            await turn.peer.stall()

    @property
    def cost(self) -> int:
        """Tokens of all answers, if everything that was sent has come."""
        return sum(
            n + (INPUT if me in self.finished else PROMPT if n else 0) for me, n in self.tokens.items()
        )


def config(url: str, *, queue: str = "null", streams: int = 10_000) -> str:
    key = HEAD.replace(
        "default_alias: chat}", f"default_alias: chat, limits: {{{LIMITS}, streams: {streams}}}}}"
    )
    patience = "timeouts: {connect: 60, headers: 60, first_token: 60, idle: 60}, breaker: {failures: 100000, error_rate: null}"
    limits = f"limits: {{{LIMITS}, streams: {streams}}}"
    return f"""{key}
upstreams: {{fake: {{backend: openai, base_url: "{url}", {patience}, {limits}}}}}
aliases:
  chat: {{tiers: [[{{upstream: fake, model: m}}]], heartbeat: null, retry: {{retry_after_wait: 60}}, queue: {queue}, {limits}}}
"""


SCOPES = {"key": "test", "alias": "chat", "upstream": "fake"}


async def charged(g: Running) -> dict[str, int]:
    """Tokens by scope; none of them holds a place, and nobody waits."""
    await until(lambda: not g.runtime.pipeline.runs and not g.runtime.limits.settlements.settling)
    for scope, name in SCOPES.items():
        assert await taken(g, scope, name) == 0, scope
    assert g.metric('sluice_requests_waiting{alias="chat"}') == 0
    assert [line for line in g.log_lines if line["event"] in ("crash", "library")] == []
    return {scope: PLENTY - round(await left(g, scope, name, "tokens")) for scope, name in SCOPES.items()}


def leave(clients: list[Caller]) -> None:
    for caller in clients:
        caller.transport.abort()


def read(g: Running) -> int:
    return sum(answer.relay.characters for run in g.runtime.pipeline.runs for answer in run.reading)


async def silent_then_gone(g: Running, provider: Provider, count: int) -> None:
    """All are asked, and have said nothing."""
    seen = len(provider.turns)
    clients = await callers(g, count, "openai stream", "chat")
    await until(lambda: len(provider.turns) - seen == count)
    leave(clients)


@pytest.mark.timeout(600 if FULL else 60)
async def test_who_leaves_before_the_first_token_is_charged_nothing() -> None:
    teller = Teller(1, least=0, finishes=0.0)
    async with Provider(teller) as provider, gateway(config(provider.url), level="info") as g:
        for _ in range(ROUNDS):
            await silent_then_gone(g, provider, AT_ONCE)
            assert set((await charged(g)).values()) == {0}


@pytest.mark.timeout(600 if FULL else 60)
async def test_who_leaves_between_attempts_is_charged_nothing() -> None:
    behaviour = refusing("rate", ("Retry-After", "2"), ("Connection", "close"))
    async with Provider(behaviour) as provider, gateway(config(provider.url), level="info") as g:
        for _ in range(ROUNDS):
            seen = len(provider.turns)
            clients = await callers(g, AT_ONCE, "openai stream", "chat")
            runs = g.runtime.pipeline.runs
            await until(lambda: len(provider.turns) - seen == AT_ONCE)  # noqa: B023
            await until(lambda: all(run.call.attempts and run.call.phase == "waiting" for run in runs))  # noqa: B023
            leave(clients)
            assert set((await charged(g)).values()) == {0}


@pytest.mark.parametrize("mode", ["openai stream", "openai whole"])
@pytest.mark.timeout(600 if FULL else 60)
async def test_who_leaves_mid_stream_is_charged_what_was_sent(mode: str) -> None:
    teller = Teller(2)
    async with Provider(teller) as provider, gateway(config(provider.url), level="info") as g:
        for _ in range(ROUNDS):
            seen, begun = len(provider.turns), len(teller.finished)
            clients = await callers(g, AT_ONCE, mode, "chat")
            await until(lambda: len(provider.turns) - seen == AT_ONCE)  # noqa: B023
            open_ = [turn for turn in provider.turns[seen:] if id(turn) not in teller.finished]
            await until(lambda: len(g.runtime.pipeline.runs) == len(open_))  # noqa: B023
            await until(lambda: read(g) == sum(4 * teller.tokens[id(turn)] for turn in open_))  # noqa: B023
            leave(clients)
            assert set((await charged(g)).values()) == {teller.cost}
            assert len(teller.finished) > begun


async def flood(turn: Turn) -> None:
    turn.begin()
    tokens = b"".join(OPENAI.token("abcd") for _ in range(100))
    while not turn.peer.closed.is_set():
        turn.tokens += 100
        turn.write(tokens)
        await turn.peer.drain()


@pytest.mark.timeout(600 if FULL else 60)
async def test_who_leaves_without_having_read_is_charged_what_we_read_for_them() -> None:
    for _ in range(ROUNDS):
        async with Provider(flood) as provider, gateway(config(provider.url), level="info") as g:
            clients = await callers(g, AT_ONCE, "openai stream", "chat", read=False)
            runs = g.runtime.pipeline.runs
            await until(lambda: len(runs) == AT_ONCE and all(run.writer.blocked_since for run in runs))  # noqa: B023
            relays = [answer.relay for run in runs for answer in run.reading]
            leave(clients)
            amounts = await charged(g)
            total = sum(PROMPT + relay.estimated_tokens for relay in relays)
            assert set(amounts.values()) == {total}
            assert total <= sum(PROMPT + turn.tokens for turn in provider.turns)


@pytest.mark.timeout(600 if FULL else 60)
async def test_who_leaves_the_queue_is_charged_nothing_and_those_inside_what_was_sent() -> None:
    teller = Teller(3, finishes=0.0)
    text = config(provider_url := "PROVIDER", queue=f"{{size: {AT_ONCE}, timeout: 60s}}", streams=PLACES)
    async with (
        Provider(teller) as provider,
        gateway(text.replace(provider_url, provider.url), level="info") as g,
    ):
        for _ in range(ROUNDS):
            seen = len(provider.turns)
            clients = await callers(g, AT_ONCE, "openai stream", "chat")
            await until(lambda: g.metric('sluice_requests_waiting{alias="chat"}') == AT_ONCE - PLACES)
            await until(lambda: read(g) == sum(4 * teller.tokens[id(turn)] for turn in provider.turns[seen:]))  # noqa: B023
            await until(lambda: sum(b"abcd" in c.received for c in clients) == PLACES)  # noqa: B023
            waiting = [c for c in clients if b"abcd" not in c.received]
            leave(waiting)
            await until(lambda: len(g.runtime.pipeline.runs) == PLACES)
            assert len(provider.turns) - seen == PLACES, "nobody who left was let in"
            leave([c for c in clients if c not in waiting])
            assert set((await charged(g)).values()) == {teller.cost}


@pytest.mark.timeout(900 if FULL else 60)
async def test_who_leaves_at_any_moment_holds_nothing_and_is_charged_no_more_than_was_sent() -> None:
    chance = random.Random(4)
    teller = Teller(5, finishes=0.5, pause=True)
    calls: list[Behaviour] = [
        teller,
        refusing("rate", ("Retry-After", "1"), ("Connection", "close")),
        teller,
        teller,
    ]

    async def any_of_them(turn: Turn) -> None:
        await calls[chance.randrange(len(calls))](turn)

    async def one(g: Running, mode: str) -> None:
        [caller] = await callers(g, 1, mode, "chat", read=chance.random() < 0.7)
        for _ in range(chance.randint(0, 150)):
            await asyncio.sleep(0)
        caller.transport.abort()

    text = config("PROVIDER", queue="{size: 30, timeout: 1s}", streams=PLACES)
    async with (
        Provider(any_of_them) as provider,
        gateway(text.replace("PROVIDER", provider.url), level="info") as g,
    ):
        for _ in range(ROUNDS):
            await asyncio.gather(
                *(one(g, chance.choice(["openai stream", "openai whole"])) for _ in range(AT_ONCE * 2))
            )
            amounts = set((await charged(g)).values())
            assert len(amounts) == 1, "every scope was charged the same"
            assert 0 <= amounts.pop() <= teller.cost

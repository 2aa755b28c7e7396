"""Tokens that expire: fetched ahead, kept while they hold, waited for only where there is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sluice.backends.credentials import CredentialFailed
from sluice_plugins.credentials.refreshing import Fresh, Refreshed, Token
from tests.plugins.credentials.settings import REQUEST, World


class Source:
    """Gives tokens that live for `life`, or fails; `hold` keeps a fetch from ending."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0
        self.life: float | None = 1000.0
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self) -> Fresh[str]:
        self.count += 1
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return Fresh(f"token-{self.count}", self.world.now + self.life if self.life is not None else None)


class Pauses:
    """Ends where the test says so, or where it is woken."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._over = asyncio.Event()

    async def pause(self, wake: asyncio.Event, seconds: float) -> None:
        self.asked.append(seconds)
        over, woken = asyncio.ensure_future(self._over.wait()), asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait([over, woken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            woken.cancel()
        self._over.clear()

    async def reached(self, count: int) -> None:
        while len(self.asked) < count:
            await asyncio.sleep(0)

    async def next(self) -> None:
        """The next fetch, whole."""
        count = len(self.asked) + 1
        self._over.set()
        await self.reached(count)


class Case:
    def __init__(self) -> None:
        self.world = World()
        self.source = Source(self.world)
        self.pauses = Pauses()
        self.tokens = Refreshed(self.source.fetch, self.world.setting, self.pauses.pause)


@asynccontextmanager
async def started(fault: Exception | None = None) -> AsyncIterator[Case]:
    case = Case()
    case.source.fault = fault
    case.tokens.start()
    try:
        await case.pauses.reached(1)
        yield case
    finally:
        await case.tokens.close()


async def test_is_fetched_anew_at_four_fifths_of_its_life_by_chance() -> None:
    async with started() as case:
        assert case.tokens.now() == "token-1"
        for chance, seconds in ((0.0, 750.0), (1.0, 850.0)):
            case.world.chance = chance
            await case.pauses.next()
            assert case.pauses.asked[-1] == pytest.approx(seconds)
        assert case.tokens.now() == "token-3"


async def test_one_that_does_not_say_when_it_expires_is_fetched_each_hour() -> None:
    async with started() as case:
        case.source.life = None
        await case.pauses.next()
        assert case.pauses.asked[-1] == pytest.approx(2880.0)
        case.world.now += 1e9
        assert case.tokens.now() == "token-2"


@pytest.mark.parametrize("fault", [CredentialFailed("no"), TimeoutError(), KeyError("secret")])
async def test_what_holds_is_kept_while_it_cannot_be_had_anew(fault: Exception) -> None:
    async with started() as case:
        case.source.fault = fault
        for _ in range(8):
            await case.pauses.next()
        assert case.pauses.asked[1:] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        assert case.tokens.now() == "token-1"
        assert len(case.world.failures) == 8
        assert not any("secret" in why for why in case.world.failures)
        case.world.now += 1000
        assert case.tokens.now() is None
        case.source.fault = None
        await case.pauses.next()
        assert case.tokens.now() == "token-10"
        assert case.world.recoveries == 1
        case.source.fault = fault
        await case.pauses.next()
        assert case.pauses.asked[-1] == 1.0


async def test_what_is_given_expired_is_a_failure() -> None:
    async with started() as case:
        case.source.life = -1.0
        await case.pauses.next()
        assert case.world.failures == ["what was given has expired already"]
        assert case.tokens.now() == "token-1"


async def test_what_cannot_be_sent_is_a_failure_and_not_taken() -> None:
    async with started() as case:

        def refuse(token: str) -> None:
            raise ValueError(token)

        case.tokens.check = refuse
        await case.pauses.next()
        assert case.world.failures == ["the answer cannot be understood (ValueError)"]
        assert case.tokens.now() == "token-1"


async def test_all_who_wait_at_the_start_wait_for_one_fetch() -> None:
    case = Case()
    case.source.gate.clear()
    case.tokens.start()
    waiting = [asyncio.ensure_future(case.tokens.ready()) for _ in range(10)]
    while not case.source.count:
        await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiting)
    case.source.gate.set()
    await asyncio.gather(*waiting)
    assert case.source.count == 1
    await case.tokens.close()


async def test_where_the_last_fetch_failed_nobody_waits() -> None:
    async with started(CredentialFailed("the server is away")) as case:
        with pytest.raises(CredentialFailed, match="the server is away"):
            await case.tokens.ready()
        assert case.source.count == 1


async def test_one_that_expired_while_the_machine_slept_is_fetched_at_once() -> None:
    async with started() as case:
        case.world.now += 5000
        await asyncio.gather(*(case.tokens.ready() for _ in range(5)))
        assert (case.source.count, case.tokens.now()) == (2, "token-2")


async def test_a_refused_one_is_fetched_anew_but_not_again_and_again() -> None:
    async with started() as case:
        assert not await case.tokens.renewed("token-1")
        case.world.now += 10
        assert await asyncio.gather(*(case.tokens.renewed("token-1") for _ in range(5))) == [True] * 5
        assert case.source.count == 2
        assert not await case.tokens.renewed("token-2")
        assert case.source.count == 2


async def test_a_token_stands_in_its_header_and_its_line_is_made_once() -> None:
    case = Case()
    made: list[str] = []

    def line_of(token: str) -> bytes:
        made.append(token)
        return f"authorization: Bearer {token}\r\n".encode()

    token = Token(case.tokens, line_of)
    assert token.sign_now(REQUEST) is None
    await token.ready()
    assert [token.sign_now(REQUEST) for _ in range(2)] == [b"authorization: Bearer token-1\r\n"] * 2
    assert made == ["token-1"]
    assert token.secrets() == ("token-1",)
    assert token.fields == {"authorization"}
    case.world.now += 10
    assert await token.renewed(b"authorization: Bearer token-1\r\n")
    assert token.sign_now(REQUEST) == b"authorization: Bearer token-2\r\n"
    assert await token.renewed(b"authorization: Bearer token-1\r\n")
    assert case.source.count == 2
    await token.close()

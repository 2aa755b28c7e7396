"""The addresses of a name: all are used, in turns, those that failed last; and connections that grow old."""

import asyncio
import socket
from typing import Any

import pytest

from sluice.upstream.names import Addresses, alternated
from tests.fakes.rawserver import Peer, Request, chunked, raw_server
from tests.upstream.calls import Caller, pumped


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def address(host: str, family: int = socket.AF_INET) -> Any:
    return (family, socket.SOCK_STREAM, 6, "", (host, 1))


A, B, C = address("127.0.0.1"), address("127.0.0.2"), address("127.0.0.3")
SIX, SEVEN = address("::1", socket.AF_INET6), address("::2", socket.AF_INET6)


def names(clock: Clock, *answers: list[Any]) -> tuple[Addresses, list[int]]:
    found = Addresses("x.example", 1, "x.example:1", clock)
    lookups: list[int] = []

    async def look_up() -> list[Any]:
        lookups.append(1)
        return list(answers[min(len(lookups), len(answers)) - 1])

    found._look_up = look_up  # type: ignore[method-assign]
    return found, lookups


async def test_every_address_is_first_in_its_turn() -> None:
    found, lookups = names(Clock(), [A, B, C])
    firsts = [(await found.ordered())[0] for _ in range(6)]
    assert firsts == [A, B, C, A, B, C]
    assert len(lookups) == 1


async def test_addresses_that_failed_are_last_for_a_while_and_then_no_longer() -> None:
    clock = Clock()
    found, _ = names(clock, [A, B, C])
    await found.ordered()
    found.failed([B])
    orders = [await found.ordered() for _ in range(3)]
    assert all(set(order) == {A, B, C} and order[-1] == B for order in orders)
    assert {order[0] for order in orders} == {A, C}
    found.failed([A])
    clock.now = 30.0
    found.failed([C])
    assert (await found.ordered())[-1] == C  # all have failed: the one that did so longest ago is first
    clock.now = 61.0
    assert {(await found.ordered())[0] for _ in range(3)} == {A, B}


async def test_an_answer_holds_for_its_time_and_the_next_replaces_it() -> None:
    clock = Clock()
    found, lookups = names(clock, [A], [B])
    assert await found.ordered() == [A]
    clock.now = 59.0
    assert await found.ordered() == [A]
    found.failed([A])
    clock.now = 61.0
    assert await found.ordered() == [B]
    assert len(lookups) == 2
    found.forget()
    await found.ordered()
    assert len(lookups) == 3


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ([SIX, SEVEN, A, B], [SIX, A, SEVEN, B]),
        ([A, B, C, SIX], [A, SIX, B, C]),
        ([A, B], [A, B]),
        ([SIX], [SIX]),
        ([], []),
    ],
)
def test_families_take_turns(given: list[Any], order: list[Any]) -> None:
    assert alternated(given) == order


async def answer(request: Request, peer: Peer) -> None:
    peer.send(chunked(b"ok"))


async def test_after_an_address_that_refuses_new_connections_begin_with_the_others(caller: Caller) -> None:
    async with raw_server(answer) as server:
        transport = caller.transport(f"http://two.invalid:{server.port}")
        known = transport.dialer._addresses
        good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        bad = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 1))
        known._known, known._expires = [bad, good], float("inf")
        assert await caller.whole(f"http://two.invalid:{server.port}") == (200, b"ok")
        assert [(await known.ordered())[0] for _ in range(4)] == [good] * 4
        await transport.close()


async def test_a_connection_that_is_old_gets_no_further_call(caller: Caller) -> None:
    clock = Clock()
    async with raw_server(answer) as server:
        transport = caller.transport(
            server.url, clock=clock, max_age=600.0, chance=lambda: 0.5, keepalive=1e9
        )
        await caller.whole(server.url)
        clock.now = 539.0
        await caller.whole(server.url)
        assert transport.dialed == 1
        clock.now = 541.0  # a tenth less than 600 s
        await caller.whole(server.url)
        assert transport.dialed == 2
        assert (transport.open, transport.idle) == (1, 1)
        await transport.close()


async def test_an_old_connection_is_closed_behind_its_call_and_never_within(caller: Caller) -> None:
    clock, going_on = Clock(), asyncio.Event()

    async def slow(request: Request, peer: Peer) -> None:
        whole = chunked(b"one", b"two")
        peer.send(whole[:-20])
        await going_on.wait()
        peer.send(whole[-20:])

    async with raw_server(slow) as server:
        transport = caller.transport(server.url, clock=clock, max_connections=1, max_age=600.0)
        async with caller.send(server.url) as response:
            clock.now = 10_000.0
            going_on.set()
            assert await pumped(response) == b"onetwo"
        assert (transport.open, transport.idle) == (0, 0)
        waiting = [asyncio.create_task(caller.whole(server.url)) for _ in range(3)]  # each place is given on
        assert [body for _, body in await asyncio.gather(*waiting)] == [b"onetwo"] * 3
        await transport.close()


async def test_without_a_bound_connections_are_kept(caller: Caller) -> None:
    clock = Clock()
    async with raw_server(answer) as server:
        transport = caller.transport(server.url, clock=clock, max_age=None, keepalive=1e12)
        await caller.whole(server.url)
        clock.now = 1e9
        await caller.whole(server.url)
        assert transport.dialed == 1
        await transport.close()

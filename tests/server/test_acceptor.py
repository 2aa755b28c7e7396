"""Accepting: a bound on connections at a time, no descriptors left, an emptied queue at the end, and what
sockets inherit."""

import asyncio
import errno
import socket
from typing import Any

import pytest

from sluice.server.acceptor import CONNECTIONS_PER_TURN, Acceptor
from sluice.server.exchange import HttpExchange
from tests.server.served import Served, served
from tests.server.test_connection import GET, Held, echo
from tests.upstream.calls import until


class Listening(socket.socket):
    """A listening socket whose `accept` fails as the test says, in this order."""

    def __init__(self, *errors: int) -> None:
        super().__init__()
        self.errors = list(errors)
        self.accepts = 0
        self.bind(("127.0.0.1", 0))
        self.setblocking(False)

    def accept(self) -> Any:
        self.accepts += 1
        if self.errors:
            raise OSError(self.errors.pop(0), "made up")
        return super().accept()


class Taken:
    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.starved: list[OSError] = []

    def accept_from(self, listening: socket.socket) -> Acceptor:
        return Acceptor(listening, self.sockets.append, self.starved.append)

    def close(self) -> None:
        for taken in self.sockets:
            taken.close()


def connect(acceptor: Acceptor, count: int) -> list[socket.socket]:
    return [socket.create_connection(acceptor.address) for _ in range(count)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_without_descriptors_or_memory_it_rests_and_then_goes_on(number: int) -> None:
    taken, listening = Taken(), Listening(number, number)
    acceptor = taken.accept_from(listening)
    clients = connect(acceptor, 3)
    await until(lambda: len(taken.sockets) == 3)
    assert [error.errno for error in taken.starved] == [number, number]
    assert listening.accepts <= 2 + 3 + 3, "no busy loop: each turn ends with one that has nothing, at most"
    acceptor.close()
    taken.close()
    for client in clients:
        client.close()


async def test_a_connection_that_is_gone_before_it_is_accepted_costs_the_others_nothing() -> None:
    taken, listening = Taken(), Listening(errno.ECONNABORTED, errno.EPROTO)
    acceptor = taken.accept_from(listening)
    clients = connect(acceptor, 3)
    await until(lambda: len(taken.sockets) == 3)
    assert not taken.starved
    acceptor.close()
    taken.close()
    for client in clients:
        client.close()


async def test_what_waits_in_the_queue_is_taken_at_the_end() -> None:
    taken = Taken()
    acceptor = taken.accept_from(Listening())
    clients = connect(acceptor, 2 * CONNECTIONS_PER_TURN + 5)  # and the event loop has had no turn since
    assert not taken.sockets
    acceptor.finish()
    assert len(taken.sockets) == 2 * CONNECTIONS_PER_TURN + 5
    acceptor.finish()
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(acceptor.address)
    taken.close()
    for client in clients:
        client.close()


async def test_at_rest_it_can_be_closed() -> None:
    taken = Taken()
    acceptor = taken.accept_from(Listening(*[errno.EMFILE] * 1000))
    [client] = connect(acceptor, 1)
    await until(lambda: bool(taken.starved))
    acceptor.close()
    client.close()


# --- the listener's part


def age(server: Served, seconds: float) -> None:
    """As if its connections had been unused for so long."""
    for connection in server.listener.connections:
        connection.since -= seconds


async def test_a_crowd_is_refused_and_those_that_are_served_go_on() -> None:
    held = Held()
    async with served(held, max_connections=3) as server:
        wires = [await server.wire() for _ in range(3)]
        for wire in wires:
            wire.writer.write(GET)
        await until(lambda: len(server.paths) == 3)
        crowd = [await server.wire() for _ in range(150)]  # more than are waited for
        for wire in crowd:
            wire.writer.write(GET)
        assert {(await wire.answer()).status for wire in crowd} == {503}
        assert server.broken == [503] * 150
        held.go.set()
        assert [(await wire.answer()).status for wire in wires] == [200] * 3


async def test_a_slow_reader_costs_the_kernel_little_and_a_fast_one_does_not_wait_for_acknowledgements() -> (
    None
):
    async with served(echo, send_buffer=32 << 10) as server:
        wire = await server.wire()
        assert (await wire.ask(GET)).status == 200
        transport = server.connection.transport
        assert transport is not None
        accepted = transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 32 << 10
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 2 * (32 << 10), (
            "the kernel's to choose"
        )
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_client_that_came_by_ipv4_to_a_socket_of_both_families_has_its_ipv4_address() -> None:
    peers = []

    async def note(exchange: HttpExchange) -> None:
        peers.append(exchange.peer)
        exchange.reply(200, b"")

    async with served(note) as server:
        try:
            both = socket.socket(socket.AF_INET6)
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            both.bind(("::", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        both.setblocking(False)
        acceptor = server.listener.listen(both)
        port = acceptor.address[1]
        for host in ("127.0.0.1", "::1"):
            server.address = (host, port)
            wire = await server.wire()
            assert (await wire.ask(GET)).status == 200
        acceptor.close()
    assert peers == ["127.0.0.1", "::1"]


async def test_a_drain_waits_for_the_request_of_a_new_connection_but_not_of_an_old_one() -> None:
    async with served(echo) as server:
        new, used = await server.wire(), await server.wire()
        assert (await used.ask(GET)).status == 200
        await until(lambda: len(server.listener.connections) == 2)
        waiting = asyncio.create_task(server.listener.answered(fresh=60.0))
        await asyncio.sleep(0)
        assert (await new.ask(GET)).status == 200
        age(server, 10.0)
        await waiting
        await server.listener.answered(fresh=0.0)

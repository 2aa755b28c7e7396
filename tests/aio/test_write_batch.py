"""The batch: what waits for the end of the turn, what does not, and that nothing is lost or out of turn."""

import asyncio
from typing import Any

import pytest

from sluice.aio.write_batch import MAX_BATCHED_BYTES, MAX_UNBATCHED_EXCHANGES, WriteBatch
from sluice.errors import UpstreamError
from sluice.upstream.connection import UpstreamConnection
from sluice.upstream.head_fields import HeadFields
from sluice.upstream.http1 import ResponseParser


class Loop:
    """Of an event loop: callbacks that are due."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.due.append(callback)

    def turn(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def batch(loop: Loop) -> WriteBatch:
    batch = WriteBatch(loop)  # type: ignore[arg-type]
    batch.users = MAX_UNBATCHED_EXCHANGES + 1
    return batch


def test_few_exchanges_do_not_wait(batch: WriteBatch) -> None:
    batch.users = MAX_UNBATCHED_EXCHANGES
    transport = Transport()
    batch.write(transport, b"a")
    assert transport.written == [b"a"]


def test_many_exchanges_are_written_together_at_the_end_of_the_turn(batch: WriteBatch, loop: Loop) -> None:
    one, another = Transport(), Transport()
    batch.write(one, b"a")
    batch.write(another, b"b")
    batch.write(one, b"c")
    assert (one.written, another.written) == ([], [])
    assert batch.holds(one)
    loop.turn()
    assert (one.written, another.written) == ([b"ac"], [b"b"])
    assert not batch.holds(one)
    batch.write(one, b"d")
    loop.turn()
    assert one.written == [b"ac", b"d"]


def test_what_is_large_does_not_wait_and_keeps_its_turn(batch: WriteBatch, loop: Loop) -> None:
    transport = Transport()
    large = b"x" * (MAX_BATCHED_BYTES + 1)
    batch.write(transport, b"a")
    batch.write(transport, large)
    assert transport.written == [b"a" + large]
    batch.write(transport, b"b")
    loop.turn()
    loop.turn()
    assert transport.written == [b"a" + large, b"b"]


def test_many_small_pieces_for_one_transport_are_bounded(batch: WriteBatch) -> None:
    transport = Transport()
    for _ in range(MAX_BATCHED_BYTES):
        batch.write(transport, b"xy")
    assert sum(map(len, transport.written)) >= MAX_BATCHED_BYTES


def test_a_flush_is_at_once(batch: WriteBatch, loop: Loop) -> None:
    transport = Transport()
    batch.write(transport, b"a")
    batch.flush()
    assert transport.written == [b"a"]
    loop.turn()
    assert transport.written == [b"a"]


def test_when_exchanges_become_few_what_waits_goes_first(batch: WriteBatch, loop: Loop) -> None:
    transport = Transport()
    batch.write(transport, b"a")
    batch.users = MAX_UNBATCHED_EXCHANGES
    batch.write(transport, b"b")
    assert transport.written == [b"ab"]
    loop.turn()
    assert transport.written == [b"ab"]


def test_nothing_is_written_to_what_is_closing(batch: WriteBatch, loop: Loop) -> None:
    transport = Transport()
    batch.write(transport, b"a")
    transport.closing = True
    loop.turn()
    assert transport.written == []


def test_what_comes_before_its_request_has_left_is_no_answer(batch: WriteBatch, loop: Loop) -> None:
    """Else the answer of a pooled connection would belong to whoever uses it next."""

    class Receiver:
        heads = 0
        error: UpstreamError | None = None

        def head_came(self, status: int, headers: dict[str, str]) -> None:
            self.heads += 1

        def body_came(self, data: bytes) -> None: ...

        def ended(self, error: UpstreamError | None) -> None:
            self.error = error

    transport, receiver = Transport(), Receiver()
    connection = UpstreamConnection(
        ResponseParser("peer", HeadFields()), "peer", lambda _: None, memoryview(bytearray(64)), batch
    )
    connection.connection_made(transport)
    connection.ask("POST", b"POST / HTTP/1.1\r\nContent-Length: ", b"{}", receiver)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    connection.get_buffer(-1)[: len(answer)] = answer
    connection.buffer_updated(len(answer))
    assert receiver.heads == 0
    assert receiver.error is not None
    assert receiver.error.kind == "reset"
    assert not connection.answered, "so that it is sent again, elsewhere"
    assert connection.closed
    loop.turn()
    assert transport.written == []

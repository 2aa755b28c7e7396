"""Messages between a worker and its supervisor."""

import socket

import pytest

from sluice.process.channel import ChannelEnd, ChannelReply, ChannelRequest, Frames, Message, framed

MESSAGES: list[Message] = [
    ChannelRequest(1, "reload", b"x" * 300),
    ChannelReply(1, {"a": [1, None]}),
    ChannelReply(2, problem="no"),
]
STREAM = b"".join(part for message in MESSAGES for part in framed(message))


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100, 1000])
def test_messages_are_split_however_the_bytes_are_cut(step: int) -> None:
    frames = Frames()
    found = [message for at in range(0, len(STREAM), step) for message in frames.feed(STREAM[at : at + step])]
    assert found == MESSAGES


def test_what_does_not_fit_waits_and_nothing_blocks() -> None:
    one, other = socket.socketpair()
    sender, receiver = ChannelEnd(one), ChannelEnd(other)
    big = ChannelReply(7, b"x" * 4_000_000)
    sender.send(big)
    assert sender.full
    found: list[Message] = []
    while not found:
        sender.flush()
        found += receiver.receive()
    assert found == [big]
    assert not sender.full
    sender.close()
    assert [*receiver.receive()] == []
    assert receiver.closed
    receiver.send(big)  # dropped: nobody is there
    receiver.close()

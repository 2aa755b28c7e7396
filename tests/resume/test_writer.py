"""Numbers, and who is written to: the writer of a resumable call."""

from collections.abc import Sequence

import pytest

from sluice.proxy.writer import NullWriter
from sluice.resume.writer import JournaledWriter

NDJSON = "application/x-ndjson; charset=utf-8"
SSE = "text/event-stream; charset=utf-8"


class Client(NullWriter):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[bytes, bool]] = []
        self.upstream: object = None

    def write(self, data: bytes, *, last: bool = False) -> None:
        self.written.append((data, last))

    def attach(self, upstream: object) -> None:
        self.upstream = upstream

    async def writable(self) -> None:
        pass


class Journal:
    def __init__(self) -> None:
        self.unresumable = False
        self.unread = float("inf")
        self.frames: list[bytes] = []
        self.ended = False

    def append(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        self.frames += frames
        self.ended = last

    def close(self) -> None:
        pass


class Upstream:
    """Only its identity matters."""


def begun(content_type: str) -> tuple[JournaledWriter, Client, Journal]:
    client, journal = Client(), Journal()
    writer = JournaledWriter(client, journal, "abc")
    writer.begin(content_type, ())
    return writer, client, journal


FIRST = b'{"type":"start","streamId":"abc","n":0}\n'
CASES = {
    "a line": (NDJSON, b'{"type":"start"}\n', [FIRST]),
    "several lines": (NDJSON, b'{"type":"start"}\n{"a":"}"}\n', [FIRST, b'{"a":"}","n":1}\n']),
    "a heartbeat": (NDJSON, b"\n", []),
    "an event": (SSE, b"data: {}\n\n", [b"data: {}\nid: abc:0\n\n"]),
    "several events": (
        SSE,
        b"data: 1\n\ndata: [DONE]\n\n",
        [b"data: 1\nid: abc:0\n\n", b"data: [DONE]\nid: abc:1\n\n"],
    ),
    "a comment": (SSE, b": keep-alive\n\n", []),
    "comments": (SSE, b": one\n:two\n\n", []),
    "a comment in an event": (SSE, b": hm\ndata: 1\n\n", [b": hm\ndata: 1\nid: abc:0\n\n"]),
    "an event with an id of its own": (SSE, b"id: 7\ndata: 1\n\n", [b"id: 7\ndata: 1\nid: abc:0\n\n"]),
    "an event of two lines": (SSE, b"event: x\ndata: 1\n\n", [b"event: x\ndata: 1\nid: abc:0\n\n"]),
    "too many empty lines": (
        SSE,
        b"data: 1\n\n\ndata: 2\n\n",
        [b"data: 1\nid: abc:0\n\n", b"data: 2\nid: abc:1\n\n"],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_frames_are_numbered_and_kept_as_they_are_sent(case: str) -> None:
    content_type, said, frames = CASES[case]
    writer, client, journal = begun(content_type)
    writer.write(said)
    assert journal.frames == frames
    assert client.written == [(b"".join(frames) or said, False)]


async def test_numbers_go_on_over_writes_and_the_last_ends_both() -> None:
    writer, client, journal = begun(SSE)
    for number in range(3):
        writer.write(b"data: 1\n\n", last=number == 2)
    assert journal.frames == [b"data: 1\nid: abc:%d\n\n" % number for number in range(3)]
    assert journal.ended
    assert [last for _, last in client.written] == [False, False, True]


async def test_a_client_that_does_not_read_is_left_to_the_journal_for_good() -> None:
    writer, client, journal = begun(SSE)
    upstream = Upstream()
    writer.attach(upstream)  # type: ignore[arg-type]
    writer.write(b"data: 1\n\n")
    client.blocked_since = 1.0
    writer.write(b"data: 2\n\n")
    client.blocked_since = 0.0
    writer.write(b"data: 3\n\n")
    assert writer.fell_behind.done()
    assert (writer.written, len(client.written), len(journal.frames)) == (0, 1, 3)
    assert writer.blocked_since == 0.0
    assert client.upstream is None  # never paused on its account


async def test_without_a_journal_the_client_holds_its_upstream_up_as_ever() -> None:
    writer, client, journal = begun(SSE)
    upstream = Upstream()
    writer.attach(upstream)  # type: ignore[arg-type]
    journal.unresumable = True
    writer.write(b"data: 1\n\n")
    assert client.upstream is upstream
    client.blocked_since = 5.0
    writer.write(b"data: 2\n\n")
    assert writer.blocked_since == 5.0
    assert len(client.written) == 2
    assert not writer.fell_behind.done()


async def test_who_has_left_is_not_written_to_and_the_time_counts() -> None:
    now = 100.0
    client, journal = Client(), Journal()
    writer = JournaledWriter(client, journal, "abc", lambda: now)
    writer.begin(NDJSON, ())
    assert writer.unread == 0.0
    writer.detach()
    writer.write(b'{"type":"start"}\n')
    now = 107.0
    assert writer.unread == 7.0
    journal.unread = 2.0
    assert writer.unread == 2.0
    assert not client.written
    assert journal.frames == [FIRST]

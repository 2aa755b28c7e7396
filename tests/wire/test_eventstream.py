"""Binary event streams of AWS: every type of header, both checksums, bounds, every cut; botocore's own parser
agrees."""

import base64
import random
import struct
import zlib
from uuid import UUID

import pytest

from sluice.errors import UpstreamGarbled
from sluice.wire.eventstream import MAX_HEADERS, EventMessage, MessageStream, headers_of
from tests import corpus
from tests.fakes.eventstreams import header, message
from tests.plugins.credentials.oracle import ask
from tests.wire import cuts

EVERY_TYPE = b"".join(
    (
        header("yes", True), header("no", False), header("byte", -3, 2), header("short", -300, 3), header("int", 70_000, 4),
        header("long", -(2**40), 5), header("bytes", b"\x00\xff"), header("text", "\u00e4\U0001f600"),
        header("time", 1_700_000_000_000, 8), header("uuid", UUID(int=7)),
    )
)  # fmt: skip
VALUES = {
    "yes": True, "no": False, "byte": -3, "short": -300, "int": 70_000, "long": -(2**40), "bytes": b"\x00\xff",
    "text": "\u00e4\U0001f600", "time": 1_700_000_000_000, "uuid": UUID(int=7).bytes,
}  # fmt: skip
STREAM = message(EVERY_TYPE, b"{}") + message({}) + message({":event-type": "x"}, b"a" * 70)


def told(reads: list[bytes], limit: int = 1000) -> list[EventMessage]:
    stream = MessageStream(limit)
    messages = [found for read in reads for found in stream.feed(read)]
    assert stream.close()
    return messages


def test_every_type_of_header_is_read_however_the_bytes_are_cut() -> None:
    for reads in cuts.exhaustive(STREAM):
        first, second, third = told(reads)
        assert (first.headers, first.payload) == (VALUES, b"{}")
        assert [type(value) for value in first.headers.values()] == [type(value) for value in VALUES.values()]
        assert (second.headers, second.payload) == ({}, b"")
        assert (third.text(":event-type"), third.payload) == ("x", b"a" * 70)


def test_a_header_of_another_type_is_no_text_and_of_a_doubled_one_the_first_counts() -> None:
    [found] = told(
        [message(header("n", 5) + header("a", "x") + header("a", "y") + header("long", "z" * 300))]
    )
    assert (found.text("n"), found.text("a"), found.text("absent"), len(found.text("long"))) == (
        "",
        "x",
        "",
        300,
    )


@pytest.mark.parametrize("at", range(len(message({"a": "b"}, b"payload"))))
def test_a_flipped_bit_anywhere_is_found(at: int) -> None:
    wrong = bytearray(message({"a": "b"}, b"payload"))
    wrong[at] ^= 0x10
    for reads in ([bytes(wrong)], cuts.bytewise(bytes(wrong))):
        with pytest.raises(UpstreamGarbled):
            told(reads)


def sized(total: int, headers: int) -> bytes:
    prelude = struct.pack(">II", total, headers)
    return prelude + struct.pack(">I", zlib.crc32(prelude))


@pytest.mark.parametrize(
    ("total", "headers"),
    [(0, 0), (15, 0), (1001, 0), (2**32 - 1, 0), (100, 85), (100, 2**32 - 1), (2**31, MAX_HEADERS + 1)],
)
def test_lengths_are_not_believed_although_their_checksum_is_right(total: int, headers: int) -> None:
    with pytest.raises(UpstreamGarbled):
        MessageStream(1000).feed(sized(total, headers))


def test_headers_have_a_bound_of_their_own() -> None:
    with pytest.raises(UpstreamGarbled):
        MessageStream(2**24).feed(sized(2**20, MAX_HEADERS + 1))


@pytest.mark.parametrize(
    "wrong",
    [
        header("a", b"", 10)[:-2], header("a", b"", 255)[:-2],  # types that nobody knows
        b"\x01a", b"\x05a", b"\x01a\x07\x00", b"\x01a\x07\x00\x05abc", b"\x01a\x04\x00", b"\x01a\x09" + b"1" * 15,
    ],
)  # fmt: skip
def test_headers_that_end_elsewhere_than_they_say_are_refused(wrong: bytes) -> None:
    with pytest.raises(UpstreamGarbled):
        told([message(wrong)])
    with pytest.raises(UpstreamGarbled):
        told([message(header("long", "z" * 300) + wrong)])


def test_messages_before_a_wrong_one_are_told_first() -> None:
    stream = MessageStream()
    assert len(stream.feed(message({"a": "b"}) + message({}) + b"\x00" * 12)) == 2
    with pytest.raises(UpstreamGarbled):
        stream.feed(b"")
    with pytest.raises(UpstreamGarbled):
        stream.close()


def test_half_a_message_is_no_clean_end() -> None:
    stream = MessageStream()
    assert stream.feed(message({"a": "b"})[:-1]) == []
    assert not stream.close()


BOTOCORE = """
import base64, json, sys
from botocore.eventstream import EventStreamBuffer
def plain(value):
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
told = []
for body in json.load(sys.stdin):
    buffer = EventStreamBuffer()
    buffer.add_data(base64.b64decode(body))
    told.append([[{n: plain(v) for n, v in e.headers.items()}, base64.b64encode(e.payload).decode()] for e in buffer])
print(json.dumps(told))
"""


def plain(found: EventMessage) -> list[object]:
    """A message as botocore's script writes it."""
    headers = {
        name: {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in found.headers.items()
    }
    return [headers, base64.b64encode(found.payload).decode()]


def odd_message(chance: random.Random) -> bytes:
    headers = b""
    for number in range(chance.randint(0, 6)):
        name = f"{number}" + "n" * chance.randint(0, 200)
        kind = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
        size = {2: 8, 3: 16, 4: 32}.get(kind, 64)
        value: object = chance.randint(-(2 ** (size - 1)), 2 ** (size - 1) - 1)
        if kind in (6, 7):
            value = (
                chance.randbytes(chance.randint(0, 400))
                if kind == 6
                else "\u00fc\u2028" * chance.randint(0, 200)
            )
        headers += header(name, chance.randbytes(16) if kind == 9 else value, kind)
    return message(headers, chance.randbytes(chance.randint(0, 3000)))


def test_botocore_reads_the_same_in_odd_messages_and_in_recorded_streams() -> None:
    chance = random.Random(1)
    bodies = [b"".join(odd_message(chance) for _ in range(chance.randint(1, 5))) for _ in range(200)]
    bodies += [recorded.body for recorded in corpus.streams("bedrock-converse", "bedrock-invoke")]
    theirs = ask("botocore", BOTOCORE, [base64.b64encode(body).decode() for body in bodies])
    for number, (body, told_by_them) in enumerate(zip(bodies, theirs, strict=True)):
        assert [plain(found) for found in told(cuts.random(body, number), 1 << 20)] == told_by_them


def test_headers_are_read_once_where_they_are_ordinary() -> None:
    ordinary = header(":event-type", "contentBlockDelta")
    assert headers_of(ordinary) is headers_of(bytes(ordinary))

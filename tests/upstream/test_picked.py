"""What an endpoint picker is sent of a request, and what of its answers is believed."""

import random
from collections.abc import Sequence
from typing import Any, cast

import pytest

from sluice.backends.transport import UpstreamRequest
from sluice.errors import UpstreamError
from sluice.upstream.grpc import GrpcStream
from sluice.upstream.picked import PickedTransport, _changed, _headers_of
from sluice.wire.ext_proc import Pick
from tests.wire.test_ext_proc import NAMED, headers_answer, metadata, piece, set_header


def sent(*headers: tuple[str, str], lines: bytes = b"", url: str = "http://pool/v1/chat") -> dict[str, str]:
    return dict(_headers_of(UpstreamRequest(url, headers, b"{}", lines=lines)))


def test_a_picker_gets_the_requests_headers() -> None:
    headers = (("content-type", "application/json"), ("x-gateway-inference-objective", "batch"))
    assert sent(*headers, lines=b"x-request-id: r1\r\ntraceparent: 00-1-2\r\n") == {
        ":method": "POST", ":path": "/v1/chat", ":authority": "pool", ":scheme": "http",
        "content-type": "application/json", "x-gateway-inference-objective": "batch",
        "x-request-id": "r1", "traceparent": "00-1-2",
    }  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer sk-1"),
        ("Authorization", "sk-1"),
        ("api-key", "sk-1"),
        ("X-Api-Key", "sk-1"),
        ("x-goog-api-key", "sk-1"),
        ("cf-access-client-secret", "sk-1"),
        ("cookie", "a=sk-1"),
        ("x-amz-security-token", "sk-1"),
        ("proxy-authorization", "Basic sk-1"),
        ("x-upstream", "bearer sk-1"),
    ],
)
def test_a_picker_never_gets_credentials(header: tuple[str, str]) -> None:
    line = f"{header[0]}: {header[1]}\r\n".encode()
    for found in (sent(header), sent(lines=line), sent(url="http://pool/v1/chat?key=sk-1")):
        assert not any("sk-1" in value for value in found.values())
        assert found[":path"] == "/v1/chat"


class Answers:
    """A channel and its stream, on which a picker says this."""

    name = "picker"

    def __init__(self, *messages: bytes) -> None:
        self.messages = list(messages)
        self.cancelled = self.ignored = False

    async def begin(self, path: str) -> "Answers":
        return self

    def send(self, message: bytes) -> None:
        pass

    async def receive(self) -> bytes:
        return self.messages.pop(0)

    def ignore(self) -> None:
        self.ignored = True

    def cancel(self) -> None:
        self.cancelled = True


async def picked(
    answers: Answers, *, body: bytes = b"", networks: Sequence[str] | None = None
) -> Pick | None:
    transport = PickedTransport(cast("Any", None), cast("Any", answers), timeout=60, networks=networks)
    return (await transport.pick(UpstreamRequest("http://pool/v1/chat", (), body)))[0]


async def test_endpoints_outside_of_the_networks_get_no_request() -> None:
    listed = metadata("10.9.0.1:80,10.8.0.1:80,[::ffff:10.8.0.2]:80,[fd00::1]:80") + headers_answer(b"")
    pick = await picked(Answers(listed), networks=["10.8.0.0/16"])
    assert pick is not None
    assert [endpoint.host for endpoint in pick.endpoints] == ["10.8.0.1", "::ffff:a08:2"]
    answers = Answers(listed)
    with pytest.raises(UpstreamError):  # "connect_error"
        await picked(answers, networks=["192.0.2.0/24"])
    assert answers.cancelled


async def test_nobody_reads_what_a_picker_says_behind_its_answer() -> None:
    answers = Answers(NAMED)
    await picked(answers)
    assert answers.ignored
    stream = GrpcStream(cast("Any", None), 1)
    message = b"\0" + (1 << 20).to_bytes(4, "big") + bytes(1 << 20)
    assert stream.came(message + message[: 1 << 19])
    stream.ignore()
    assert stream.came(message * 8)
    assert (len(stream._in), len(stream._messages)) == (0, 0)
    assert not stream.came(message * 64)  # it is ended, for it sends more than anybody would


async def test_any_bytes_of_a_picker_are_an_answer_or_its_failure() -> None:
    chance = random.Random(7)
    whole = NAMED + metadata("10.0.0.1:80") + piece(b"{}", last=True)
    for _ in range(2000):
        cut = bytearray(whole[: chance.randrange(len(whole) + 1)] + chance.randbytes(chance.randrange(8)))
        for _ in range(chance.randrange(4)):
            if cut:
                cut[chance.randrange(len(cut))] = chance.randrange(256)
        try:
            pick = await picked(Answers(bytes(cut), *[whole] * 3), body=b"{}")
        except UpstreamError:
            continue
        assert pick is not None
        assert pick.refused or pick.endpoints


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-a", b"1\r\nhost: evil"), ("x-a", b"1\n"), ("x-a", b"1\0"), ("x a", b"1"), ("", b"1"), ("x-a:", b"1"),
        ("x\r\nhost", b"evil"),
    ],
)  # fmt: skip
def test_headers_that_would_end_a_line_are_the_pickers_failure(name: str, value: bytes) -> None:
    pick = Pick()
    pick.feed(headers_answer(set_header(name, value)))
    with pytest.raises(UpstreamError) as failed:
        _changed(UpstreamRequest("http://pool/v1/chat", (), b"{}"), pick)
    assert failed.value.kind == "connect_error"


def test_a_picker_sets_no_header_twice_frames_no_message_and_brings_no_credentials() -> None:
    pick = Pick()
    names = (
        "Host",
        "content-length",
        "transfer-encoding",
        "x-mine",
        "x-given",
        "authorization",
        "x-api-key",
        ":path",
    )
    for name in (*names, "x-prefiller-host-port"):
        pick.feed(headers_answer(set_header(name, b"1")))
    request = UpstreamRequest("http://pool/v1/chat", (("X-Mine", "a"),), b"{}", lines=b"x-given: b\r\n")
    assert _changed(request, pick).lines == b"x-given: b\r\nx-prefiller-host-port: 1\r\n"

"""Answers that an upstream compressed though identity was asked for: read, and bounded."""

import gzip

import pytest

from sluice.errors import UpstreamError
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, Request, chunk, raw_server, sized
from tests.upstream.calls import Caller, pumped

TEXT = b"data: 1\n\ndata: 2\n\n"
GZIP = ("Content-Encoding", "gzip")


def answering(*data: bytes) -> object:
    async def handler(request: Request, peer: Peer) -> None:
        for piece in data:
            peer.send(piece)

    return handler


async def test_a_compressed_body_is_read_and_its_connection_used_again(caller: Caller) -> None:
    async with raw_server(answering(sized(gzip.compress(TEXT), 200, GZIP))) as server:  # type: ignore[arg-type]
        for _ in range(2):
            assert await caller.whole(server.url) == (200, TEXT)
        assert len(server.peers) == 1
        await caller.transports[0].close()


async def test_a_stream_is_decompressed_as_it_comes(caller: Caller) -> None:
    packed = gzip.compress(TEXT)
    head = CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n"
    async with raw_server(
        answering(head, *(chunk(packed[at : at + 1]) for at in range(len(packed))), LAST_CHUNK)
    ) as server:  # type: ignore[arg-type]
        async with caller.send(server.url) as response:
            assert await pumped(response) == TEXT
        await caller.transports[0].close()


async def test_an_error_is_decompressed_too(caller: Caller) -> None:
    body = gzip.compress(b'{"error": {"message": "no such model"}}' + b" " * 500)
    async with raw_server(answering(sized(body, 404, GZIP))) as server:  # type: ignore[arg-type]
        async with caller.send(server.url) as response:
            assert response.status == 404
            assert (await response.read(40)).startswith(b'{"error": {"message": "no such model"}}')
        await caller.transports[0].close()


@pytest.mark.parametrize(
    ("body", "coding", "kind"),
    [
        (gzip.compress(TEXT)[:-4], "gzip", "truncated"),
        (b"not at all", "gzip", "garbled"),
        (b"x", "compress", "garbled"),
        (gzip.compress(bytes(24 << 20)), "gzip", "garbled"),
    ],
    ids=["cut", "broken", "unknown", "bomb"],
)
async def test_what_cannot_be_read_is_an_error(body: bytes, coding: str, kind: str, caller: Caller) -> None:
    async with raw_server(answering(sized(body, 200, ("Content-Encoding", coding)))) as server:  # type: ignore[arg-type]
        size = 0

        def sink(data: bytes) -> None:
            nonlocal size
            size += len(data)

        with pytest.raises(UpstreamError) as failed:
            async with caller.send(server.url) as response:
                await response.pump(sink)
        assert failed.value.kind == kind
        assert size < 20 << 20
        await caller.transports[0].close()

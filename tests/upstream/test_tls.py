import re
import ssl

import pytest

from sluice.errors import UpstreamError
from sluice.upstream.tls import tls_context
from tests.fakes.rawserver import Peer, RawServer, Request, authority, chunked, raw_server
from tests.upstream.calls import Caller, request


async def answer(request: Request, peer: Peer) -> None:
    peer.send(chunked(b"ok"))


def trusted() -> ssl.SSLContext:
    return authority().trust(tls_context())


async def test_a_trusted_server_is_spoken_to_and_its_connection_kept(caller: Caller) -> None:
    async with raw_server(answer, tls=authority().server) as server:
        transport = caller.transport(server.url, tls=trusted())
        for _ in range(3):
            assert await caller.whole(server.url) == (200, b"ok")
        assert transport.dialed == 1
        assert server.requests[0].headers["host"] == f"localhost:{server.port}"
        await transport.close()


@pytest.mark.parametrize(
    ("context", "words"),
    [("stranger", "certificate is not trusted"), ("wrong name", "certificate is not trusted")],
)
async def test_a_certificate_that_does_not_fit_is_a_tls_error(
    context: str, words: str, caller: Caller
) -> None:
    served = authority().stranger if context == "stranger" else authority().server
    async with raw_server(answer, tls=served) as server:
        url = server.url if context == "stranger" else server.url.replace("localhost", "127.0.0.1")
        caller.transport(url, tls=trusted())
        with pytest.raises(UpstreamError) as failed:
            await caller.whole(url)
        assert re.search(words, failed.value.detail)
        assert failed.value.kind == "tls_error"
        assert caller.transports[0].open == 0
        assert server.requests == []


async def plain_greeting(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def hang_up(peer: Peer) -> None:
    peer.close()


async def reset(peer: Peer) -> None:
    peer.reset()


@pytest.mark.parametrize("greet", [plain_greeting, hang_up, reset])
async def test_a_server_that_does_not_speak_tls_is_a_tls_error(greet: object, caller: Caller) -> None:
    async with raw_server(answer, greet=greet) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        caller.transport(url, tls=trusted())
        with pytest.raises(UpstreamError) as failed:
            await caller.whole(url)
        assert failed.value.kind in ("tls_error", "connect_error")
        if greet is not reset:
            assert failed.value.kind == "tls_error"


async def test_a_handshake_that_hangs_costs_the_connect_time(caller: Caller) -> None:
    async def silent(peer: Peer) -> None:
        await peer.stall()

    async with raw_server(answer, greet=silent) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(UpstreamError) as failed:
            await caller.whole(url, connect=0.05)
        assert failed.value.kind == "connect_timeout"


async def test_a_second_connection_resumes_the_first_ones_session(caller: Caller) -> None:
    reused: list[bool] = []

    async def handler(request: Request, peer: Peer) -> None:
        reused.append(peer.transport.get_extra_info("ssl_object").session_reused)
        peer.send(chunked(b"ok"))

    async with RawServer(handler, tls=authority().server) as server:
        transport = caller.transport(server.url, tls=trusted())
        for _ in range(3):
            await caller.whole(server.url)
            server.peers[-1].close()
            await server.peers[-1].closed.wait()
            transport.pool.close()
    assert reused == [False, True, True]


def test_the_default_context_verifies_and_speaks_http_1_1_only() -> None:
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_plain_address_is_never_spoken_to_in_tls(caller: Caller) -> None:
    async with raw_server(answer) as server:
        transport = caller.transport(server.url, tls=trusted())
        async with transport.send(request(server.url), connect=5, headers=5) as response:
            assert response.status == 200
        await transport.close()

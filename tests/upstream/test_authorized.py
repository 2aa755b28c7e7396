"""Requests signed one by one: which credential, what follows a refusal, what callers see."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import pytest

from sluice.backends.credentials import CredentialFailed
from sluice.backends.transport import Sink, UpstreamRequest, UpstreamResponse
from sluice.errors import UpstreamError
from sluice.upstream import HttpTransport
from sluice.upstream.authorized import AuthorizedTransport
from sluice.upstream.credential_pool import CredentialPool, PooledCredential
from sluice.wire.upstream_errors import upstream_error
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.upstream.calls import LONG, pumped, request
from tests.upstream.test_credential_pool import Watching


class Key:
    """A key that a test replaces: `later` is what `ready` brings, `next` what `renewed` finds."""

    fields = frozenset({"authorization"})

    def __init__(self, key: str = "", *, later: str = "", next: str = "") -> None:
        self.key, self.later, self.next = key, later, next
        self.closed = False

    def _line(self) -> bytes:
        return f"authorization: Bearer {self.key}\r\n".encode()

    def sign_now(self, request: UpstreamRequest) -> bytes | None:
        return self._line() if self.key else None

    async def ready(self) -> None:
        await asyncio.sleep(0)
        if not self.later:
            raise CredentialFailed("none")
        self.key = self.later

    async def renewed(self, lines: bytes) -> bool:
        await asyncio.sleep(0)
        self.key = self.next or self.key
        return self._line() != lines

    def secrets(self) -> Iterable[str]:
        return (self.key,)

    async def close(self) -> None:
        self.closed = True


ANSWERS: Mapping[str, bytes] = {
    "good": sized(b"fine"),
    "bad": sized(b'{"error": {"message": "no such key"}}', 401),
    "poor": sized(b'{"error": {"code": "insufficient_quota"}}', 429),
    "busy": sized(b'{"error": {"message": "slow down"}}', 429, ("Retry-After", "20")),
    "busier": sized(b'{"error": {"message": "slow down"}}', 429, ("Retry-After", "40")),
    "strange": sized(b'{"error": {"message": "temperature is too high"}}', 400),
    "broken": sized(b"oh", 500),
}


async def provider(request: Request, peer: Peer) -> None:
    """What it answers is the name of the key."""
    peer.send(ANSWERS[request.headers["authorization"].removeprefix("Bearer ")])


class Sender:
    def __init__(self, url: str, keys: Iterable[Key], server: RawServer) -> None:
        self.now = 0.0
        self._server = server
        self.members = [PooledCredential(str(at), 1.0, key, Watching()) for at, key in enumerate(keys)]
        self.pool = CredentialPool(self.members, lambda: self.now, lambda: 0.0)
        self.http = HttpTransport(url, signed=("authorization",))
        self.transport = AuthorizedTransport(self.http, self.pool, upstream_error)
        self.url = url

    async def send(self) -> tuple[int, bytes]:
        async with self.transport.send(request(self.url), connect=LONG, headers=LONG) as response:
            return response.status, await pumped(response)  # type: ignore[arg-type]

    def seen(self) -> list[str]:
        """The keys that the provider has seen."""
        requests = [request for peer in self._server.peers for request in peer.requests]
        return [request.headers["authorization"].removeprefix("Bearer ") for request in requests]

    def told(self, at: int) -> list[tuple[str, float]]:
        watcher = self.members[at].watcher
        assert isinstance(watcher, Watching)
        return watcher.told


@asynccontextmanager
async def sender(*keys: Key) -> AsyncIterator[Sender]:
    """A sender with these keys; at the end all are closed, and no connection is left."""
    async with RawServer(provider) as server:
        sending = Sender(server.url, keys, server)
        try:
            yield sending
        finally:
            await sending.transport.close()
        assert all(key.closed for key in keys)
        assert sending.http.open == 0


async def test_an_answer_comes_as_it_is_and_nothing_is_told() -> None:
    async with sender(Key("good"), Key("good")) as sending:
        assert [await sending.send() for _ in range(2)] == [(200, b"fine")] * 2
        assert sending.told(0) == sending.told(1) == []


@pytest.mark.parametrize(
    ("key", "told"),
    [("bad", ("bad_credentials", 15.0)), ("poor", ("billing", 15.0)), ("busy", ("rate_limited", 20.0))],
)
async def test_a_refused_credential_is_left_alone_and_the_next_one_asked(
    key: str, told: tuple[str, float]
) -> None:
    async with sender(Key(key), Key("good")) as sending:
        assert [await sending.send() for _ in range(4)] == [(200, b"fine")] * 4
        assert sending.seen() == [key, "good", "good", "good", "good"]
        assert sending.told(0) == [told]
        assert sending.told(1) == []


async def test_a_request_at_fault_is_told_so_and_blames_nobody() -> None:
    async with sender(Key("strange"), Key("good")) as sending:
        assert (await sending.send())[0] == 400
        assert sending.told(0) == []


async def test_a_broken_provider_is_nobodys_fault_either() -> None:
    async with sender(Key("broken"), Key("good")) as sending:
        assert await sending.send() == (500, b"oh")
        assert sending.told(0) == []


async def test_each_is_asked_once_and_the_shortest_wait_is_told() -> None:
    async with sender(Key("busier"), Key("busy"), Key("bad")) as sending:
        async with sending.transport.send(request(sending.url), connect=LONG, headers=LONG) as response:
            error = upstream_error(response.status, response.headers, await response.read(1000))
        assert sorted(sending.seen()) == ["bad", "busier", "busy"]
        assert (error.kind, error.retry_after) == (
            "rate_limited",
            15.0,
        )  # then the refused one is tried again
        assert "slow down" in error.message
        assert (await sending.send())[
            0
        ] == 401  # of those that are left alone, the one that is soonest usable


async def test_one_that_has_something_new_is_asked_once_more() -> None:
    async with sender(Key("bad", next="good")) as sending:
        assert await sending.send() == (200, b"fine")
        assert sending.seen() == ["bad", "good"]
        assert sending.told(0) == []


async def test_many_requests_with_the_old_key_all_get_the_new_one() -> None:
    async with sender(Key("bad", next="good")) as sending:
        assert await asyncio.gather(*(sending.send() for _ in range(20))) == [(200, b"fine")] * 20
        assert sending.told(0) == []


async def test_one_that_has_nothing_yet_is_waited_for_where_it_is_alone() -> None:
    async with sender(Key(later="good")) as sending:
        assert await sending.send() == (200, b"fine")


async def test_one_that_has_nothing_yet_is_not_waited_for_where_another_has() -> None:
    async with sender(Key(), Key("good")) as sending:
        assert [await sending.send() for _ in range(3)] == [(200, b"fine")] * 3
        assert sending.told(0) == []


async def test_without_any_key_the_account_is_at_fault() -> None:
    async with sender(Key()) as sending:
        with pytest.raises(UpstreamError) as raised:
            await sending.send()
        assert raised.value.kind == "bad_credentials"
        assert sending.seen() == []
        assert sending.told(0) == [("unavailable", 1.0)]


async def test_a_success_after_a_refusal_is_told() -> None:
    async with sender(Key("bad"), Key("good")) as sending:
        await sending.send()
        sending.members[0].credential.key = "good"  # type: ignore[attr-defined]
        sending.now = 15.0
        await sending.send()
        await sending.send()
        assert sending.told(0) == [("bad_credentials", 15.0), ("accepted", 0.0)]


class Reading:
    """Takes a body from the head on, as a relay does."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.body = b""

    def sent(self) -> None: ...

    def begin(self, response: UpstreamResponse) -> Sink | None:
        self.statuses.append(response.status)
        return self._take

    def _take(self, data: bytes) -> None:
        self.body += data


async def test_a_reader_sees_the_answer_and_no_refusal_before_it() -> None:
    async with sender(Key("bad"), Key("good")) as sending:
        reader = Reading()
        async with sending.transport.send(
            request(sending.url), connect=LONG, headers=LONG, reader=reader
        ) as response:
            await response.pump(reader._take)
        assert (reader.statuses, reader.body) == ([200], b"fine")


async def test_whatever_else_is_called_authorization_does_not_go_out_and_nothing_shows_the_key() -> None:
    async with sender(Key("good")) as sending:
        asked = UpstreamRequest(
            f"{sending.url}/x", (("Authorization", "Bearer mine"), ("x-a", "1")), b"{}", lines=b"x-b: 2\r\n"
        )
        async with sending.transport.send(asked, connect=LONG, headers=LONG) as response:
            await response.read(10)
            assert "good" not in repr(response)
        assert sending.seen() == ["good"]
        assert asked.lines == b"x-b: 2\r\n"
        assert list(sending.transport.secrets()) == ["good"]


async def test_a_call_that_is_given_up_in_the_middle_leaves_no_connection() -> None:
    async def silent(request: Request, peer: Peer) -> None:
        await peer.stall()

    async with RawServer(silent) as server:
        sending = Sender(server.url, [Key("good")], server)
        call = asyncio.create_task(sending.send())
        while not server.peers or not server.peers[0].requests:
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        await server.peers[0].closed.wait()
        assert sending.transport.open == 0
        await sending.transport.close()

"""The interface of transports, which carry a call to its upstream (our own HTTP client, or another)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

import msgspec

from sluice.errors import UpstreamError

Headers = tuple[tuple[str, str], ...]
Sink = Callable[[bytes], None]


class Pieces(Protocol):
    """A body that is not in memory. It can be read several times, for an attempt may have others behind
    it."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


class UpstreamRequest(msgspec.Struct):
    """One HTTP request to an upstream: absolute URL, all headers but Host, Content-Length and credentials.

    `lines`: header lines that no other request has, ready to be sent (each ends with CR LF). A backend leaves
    them alone. `pieces`: in place of `body`, where that is too large to be held. `beside`: bodies of further
    requests of the same call, which only the operations send that `FansOut`.
    """

    url: str
    headers: Headers
    body: bytes
    method: str = "POST"
    lines: bytes = b""
    pieces: Pieces | None = None
    beside: tuple[bytes, ...] = ()


class UpstreamResponse(Protocol):
    """One response, its head read, its body not. Header names are lower case."""

    status: int
    headers: Mapping[str, str]

    async def pump(self, sink: Sink) -> None:
        """Call `sink` with each read's body bytes as they arrive (de-chunked, one call per socket read, never
        b"").

        Returns at the clean end of the body as HTTP frames it. Raises UpstreamError("truncated") on a cut,
        whatever `sink` raises, and whatever `abort` was given. A body that ends with the connection is a
        clean end.
        """
        ...

    async def read(self, limit: int) -> bytes:
        """The body's first `limit` bytes (for error answers); the rest is not waited for. Raises
        UpstreamError on a cut."""
        ...

    def pause(self) -> None:
        """Stop reading from the socket (back-pressure). Idempotent."""
        ...

    def resume(self) -> None: ...

    def abort(self, error: BaseException) -> None:
        """End the call from outside (a deadline): the socket is closed at once, `pump` or `read` raises
        `error`. Idempotent."""
        ...


class Reader(Protocol):
    """Reads a response. It is called from the socket's callbacks: no task has to be woken for the first
    bytes."""

    def sent(self) -> None:
        """The request has left; there is time until its answer comes."""
        ...

    def begin(self, response: UpstreamResponse) -> Sink | None:
        """The head is there. What is returned takes the body from now on, as `pump`'s sink; None: the body
        waits for `pump`.

        What it raises is raised by `pump`.
        """
        ...


class Transport(Protocol):
    """Connections to one upstream: pool, TLS, deadlines of the first two phases."""

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send and wait for the head: `connect` seconds for DNS, TCP and TLS together, then `headers`
        seconds.

        A transport may leave `reader` alone: then its caller does what it would have done.

        Enter raises UpstreamError: dns_error, connect_error, connect_timeout, tls_error, reset,
        headers_timeout, garbled. Exit gives the connection back to the pool when the response was read to its
        clean end, and otherwise closes its socket at once (so that the upstream stops generating). A 307 or
        308 within the origin is followed once, no other redirect is; cookies are not kept, no proxy is taken
        from the environment. What an upstream compressed, though it was asked not to, is decompressed within
        bounds. Safe to cancel at any point. A request is sent once. Where an idle connection was closed by
        the upstream without a byte of an answer, enter raises StaleConnection; a second try then gets a new
        connection.
        """
        ...

    async def close(self) -> None: ...


class Towards(Transport, Protocol):
    """A transport that others to single addresses can be made of."""

    def towards(self, host: str, port: int) -> Self:
        """One with the same credentials and the same host in its requests, whose connections go to this
        address."""
        ...


__all__ = [
    "Pieces", "Reader", "Sink", "Towards", "Transport", "UpstreamError", "UpstreamRequest", "UpstreamResponse",
]  # fmt: skip

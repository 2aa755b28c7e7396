"""The interface of transports, which send requests to an upstream (the gateway's HTTP client, or another)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

import msgspec

from sluice.errors import UpstreamError

Headers = tuple[tuple[str, str], ...]
Sink = Callable[[bytes], None]


class Pieces(Protocol):
    """A body that is not in memory. It can be read several times, because several attempts may send it."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


class UpstreamRequest(msgspec.Struct):
    """One HTTP request to an upstream: an absolute URL, and all headers but Host, Content-Length and
    credentials.

    `lines`: header lines of this request alone, ready to be sent (each ends with CR LF); backends do not set
    them. `pieces` replaces `body` if that is too large for memory. `beside`: bodies of further requests of
    the same call, which only operations that are `FansOut` have.
    """

    url: str
    headers: Headers
    body: bytes
    method: str = "POST"
    lines: bytes = b""
    pieces: Pieces | None = None
    beside: tuple[bytes, ...] = ()


class UpstreamResponse(Protocol):
    """One response, whose head has been read and whose body has not. Header names are lower case."""

    status: int
    headers: Mapping[str, str]

    async def pump(self, sink: Sink) -> None:
        """Calls `sink` with the bytes of the body as they arrive: de-chunked, one call per socket read, never
        with b"".

        Returns at the end of the body as HTTP frames it; the end of the connection also ends a body without a
        length. Raises UpstreamError("truncated") if the body is cut, any exception of `sink`, and the error
        that was passed to `abort`.
        """
        ...

    async def read(self, limit: int) -> bytes:
        """Returns the first `limit` bytes of the body (for error responses); does not wait for the rest.
        Raises UpstreamError if the body is cut."""
        ...

    def pause(self) -> None:
        """Stops reading from the socket (backpressure). Idempotent."""
        ...

    def resume(self) -> None: ...

    def abort(self, error: BaseException) -> None:
        """Ends the call from outside (a deadline): closes the socket at once, and `pump` or `read` raises
        `error`. Idempotent."""
        ...


class Reader(Protocol):
    """Reads a response. It is called from the socket's callbacks, so no task has to be woken for the first
    bytes."""

    def sent(self) -> None:
        """Called when the request has been sent: there is time until the response arrives."""
        ...

    def begin(self, response: UpstreamResponse) -> Sink | None:
        """Called when the head has arrived. Returns the sink that takes the body from now on, like `pump`'s;
        None: the body waits for `pump`. `pump` raises what it raises."""
        ...


class Transport(Protocol):
    """Connections to one upstream: pool, TLS, and the deadlines of the first two phases."""

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Sends the request and waits for the head: `connect` seconds for DNS, TCP and TLS together, then
        `headers` seconds. A transport may ignore `reader`; its caller then does the reader's work.

        Entering raises UpstreamError: dns_error, connect_error, connect_timeout, tls_error, reset,
        headers_timeout, garbled. Leaving returns the connection to the pool if the response was read to its
        end, and otherwise closes its socket at once (so that the upstream stops generating). A 307 or 308
        within the origin is followed once, other redirects are not; cookies are not kept; no proxy is taken
        from the environment. If the upstream compresses the response although it was asked not to, it is
        decompressed within bounds. Safe to cancel at any point.

        A request is sent once. If the upstream has closed an idle connection without a byte of a response,
        entering raises StaleConnection; the next attempt then gets a new connection.
        """
        ...

    async def close(self) -> None: ...


class Towards(Transport, Protocol):
    """A transport from which transports to single addresses can be made."""

    def towards(self, host: str, port: int) -> Self:
        """Returns a transport with the same credentials, and the same host in its requests, whose connections
        go to this address."""
        ...


__all__ = [
    "Pieces", "Reader", "Sink", "Towards", "Transport", "UpstreamError", "UpstreamRequest", "UpstreamResponse",
]  # fmt: skip

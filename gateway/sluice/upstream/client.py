"""The transport of one upstream, made of heads, pool and dialer. It implements
`sluice.backends.transport.Transport`."""

import asyncio
import copy
import math
import random
import ssl
import time
from collections.abc import Callable, Iterable
from urllib.parse import urldefrag, urljoin

from sluice.aio.write_batch import WriteBatch
from sluice.backends.protocol import Headers, UpstreamRequest
from sluice.backends.transport import Reader
from sluice.errors import StaleConnection, UpstreamError
from sluice.upstream.connection import UpstreamConnection
from sluice.upstream.deadlines import Deadlines
from sluice.upstream.dial import Dialer
from sluice.upstream.exchange import UpstreamExchange
from sluice.upstream.head_fields import HeadFields
from sluice.upstream.http1 import MAX_HEAD, MAX_HEADERS, ResponseParser
from sluice.upstream.pool import IdleConnections, Pool
from sluice.upstream.proxies import proxy_of
from sluice.upstream.request import Heads, origin_of
from sluice.upstream.tls import WatchedTls, tls_context
from sluice.version import VERSION

KEEPALIVE = 60.0
MAX_AGE = 600.0
"""Maximum seconds of a connection's life, because its upstream may have other addresses by then."""
AGE_SPREAD = 0.2
READ = 64 << 10
"""Maximum bytes of one read."""


class HttpTransport:
    """Connections to the origin of `base_url`; may be made outside the event loop.

    `credentials` are sent with every request, and to this origin only. `signed`: header fields that come with
    each request's own `lines` instead (`sluice.upstream.authorized`); a request's other fields of these names
    are left out. `max_connections` bounds open and opening connections; further calls wait within their
    `connect` time. `tls` None: `tls_context()`, if the URL is https. `proxy`: the URL of a proxy to tunnel
    through. `keepalive`: seconds for which an idle connection is kept. `max_age`: seconds after which a
    connection gets no further call; each has up to a fifth less, by `chance`, so that they do not all end at
    once. Raises ValueError for a URL or credentials that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Headers = (),
        signed: Iterable[str] = (),
        max_connections: int = 1024,
        tls: ssl.SSLContext | WatchedTls | None = None,
        proxy: str | None = None,
        keepalive: float = KEEPALIVE,
        max_age: float | None = MAX_AGE,
        max_head: int = MAX_HEAD,
        max_headers: int = MAX_HEADERS,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        idle: IdleConnections | None = None,
    ) -> None:
        origin = origin_of(base_url)
        if origin.scheme == "https":
            tls = tls or tls_context()
        self._name = origin.name
        self._heads = Heads(origin, credentials, f"sluice/{VERSION}", signed)
        self._secrets = tuple(value for _, value in credentials)
        self._head_fields = HeadFields()
        self._max_head = max_head
        self._max_headers = max_headers
        self._max_age = max_age if max_age is not None else math.inf
        self._clock = clock
        self._chance = chance
        self.pool = Pool(max_connections, keepalive, clock, idle)
        through = proxy_of(proxy) if proxy is not None else None
        self.dialer = Dialer(origin, tls if origin.scheme == "https" else None, clock, proxy=through)
        self._buffer = memoryview(bytearray(READ))
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dialed = 0

    def towards(self, host: str, port: int) -> "HttpTransport":
        """Returns a transport with these heads, credentials and bounds, whose connections go to this address.

        Its requests, and TLS, still have the base URL's host. Proxies are not used.
        """
        other = copy.copy(self)
        other.pool = self.pool.alike()
        other.dialer = self.dialer.towards(host, port)
        other._buffer = memoryview(bytearray(READ))
        other._loop = None
        other.dialed = 0
        return other

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> UpstreamExchange:
        """See `sluice.backends.transport.Transport`. Raises ValueError at once for a request that cannot be
        written."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._heads_due = Deadlines(self._loop)
            self.writes = WriteBatch(self._loop)
        return UpstreamExchange(
            self, request, self._heads.of(request), connect, headers, self._loop, self._heads_due, reader
        )

    async def close(self) -> None:
        """Closes idle connections now, and others when their calls end."""
        self.pool.close()
        if self._loop is not None:
            self._heads_due.close()

    def secrets(self) -> Iterable[str]:
        """Returns the values of the credentials, which error messages must not show."""
        return self._secrets

    # --- for metrics

    @property
    def open(self) -> int:
        """Connections being opened, used or idle."""
        return self.pool.open

    @property
    def idle(self) -> int:
        return self.pool.idle

    @property
    def waiting(self) -> int:
        """Calls waiting for one of `max_connections`."""
        return self.pool.waiting

    # --- for the exchange

    def new_connection(self) -> UpstreamConnection:
        self.dialed += 1
        parser = ResponseParser(
            self._name, self._head_fields, max_head=self._max_head, max_headers=self._max_headers
        )
        until = self._clock() + self._max_age * (1 - AGE_SPREAD * self._chance())
        return UpstreamConnection(
            parser, self._name, self.pool.closed_idle, self._buffer, self.writes, until=until
        )

    def give_back(self, connection: UpstreamConnection, *, ended: bool) -> None:
        """Takes back a connection that is no longer used, with its place."""
        first = not connection.used
        if ended and connection.rest():
            if first:
                self.dialer.remember(connection)
            self.pool.put(connection)
        else:
            connection.close()
            self.pool.release()

    def found_stale(self, connection: UpstreamConnection) -> StaleConnection:
        """Returns the error for a request on a stale connection. Connections that have been idle for longer
        are closed.
        """
        self.pool.distrust(connection.idle_since)
        return StaleConnection(
            f"{self._name} closed a connection that had been idle when a request was sent on it"
        )

    def head_of(self, request: UpstreamRequest) -> bytes:
        """See `sluice.upstream.request.Heads.of`. Raises ValueError."""
        return self._heads.of(request)

    def location_of(self, url: str, location: str) -> str:
        """Returns the target of a redirect from `url` if it has the same origin and can be requested; else
        ""."""
        try:
            target = urldefrag(urljoin(url, location)).url
            self._heads.check(target)
        except ValueError:
            return ""
        return target if location else ""

    def connect_timed_out(self, seconds: float, *, placed: bool) -> UpstreamError:
        what = "could not be connected to" if placed else "had no connection to spare (the pool is full)"
        return UpstreamError("connect_timeout", f"{self._name} {what} within {seconds:g} s")

    def headers_timed_out(self, seconds: float) -> UpstreamError:
        return UpstreamError("headers_timeout", f"{self._name} did not begin to answer within {seconds:g} s")

    def closed_early(self) -> UpstreamError:
        return UpstreamError("reset", f"{self._name} closed the connection before it was used")

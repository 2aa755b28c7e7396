"""Bounds the connections to one upstream, and keeps idle ones.

A place (one of `limit`) is taken by every connection that is being opened, used or idle, and by nothing else.
A caller returns its place with `put` (together with a connection that can be used again) or with `release`.
Waiting callers are served in their order, before new ones: while somebody waits no connection is idle. The
idle connection that was used last is taken first, so that in quiet times the others grow old and are closed.
`keepalive` must be shorter than the upstream's own idle time, or requests are sent into connections that are
just being closed.
"""

import asyncio
from collections.abc import Callable

from sluice.upstream.connection import UpstreamConnection


class IdleConnections:
    """Bounds the idle connections of several pools together, because each keeps a file descriptor that a call
    may need."""

    __slots__ = ("count", "limit")

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.count = 0


class Pool:
    """`open`: places taken, the idle connections' among them. `clock` and `keepalive` in seconds.

    `together` is shared by the pools whose idle connections are bounded together.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_idle",
        "_keepalive",
        "_limit",
        "_sweep",
        "_together",
        "_waiters",
        "open",
    )

    def __init__(
        self,
        limit: int,
        keepalive: float,
        clock: Callable[[], float],
        together: IdleConnections | None = None,
    ) -> None:
        self._together = together or IdleConnections()
        self._limit = limit
        self._keepalive = keepalive
        self._clock = clock
        self._idle: dict[UpstreamConnection, None] = {}  # oldest first
        self._waiters: dict[asyncio.Future[UpstreamConnection | None], None] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self.open = 0

    def alike(self) -> "Pool":
        """Returns an empty pool with the same bounds, for another address. Idle connections are bounded
        together with this pool's."""
        return Pool(self._limit, self._keepalive, self._clock, self._together)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def take_now(self) -> UpstreamConnection | None:
        """Returns an idle connection with its place; None if the caller has to wait with `place`."""
        while self._idle:
            connection, _ = self._idle.popitem()
            self._together.count -= 1
            now = self._clock()
            if (
                not connection.closed
                and now - connection.idle_since < self._keepalive
                and now < connection.until
            ):
                return connection
            connection.close()
            self.release()
        return None

    async def place(self) -> UpstreamConnection | None:
        """Waits for a place, if necessary. Returns None for a new connection, or a connection that has been
        returned meanwhile."""
        if self.open < self._limit and not self._waiters:
            self.open += 1
            return None
        waiter: asyncio.Future[UpstreamConnection | None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        received = False
        try:
            connection = await waiter
            received = True
            return connection
        finally:
            self._waiters.pop(waiter, None)
            if (
                not received and not waiter.cancelled()
            ):  # it was passed to this caller after it had been cancelled
                self._give_back(waiter.result())

    def put(self, connection: UpstreamConnection) -> None:
        """Returns a place, with an idle connection."""
        now = self._clock()
        if now >= connection.until:
            connection.close()
            self.release()
            return
        if self._hand_on(connection):
            return
        if self._closed or self._together.count >= self._together.limit:
            connection.close()
            self.release()
            return
        connection.idle_since = now
        self._idle[connection] = None
        self._together.count += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._keepalive, self._drop_old)

    def release(self) -> None:
        """Returns a place without a connection."""
        if not self._hand_on(None):
            self.open -= 1

    def distrust(self, since: float) -> None:
        """Closes connections that have been idle since this time of the clock, or for longer."""
        while self._idle:
            oldest = next(iter(self._idle))
            if oldest.idle_since > since:
                return
            del self._idle[oldest]
            self._together.count -= 1
            oldest.close()
            self.release()

    def closed_idle(self, connection: UpstreamConnection) -> None:
        """Handles an idle connection that the upstream has closed."""
        if connection in self._idle:
            del self._idle[connection]
            self._together.count -= 1
            self.release()

    def close(self) -> None:
        """Closes idle connections; those in use are closed when they are returned."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.popitem()[0].close()
            self._together.count -= 1
            self.release()

    def _hand_on(self, connection: UpstreamConnection | None) -> bool:
        while self._waiters:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _give_back(self, connection: UpstreamConnection | None) -> None:
        if connection is None or connection.closed:
            self.release()
        else:
            self.put(connection)

    def _drop_old(self) -> None:
        self._sweep = None
        now = self._clock()
        while self._idle:
            oldest = next(iter(self._idle))
            left = oldest.idle_since + self._keepalive - now
            if left > 0:
                self._sweep = asyncio.get_running_loop().call_later(left, self._drop_old)
                return
            del self._idle[oldest]
            self._together.count -= 1
            oldest.close()
            self.release()

"""GET /admin/overview/live: what GET /admin/overview says, as an event stream (server-sent events, HTML
standard section 9.2), over all workers, whichever of them has the connection.

Event `overview` comes every `EVERY` seconds; `errors` (the latest calls with an error) and `processes` come at
first and when they have changed. A comment comes while the other workers take long. It ends when the session
ends, when another configuration is used, and with the process: clients come again. While nobody watches, nothing
is asked or kept.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec

from sluice.api.admin_overview import AdminOverview
from sluice.api.admin_requests import AdminRequest, AdminRoute, Streamed
from sluice.errors import GatewayError, Unavailable
from sluice.runtime.fleet import CallQuery, RecentCalls, together
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.views import calls_of

EVERY = 1.0
"""Seconds between two events."""
HEARTBEAT = 5.0
"""Seconds of silence, at most."""
SLOW_READER_SECONDS = 30.0
"""Seconds after which a client that reads nothing is cut off."""
MAX_STREAMS = 32
"""Streams of a process at a time."""
ERRORS = 10
"""The latest errors that are shown."""
RETRY = b"retry: 2000\n\n"
"""Milliseconds after which a browser's EventSource comes again."""
_json = msgspec.json.Encoder().encode


class AdminLive:
    """The event stream of the overview, for one snapshot. `wall` gives seconds since the epoch."""

    def __init__(
        self, runtime: Snapshot, overview: AdminOverview, wall: Callable[[], float] = time.time
    ) -> None:
        self._runtime = runtime
        self._overview = overview
        self._wall = wall
        self._watching = 0
        self._figures = Latest(self._found, runtime.state.clock)

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/overview/live", self._live)]

    async def _live(self, request: AdminRequest) -> Streamed:
        """Raises Unavailable if too many watch."""
        if self._watching >= MAX_STREAMS:
            raise Unavailable(
                f"{MAX_STREAMS} watch already; GET /admin/overview says the same once", retry_after=5.0
            )
        return Streamed("text/event-stream", self._events(request.until), SLOW_READER_SECONDS)

    async def _events(self, until: float) -> AsyncGenerator[bytes, None]:
        self._watching += 1
        sent: dict[str, bytes] = {}
        try:
            yield RETRY
            while self._wall() < until and not self._runtime.superseded.is_set():
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        found = await self._figures.get()
                except TimeoutError:
                    yield b": the other processes take long\n\n"
                    continue
                except GatewayError as error:
                    found = {"problem": _json({"error": error.message})}
                changed = {
                    name: data for name, data in found.items() if name == "overview" or sent.get(name) != data
                }
                sent |= changed
                yield b"".join(
                    b"event: %b\ndata: %b\n\n" % (name.encode(), changed[name]) for name in changed
                )
                await self._pause(until)
        finally:
            self._watching -= 1

    async def _pause(self, until: float) -> None:
        """Waits for the time of the next event, or until the stream has to end."""
        try:
            async with asyncio.timeout(max(0.0, min(EVERY, until - self._wall()))):
                await self._runtime.superseded.wait()
        except TimeoutError:
            pass

    async def _found(self) -> dict[str, bytes]:
        """Returns the data of each event. Raises Unavailable if the supervisor does not answer."""
        fleet = self._runtime.state.fleet
        found = {"overview": await self._overview.figures()}
        if self._runtime.state.recent is not None:
            found["errors"] = {"calls": await self._errors()}
        if fleet is not None:
            found["processes"] = {
                "workers": [_lasting(worker) for worker in (await fleet.status())["workers"]]
            }
        return {name: _json(value) for name, value in found.items()}

    async def _errors(self) -> list[dict[str, Any]]:
        state, query = self._runtime.state, CallQuery(ERRORS, None, {"error": "*"})
        found = (
            await state.fleet.calls(query)
            if state.fleet is not None
            else RecentCalls([(0, await calls_of(state, query))])
        )
        return [call for _, call in together(query, [calls for _, calls in found.workers]).calls]


def _lasting(worker: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a worker's figures that does not change every second."""
    return {name: worker[name] for name in ("worker", "pid", "state")}


class Latest:
    """A value that many want at the same time, and that is made once for all of them: at most `EVERY` seconds
    old. Whoever comes first makes it; if that one is cancelled, the next does."""

    def __init__(self, make: Callable[[], Awaitable[dict[str, bytes]]], clock: Callable[[], float]) -> None:
        self._make = make
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: dict[str, bytes] = {}
        self._made = float("-inf")

    async def get(self) -> dict[str, bytes]:
        """Raises what `make` does."""
        async with self._lock:
            if self._clock() - self._made >= EVERY * 0.9:
                self._value = await self._make()
                self._made = self._clock()
            return self._value

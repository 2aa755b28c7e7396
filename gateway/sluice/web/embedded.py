"""A gateway within another program's aiohttp server: its state, the requests that it answers, and how they
end."""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiohttp import web

from sluice.api.app import Api
from sluice.config.loader import Loaded
from sluice.runtime.snapshots import Snapshots
from sluice.runtime.state import ProcessState
from sluice.server.bodies import Unfinished
from sluice.telemetry.logs import LogLines
from sluice.web.exchange import AiohttpExchange

LAST_ANSWERS = 1.0
"""Seconds that clients have, at the end, to read the errors that end their answers."""


class EmbeddedGateway:
    """`async with` opens stores, begins to check deadlines, and serves; leaving it ends the remaining calls
    at once.

    Once a second it checks whether the client of each request is still there, because aiohttp does not notify
    a mounted application (its handlers are cancelled only if the parent's runner is configured so).
    `exchanges`: the requests that have not been answered completely, and the tasks of their calls;
    `answering`: all tasks of calls.
    """

    def __init__(self, loaded: Loaded, lines: LogLines) -> None:
        self.config = loaded.config
        self.draining = False
        self.unfinished = Unfinished(int(loaded.config.server.body_memory))
        self._loaded = loaded
        self._lines = lines
        self._apis: dict[bool, Api] = {}
        self.exchanges: dict[AiohttpExchange, asyncio.Task[None]] = {}
        self.answering: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Raises OSError and the like if a store cannot be opened."""
        async with AsyncExitStack() as stack:
            state = self.state = await stack.enter_async_context(ProcessState(self._loaded, self._lines))
            self.snapshots = await stack.enter_async_context(Snapshots(self._loaded, state))
            ticking = asyncio.create_task(self.snapshots.tick(self._sweep))
            stack.push_async_callback(self._end)
            stack.callback(ticking.cancel)
            self._apis = {
                operators: Api(self.snapshots.current, operators=operators) for operators in (False, True)
            }
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._apis.clear()
        await self._closing.aclose()

    async def _end(self) -> None:
        for task in self.answering:
            task.cancel()
        if self.answering:  # they must have started to settle their calls before the stores are closed
            await asyncio.wait(list(self.answering), timeout=LAST_ANSWERS)

    async def answer(self, request: web.Request, *, operators: bool) -> web.StreamResponse:
        """Answers a request by the API's or the admin's routes. Returns the response, which has been sent."""
        api = self._apis.get(operators)
        if api is None:
            raise web.HTTPServiceUnavailable
        exchange = AiohttpExchange(request, self)
        answering = asyncio.create_task(_call(api, exchange))
        self.answering.add(answering)
        answering.add_done_callback(self.answering.discard)
        answering.add_done_callback(exchange.ended)
        self.exchanges[exchange] = answering
        try:
            await exchange.deliver()
            if (
                not answering.done()
            ):  # as on a connection of our own: the next request comes when this one is settled
                await asyncio.wait([answering])
        except ConnectionError:  # the client has left, which aiohttp finds out when it ends the response
            pass
        finally:
            answering.cancel()
            del self.exchanges[exchange]
            self._left.set()
        return exchange.response or web.Response(status=500)

    async def drain(self) -> None:
        """Lets calls finish within `drain_timeout`; then ends the remaining ones with an in-band error."""
        self.draining = self.state.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(self.config.server.drain_timeout)):
                await self._answered()
                await self.snapshots.idle()
        for run in self.snapshots.runs:
            run.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ANSWERS):
                await self._answered()

    async def _answered(self) -> None:
        while self.exchanges:
            self._left.clear()
            await self._left.wait()

    def _sweep(self, now: float) -> None:
        bound = float(self.config.server.write_idle)
        for exchange, answering in list(self.exchanges.items()):
            if exchange.client_is_gone:
                answering.cancel()
            elif exchange.complete and exchange.blocked_since and now - exchange.blocked_since > bound:
                exchange.abort()  # before that the call checks this itself


async def _call(api: Api, exchange: AiohttpExchange) -> None:
    await api(exchange)

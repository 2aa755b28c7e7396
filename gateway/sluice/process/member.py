"""Operators' requests to a worker: it passes them on to the supervisor, which carries them out in all
workers."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sluice.errors import Conflict, Unavailable
from sluice.process.alone import problems_of
from sluice.process.channel import ChannelEnd, ChannelReply, ChannelRequest
from sluice.process.gateway import Gateway, Prepared
from sluice.process.source import ConfigSource
from sluice.runtime.fleet import (
    CallQuery,
    ConfigStatus,
    Found,
    Overview,
    ProcessView,
    RecentCalls,
    Reload,
    Targets,
    TargetState,
)
from sluice.runtime.targets import states_of
from sluice.runtime.views import calls_of, view_of
from sluice.telemetry.formats import Format

ANSWER_SECONDS = 30.0
"""Seconds that the supervisor has to answer."""

Handler = Callable[[Any], Awaitable[Any]]


class WorkerLink:
    """Call `start` in the event loop, and `close` at the end. `source` makes a configuration of the bytes
    that the supervisor sends.
    """

    def __init__(self, gateway: Gateway, wire: ChannelEnd, source: ConfigSource) -> None:
        self._gateway = gateway
        self._wire = wire
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._requests: dict[int, asyncio.Future[ChannelReply]] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._prepared: Prepared | None = None
        self._preparing = asyncio.Lock()
        self._handlers: dict[str, Handler] = {
            "prepare": self._prepare,
            "commit": self._commit,
            "discard": self._discard,
            "following": self._following,
            "targets": self._targets,
            "off": self._switch_off,
            "view": self._view,
            "calls": self._calls,
        }

    def start(self) -> None:
        self._loop.add_reader(self._wire, self._readable)

    async def close(self) -> None:
        self._hang_up()
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)

    # --- requests of operators

    async def reload(self) -> Reload:
        return msgspec.convert(await self.ask("reload"), Reload)

    async def exposition(self, format: Format) -> bytes | None:
        found: bytes = await self.ask("metrics", format)
        return found

    async def targets(self) -> Targets:
        return msgspec.convert(await self.ask("targets"), Targets)

    async def overview(self) -> Overview:
        return msgspec.convert(await self.ask("overview"), Overview)

    async def calls(self, query: CallQuery) -> RecentCalls:
        return msgspec.convert(await self.ask("calls", query), RecentCalls)

    async def switch(self, label: str, state: str | None) -> None:
        await self.ask("switch", (label, state))

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask("status")
        return found

    async def restart(self) -> None:
        if not await self.ask("restart"):
            raise Conflict("The workers are being replaced, or the gateway is stopping")

    async def drain(self) -> None:
        await self.ask("drain")

    async def ask(self, what: str, body: object = None) -> Any:
        """Returns the supervisor's reply. Raises Unavailable if there is none."""
        id = next(self._ids)
        answer = self._requests[id] = self._loop.create_future()
        try:
            self._send(ChannelRequest(id, what, body))
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await answer
        except TimeoutError:
            raise Unavailable("The supervisor does not answer") from None
        finally:
            del self._requests[id]
        if found.problem:
            raise Unavailable(found.problem)
        return found.body

    # --- what the supervisor asks

    async def _prepare(self, data: bytes) -> None:
        """Builds a configuration from these bytes, beside the current one."""
        async with self._preparing:
            await self._discard_prepared()
            loaded = await asyncio.to_thread(self._source.load, data)
            self._prepared = await self._gateway.prepare(loaded)

    async def _commit(self, _: object) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise RuntimeError("nothing was prepared")
        self._gateway.commit(prepared)

    async def _discard(self, _: object) -> None:
        async with self._preparing:
            await self._discard_prepared()

    async def _discard_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._gateway.discard(prepared)

    async def _following(self, status: object) -> None:
        self._gateway.state.show(msgspec.convert(status, ConfigStatus))

    async def _targets(self, _: object) -> list[TargetState]:
        return states_of(self._gateway.snapshots.current, self._gateway.state)

    async def _view(self, _: object) -> ProcessView:
        self._gateway.state.deferred.flush()
        return view_of(self._gateway.snapshots.current, self._gateway.state)

    async def _calls(self, query: object) -> Found:
        return await calls_of(self._gateway.state, msgspec.convert(query, CallQuery))

    async def _switch_off(self, off: dict[str, str]) -> None:
        known = self._gateway.state.off
        known.clear()
        known.update(off)

    # --- the wire

    def _readable(self) -> None:
        for message in self._wire.receive():
            if isinstance(message, ChannelReply):
                request = self._requests.get(message.id)
                if request is not None and not request.done():
                    request.set_result(message)
            else:
                task = self._loop.create_task(self._answer(message))
                self._working.add(task)
                task.add_done_callback(self._working.discard)
        if self._wire.closed:
            self._hang_up()

    async def _answer(self, request: ChannelRequest) -> None:
        handler = self._handlers.get(request.what)
        answer = ChannelReply(request.id)
        try:
            answer.body = await handler(request.body) if handler is not None else None
        except Exception as error:
            answer.problem = "\n".join(problems_of(error))
        if request.id:
            self._send(answer)

    def _send(self, message: ChannelRequest | ChannelReply) -> None:
        self._wire.send(message)
        if self._wire.full:
            self._loop.add_writer(self._wire, self._writable)

    def _writable(self) -> None:
        self._wire.flush()
        if not self._wire.full:
            self._loop.remove_writer(self._wire)

    def _hang_up(self) -> None:
        """Handles the end of the supervisor, or of this worker."""
        if self._wire.fileno() >= 0:
            self._loop.remove_reader(self._wire)
            self._loop.remove_writer(self._wire)
        for request in self._requests.values():
            if not request.done():
                request.set_result(ChannelReply(0, problem="The supervisor is gone"))

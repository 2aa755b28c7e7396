"""The state, the snapshots and the two listeners of one process."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from sluice.api.app import Api
from sluice.config.loader import Loaded
from sluice.config.types import Server
from sluice.process.ports import CannotListen, Ports, take_ports
from sluice.runtime.restart import refuse_restart
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.snapshots import Snapshots
from sluice.runtime.state import ProcessState
from sluice.server import Acceptor, Listener
from sluice.telemetry.board import BoardSlot
from sluice.telemetry.logs import LogLines

if TYPE_CHECKING:
    from sluice.server.tls import WatchedCertificate


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """A configuration that is ready to be applied: its snapshot, and the API of each port."""

    snapshot: Snapshot
    clients: Api
    operators: Api


class Gateway:
    """A process's state, its snapshots and the two listeners. `async with` serves, and closes everything at
    the exit.

    It leaves the process's logging, signals and collector alone. Log lines go to `lines`. `ports`: the bound
    sockets, if there are any. `before_listening` is called as soon as `state` and `snapshots` are there.
    """

    def __init__(
        self,
        loaded: Loaded,
        lines: LogLines,
        ports: Ports | None = None,
        before_listening: Callable[[], object] = lambda: None,
        slot: BoardSlot | None = None,
    ) -> None:
        self._slot = slot
        self._loaded = loaded
        self._lines = lines
        self._ports = ports
        self._before_listening = before_listening
        self._certificate: WatchedCertificate | None = None

    async def __aenter__(self) -> Self:
        """Opens everything. Raises CannotListen, and what ProcessState and Snapshot raise."""
        async with AsyncExitStack() as stack:
            state = self.state = await stack.enter_async_context(
                ProcessState(self._loaded, self._lines, self._slot)
            )
            self.snapshots = await stack.enter_async_context(Snapshots(self._loaded, state))
            current = self.snapshots.current
            self.clients = self._client_listener(stack, Api(current))
            # HTTP/2 is on the API's port only: clients of operators gain nothing by it.
            plain = msgspec.structs.replace(state.config.server, http2=False)
            self.operators = self._listener(Api(current, operators=True), state.places.operators, plain)
            for port, listener in (("admin", self.operators), ("api", self.clients)):
                stack.push_async_callback(listener.shutdown, 0.1)
                state.metrics.computed("client_connections", partial(_open, listener), port).kept = True
                state.metrics.zero("client_connections_max", port).set(listener.max_connections)
            self._before_listening()
            self._listen(stack)
            ticking = asyncio.create_task(self.snapshots.tick(self._sweep))
            stack.callback(ticking.cancel)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    def _listener(self, api: Api, connections: int, server: Server) -> Listener:
        state = self.state
        return Listener(
            api.__call__,  # called in half the time that the object itself takes
            server,
            state.records.broken,
            connections=connections,
            refused=state.places.refused,
            warn=self._warn,
        )

    def _client_listener(self, stack: AsyncExitStack, api: Api) -> Listener:
        tls = self.state.config.server.tls
        if tls is None:
            return self._listener(api, self.state.places.clients, self.state.config.server)
        from sluice.process.tls import tls_listener

        listener, self._certificate = tls_listener(api, self.state, tls, self._warn)
        watching = asyncio.create_task(self._certificate.watch())
        stack.callback(watching.cancel)
        return listener

    def _listen(self, stack: AsyncExitStack) -> None:
        server = self.state.config.server
        try:
            ports = self._ports or take_ports(server)
            stack.callback(ports.close)
            bound = ((self.operators, ports.admin), (self.clients, ports.api))
            self._acceptors = [self._accepting(stack, listener, port) for listener, port in bound]
        except OSError as error:  # another process has bound it first
            raise CannotListen(f"cannot listen on {server.listen}: {error.strerror or error}") from None

    def _accepting(self, stack: AsyncExitStack, listener: Listener, port: socket.socket) -> Acceptor:
        acceptor = listener.listen(port)
        stack.callback(acceptor.close)
        return acceptor

    def _warn(self, event: str, **fields: object) -> None:
        self.state.notices.seen(event, "warning", event, **fields)

    def _sweep(self, now: float) -> None:
        self.clients.sweep(now)
        self.operators.sweep(now)

    @property
    def address(self) -> tuple[str, int]:
        """The API's host and port, as bound."""
        return self._acceptors[1].address

    @property
    def admin_address(self) -> tuple[str, int]:
        return self._acceptors[0].address

    async def swap(self, loaded: Loaded) -> None:
        """Applies another configuration to new requests; running ones keep theirs.

        Raises NeedsRestart, and ConfigError, ValueError or OSError if the configuration cannot be applied;
        nothing has changed then.
        """
        refuse_restart(self.state.config, loaded.config)
        self.commit(await self.prepare(loaded))

    async def prepare(self, loaded: Loaded) -> "Prepared":
        """Builds the argument of `commit` or `discard`. Raises ConfigError, ValueError or OSError; see
        `swap`."""
        if self._certificate is not None:
            await self._certificate.look()
        fresh = await self.snapshots.prepare(loaded)
        try:
            return Prepared(fresh, Api(fresh), Api(fresh, operators=True))
        except BaseException:
            await self.snapshots.discard(fresh)
            raise

    def commit(self, prepared: "Prepared") -> None:
        """Applies the prepared configuration to new requests. Raises RuntimeError if the gateway is
        closing."""
        self.snapshots.take(prepared.snapshot, lambda _: self._take(prepared))

    async def discard(self, prepared: "Prepared") -> None:
        await self.snapshots.discard(prepared.snapshot)

    def _take(self, prepared: "Prepared") -> set[asyncio.Task[None]]:
        self.clients.dispatch = prepared.clients.__call__
        self.operators.dispatch = prepared.operators.__call__
        return self.clients.answering() | self.operators.answering()

    async def drain(self, hurry: asyncio.Event, leaves: Callable[[], None] = lambda: None) -> None:
        """Becomes unready but goes on serving for the delay (or until `hurry`); then stops accepting, and
        lets running calls finish.

        `leaves` is called as soon as no connection is accepted any more.
        """
        state, snapshots, config = self.state, self.snapshots, self.snapshots.current.config.server
        state.draining = self.clients.draining = True
        state.log.info(
            "draining", in_flight=len(snapshots.runs), delay=config.drain_delay, timeout=config.drain_timeout
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.drain_delay):
                await hurry.wait()
        self._acceptors[1].finish()
        leaves()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.drain_timeout):
                await self.clients.answered()
                await snapshots.idle()
        for run in snapshots.runs:
            run.drain()
        await self.clients.shutdown(1.0)

    def let_go(self) -> None:
        """Stops accepting on both ports, because another process serves them now."""
        for acceptor in self._acceptors:
            acceptor.finish()


def _open(listener: Listener) -> float:
    return float(len(listener.connections))

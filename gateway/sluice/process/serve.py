"""Runs the process: listens, ticks, and drains at the end.

On SIGTERM or SIGINT readiness flips first while new connections are still served (`drain_delay`: load balancers need
that long to notice); then no more are accepted and running calls may finish (`drain_timeout`); those that are left
then end with an in-band error. The admin port goes last. A second signal ends the delay.

A worker (see `supervisor.py`) shares its ports with others. It drains on SIGTERM, however often that comes; SIGINT ends its
delay. When its supervisor is gone it drains without a delay, so that the ports are free for its successor.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from sluice.api.app import Api
from sluice.config.loader import Loaded
from sluice.process.ports import CannotListen, Ports, take_ports
from sluice.process.signals import UNUSED_SIGNALS, Terminal, ignore_unused_signals, say_unused
from sluice.runtime.descriptors import limit_of_files
from sluice.runtime.restart import needs_restart
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.snapshots import Snapshots
from sluice.runtime.state import ProcessState
from sluice.server import Acceptor, Listener
from sluice.telemetry.logs import Lines, open_log, quiet_libraries, standard_lines
from sluice.version import VERSION

LISTENS, LEAVES = b"1", b"2"
LAST_LINES = 1.0
"""Seconds that the last log lines may wait for their reader at the end."""


class Worker(msgspec.Struct, frozen=True):
    """One of several processes on the same ports.

    It reports on the descriptor `status` that it listens (LISTENS), and that it accepts no more (LEAVES); `supervisor` is a
    descriptor that becomes readable when the supervisor is gone. `mark`: see `ports.py`; it is kept as long as the ports.
    """

    number: int
    status: int
    supervisor: int
    ports: Ports
    mark: int


def run(loaded: Loaded, worker: Worker | None = None) -> int:
    """Serve until a signal ends it. Returns the process's exit code: 1 if it cannot listen on an address."""
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner:
        return runner.run(_serve(loaded, worker))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Gateway:
    """A process's state, its snapshots and the two listeners. `async with` serves; leaving it closes what is left at once.

    It leaves the process's logging, signals and collector alone. Log lines go to `lines`. `ports`: those to listen on, where
    they have been taken. `before_listening` is called as soon as `state` and `snapshots` are there.
    """

    def __init__(
        self,
        loaded: Loaded,
        lines: Lines,
        ports: Ports | None = None,
        before_listening: Callable[[], object] = lambda: None,
    ) -> None:
        self._loaded = loaded
        self._lines = lines
        self._ports = ports
        self._before_listening = before_listening

    async def __aenter__(self) -> Self:
        """Raises CannotListen, and what ProcessState and Snapshot raise."""
        async with AsyncExitStack() as stack:
            state = self.state = await stack.enter_async_context(ProcessState(self._loaded, self._lines))
            self.snapshots = await stack.enter_async_context(Snapshots(self._loaded, state))
            current = self.snapshots.current
            self.clients = self._listener(Api(current), state.places.clients)
            self.operators = self._listener(Api(current, operators=True), state.places.operators)
            for listener in (self.operators, self.clients):
                stack.push_async_callback(listener.shutdown, 0.1)
            self._before_listening()
            self._listen(stack)
            ticking = asyncio.create_task(self.snapshots.tick(self._sweep))
            stack.callback(ticking.cancel)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._closing.aclose()

    def _listener(self, api: Api, connections: int) -> Listener:
        state = self.state
        return Listener(
            api,
            state.config.server,
            state.records.broken,
            connections=connections,
            refused=state.places.refused,
            warn=self._warn,
        )

    def _listen(self, stack: AsyncExitStack) -> None:
        server = self.state.config.server
        try:
            ports = self._ports or take_ports(server)
            stack.callback(ports.close)
            bound = ((self.operators, ports.admin), (self.clients, ports.api))
            self._acceptors = [self._accepting(stack, listener, port) for listener, port in bound]
        except OSError as error:  # another process was quicker
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
        """Host and port of the API, as bound."""
        return self._acceptors[1].address

    @property
    def admin_address(self) -> tuple[str, int]:
        return self._acceptors[0].address

    async def swap(self, loaded: Loaded) -> list[str]:
        """Answer requests that come from now on by another configuration; those that have begun end by theirs.

        Returns the options whose new values need a restart; their old ones hold. Raises ConfigError, ValueError or OSError
        where the configuration cannot be followed; then nothing has changed.
        """
        await self.snapshots.swap(loaded, self._take)
        return needs_restart(self.state.config, loaded.config)

    def _take(self, snapshot: Snapshot) -> set[asyncio.Task[None]]:
        clients, operators = Api(snapshot), Api(snapshot, operators=True)
        self.clients.dispatch, self.operators.dispatch = clients, operators
        return self.clients.answering() | self.operators.answering()

    async def drain(self, hurry: asyncio.Event, leaves: Callable[[], None] = lambda: None) -> None:
        """Serve on, but not ready, for the delay (or until `hurry`); then accept no connections and let running calls finish.

        `leaves` is called as soon as no connection is accepted any more.
        """
        state, snapshots, config = self.state, self.snapshots, self.snapshots.current.config.server
        state.draining = self.clients.draining = True
        state.log.info("draining", in_flight=len(snapshots.runs), delay=config.drain_delay, timeout=config.drain_timeout)
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
        """Accept no more on either port: another process has them from now on."""
        for acceptor in self._acceptors:
            acceptor.finish()


async def _serve(loaded: Loaded, worker: Worker | None) -> int:
    config, number = loaded.config.server, worker.number if worker else 0
    lines = standard_lines(loaded.config.log, shared=config.workers > 1)
    quiet_libraries(log := open_log(lines, loaded.config.log.level))
    try:
        ports = worker.ports if worker is not None else take_ports(config)
        stop, hurry = asyncio.Event(), asyncio.Event()
        with contextlib.ExitStack() as until_gone:
            # Before anybody can see that it listens, it must know what to do at SIGTERM.
            gateway = Gateway(loaded, lines, ports, lambda: until_gone.enter_context(_signals(stop, hurry, worker, gateway)))
            async with gateway:
                gc.collect()
                gc.freeze()  # what is here now stays: no use in looking at it again and again
                gc.set_threshold(20_000, 20, 100)  # calls leave no cycles behind: the default looks after every second one
                gateway.state.metrics.child("worker").set(number)
                if worker is not None:
                    _report(worker, LISTENS)
                if gateway.state.places.clients < config.max_connections:
                    fits, files = gateway.state.places.clients, limit_of_files()
                    log.warning("max_connections", configured=config.max_connections, used=fits, open_files=files)
                log.info("started", version=VERSION, listen=config.listen, admin_listen=config.admin_listen, worker=number)
                await stop.wait()
                await gateway.drain(hurry, partial(_leave, worker))
    except CannotListen as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    log.info("stopped")
    lines.close(LAST_LINES)
    return 0


def _leave(worker: Worker | None) -> None:
    """Report that the worker accepts no more, and give up its mark on the ports."""
    if worker is not None:
        _report(worker, LEAVES)
        if worker.mark >= 0:
            os.close(worker.mark)


def _report(worker: Worker, what: bytes) -> None:
    with contextlib.suppress(OSError):  # its supervisor is gone
        os.write(worker.status, what)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, hurry: asyncio.Event, worker: Worker | None, gateway: Gateway) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    terminal = Terminal()

    def terminated() -> None:
        (hurry if stop.is_set() and worker is None else stop).set()

    def interrupted() -> None:
        if worker is not None:
            hurry.set()
        terminated()

    def abandoned(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        gateway.let_go()
        hurry.set()
        stop.set()

    def unused(number: int) -> None:
        if number == signal.SIGHUP and terminal.is_gone():
            terminated()
        else:
            say_unused(gateway.state.log, number)

    loop.add_signal_handler(signal.SIGTERM, terminated)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    for number in UNUSED_SIGNALS:
        loop.add_signal_handler(number, unused, number)
    if worker is not None:
        loop.add_reader(worker.supervisor, abandoned, worker.supervisor)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, *UNUSED_SIGNALS):
            loop.remove_signal_handler(number)
        ignore_unused_signals()
        if worker is not None:
            loop.remove_reader(worker.supervisor)

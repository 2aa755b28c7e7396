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
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

import msgspec

from sluice.api.app import Api
from sluice.config.loader import Loaded
from sluice.process.ports import CannotListen, Ports, take_ports
from sluice.process.signals import UNUSED_SIGNALS, Terminal, ignore_unused_signals, say_unused
from sluice.runtime.descriptors import limit_of_files
from sluice.runtime.runtime import Runtime
from sluice.server import Acceptor, Listener
from sluice.telemetry.logs import Lines, quiet_libraries
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
    """A runtime and its two listeners. `async with` serves; leaving it closes what is left at once."""

    def __init__(
        self,
        loaded: Loaded,
        lines: Lines | None = None,
        ports: Ports | None = None,
        before_listening: Callable[[], object] = lambda: None,
    ) -> None:
        self._before_listening = before_listening
        self.config = loaded.config.server
        self.runtime = Runtime(loaded, lines)
        places = self.runtime.places
        broken = self.runtime.records.broken
        listener = partial(Listener, config=self.config, broken=broken, refused=places.refused, warn=self._warn)
        self.clients = listener(Api(self.runtime), connections=places.clients)
        self.operators = listener(Api(self.runtime, operators=True), connections=places.operators)
        self._ports = ports
        self._acceptors: list[Acceptor] = []
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises CannotListen."""
        await self.runtime.open()
        self._before_listening()
        try:
            ports = self._ports = self._ports or take_ports(self.config)
            for listener, bound in ((self.operators, ports.admin), (self.clients, ports.api)):
                self._acceptors.append(listener.listen(bound))
        except OSError as error:  # another process was quicker
            await self._close()
            raise CannotListen(f"cannot listen on {self.config.listen}: {error.strerror or error}") from None
        except CannotListen:
            await self._close()
            raise
        self._ticking = asyncio.create_task(self.runtime.tick(self._sweep))
        self.runtime.start_probes()
        self.runtime.authenticator.start()
        return self

    def _warn(self, event: str, **fields: object) -> None:
        self.runtime.notices.seen(event, "warning", event, **fields)

    def _sweep(self, now: float) -> None:
        self.clients.sweep(now)
        self.operators.sweep(now)

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the API, as bound."""
        return self._acceptors[1].address

    @property
    def admin_address(self) -> tuple[str, int]:
        return self._acceptors[0].address

    async def drain(self, hurry: asyncio.Event, leaves: Callable[[], None] = lambda: None) -> None:
        """Serve on, but not ready, for the delay (or until `hurry`); then accept no connections and let running calls finish.

        `leaves` is called as soon as no connection is accepted any more.
        """
        runtime, config = self.runtime, self.config
        runtime.draining = self.clients.draining = True
        runtime.log.info(
            "draining", in_flight=len(runtime.pipeline.runs), delay=config.drain_delay, timeout=config.drain_timeout
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.drain_delay):
                await hurry.wait()
        self._acceptors[1].finish()
        leaves()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.drain_timeout):
                await self.clients.answered()
                await runtime.pipeline.idle()
        for run in list(runtime.pipeline.runs):
            run.drain()
        await self.clients.shutdown(1.0)

    def let_go(self) -> None:
        """Accept no more on either port: another process has them from now on."""
        for acceptor in self._acceptors:
            acceptor.finish()

    async def _close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for acceptor in reversed(self._acceptors):
            acceptor.close()
        if self._ports is not None:
            self._ports.close()
        await self.clients.shutdown(0.1)
        await self.operators.shutdown(0.1)
        await self.runtime.close()


async def _serve(loaded: Loaded, worker: Worker | None) -> int:
    number = worker.number if worker else 0
    try:
        ports = worker.ports if worker is not None else take_ports(loaded.config.server)
        stop, hurry = asyncio.Event(), asyncio.Event()
        with contextlib.ExitStack() as until_gone:
            # Signal handlers come before the ports: whoever sees that it listens may send SIGTERM.
            gateway = Gateway(
                loaded, ports=ports, before_listening=lambda: until_gone.enter_context(_signals(stop, hurry, worker, gateway))
            )
            log, config = gateway.runtime.log, gateway.config
            quiet_libraries(log)
            async with gateway:
                gc.collect()
                gc.freeze()  # all of it stays for good: collections need not scan it again
                gc.set_threshold(20_000, 20, 100)  # calls leave no cycles behind: the default collects after every second one
                gateway.runtime.metrics.child("worker").set(number)
                if worker is not None:
                    _report(worker, LISTENS)
                if gateway.runtime.places.clients < config.max_connections:
                    fits, files = gateway.runtime.places.clients, limit_of_files()
                    log.warning("max_connections", configured=config.max_connections, used=fits, open_files=files)
                log.info("started", version=VERSION, listen=config.listen, admin_listen=config.admin_listen, worker=number)
                await stop.wait()
                await gateway.drain(hurry, partial(_leave, worker))
    except CannotListen as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    log.info("stopped")
    gateway.runtime.lines.close(LAST_LINES)
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
            say_unused(gateway.runtime.log, number)

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

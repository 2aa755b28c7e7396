"""The process: listen, tick, and leave in order.

On SIGTERM or SIGINT readiness flips first while new connections are still served (`drain_delay`: load balancers need
that long to notice); then no more are accepted and running calls may finish (`drain_timeout`); what is left then is
told so in-band and closed. The admin port goes last. A second signal ends the delay.

A worker (see `supervisor.py`) shares its ports with others. It drains on SIGTERM, however often that comes, and when its
supervisor is gone; SIGINT ends its delay.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Self, cast

import msgspec

from gateway.api import ADMIN, API, Api
from gateway.configfile import Loaded
from gateway.inbound import Listener
from gateway.logs import Lines
from gateway.runtime import Runtime
from gateway.version import VERSION

LAST_LINES = 1.0
"""Seconds that the last log lines may wait for their reader at the end."""


class Worker(msgspec.Struct, frozen=True):
    """One of several processes on the same ports.

    It says on the descriptor `ready` that it listens; `supervisor` is one that can be read when its supervisor is gone.
    """

    number: int
    ready: int
    supervisor: int


def run(loaded: Loaded, worker: Worker | None = None) -> int:
    """Serve until a signal says otherwise. Returns the process's exit code: 1 where an address cannot be had."""
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

    def __init__(self, loaded: Loaded, lines: Lines | None = None, *, reuse_port: bool = False) -> None:
        self.config = loaded.config.server
        self.runtime = Runtime(loaded, lines)
        self.clients = Listener(Api(self.runtime, API), self.config, self.runtime.records.broken)
        self.operators = Listener(Api(self.runtime, ADMIN), self.config, self.runtime.records.broken)
        self._reuse_port = reuse_port
        self._servers: list[asyncio.Server] = []
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises CannotListen."""
        await self.runtime.open()
        places = ((self.operators, self.config.admin_listen, "admin_listen"), (self.clients, self.config.listen, "listen"))
        for listener, address, option in places:
            try:
                self._servers.append(await listener.bind(address, reuse_port=self._reuse_port))
            except OSError as error:
                await self._close()
                raise CannotListen(f"cannot listen on {address} (server.{option}): {error.strerror or error}") from None
        self._ticking = asyncio.create_task(self.runtime.tick(self._sweep))
        self.runtime.start_probes()
        self.runtime.authenticator.start()
        return self

    def _sweep(self, now: float) -> None:
        self.clients.sweep(now)
        self.operators.sweep(now)

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the API, as bound."""
        return cast(tuple[str, int], self._servers[1].sockets[0].getsockname()[:2])

    @property
    def admin_address(self) -> tuple[str, int]:
        return cast(tuple[str, int], self._servers[0].sockets[0].getsockname()[:2])

    async def drain(self, hurry: asyncio.Event) -> None:
        """Not ready, but serving, for the delay (or until `hurry`); then no new connections, and running calls may finish."""
        runtime, config = self.runtime, self.config
        runtime.draining = self.clients.draining = True
        runtime.log.info(
            "draining", in_flight=len(runtime.pipeline.flows), delay=config.drain_delay, timeout=config.drain_timeout
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.drain_delay):
                await hurry.wait()
        self._servers[1].close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.drain_timeout):
                await runtime.pipeline.idle()
        for flow in list(runtime.pipeline.flows):
            flow.drain()
        await self.clients.shutdown(1.0)

    async def _close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for server in reversed(self._servers):
            server.close()
        await self.clients.shutdown(0.1)
        await self.operators.shutdown(0.1)
        await self.runtime.close()


class CannotListen(Exception):
    """An address is taken, or not ours."""


async def _serve(loaded: Loaded, worker: Worker | None) -> int:
    number = worker.number if worker else 0
    try:
        async with Gateway(loaded, reuse_port=worker is not None) as gateway:
            log, config = gateway.runtime.log, gateway.config
            gc.collect()
            gc.freeze()  # what is here now stays: no use in looking at it again and again
            gc.set_threshold(20_000, 20, 100)  # calls leave no cycles behind: the default looks after every second one
            gateway.runtime.metrics.child("worker").set(number)
            stop, hurry = asyncio.Event(), asyncio.Event()
            with _signals(stop, hurry, worker):
                log.info("started", version=VERSION, listen=config.listen, admin_listen=config.admin_listen, worker=number)
                await stop.wait()
                await gateway.drain(hurry)
    except CannotListen as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    log.info("stopped")
    gateway.runtime.lines.close(LAST_LINES)
    return 0


@contextlib.contextmanager
def _signals(stop: asyncio.Event, hurry: asyncio.Event, worker: Worker | None) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def terminated() -> None:
        (hurry if stop.is_set() and worker is None else stop).set()

    def interrupted() -> None:
        if worker is not None:
            hurry.set()
        terminated()

    def abandoned(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, terminated)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    if worker is not None:
        loop.add_reader(worker.supervisor, abandoned, worker.supervisor)
        os.write(worker.ready, b"1")
        os.close(worker.ready)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if worker is not None:
            loop.remove_reader(worker.supervisor)

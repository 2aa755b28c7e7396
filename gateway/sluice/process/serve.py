"""Runs the process: listens, ticks, and drains at the end.

On SIGTERM or SIGINT readiness flips first while new connections are still served (`drain_delay`: load
balancers need that long to notice); then no more are accepted and running calls may finish (`drain_timeout`);
those that are left then end with an in-band error. The admin port goes last. A second signal ends the delay.

A worker (see `supervisor.py`) shares its ports with others. It drains on SIGTERM, however often that comes;
SIGINT ends its delay. When its supervisor is gone it drains without a delay, so that the ports are free for
its successor.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec

from sluice.config.loader import Loaded
from sluice.config.types import Server
from sluice.errors import GatewayError
from sluice.process.alone import Alone
from sluice.process.channel import ChannelEnd
from sluice.process.gateway import Gateway
from sluice.process.member import WorkerLink
from sluice.process.ports import CannotListen, Ports, take_ports
from sluice.process.signals import UNUSED_SIGNALS, Terminal, ignore_signals, say_unused
from sluice.process.source import ConfigSource
from sluice.process.systemd import ServiceManager, inherited_sockets
from sluice.runtime.descriptors import limit_of_files
from sluice.runtime.fleet import ConfigStatus
from sluice.telemetry.board import BoardSlot
from sluice.telemetry.logs import open_log, quiet_libraries, standard_lines
from sluice.version import VERSION

LISTENS, LEAVES = b"1", b"2"
GRACE = 5.0
"""Seconds that shutting down may take beyond the drain timeout."""
LAST_LINES = 1.0
"""Maximum seconds for the last log lines to be read at the end."""
FEW_CONNECTIONS = 4096
"""Fewer connections than these are a warning, although their number is not configured."""


class Worker(msgspec.Struct, frozen=True):
    """One of several processes on the same ports.

    It reports on the descriptor `status` that it listens (LISTENS), and that it accepts no more (LEAVES);
    `supervisor` is a descriptor that becomes readable when the supervisor is gone. `mark`: see `ports.py`; it
    is kept as long as the ports. Its counters and its sign of life are in `slot`. `wire` is the channel to
    the supervisor; `following` is what the supervisor knew of reloads when the worker was started, `off` the
    targets that were switched off then.
    """

    number: int
    status: int
    supervisor: int
    ports: Ports
    mark: int
    wire: ChannelEnd
    following: ConfigStatus
    slot: BoardSlot
    off: dict[str, str]


def run(loaded: Loaded, source: ConfigSource, worker: Worker | None = None) -> int:
    """Serves until a signal ends it. Returns the process's exit code: 1 if it cannot listen on an address."""
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner:
        return runner.run(_serve(loaded, source, worker))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(loaded: Loaded, source: ConfigSource, worker: Worker | None) -> int:
    config, number = loaded.config.server, worker.number if worker else 0
    lines = standard_lines(loaded.config.log, shared=config.workers > 1)
    quiet_libraries(log := open_log(lines, loaded.config.log.level))
    try:
        inherited = inherited_sockets(os.environ) if worker is None else {}
        ports = worker.ports if worker is not None else take_ports(config, inherited)
        for passed in inherited.values():
            passed.close()
        manager = ServiceManager(os.environ if worker is None else {})
        stop, hurry = asyncio.Event(), asyncio.Event()
        async with AsyncExitStack() as until_gone:

            def before_listening() -> (
                None
            ):  # an operator who sees the port may send a signal or an admin request
                if worker is not None:
                    until_gone.push_async_callback(join(gateway, source, worker).close)
                else:
                    until_gone.callback(
                        control(Alone(gateway, source, loaded, stop.set, manager), gateway).cancel
                    )
                until_gone.enter_context(_signals(stop, hurry, worker, gateway))

            gateway = Gateway(
                loaded, lines, ports, before_listening, worker.slot if worker is not None else None
            )
            async with gateway:
                gc.collect()
                gc.freeze()  # long-lived objects need not be examined again
                gc.set_threshold(20_000, 20, 100)  # calls leave no reference cycles behind
                gateway.snapshots.retired = gc.collect  # but a configuration has some
                gateway.state.metrics.child("worker").set(number)
                if worker is not None:
                    _report(worker, LISTENS)
                if gateway.state.places.clients < config.max_connections:
                    fits, files = gateway.state.places.clients, limit_of_files()
                    shown = {"configured": config.max_connections, "used": fits, "open_files": files}
                    if config.max_connections == Server().max_connections and fits >= FEW_CONNECTIONS:
                        log.info("max_connections", **shown)
                    else:
                        log.warning("max_connections", **shown)
                log.info(
                    "started", version=VERSION, listen=config.listen, admin_listen=config.admin_listen, worker=number,
                    inherited=list(inherited), open_files=limit_of_files(), max_connections=gateway.state.places.clients,
                )  # fmt: skip
                manager.ready()
                with _beating(manager):
                    await stop.wait()
                    manager.stopping(config.drain_delay + config.drain_timeout + GRACE)
                    await gateway.drain(hurry, partial(_leave, worker))
                manager.close()
    except CannotListen as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    log.info("stopped")
    lines.close(LAST_LINES)
    return 0


@contextlib.contextmanager
def _beating(manager: ServiceManager) -> Iterator[None]:
    """Reports to the service manager's watchdog that the event loop runs."""
    if manager.beat_every is None:
        yield
        return
    beating = asyncio.create_task(_beat(manager, manager.beat_every))
    try:
        yield
    finally:
        beating.cancel()


async def _beat(manager: ServiceManager, every: float) -> None:
    while True:
        manager.alive()
        await asyncio.sleep(every)


def join(gateway: Gateway, source: ConfigSource, worker: Worker) -> WorkerLink:
    """Connects this worker to the supervisor, so that operators control the whole gateway by it."""
    state = gateway.state
    member = state.fleet = WorkerLink(gateway, worker.wire, source)
    state.show(worker.following)
    state.off.update(worker.off)
    member.start()
    return member


def control(alone: Alone, gateway: Gateway) -> "asyncio.Task[None]":
    """Lets operators control the only process. Returns the task that watches the configuration's file."""
    gateway.state.fleet = alone
    return asyncio.create_task(alone.watch())


def _leave(worker: Worker | None) -> None:
    """Reports that the worker accepts no more, and releases its mark on the ports."""
    if worker is not None:
        _report(worker, LEAVES)
        if worker.mark >= 0:
            os.close(worker.mark)


def _report(worker: Worker, what: bytes) -> None:
    with contextlib.suppress(OSError):  # the supervisor has ended
        os.write(worker.status, what)


@contextlib.contextmanager
def _signals(
    stop: asyncio.Event, hurry: asyncio.Event, worker: Worker | None, gateway: Gateway
) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    terminal = Terminal()
    doing: set[asyncio.Task[Any]] = set()

    def do(work: Coroutine[Any, Any, object]) -> None:
        task = loop.create_task(_quietly(work))
        doing.add(task)
        task.add_done_callback(doing.discard)

    def terminated() -> None:
        (hurry if stop.is_set() and worker is None else stop).set()

    def interrupted() -> None:
        if worker is not None:
            hurry.set()
        terminated()

    def abandoned(descriptor: int) -> None:
        loop.remove_reader(descriptor)
        if worker is not None:
            worker.slot.board.stop()
        gateway.let_go()
        hurry.set()
        stop.set()

    def hung_up() -> None:
        if terminal.is_gone():
            terminated()
        elif gateway.state.fleet is not None:
            do(gateway.state.fleet.reload())

    loop.add_signal_handler(signal.SIGTERM, terminated)
    loop.add_signal_handler(signal.SIGINT, interrupted)

    def restart() -> None:
        if worker is None:
            say_unused(gateway.state.log, signal.SIGUSR2)
        elif gateway.state.fleet is not None:
            do(gateway.state.fleet.restart())

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    loop.add_signal_handler(signal.SIGUSR2, restart)
    for number in UNUSED_SIGNALS:
        loop.add_signal_handler(number, say_unused, gateway.state.log, number)
    if worker is not None:
        loop.add_reader(worker.supervisor, abandoned, worker.supervisor)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, *UNUSED_SIGNALS):
            loop.remove_signal_handler(number)
        ignore_signals()
        for task in doing:
            task.cancel()
        if worker is not None:
            loop.remove_reader(worker.supervisor)


async def _quietly(work: Coroutine[Any, Any, object]) -> None:
    """Runs what a signal requested; the log has the result."""
    with contextlib.suppress(GatewayError):
        await work

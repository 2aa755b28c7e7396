"""The process: listen, tick, and leave in order.

On SIGTERM or SIGINT readiness flips first while new connections are still served (`drain_delay`: load balancers need
that long to notice); then no more are accepted and running calls may finish (`drain_timeout`); what is left then is
told so in-band and closed. The admin port goes last. A second signal ends the delay.
"""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from gateway.api import ADMIN, API, Api
from gateway.config import Server as ServerConfig
from gateway.configfile import Loaded
from gateway.runtime import Runtime
from gateway.server import Listener
from gateway.version import VERSION


def run(loaded: Loaded) -> int:
    """Serve until a signal says otherwise. Returns the process's exit code: 1 where an address cannot be had."""
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner:
        return runner.run(_serve(loaded))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(loaded: Loaded) -> int:
    runtime = Runtime(loaded)
    config = loaded.config.server
    broken = runtime.broken
    clients = Listener(Api(runtime, API), config, broken)
    operators = Listener(Api(runtime, ADMIN), config, broken)
    servers = []
    for listener, address, option in ((operators, config.admin_listen, "admin_listen"), (clients, config.listen, "listen")):
        try:
            servers.append(await listener.bind(address))
        except OSError as error:
            print(f"sluice: cannot listen on {address} (server.{option}): {error.strerror or error}", file=sys.stderr)
            return 1
    gc.collect()
    gc.freeze()  # what is here now stays: no use in looking at it again and again
    stop = asyncio.Event()
    with _signals(stop):
        ticking = asyncio.create_task(runtime.tick(clients.sweep))
        runtime.log.info("started", version=VERSION, listen=config.listen, admin_listen=config.admin_listen)
        await stop.wait()
        await _drain(runtime, clients, servers[1], config, stop)
        ticking.cancel()
    servers[0].close()
    await operators.shutdown(1.0)
    await runtime.close()
    runtime.log.info("stopped")
    return 0


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _drain(runtime: Runtime, clients: Listener, server: Any, config: ServerConfig, stop: asyncio.Event) -> None:
    runtime.draining = clients.draining = True
    runtime.log.info("draining", in_flight=len(runtime.pipeline.flows), delay=config.drain_delay, timeout=config.drain_timeout)
    stop.clear()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(config.drain_delay):
            await stop.wait()
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(config.drain_timeout):
            while runtime.pipeline.flows:  # a poll: this happens once in a process's life
                await asyncio.sleep(0.05)
    for flow in list(runtime.pipeline.flows):
        flow.drain()
    await clients.shutdown(1.0)

"""Follows the servers of an upstream that has several (`pods`): which servers there are, by DNS or by a list,
and the load that each reports.

Calls never wait for this: a call uses the servers that are known, with their latest figures. A server that
has disappeared from DNS gets no further calls, and those that it is answering go on; a new server gets calls
as soon as it has been found. While a name cannot be resolved nothing changes. Until the first server is found
the upstream is reached by its name, like one without `pods`.
"""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from sluice.backends.transport import Reader, Towards, Transport, UpstreamRequest, UpstreamResponse
from sluice.config.types import Pods
from sluice.errors import UpstreamError
from sluice.proxy.target import Target
from sluice.routing.pods import Pod, figures_in
from sluice.routing.pooled import PooledHealth, PooledLoad
from sluice.telemetry.metrics import Metrics
from sluice.telemetry.notices import Notices
from sluice.upstream.names import host_and_port, joined
from sluice.upstream.request import origin_of

BODY = 4 << 20
"""Maximum bytes of a server's metrics that are read."""
CONNECT, READ = 1.0, 2.0
"""Maximum seconds for connecting to a server, and for the whole request of its metrics."""
LOOK_UP = 5.0
"""Maximum seconds for one lookup of a name."""
SPREAD = 0.2
"""The share by which the time between two readings varies at random, so that gateways do not all read at
once."""
MAX_CACHED_LISTS = 4096
"""Maximum lists of targets that are cached."""

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a name. Raises OSError."""


class PodTransport:
    """The connections to one server; counts the calls that are sent to it."""

    def __init__(self, transport: Transport, pod: Pod) -> None:
        self.transport = transport
        self._pod = pod

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """See `sluice.backends.transport.Transport`."""
        self._pod.begun += 1
        return self.transport.send(request, connect=connect, headers=headers, reader=reader)

    def secrets(self) -> Any:
        return getattr(self.transport, "secrets", tuple)()

    async def close(self) -> None:
        await self.transport.close()


class _Followed(msgspec.Struct, eq=False):
    """A server that is being followed: its connections for calls, those for its metrics, and the task that
    reads them."""

    pod: Pod
    transport: PodTransport
    reading: Transport
    task: "asyncio.Task[None] | None" = None


class PodPool:
    """The servers of one upstream.

    `start` begins to follow them. `close` stops that, and closes their connections as soon as they are idle.
    `base` is the transport to the upstream by its name. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        upstream: str,
        options: Pods,
        base_url: str,
        base: Towards,
        *,
        metrics: Metrics,
        notices: Notices,
        log: Any,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        look_up: "LookUp | None" = None,
    ) -> None:
        self._name, self._options, self._base = upstream, options, base
        self._origin = origin_of(base_url)
        self._url = _metrics_url(base_url, options.metrics) if options.metrics is not None else ""
        self._metrics, self._notices, self._log = metrics, notices, log
        self._clock, self._sleep, self._chance = clock, sleep, chance
        self._look_up = look_up or addresses_of
        self._followed: dict[str, _Followed] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._resolving: asyncio.Task[None] | None = None
        self._expanded: dict[Target, Sequence[Target]] = {}
        self._standings: set[PooledHealth | PooledLoad] = set()
        for result in ("ok", "failed"):
            metrics.zero("pod_polls", upstream, result)
        for state in ("fresh", "stale"):
            metrics.computed("pods", partial(self.count, state), upstream, state).kept = True
        metrics.computed("pod_requests_waiting", self.waiting, upstream).kept = True

    def start(self) -> None:
        """Starts to follow the servers, without waiting for anything."""
        if self._options.addresses:
            places = [host_and_port(address, self._origin.port) for address in self._options.addresses]
            self._follow({joined(*place): place for place in places})
        else:
            self._resolving = asyncio.create_task(self._resolve())

    async def close(self) -> None:
        """Stops following. Connections of running calls are closed when these calls end."""
        tasks = [self._resolving] if self._resolving is not None else []
        self._follow({})
        for task in tasks:
            task.cancel()
        if waited := [*tasks, *self._leaving]:
            await asyncio.wait(waited)

    # --- for calls

    def targets(self, target: Target) -> Sequence[Target]:
        """Returns a copy of the target for each server; the target itself while no server is known."""
        if not self._followed:
            return (target,)
        known = self._expanded.get(target)
        if known is not None:
            return known
        if len(self._expanded) >= MAX_CACHED_LISTS:
            self._expanded.clear()
        made = [self._target(target, followed) for followed in self._followed.values()]
        self._expanded[target] = made
        return made

    def forget_targets(self) -> None:
        """Drops the cached targets, because a snapshot was closed; targets of other snapshots are made again
        when they are needed."""
        self._expanded.clear()
        self._standings.clear()
        for pod in self.pods:
            pod.loads = {model: load for model, load in pod.loads.items() if load.in_flight}

    def _target(self, target: Target, followed: _Followed) -> Target:
        pod, health, load = followed.pod, target.health, target.load
        assert isinstance(health, PooledHealth)
        assert isinstance(load, PooledLoad)
        for standing in (health, load):
            if standing not in self._standings:
                standing.keep(self._followed)  # servers may have gone while nobody asked for this model
                self._standings.add(standing)
        named = (("x-sluice-pod", pod.address),) if self._options.header else ()
        pod.loads[target.spec.model] = load.of(pod.address)
        return msgspec.structs.replace(
            target,
            transport=followed.transport,
            health=health.of(pod.address),
            load=load.of(pod.address),
            attribution=(*target.attribution, *named),
            pods=None,
            pod=pod,
        )

    # --- which there are

    @property
    def pods(self) -> list[Pod]:
        return [followed.pod for followed in self._followed.values()]

    async def _resolve(self) -> None:
        key = ("pods", self._name)
        while True:
            try:
                async with asyncio.timeout(LOOK_UP):
                    found = await self._look_up(self._origin.host, self._origin.port)
            except (OSError, UnicodeError, TimeoutError):
                found = ()
            if found:
                port = self._origin.port
                self._follow(
                    {joined(address, port): (address, port) for address in found[: self._options.max]}
                )
                self._notices.end(key, "pods_resolved")
                if len(found) > self._options.max:
                    counts = {"found": len(found), "used": self._options.max}
                    self._notices.seen(
                        (*key, "most"), "warning", "pods_left_out", upstream=self._name, **counts
                    )
            else:
                self._notices.begin(
                    key, "warning", "pods_not_resolved", upstream=self._name, known=len(self._followed)
                )
            await self._sleep(float(self._options.resolve))

    def _follow(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Makes these the servers of the upstream; others are dropped."""
        gone = [name for name in self._followed if name not in addresses]
        new = [name for name in addresses if name not in self._followed]
        if not gone and not new:
            return
        for name in gone:
            self._leave(self._followed.pop(name))
        for name in new:
            self._followed[name] = self._begin(name, *addresses[name])
        self._expanded.clear()
        for standing in self._standings:
            standing.keep(self._followed)
        self._log.info(
            "pods", upstream=self._name, count=len(self._followed), appeared=new[:16], vanished=gone[:16]
        )

    def _begin(self, name: str, host: str, port: int) -> _Followed:
        pod = Pod(name, self._clock, float(self._options.stale))
        transport = PodTransport(self._base.towards(host, port), pod)
        # A refusal of metrics says nothing of credentials: where several take turns, they are read with none.
        plain: Towards = getattr(self._base, "transport", self._base)
        followed = _Followed(pod, transport, plain.towards(host, port))
        if self._url:
            followed.task = asyncio.create_task(self._read_on(followed))
        return followed

    def _leave(self, followed: _Followed) -> None:
        leaving = asyncio.create_task(_closed(followed))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    # --- what they report

    async def _read_on(self, followed: _Followed) -> None:
        every = float(self._options.every)
        while True:
            await self.read(followed.pod, followed.reading)
            await self._sleep(every * (1 - SPREAD * self._chance()))

    async def read(self, pod: Pod, transport: Transport) -> None:
        """Reads one server's metrics once. If that fails, the server keeps its last figures until they are
        stale."""
        at, begun = self._clock(), pod.begun
        figures = None
        try:
            async with (
                asyncio.timeout(READ),
                transport.send(
                    UpstreamRequest(self._url, (), b"", "GET"), connect=CONNECT, headers=READ
                ) as response,
            ):
                if response.status == 200:
                    figures = figures_in(await response.read(BODY))
        except (UpstreamError, TimeoutError):
            pass
        self._metrics.child("pod_polls", self._name, "ok" if figures is not None else "failed").inc()
        if figures is not None:
            pod.reported(figures, at, begun)

    # --- for metrics

    def count(self, state: str) -> int:
        """Returns the number of servers whose figures are "fresh" or "stale"."""
        return sum(pod.fresh == (state == "fresh") for pod in self.pods)

    def waiting(self) -> float:
        """Returns the requests that wait in all servers together, by their fresh figures."""
        return sum(pod.figures.waiting for pod in self.pods if pod.fresh and pod.figures is not None)

    def connections(self, state: str) -> int:
        return sum(getattr(followed.transport.transport, state, 0) for followed in self._followed.values())


async def _closed(followed: _Followed) -> None:
    if followed.task is not None:
        followed.task.cancel()
        await asyncio.wait([followed.task])
    await followed.reading.close()
    await followed.transport.close()


async def addresses_of(host: str, port: int) -> list[str]:
    """Returns the addresses of a name, all of one family, so that a pod with both families counts once: IPv4
    if there is any. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = {family for family, *_ in found}
    wanted = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return sorted({str(address[0]) for family, *_, address in found if family == wanted})


def _metrics_url(base_url: str, path: str) -> str:
    url = urlsplit(base_url)
    return urlunsplit((url.scheme, url.netloc, path, "", ""))

"""Health and load of a target whose upstream has several servers: each server has its own, and these classes
combine them.

Whatever looks at the target as a whole (metrics, notices, the admin pages) sees the healthiest server and the
sum of the calls.
"""

from collections.abc import Callable, Collection

from sluice.errors import UpstreamError
from sluice.routing.health import BreakerPolicy, BreakerState, Health, HealthWatcher, Load


class PooledHealth(Health):
    """The health of the healthiest server; while no server is known, and the upstream is reached by its name,
    the target's own.

    `server_watcher` makes the watcher of one server, given its address; `server_gone` is called with the
    address of one that is forgotten.
    """

    __slots__ = ("_gone", "_make_watcher", "servers")

    def __init__(
        self,
        clock: Callable[[], float],
        policy: BreakerPolicy | None = None,
        watcher: HealthWatcher | None = None,
        *,
        server_watcher: Callable[[str], HealthWatcher | None] = lambda _: None,
        server_gone: Callable[[str], object] = lambda _: None,
    ) -> None:
        super().__init__(clock, policy, watcher)
        self._gone = server_gone
        self._make_watcher = server_watcher
        self.servers: dict[str, ServerHealth] = {}

    def of(self, address: str) -> "ServerHealth":
        known = self.servers.get(address)
        if known is None:
            known = self.servers[address] = ServerHealth(
                self._clock, self._policy, self._make_watcher(address), self
            )
        return known

    def keep(self, addresses: Collection[str]) -> None:
        """Forgets all other servers."""
        for address in [address for address in self.servers if address not in addresses]:
            self._gone(address)
            del self.servers[address]

    @property
    def closed(self) -> bool:
        return any(health.closed for health in self.servers.values()) if self.servers else super().closed

    @property
    def state(self) -> BreakerState:
        return min((health.state for health in self.servers.values()), default=super().state)

    def ready_at(self) -> float:
        return min((health.ready_at() for health in self.servers.values()), default=super().ready_at())


class ServerHealth(Health):
    """The health of one server. Its failures are also recorded as the latest of the whole target."""

    __slots__ = ("_whole",)

    def __init__(
        self,
        clock: Callable[[], float],
        policy: BreakerPolicy,
        watcher: HealthWatcher | None,
        whole: PooledHealth,
    ) -> None:
        super().__init__(clock, policy, watcher)
        self._whole = whole

    def failed(self, error: UpstreamError, probe: int = 0) -> None:
        super().failed(error, probe)
        self._whole.last_error, self._whole.last_failed_at = self.last_error, self.last_failed_at


class PooledLoad(Load):
    """The calls of all servers, and those that were sent while no server was known."""

    __slots__ = ("_own", "servers")

    def __init__(self) -> None:
        self.servers: dict[str, ServerLoad] = {}
        self._own: int = 0
        super().__init__()

    def of(self, address: str) -> "ServerLoad":
        known = self.servers.get(address)
        if known is None:
            known = self.servers[address] = ServerLoad(self)
        return known

    def keep(self, addresses: Collection[str]) -> None:
        """Forgets all other servers. Calls that they still answer are no longer counted."""
        for address in [address for address in self.servers if address not in addresses]:
            del self.servers[address]

    @property
    def in_flight(self) -> int:
        return self._own + self._of_servers()

    @in_flight.setter
    def in_flight(self, calls: int) -> None:
        self._own = calls - self._of_servers()

    def _of_servers(self) -> int:
        return sum(load.in_flight for load in self.servers.values())


class ServerLoad(Load):
    """The calls of one server. Times to first token are recorded for the whole target, because hedging uses
    those."""

    __slots__ = ("_whole",)

    def __init__(self, whole: PooledLoad) -> None:
        super().__init__()
        self._whole = whole

    def observe(self, seconds: float) -> None:
        super().observe(seconds)
        self._whole.observe(seconds)

    def p95(self) -> float | None:
        return self._whole.p95()

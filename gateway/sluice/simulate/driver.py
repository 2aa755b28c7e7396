"""Sends the arrivals of a trace to the replicas, as clients would, and measures the outcomes."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec

from sluice.config.loader import Loaded
from sluice.config.types import targets_of
from sluice.errors import GatewayError, wait_of
from sluice.limits.memory import MemoryStore
from sluice.simulate.clock import START, VirtualLoop
from sluice.simulate.measured import Measured
from sluice.simulate.replica import Replica
from sluice.simulate.scenario import Dice, Observed, Scenario, UpstreamModel, dice_of
from sluice.simulate.traces import Arrival, RecordedAttempt
from sluice.simulate.transport import ModelledClient, ModelledTransport
from sluice.simulate.upstreams import ModelledUpstream

AGAIN = frozenset(("429", "500", "502", "503", "504"))
"""Outcomes after which clients try again."""
MAX_BACKOFF = 8.0
MAX_RETRY_AFTER = 60.0
MIN_RECORDED_ANSWERS = 20
"""Minimum recorded answers of a target for its times to be drawn from them."""
MAX_OBSERVED = 10_000


class Simulated(msgspec.Struct, frozen=True):
    """The result. `seconds` were simulated, in `took` seconds, of which `cpu` were processor time. `opened`:
    how often breakers opened. `crashes`: faults of the gateway, by the names of their types."""

    measured: Measured
    upstreams: Mapping[str, ModelledUpstream]
    breakers: Sequence[Mapping[str, str]]
    most_streams: Sequence[int]
    opened: int
    seconds: float
    took: float
    cpu: float
    crashes: Sequence[str]


def simulate(
    loaded: Loaded,
    scenario: Scenario,
    arrivals: Iterator[Arrival],
    *,
    began: float = 0.0,
    observed: Sequence[RecordedAttempt] = (),
    progress: Callable[[int, float], object] = lambda calls, seconds: None,
) -> Simulated:
    """Runs all arrivals to their ends. The same arguments give the same result, except for `took` and `cpu`.

    `began`: seconds since the epoch at the trace's beginning, for budgets and prices. `progress` is called
    with the number of calls so far and the simulated seconds.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(
            _simulated(loaded, scenario, arrivals, began=began, observed=observed, progress=progress)
        )


async def _simulated(
    loaded: Loaded,
    scenario: Scenario,
    arrivals: Iterator[Arrival],
    *,
    began: float,
    observed: Sequence[RecordedAttempt],
    progress: Callable[[int, float], object],
) -> Simulated:
    started, spent = time.monotonic(), time.process_time()
    loop = asyncio.get_running_loop()
    dice = dice_of(scenario.seed, "upstreams")
    upstreams = modelled_upstreams(loaded, scenario, observed, loop.time, dice)
    transport = ModelledTransport(upstreams.__getitem__)

    def wall() -> float:
        return began + loop.time() - START

    crashes: list[str] = []
    store = MemoryStore(loop.time, wall=wall)
    async with AsyncExitStack() as stack:
        chance = dice_of(scenario.seed, "routing").random
        replicas = [
            Replica(
                loaded, store, transport, stack,
                clock=loop.time, wall=wall, chance=chance, crashed=lambda crash, _: crashes.append(type(crash).__name__),
            )
            for _ in range(scenario.replicas)
        ]  # fmt: skip
        driver = Driver(scenario, replicas, arrivals, loop)
        driver.progress = progress
        await driver.run()
        for replica in replicas:
            await replica.settlements.close()
        breakers = [replica.breakers() for replica in replicas]
        opened = sum(_opened(replica) for replica in replicas)
    return Simulated(
        driver.measured,
        upstreams,
        breakers,
        [replica.most for replica in replicas],
        opened,
        driver.ended - START,
        time.monotonic() - started,
        time.process_time() - spent,
        crashes,
    )


def modelled_upstreams(
    loaded: Loaded,
    scenario: Scenario,
    observed: Sequence[RecordedAttempt],
    clock: Callable[[], float],
    dice: Dice,
) -> dict[str, ModelledUpstream]:
    """Returns a model for each target, by its label. If the scenario has one for the upstream, its targets
    share it."""
    recorded: dict[str, list[RecordedAttempt]] = {}
    for attempt in observed:
        recorded.setdefault(attempt.target, []).append(attempt)
    shared: dict[str, ModelledUpstream] = {}
    found: dict[str, ModelledUpstream] = {}
    aliases = loaded.config.aliases.values()
    specs = [spec for alias in aliases for tier in alias.tiers for spec in targets_of(tier)]
    labels = [(spec.upstream, f"{spec.upstream}/{spec.model}") for spec in specs]
    labels += [
        (a.shadow.upstream, f"{a.shadow.upstream}/{a.shadow.model}") for a in aliases if a.shadow is not None
    ]
    for upstream, label in dict.fromkeys(labels):
        if label in scenario.upstreams or upstream not in scenario.upstreams:
            model = scenario.upstreams.get(label) or UpstreamModel()
            times = recorded.get(label, [])[-MAX_OBSERVED:]
            seen = len(times) >= MIN_RECORDED_ANSWERS and label not in scenario.upstreams
            found[label] = ModelledUpstream(
                label, model, clock, dice,
                first_token=Observed(tuple(one.first_token for one in times)) if seen else None,
                token=Observed(tuple(one.token for one in times)) if seen else None,
            )  # fmt: skip
            continue
        if upstream not in shared:
            shared[upstream] = ModelledUpstream(upstream, scenario.upstreams[upstream], clock, dice)
        found[label] = shared[upstream]
    return found


def _opened(replica: Replica) -> int:
    """Returns how often breakers opened."""
    return sum(
        int(replica.metrics.child("breaker_transitions", upstream, model, "open").value)
        for upstream, model in replica.standings
    )


class Driver:
    """Sends each arrival when it is due. `ended`: when the last call was over."""

    def __init__(
        self,
        scenario: Scenario,
        replicas: Sequence[Replica],
        arrivals: Iterator[Arrival],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._clients = scenario.clients
        self._replicas = replicas
        self._arrivals = arrivals
        self._loop = loop
        self._dice = dice_of(scenario.seed, "clients")
        self._next: Arrival | None = None
        self._number = 0
        self._running: set[asyncio.Task[None]] = set()
        self._all_over = loop.create_future()
        self.measured = Measured(float(scenario.warmup))
        self.ended = START
        self.progress: Callable[[int, float], object] = lambda calls, seconds: None

    async def run(self) -> None:
        """Raises Stalled if the gateway waits for an event that will not come, which is a fault of the
        gateway."""
        self._due()
        await self._all_over

    def _due(self) -> None:
        """Sends the arrivals that are due, and schedules itself for the next one."""
        now = self._loop.time()
        while True:
            arrival = self._next if self._next is not None else next(self._arrivals, None)
            if arrival is None:
                if not self._running:
                    self._finish()
                self._next = None
                self._arrivals = iter(())
                return
            if arrival.at + START > now:
                self._next = arrival
                self._loop.call_at(arrival.at + START, self._due)
                return
            self._next = None
            self._number += 1
            if not self._number % 10_000:
                self.progress(self._number, now - START)
            task = self._loop.create_task(self._client(arrival, self._number))
            self._running.add(task)
            task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None and not self._all_over.done():
            self._all_over.set_exception(fault)
        if not self._running and self._next is None:
            self._due()

    def _finish(self) -> None:
        if not self._all_over.done():
            self.ended = self._loop.time()
            self._all_over.set_result(None)

    async def _client(self, arrival: Arrival, number: int) -> None:
        """Simulates one client, with all its attempts."""
        clients = self._clients
        for retry in range(clients.retries + 1):
            error, outcome = await self._request(arrival, number)
            if outcome not in AGAIN or retry == clients.retries:
                return
            wait = min(MAX_BACKOFF, clients.backoff * 2**retry) * (1 + self._dice.random() / 4)
            retry_after = wait_of(error) if error is not None else None
            if retry_after is not None and retry_after <= MAX_RETRY_AFTER:
                wait = max(wait, retry_after)
            await asyncio.sleep(wait)
            self.measured.retries += 1

    async def _request(self, arrival: Arrival, number: int) -> tuple[GatewayError | None, str]:
        """Sends one request. Returns its error, and its outcome."""
        loop, replica = self._loop, self._replicas[number % len(self._replicas)]
        begun = loop.time()
        call = found = None
        leaving: asyncio.TimerHandle | None = None
        left = True
        replica.in_flight += 1
        replica.most = max(replica.most, replica.in_flight)
        try:
            call = replica.call(arrival, number)
            if self._clients.patience is not None and (task := asyncio.current_task(loop)) is not None:
                leaving = loop.call_later(self._clients.patience, task.cancel)
            client = ModelledClient(leaving.cancel if leaving is not None else _nothing)
            await replica.pipeline.answer(call, client)
            left = False
        except GatewayError as error:
            found, left = error, False
        finally:
            if leaving is not None:
                leaving.cancel()
            replica.in_flight -= 1
            outcome = self.measured.over(
                call,
                found,
                alias=arrival.alias,
                key=arrival.key,
                begun=begun - START,
                ended=loop.time() - START,
                left=left,
            )
        return found, outcome


def _nothing() -> None:
    pass

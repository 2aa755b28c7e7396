"""The current snapshot, which answers new requests, and older ones whose calls have not ended."""

import asyncio
import weakref
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from sluice.config.loader import Loaded
from sluice.proxy.run import CallRun
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState

TICK = 0.05
"""Seconds between two checks of the deadlines of calls in flight."""

Answering = Collection["asyncio.Task[None]"]
"""The tasks of requests that have begun."""


class Snapshots:
    """`async with` builds the first snapshot, of `loaded`; leaving it closes all snapshots."""

    def __init__(self, loaded: Loaded, state: ProcessState) -> None:
        self.state = state
        self.living: list[Snapshot] = []
        """Open snapshots, oldest first: the last one is `current`."""
        self._loaded = loaded
        self._building: list[Snapshot] = []
        """Snapshots that are being built, or are prepared and not yet current."""
        self._retiring: set[asyncio.Task[None]] = set()
        self.retired: Callable[[], object] = lambda: None
        """Called when an older snapshot has been closed and is no longer referenced."""
        self._begun = [weakref.WeakSet[asyncio.Task[None]]() for _ in range(2)]
        """Requests that had begun when the snapshot before the current one became current, and when the
        current one did."""
        self._swapping = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        self.current = await self._opened(self._loaded)
        self._building.remove(self.current)
        self.living.append(self.current)
        self.current.take_over()
        self.state.metrics.computed("oldest_stream_age_seconds", self._oldest).kept = True
        self._pushing = self.state.push()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._closed = True
        if self._pushing is not None:  # the last figures are sent before their series are removed
            self._pushing.cancel()
            await asyncio.wait([self._pushing])
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close_all)
            async with self._swapping:
                for task in self._retiring:
                    task.cancel()
                await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _close_all(self) -> None:
        async with AsyncExitStack() as stack:
            for snapshot in (*self.living, *self._building):
                stack.push_async_callback(self._close, snapshot)

    async def prepare(self, loaded: Loaded) -> Snapshot:
        """Builds a snapshot of another configuration, beside the current one. Pass it to `take` or `discard`.

        Raises what is wrong with the configuration; nothing has changed then.
        """
        async with self._swapping:
            self.state.deferred.flush()
            await self.state.usage.flush()  # for budgets that are new
            fresh = await self._opened(loaded)
            if self._closed:
                await self._close(fresh)
                raise RuntimeError("The gateway is closing")
            return fresh

    def take(self, fresh: Snapshot, serve: Callable[[Snapshot], Answering]) -> None:
        """Makes a prepared snapshot the one of new requests.

        `serve` is called to switch new requests over. It returns the tasks of the requests that have begun.
        What only the previous snapshot uses is closed when they and their calls have ended. Raises
        RuntimeError if the gateway is closing, which closes what was prepared.
        """
        if fresh not in self._building:
            raise RuntimeError("The gateway is closing")
        answering = serve(fresh)
        before, self.current = self.current, fresh
        self._building.remove(fresh)
        self.living.append(fresh)
        fresh.take_over(before)
        # A stream of an hour would keep each configuration of that hour if all waited for it. Those that had begun
        # at the swap before the last one are of older snapshots than `before`; of the last one's, some may have
        # had a task that had not run yet, and have taken `before`.
        of_before = [task for task in answering if task not in self._begun[0]]
        self._begun = [self._begun[1], weakref.WeakSet(answering)]
        retiring = asyncio.create_task(self._retire(before, of_before))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._has_retired)

    async def discard(self, fresh: Snapshot) -> None:
        """Closes a prepared snapshot that is not taken."""
        if fresh in self._building:
            await self._close(fresh)

    async def _opened(self, loaded: Loaded) -> Snapshot:
        snapshot = Snapshot(loaded, self.state)
        self._building.append(snapshot)
        try:
            return await snapshot.__aenter__()
        except BaseException:
            self._building.remove(snapshot)
            self._forget(snapshot)
            raise

    async def _retire(self, snapshot: Snapshot, answering: Answering) -> None:
        if answering:
            await asyncio.wait(answering)
        await snapshot.idle()
        await self._close(snapshot)

    def _has_retired(self, retiring: "asyncio.Task[None]") -> None:
        self._retiring.discard(retiring)
        self.retired()

    async def _close(self, snapshot: Snapshot) -> None:
        try:
            await snapshot.__aexit__(None, None, None)
        finally:
            for place in (self.living, self._building):
                if snapshot in place:
                    place.remove(snapshot)
            if not self._closed:  # the counts of a process that ends stay: other workers share the series
                self._forget(snapshot)

    def _forget(self, snapshot: Snapshot) -> None:
        """Removes series and queues of names that no other snapshot has."""
        state, others = (
            self.state,
            [other for other in (*self.living, *self._building) if other is not snapshot],
        )
        gone = snapshot.names.without(other.names for other in others)
        state.deferred.flush()  # it may count some more
        state.alias_queues.keep({queue for other in others for queue in other.queues})
        state.records.forget(gone.aliases, gone.keys, gone.frontends)
        metrics = state.metrics
        metrics.forget(("upstream", "model"), gone.targets)
        metrics.forget(("upstream", "credential"), gone.credentials)
        for label, names in (
            ("alias", gone.aliases),
            ("upstream", gone.upstreams),
            ("key", gone.keys),
            ("issuer", gone.issuers),
            ("frontend", gone.frontends),
            ("from", labels := {f"{upstream}/{model}" for upstream, model in gone.targets}),
            ("to", labels),
        ):
            metrics.forget((label,), {(name,) for name in names})

    # --- what happens

    @property
    def runs(self) -> list[CallRun]:
        """The calls in flight."""
        return [run for snapshot in self.living for run in snapshot.pipeline.runs]

    async def idle(self) -> None:
        """Waits until no call is in flight."""
        while self.runs:
            await asyncio.gather(*(snapshot.pipeline.idle() for snapshot in self.living))

    async def tick(self, sweep: Callable[[float], None]) -> None:
        """Checks the deadlines of all calls periodically, until cancelled. `sweep` is called once a
        second."""
        state, clock = self.state, self.state.clock
        due = clock() + TICK
        swept = due
        while True:
            await asyncio.sleep(max(0.0, due - clock()))
            now = clock()
            state.lag.observe(max(0.0, now - due))
            self._tick_pipelines(now)
            state.flush()
            state.publish(now)
            if now - swept >= 1:
                swept = now
                sweep(now)
                state.notices.tick(now)
            due = now + TICK

    def _tick_pipelines(self, now: float) -> None:
        for snapshot in self.living:  # here, so that no snapshot is held while `tick` sleeps
            snapshot.pipeline.tick(now)

    def _oldest(self) -> float:
        now = self.state.clock()
        return max((now - run.call.received for run in self.runs), default=0.0)

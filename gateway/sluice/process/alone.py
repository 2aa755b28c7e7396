"""Operations on a gateway of a single process."""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from sluice.config.loader import Loaded
from sluice.errors import ConfigError, Conflict
from sluice.files import reason_of
from sluice.process.gateway import Gateway
from sluice.process.source import LOOK_EVERY, ConfigSource, FileWatch
from sluice.process.systemd import ServiceManager
from sluice.runtime.fleet import CallQuery, Overview, RecentCalls, Reload, Targets
from sluice.runtime.restart import NeedsRestart, refuse_restart
from sluice.runtime.targets import states_of
from sluice.runtime.views import calls_of, overview_of
from sluice.telemetry.formats import Format

SHOWN = 20
"""Maximum problems of a file in one log line; the admin API lists all of them."""


class Alone:
    """`loaded`: the configuration that the process was started with. `stop` starts the drain; `manager` gets
    the state of reloads.
    """

    def __init__(
        self,
        gateway: Gateway,
        source: ConfigSource,
        loaded: Loaded,
        stop: Callable[[], None],
        manager: ServiceManager,
    ) -> None:
        self._manager = manager
        self._stop = stop
        self._started = time.monotonic()
        self._gateway = gateway
        self._source = source
        self._loaded = loaded
        self._watch = FileWatch(source.state())
        self._reloading = asyncio.Lock()

    async def reload(self) -> Reload:
        async with self._reloading:
            state = self._gateway.state
            begun = time.monotonic()
            self._manager.reloading()
            try:
                done = await self._reload()
            finally:
                self._manager.ready()
            done = msgspec.structs.replace(done, at=time.time(), seconds=time.monotonic() - begun)
            state.show(state.following.after(done))
            log_reload(state.log, done)
            return done

    async def _reload(self) -> Reload:
        read = await asyncio.to_thread(read_again, self._source, self._loaded)
        if isinstance(read, Reload):
            return read
        if self._gateway.state.draining:
            return Reload("failed", read.loaded.hash, problems=("the gateway is stopping",))
        try:
            self._gateway.commit(await self._gateway.prepare(read.loaded))
        except Exception as error:
            return Reload("failed", read.loaded.hash, problems=problems_of(error))
        return Reload("ok", read.loaded.hash, warnings=read.loaded.warnings)

    async def exposition(self, format: Format) -> bytes | None:
        return None

    async def targets(self) -> Targets:
        state = self._gateway.state
        return Targets(state.off, [(0, states_of(self._gateway.snapshots.current, state))])

    async def overview(self) -> Overview:
        return overview_of(self._gateway.snapshots.current, self._gateway.state)

    async def calls(self, query: CallQuery) -> RecentCalls:
        return RecentCalls([(0, await calls_of(self._gateway.state, query))])

    async def switch(self, label: str, state: str | None) -> None:
        if state is None:
            self._gateway.state.off.pop(label, None)
        else:
            self._gateway.state.off[label] = state
        self._gateway.state.log.info("target_switched", target=label, state=state or "enabled")

    async def status(self) -> dict[str, Any]:
        state = self._gateway.state
        worker: dict[str, Any] = {
            "worker": 0,
            "pid": os.getpid(),
            "state": "draining" if state.draining else "serving",
        }
        worker["uptime"] = round(time.monotonic() - self._started, 3)
        return {
            "pid": os.getpid(),
            "started": state.started,
            "draining": state.draining,
            "restarting": [],
            "workers": [worker],
        }

    async def restart(self) -> None:
        raise Conflict(
            "There is one process, which cannot replace itself: workers are replaced one after another"
        )

    async def drain(self) -> None:
        self._stop()

    async def watch(self) -> None:
        """Reloads when the file has changed, if `server.watch` is set; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._gateway.snapshots.current.config.server.watch and self._watch.look(
                await asyncio.to_thread(self._source.state)
            ):
                await self.reload()


class Read(msgspec.Struct, frozen=True):
    """A valid configuration, and the bytes of its file."""

    loaded: Loaded
    data: bytes


def read_again(source: ConfigSource, started: Loaded) -> Read | Reload:
    """Loads the file again. Returns the configuration, or why a process that was `started` with another one
    cannot apply it.
    """
    try:
        data = source.read()
    except OSError as error:
        return Reload("invalid", problems=(f"{source.path}: cannot be read: {reason_of(error)}",))
    named = hashlib.sha256(data).hexdigest()[:12]
    try:
        loaded = source.load(data)
        refuse_restart(started.config, loaded.config)
    except NeedsRestart as error:
        return Reload(
            "needs_restart", named, problems=tuple(error.problems), needs_restart=tuple(error.options)
        )
    except ConfigError as error:
        return Reload("invalid", named, problems=tuple(error.problems))
    except Exception as error:  # an error in a plugin: the running configuration stays
        return Reload("failed", named, problems=problems_of(error))
    return Read(loaded, data)


def problems_of(error: Exception) -> tuple[str, ...]:
    """Returns why a configuration could not be applied, in lines for the log and the admin API. The text of an
    exception of another kind, which may be a plugin's, is left out: it may quote the configuration."""
    if isinstance(error, ConfigError):
        return tuple(error.problems)
    words = str(error) if isinstance(error, ValueError | OSError | RuntimeError) else ""
    return (f"it cannot be followed: {words or type(error).__name__}",)


def log_reload(log: Any, done: Reload) -> None:
    """Logs the result of a reload in one line."""
    if done.ok:
        log.info(
            "config_reloaded",
            hash=done.hash,
            seconds=round(done.seconds, 3),
            warnings=list(done.warnings[:SHOWN]),
        )
    else:
        problems = list(done.problems[:SHOWN])
        log.error(
            "config_not_reloaded",
            result=done.result,
            hash=done.hash,
            problems=problems,
            of=len(done.problems),
        )

"""Applies another configuration in all workers, or in none.

The supervisor reads the file and checks it; every worker builds a snapshot from its bytes beside the current
one. If all workers succeed, all use it. If one fails or does not answer, all discard it. Workers that start
later get the current configuration; none is started during a rollout.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from sluice.config.loader import Loaded
from sluice.process.alone import Read, log_reload, read_again
from sluice.process.channel import ChannelRequest
from sluice.process.rounds import Round, Send
from sluice.process.source import ConfigSource
from sluice.runtime.fleet import ConfigStatus, Reload
from sluice.runtime.restart import effective

BUILD = 15.0
"""Seconds that workers have to build it: longer than the watchdog lets a silent worker live."""
TAKE = 5.0

Done = Callable[[Reload], None]


class Everybody(Protocol):
    """Sends a request to all workers."""

    def ask(
        self,
        members: Mapping[int, Send],
        what: str,
        body: object,
        seconds: float,
        done: Callable[[Round], None],
    ) -> None: ...


class Rollout:
    """`given`: the configuration that the gateway was started with, as in the file; `used`: the current one,
    as workers apply it.

    `members` returns the current workers. `status`: the result of the latest reload.
    """

    def __init__(
        self,
        source: ConfigSource,
        given: Loaded,
        used: Loaded,
        everybody: Everybody,
        members: Callable[[], Mapping[int, Send]],
        *,
        log: Any,
    ) -> None:
        self.used = used
        self.status = ConfigStatus(used.hash, time.time())
        self._source = source
        self._given = given
        self._everybody = everybody
        self._members = members
        self._log = log
        self._begun = 0.0
        self._wanted: list[Done] | None = None
        """The callbacks of requests for the next rollout, which begins when the running one has ended; None:
        no requests.
        """
        self._done: list[Done] = []
        self.running = False
        self.changes: Callable[[bool], object] = lambda running: None
        """Called when a rollout begins (True) and when it has ended (False)."""

    def begin(self, done: Done = lambda reload: None) -> None:
        """Reads the file again. `done` is called with the result."""
        self._wanted = [*(self._wanted or ()), done]
        if not self.running:
            self._next()

    def _next(self) -> None:
        if self._wanted is None:
            return
        self._done, self._wanted = self._wanted, None
        self.running = True
        self.changes(True)
        self._begun = time.monotonic()
        read = read_again(self._source, self._given)
        if isinstance(read, Reload):
            self._end(read)
        else:
            self._everybody.ask(
                self._members(), "prepare", read.data, BUILD, lambda round: self._prepared(read, round)
            )

    def _prepared(self, read: Read, round: Round) -> None:
        loaded = read.loaded
        if round.problem:
            self._everybody.ask(self._members(), "discard", None, TAKE, lambda _: None)
            self._end(Reload("failed", loaded.hash, problems=tuple(round.problem.splitlines())))
            return
        config = effective(self.used.config, loaded.config)
        self.used = msgspec.structs.replace(loaded, config=config, seed=self.used.seed)
        self._everybody.ask(self._members(), "commit", None, TAKE, lambda round: self._taken(loaded, round))

    def _taken(self, loaded: Loaded, round: Round) -> None:
        if round.problem:  # it is about to end: its successor gets the new configuration
            self._log.warning("config_not_taken", detail=round.problem)
        self._end(Reload("ok", loaded.hash, warnings=loaded.warnings))

    def _end(self, done: Reload) -> None:
        done = msgspec.structs.replace(done, at=time.time(), seconds=time.monotonic() - self._begun)
        self.status = self.status.after(done)
        self.running = False
        self.changes(False)
        log_reload(self._log, done)
        for send in self._members().values():
            send(ChannelRequest(0, "following", self.status))
        for tell in self._done:
            tell(done)
        self._next()

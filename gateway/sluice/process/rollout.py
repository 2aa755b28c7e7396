"""Takes another configuration in all workers, or in none.

The supervisor reads the file and checks it; every worker builds what follows from its bytes beside what it has; only when all
of them have, all are told to take it. Who cannot build it, or does not answer, has all throw it away. Workers that
start later get what is followed then; while a rollout is under way none starts.
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
"""Seconds that workers have to build it: longer than a silent one is left alone."""
TAKE = 5.0

Done = Callable[[Reload], None]


class Everybody(Protocol):
    """Asks all workers at a time."""

    def ask(
        self, members: Mapping[int, Send], what: str, body: object, seconds: float, done: Callable[[Round], None]
    ) -> None: ...


class Rollout:
    """`given` is the configuration that the gateway was started with, as in the file; `used` the same as workers follow it.

    `members` are the workers of now. `used` and `status` are those of now.
    """

    def __init__(
        self,
        source: ConfigSource,
        given: Loaded,
        used: Loaded,
        everybody: Everybody,
        members: Callable[[], Mapping[int, Send]],
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
        """Who waits for the next one, which begins when the running one has ended; None: nobody wants one."""
        self._done: list[Done] = []
        self.running = False
        self.changes: Callable[[bool], object] = lambda running: None
        """Is called when one begins (True), and when it has ended (False)."""

    def begin(self, done: Done = lambda reload: None) -> None:
        """Read the file again. `done` is called with what became of it."""
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
            self._everybody.ask(self._members(), "prepare", read.data, BUILD, lambda round: self._prepared(read, round))

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
        if round.problem:  # it is about to end, or to be ended: its successor follows the new one
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

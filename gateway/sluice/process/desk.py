"""Answers operators' requests in the supervisor of several workers, by itself or by requests to all
workers."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from sluice.config.loader import Loaded
from sluice.process.channel import ChannelReply, ChannelRequest
from sluice.process.child import Child
from sluice.process.rollout import Rollout
from sluice.process.rounds import Round, Rounds, Send
from sluice.process.source import LOOK_EVERY, ConfigSource, FileWatch
from sluice.runtime.fleet import Reload
from sluice.telemetry.board import Board, BoardSlot
from sluice.telemetry.formats import Format
from sluice.telemetry.merged import MergedExposition
from sluice.telemetry.metrics import Metrics
from sluice.telemetry.table import CODES
from sluice.version import VERSION

TELL = 1.0
"""Seconds within which workers have to report their targets; those that have not are listed as missing."""
SWITCH = 3.0


class Crew(Protocol):
    """The workers of the supervisor, by process id."""

    @property
    def children(self) -> Mapping[int, Child]: ...

    @property
    def stopping(self) -> bool: ...

    def say(self, pid: int, message: ChannelRequest | ChannelReply) -> None:
        """Sends a message to a worker."""

    def replace(self, pid: int) -> None:
        """Replaces a worker: it ends after its calls, and another one takes its place."""

    def stop(self) -> None:
        """Drains all workers, and ends."""


class Desk:
    """`given`: the configuration as in the file; `used`: as workers apply it. `off`: targets that are
    switched off."""

    def __init__(
        self, crew: Crew, source: ConfigSource, given: Loaded, used: Loaded, board: Board, *, log: Any
    ) -> None:
        self._crew = crew
        self._log = log
        self._source = source
        self._watch = FileWatch(source.state())
        self._looked = 0.0
        self._started = time.time()
        self._board = board
        self._rounds = Rounds(time.monotonic)
        self.rollout = Rollout(source, given, used, self._rounds, self._members, log=log)
        self.off: dict[str, str] = {}
        self.metrics = Metrics(VERSION, BoardSlot(board, 0))
        self._merged = MergedExposition(board, lambda: [os.getpid(), *crew.children])
        self._counted = {0}
        self._restarting: list[int] = []
        """Numbers of the workers that are still to be replaced; the first one's successor does not accept
        connections yet."""

    # --- events

    @property
    def due(self) -> list[float]:
        """The time at which `tick` has something to do."""
        times = [self._looked + LOOK_EVERY] if self._watching else []
        return times if self._rounds.due is None else [*times, self._rounds.due]

    def tick(self) -> None:
        """Handles what is due."""
        now = time.monotonic()
        if self._watching and now >= self._looked + LOOK_EVERY:
            self._looked = now
            if self._watch.look(self._source.state()):
                self.reload()
        self._rounds.tick()

    def tidy(self) -> None:
        """Prepares the merged metrics of all workers; to be called about once a second."""
        self._merged.prepare(*self._slots())

    def started(self, slot: int) -> None:
        """Notes that a worker was started, and the place of its counters."""
        self._counted.add(slot)

    def listens(self, number: int) -> None:
        """Notes that a worker accepts connections."""
        if self._restarting and self._restarting[0] == number:
            del self._restarting[0]
            self._replace_next()

    def gone(self, pid: int) -> None:
        self._rounds.gone(pid)

    @property
    def _watching(self) -> bool:
        return self.rollout.used.config.server.watch and not self._crew.stopping

    def _members(self) -> dict[int, Send]:
        """Returns the functions that send a request to each worker that accepts requests, or is about to."""
        return {
            pid: partial(self._crew.say, pid)
            for pid, child in self._crew.children.items()
            if not child.leaves
        }

    # --- requests

    def heard(self, pid: int, message: ChannelRequest | ChannelReply) -> None:
        """Handles a message from a worker."""
        if isinstance(message, ChannelReply):
            self._rounds.answered(pid, message)
        else:
            self._answer_worker(pid, message)

    def _answer_worker(self, pid: int, request: ChannelRequest) -> None:
        """Answers an operator's request that a worker has passed on."""

        def reply(body: object = None, problem: str = "") -> None:
            self._crew.say(pid, ChannelReply(request.id, body, problem))

        match request.what:
            case "reload":
                self.reload(reply)
            case "metrics":
                reply(self._exposition(request.body) if request.body != "otlp" or self._pushes(pid) else b"")
            case "status":
                reply(self._status())
            case "targets":
                self._ask_all("targets", None, reply, lambda: {"off": self.off})
            case "overview":
                self._ask_all("view", None, reply, self._figures)
            case "calls":
                self._ask_all("calls", request.body, reply)
            case "switch":
                self._switch(request.body, reply)
            case "restart":
                reply(self.restart())
            case "drain":
                reply()
                self._crew.stop()
            case _:
                reply(problem=f"{request.what} is not known")

    def reload(self, done: Callable[[Reload], None] = lambda reload: None) -> None:
        if self._crew.stopping:
            done(Reload("failed", problems=("the gateway is stopping",)))
        else:
            self.rollout.begin(done)

    def restart(self) -> bool:
        """Starts replacing all workers, one after another. Returns False if a restart is under way
        already."""
        if self._restarting or self._crew.stopping:
            return False
        self._restarting = sorted({child.number for child in self._crew.children.values()})
        self._log.info("restarting", workers=self._restarting)
        self._replace_next()
        return True

    def _replace_next(self) -> None:
        while self._restarting:
            number = self._restarting[0]
            serving = [
                pid for pid, child in self._crew.children.items() if child.number == number and child.serves
            ]
            if serving:
                self._crew.replace(serving[0])
                return
            if any(child.number == number and not child.leaves for child in self._crew.children.values()):
                return  # it has just been started, and has the new configuration when it listens
            del self._restarting[0]
        self._log.info("restarted")

    def _ask_all(
        self,
        what: str,
        body: object,
        reply: Callable[..., None],
        more: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        """Replies with each worker's answer, by its number, and `more`; workers that have not answered in
        time are listed as missing.
        """

        def done(round: Round) -> None:
            numbers = {pid: child.number for pid, child in self._crew.children.items()}
            found = [
                (numbers[pid], answer.body)
                for pid, answer in round.answers.items()
                if pid in numbers and not answer.problem
            ]
            missing = [numbers[pid] for pid in round.waiting if pid in numbers]
            reply({**more(), "workers": sorted(found, key=lambda one: one[0]), "missing": missing})

        self._rounds.ask(self._members(), what, body, TELL, done)

    def _figures(self) -> Mapping[str, object]:
        """Replies with the counters of all workers, including those that have ended, after those that run
        have updated theirs.
        """
        every, lively = self._slots()
        requests = self._merged.totals("requests", "code", every)
        in_flight = sum(self._merged.totals("streams_in_flight", "alias", lively).values())
        counted = {code: int(requests.get(code, 0.0)) for code in CODES}
        return {"requests": counted, "in_flight": int(in_flight)}

    def _switch(self, change: Any, reply: Callable[..., None]) -> None:
        """Switches a target off or on, in all workers and in those that start later."""
        label, state = change
        if state is None:
            self.off.pop(label, None)
        else:
            self.off[label] = state
        self._log.info("target_switched", target=label, state=state or "enabled")
        self._rounds.ask(self._members(), "off", self.off, SWITCH, lambda round: reply(problem=round.problem))

    def _status(self) -> dict[str, Any]:
        now, children = time.monotonic(), self._crew.children.items()
        return {
            "pid": os.getpid(),
            "started": self._started,
            "draining": self._crew.stopping,
            "restarting": self._restarting,
            "workers": [
                {
                    "worker": child.number,
                    "pid": pid,
                    "state": child.state,
                    "uptime": round(now - child.started, 3),
                    "silent_for": round(max(0.0, now - beat), 3)
                    if (beat := self._board.last_beat(child.slot))
                    else None,
                }
                for pid, child in sorted(children, key=lambda item: (item[1].number, item[1].started))
            ],
        }

    def _pushes(self, pid: int) -> bool:
        """Returns whether this worker sends the metrics of all: the first of those that serve, or else of
        those that are left.
        """
        children = self._crew.children
        candidates = [of for of, child in children.items() if child.serves] or [*children]
        return min(candidates, key=lambda of: children[of].number, default=None) == pid

    def _exposition(self, format: Format) -> bytes:
        """Returns the metrics of all workers, of those that have ended, and of this process."""
        self.metrics.child("workers").set(float(sum(child.serves for child in self._crew.children.values())))
        return self._merged.text(*self._slots(), format)

    def _slots(self) -> tuple[list[int], list[int]]:
        """Returns the slots with counts, and those of running processes."""
        return sorted(self._counted), [0, *(child.slot for child in self._crew.children.values())]

"""Collects the workers' replies to a request of the supervisor to all of them. Pure; the clock is passed in."""

from collections.abc import Callable, Mapping

import msgspec

from sluice.process.channel import ChannelReply, ChannelRequest

Send = Callable[[ChannelRequest], None]
"""Sends a request to one worker."""


class Round(msgspec.Struct, eq=False):
    """One request to all workers. `answers` by process id; the workers in `waiting` have not answered yet."""

    done: Callable[["Round"], None]
    until: float
    waiting: set[int]
    answers: dict[int, ChannelReply] = {}

    @property
    def problem(self) -> str:
        """Why a worker could not do it; "" if all could."""
        if self.waiting:
            return "a worker did not answer in time"
        return next((answer.problem for answer in self.answers.values() if answer.problem), "")


class Rounds:
    """The requests whose answers are being collected. `clock` is the monotonic one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rounds: dict[int, Round] = {}
        self._number = 0

    @property
    def due(self) -> float | None:
        """The time at which the first of them ends without all answers."""
        return min((one.until for one in self._rounds.values()), default=None)

    def ask(
        self,
        members: Mapping[int, Send],
        what: str,
        body: object,
        seconds: float,
        done: Callable[[Round], None],
    ) -> None:
        """Sends a request to all; `done` is called once, when all have answered or ended, or after the
        timeout."""
        self._number += 1
        one = self._rounds[self._number] = Round(done, self._clock() + seconds, set(members))
        for send in members.values():
            send(ChannelRequest(self._number, what, body))
        self._end_if_complete(self._number, one)

    def answered(self, pid: int, answer: ChannelReply) -> None:
        """Takes a worker's answer; ignored if its round has ended."""
        one = self._rounds.get(answer.id)
        if one is not None and pid in one.waiting:
            one.waiting.discard(pid)
            one.answers[pid] = answer
            self._end_if_complete(answer.id, one)

    def gone(self, pid: int) -> None:
        """Notes that a worker has ended: its answers are not waited for any more."""
        for number, one in list(self._rounds.items()):
            one.waiting.discard(pid)
            one.answers.pop(pid, None)
            self._end_if_complete(number, one)

    def tick(self) -> None:
        """Ends the rounds that are due."""
        now = self._clock()
        for number in [number for number, one in self._rounds.items() if one.until <= now]:
            one = self._rounds.pop(number)
            one.done(one)

    def _end_if_complete(self, number: int, one: Round) -> None:
        if not one.waiting and self._rounds.pop(number, None) is not None:
            one.done(one)

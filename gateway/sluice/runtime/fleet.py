"""Operations on a running gateway: reload, restart, switch targets. The same for one process and for several.

`Fleet` is what the admin routes talk to: `sluice.process` has one for a process of its own, and one that asks
the supervisor.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, Protocol, get_args

import msgspec

from sluice.telemetry.formats import Format

Result = Literal["ok", "invalid", "needs_restart", "failed"]
RESULTS: tuple[Result, ...] = ("ok", "invalid", "needs_restart", "failed")
"""Results of a reload: applied; the file has mistakes; it changes something that needs a restart; it could
not be applied.
"""


WINDOW = 300
"""Seconds that the figures of recent calls cover."""
STEP = 10
"""Seconds of one step in the figures over time."""

Breaker = Literal["closed", "half_open", "open"]
BREAKERS: tuple[Breaker, ...] = get_args(Breaker)
"""The states by the number that the metric has, from best to worst."""


class Reload(msgspec.Struct, frozen=True):
    """The result of a reload.

    `hash` names the bytes of the file that was read; "" where it could not be. `at` in seconds since the
    epoch, `seconds` that it took. `problems` are complete lines, `needs_restart` the options, by their paths,
    that a reload cannot change.
    """

    result: Result
    hash: str = ""
    at: float = 0.0
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.result == "ok"


HISTORY = 20
"""Maximum number of reloads that are remembered."""


class ConfigStatus(msgspec.Struct, frozen=True):
    """The current configuration, and the results of reloads.

    `hash` and `since` (seconds since the epoch) belong to the current one. `counts`: reloads by result.
    `history`: the newest first, `HISTORY` at most, each with as many of its lines.
    """

    hash: str
    since: float
    last: Reload | None = None
    counts: dict[Result, int] = {}
    history: tuple[Reload, ...] = ()

    def after(self, reload: Reload) -> "ConfigStatus":
        """Returns the status after this reload."""
        counts = {**self.counts, reload.result: self.counts.get(reload.result, 0) + 1}
        short = msgspec.structs.replace(
            reload, problems=reload.problems[:HISTORY], warnings=reload.warnings[:HISTORY]
        )
        history = (short, *self.history)[:HISTORY]
        if reload.ok:
            return ConfigStatus(reload.hash, reload.at, reload, counts, history)
        return msgspec.structs.replace(self, last=reload, counts=counts, history=history)

    def shown(self) -> dict[str, object]:
        """Returns the fields for the readiness probe, without anything from the configuration."""
        last = self.last
        reload = None
        if last is not None:
            reload = {
                "result": last.result,
                "at": round(last.at, 3),
                "hash": last.hash,
                "problems": len(last.problems),
            }
        return {"hash": self.hash, "since": round(self.since, 3), "last_reload": reload}


class TargetState(msgspec.Struct, frozen=True):
    """The state of a target in one process.

    Times are in seconds from now: `ready_in` until calls may be sent again (0.0: now), `failed_ago` since its
    last error, whose kind is `last_error`. `first_token`: the decaying average of its time to first token;
    None: unknown. `answered`: by alias, the remembered calls of the last `WINDOW` seconds that it answered
    without an error.
    """

    upstream: str
    model: str
    aliases: list[str]
    breaker: Breaker
    ready_in: float
    in_flight: int
    first_token: float | None = None
    last_error: str | None = None
    failed_ago: float | None = None
    answered: dict[str, int] = {}

    @property
    def label(self) -> str:
        return f"{self.upstream}/{self.model}"


class Targets(msgspec.Struct, frozen=True):
    """`workers`: the state by number (0: there is only one process). `missing` have not answered in time.

    `off`: labels of targets that are switched off: "disabled" or "draining".
    """

    off: dict[str, str]
    workers: list[tuple[int, list[TargetState]]]
    missing: list[int] = []


class RecentStep(msgspec.Struct):
    """The figures of calls that ended within one step of time (`STEP` seconds, from a multiple of it on).

    `retried`: calls with more than one attempt. `first_tokens`: seconds until the first token, of each call
    that had one. `tokens` came within `streaming` seconds, of all streams together.
    """

    calls: int = 0
    errors: int = 0
    retried: int = 0
    first_tokens: list[float] = []
    tokens: int = 0
    streaming: float = 0.0

    def add(self, other: "RecentStep") -> None:
        self.calls += other.calls
        self.errors += other.errors
        self.retried += other.retried
        self.first_tokens += other.first_tokens
        self.tokens += other.tokens
        self.streaming += other.streaming


class RecentFigures(msgspec.Struct, frozen=True):
    """The figures of the last `WINDOW` seconds, from the calls that one process remembers.

    `steps`: by the second since the epoch at which each begins; those without a call are left out.
    `complete`: False where so many calls came that the first of them are forgotten.
    """

    steps: dict[int, RecentStep] = {}
    complete: bool = True


class ProcessView(msgspec.Struct, frozen=True):
    """The state of targets and stores in one process (stores as in /readyz?verbose). `recent`: None where no
    calls are remembered."""

    targets: list[TargetState]
    stores: dict[str, Any]
    recent: RecentFigures | None = None


class Overview(msgspec.Struct, frozen=True):
    """The state of all processes in short.

    `requests`: answered ones by class of status, including those of processes that have ended; `in_flight`:
    calls being answered. `workers`: the state by number (0: there is only one process); `missing` have not
    answered in time.
    """

    requests: dict[str, int]
    in_flight: int
    workers: list[tuple[int, ProcessView]]
    missing: list[int] = []


_PLACE = re.compile(r"([0-9]{1,17})-([0-9]{1,10})")


class Place(msgspec.Struct, frozen=True, order=True):
    """The position of a call among those of all processes: when it ended, and in which process. Written as
    two numbers: 1764460800000000-4711.
    """

    at: int
    process: int

    @classmethod
    def read(cls, text: str) -> "Place":
        """Parses it. Raises ValueError."""
        match = _PLACE.fullmatch(text)
        if match is None:
            raise ValueError("expected the `next` of the page before")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.at}-{self.process}"


class CallQuery(msgspec.Struct, frozen=True):
    """The newest `limit` calls with the fields `wanted`; `before`: older than the call at that position.
    `since`: ended then or later, in microseconds since the epoch. `content`: with their texts, where they are
    kept."""

    limit: int
    before: Place | None = None
    wanted: dict[str, str] = {}
    since: int = 0
    content: bool = False


class Found(msgspec.Struct, frozen=True):
    """`calls` by their positions, newest first. `kept`: how many calls are remembered, matching or not."""

    calls: list[tuple[Place, dict[str, Any]]]
    kept: int


def together(query: CallQuery, found: Iterable[Found]) -> Found:
    """Merges the results of several processes: the newest calls, as many as the query asks for."""
    every = [*found]
    calls = sorted((call for one in every for call in one.calls), key=lambda call: call[0], reverse=True)
    return Found(calls[: query.limit], sum(one.kept for one in every))


class RecentCalls(msgspec.Struct, frozen=True):
    """The results of all processes that have answered. `workers`, `missing`: as in Overview."""

    workers: list[tuple[int, Found]]
    missing: list[int] = []


class Fleet(Protocol):
    """All processes of a gateway. Raises GatewayError where something cannot be done."""

    async def reload(self) -> Reload:
        """Reads the configuration's file again, and has all processes apply it, or none."""

    async def exposition(self, format: Format) -> bytes | None:
        """Returns the metrics of all processes; None if there is only this one."""

    async def targets(self) -> Targets:
        """Returns the state of the targets in each process."""

    async def overview(self) -> Overview:
        """Returns the state of all processes in short."""

    async def calls(self, query: CallQuery) -> RecentCalls:
        """Returns the last calls that each process remembers."""

    async def switch(self, label: str, state: str | None) -> None:
        """Switches a target ("upstream/model") off ("disabled", "draining") or on (None), in all
        processes."""

    async def status(self) -> dict[str, Any]:
        """Returns the processes, and what each is doing."""

    async def restart(self) -> None:
        """Starts replacing the workers, one after another. Raises Conflict if that is not possible."""

    async def drain(self) -> None:
        """Starts a drain, like SIGTERM."""

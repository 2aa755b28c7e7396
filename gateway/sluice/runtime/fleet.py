"""What operators may have a running gateway do: reload its configuration. The same for one process and for several workers.

`Fleet` is what the admin routes talk to: `sluice.process` has one for a process of its own, and one that asks the supervisor.
"""

from typing import Literal, Protocol

import msgspec

Result = Literal["ok", "invalid", "needs_restart", "failed"]
RESULTS: tuple[Result, ...] = ("ok", "invalid", "needs_restart", "failed")
"""It was taken; the file has mistakes; it says something that only a restart can change; it could not be followed."""


class Reload(msgspec.Struct, frozen=True):
    """What became of an attempt to take another configuration.

    `hash` names the bytes of the file that was read; "" where it could not be. `at` in seconds since the epoch, `seconds` that
    it took. `problems` are complete lines, `needs_restart` the options, by their paths, that a reload cannot change.
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


class ConfigStatus(msgspec.Struct, frozen=True):
    """Which configuration is followed, and what became of attempts to reload it.

    `hash` and `since` (seconds since the epoch) are of the one that is followed. `counts`: attempts by result.
    """

    hash: str
    since: float
    last: Reload | None = None
    counts: dict[Result, int] = {}

    def after(self, reload: Reload) -> "ConfigStatus":
        """The status once this attempt has ended."""
        counts = {**self.counts, reload.result: self.counts.get(reload.result, 0) + 1}
        if reload.ok:
            return ConfigStatus(reload.hash, reload.at, reload, counts)
        return msgspec.structs.replace(self, last=reload, counts=counts)

    def shown(self) -> dict[str, object]:
        """For whoever may ask whether the gateway is ready: nothing of what the file says."""
        last = self.last
        reload = None
        if last is not None:
            reload = {"result": last.result, "at": round(last.at, 3), "hash": last.hash, "problems": len(last.problems)}
        return {"hash": self.hash, "since": round(self.since, 3), "last_reload": reload}


class Fleet(Protocol):
    """All processes of a gateway. Raises GatewayError where something cannot be done."""

    async def reload(self) -> Reload:
        """Read the configuration's file again, and have all processes follow it, or none."""

    async def exposition(self) -> bytes | None:
        """The metrics of all of them; None where there is only this one."""

"""Logs conditions that last: one line when one begins, one per minute while it lasts, one when it ends.

A provider that refuses a key refuses it a hundred times a second, and a breaker may stay open for hours:
neither must be logged each time.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from sluice.errors import UpstreamError
from sluice.routing.health import BreakerState, Health

EVERY = 60.0
"""Seconds between two lines about the same thing."""

Level = Literal["warning", "error"]


class _Condition(msgspec.Struct, eq=False):
    """A lasting condition; `logged_at` and `seen_at` are the times of its last line and last occurrence."""

    level: Level
    event: str
    fields: Mapping[str, object]
    began: float
    logged_at: float
    seen_at: float
    times: int = 0


class Notices:
    """`clock` is monotonic, in seconds. `tick` is to be called about once a second."""

    def __init__(self, log: Any, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._states: dict[Hashable, _Condition] = {}
        self._events: dict[Hashable, _Condition] = {}

    def begin(self, key: Hashable, level: Level, event: str, **fields: object) -> None:
        """Begins a condition that lasts until `end`: a line now, and one per minute. Does nothing if it has
        begun already."""
        if key not in self._states:
            now = self._clock()
            self._states[key] = _Condition(level, event, fields, now, now, now)
            self._write(level, event, fields)

    def end(self, key: Hashable, event: str) -> None:
        """Ends a condition: a line, with the seconds that it lasted. Does nothing if it had not begun."""
        state = self._states.pop(key, None)
        if state is not None:
            self._write("warning", event, {**state.fields, "lasted": round(self._clock() - state.began, 3)})

    def forget(self, key: Hashable) -> None:
        """Drops a condition without a further line: it is unknown whether it lasts."""
        self._states.pop(key, None)
        self._events.pop(key, None)

    def tick(self, now: float) -> None:
        """Logs each lasting condition again, a minute after its latest line."""
        for state in self._states.values():
            if now - state.logged_at >= EVERY:
                state.logged_at = now
                self._write(state.level, state.event, {**state.fields, "lasts": round(now - state.began, 3)})

    def seen(self, key: Hashable, level: Level, event: str, **fields: object) -> None:
        """Logs an event that tends to repeat: a line at first, then at most one per minute, with the number
        of `times` since."""
        now = self._clock()
        known = self._events.get(key)
        if known is None:
            self._events[key] = _Condition(level, event, fields, now, now, now)
            self._write(level, event, fields)
            return
        known.seen_at = now
        known.times += 1
        if now - known.logged_at >= EVERY:
            self._write(level, event, {**fields, "times": known.times})
            known.logged_at, known.times = now, 0

    def unseen(self, key: Hashable, event: str) -> bool:
        """Notes the opposite of an event. Ends it with a line if it has not occurred for a minute, so that
        alternating results are not logged each time. Returns whether it has ended."""
        known = self._events.get(key)
        if known is not None and self._clock() - known.seen_at < EVERY:
            return False
        if known is not None:
            del self._events[key]
            self._write("warning", event, known.fields)
        return True

    def _write(self, level: Level, event: str, fields: Mapping[str, object]) -> None:
        (self._log.error if level == "error" else self._log.warning)(event, **fields)


class TargetNotices:
    """Logs changes of one target's health, and aliases that have no other target. It is the watcher of the
    target's `Health`.

    `siblings`: by alias, the health of all its targets. `count` returns the series of (upstream, model, new
    state).
    """

    def __init__(
        self,
        notices: Notices,
        upstream: str,
        model: str,
        siblings: Mapping[str, Sequence[Health]] | None = None,
        *,
        count: Callable[[str, str, str], Any] | None = None,
    ) -> None:
        self._notices = notices
        self._count = count
        self._upstream = upstream
        self._model = model
        self._muted = False
        self._siblings: Mapping[str, Sequence[Health]] = siblings if siblings is not None else {}

    def follow(self, siblings: Mapping[str, Sequence[Health]]) -> None:
        """Reports the target and these aliases from now on."""
        self._muted = False
        self._siblings = siblings

    def mute(self) -> None:
        """Stops reporting: the target is no longer used, and lasting conditions are not logged again."""
        self._muted = True
        self._notices.forget(("breaker", self._upstream, self._model))
        self._notices.forget(("credentials", self._upstream, self._model))

    def changed(self, state: BreakerState, why: UpstreamError | None) -> None:
        """The breaker opened, for this error, or closed. A half-open one is still open to the log."""
        self._changed(state, why, {})

    def of_server(self, address: str) -> "ServerNotices":
        """The notices about one server of an upstream with several."""
        return ServerNotices(self, address)

    def _changed(self, state: BreakerState, why: UpstreamError | None, server: Mapping[str, str]) -> None:
        if self._muted:
            return
        if self._count is not None:
            self._count(self._upstream, self._model, state.name.lower()).inc()
        key = ("breaker", self._upstream, self._model, *server.values())
        if state is BreakerState.OPEN:
            error = why.kind if why is not None else None
            of = {"upstream": self._upstream, "model": self._model, **server}
            self._notices.begin(key, "warning", "breaker_open", **of, error=error)
        elif state is BreakerState.CLOSED:
            self._notices.end(key, "breaker_closed")
        else:
            return
        for alias, healths in self._siblings.items():
            look_at_alias(self._notices, alias, healths)

    def refused(self, error: UpstreamError) -> None:
        """Logs that the provider refused the gateway's credentials, or its account for lack of money."""
        if self._muted:
            return
        event = "account_refused" if error.kind == "billing" else "credentials_refused"
        self._notices.seen(
            ("credentials", self._upstream, self._model), "error", event,
            upstream=self._upstream, model=self._model, upstream_status=error.status or None,
        )  # fmt: skip

    def accepted(self) -> bool:
        """Notes that the provider accepted them. Returns whether the refusal is over."""
        return self._muted or self._notices.unseen(
            ("credentials", self._upstream, self._model), "credentials_accepted"
        )


class ServerNotices:
    """Logs changes of the health of one server, if the target's upstream has several."""

    def __init__(self, target: TargetNotices, address: str) -> None:
        self._target = target
        self._server = {"pod": address}

    def changed(self, state: BreakerState, why: UpstreamError | None) -> None:
        """See `TargetNotices`."""
        self._target._changed(state, why, self._server)

    def refused(self, error: UpstreamError) -> None:
        self._target.refused(error)

    def accepted(self) -> bool:
        return self._target.accepted()


class CredentialNotices:
    """Logs and counts failures of one of an upstream's credentials. `count` gets the reason."""

    def __init__(
        self, notices: Notices, upstream: str, credential: str, count: Callable[[str], None]
    ) -> None:
        self._notices = notices
        self._fields = {"upstream": upstream, "credential": credential}
        self._key = ("credential", upstream, credential)
        self._count = count
        self._seen: set[str] = set()
        self.muted = False

    def mute(self) -> None:
        """Stops reporting: the credential is no longer used."""
        self.muted = True
        for reason in (*self._seen, "refresh"):
            self._notices.forget((*self._key, reason))
        self._seen.clear()

    def refused(self, reason: str, seconds: float) -> None:
        """Logs that a request was refused, or could not be made; the credential is not used for `seconds`."""
        self._count(reason)
        if self.muted:
            return
        self._seen.add(reason)
        self._notices.seen(
            (*self._key, reason),
            "warning",
            "credential_refused",
            **self._fields,
            reason=reason,
            left_alone=seconds,
        )

    def accepted(self) -> bool:
        """Notes that a request was answered. Returns whether all refusals are over."""
        settled = {
            reason
            for reason in self._seen
            if self._notices.unseen((*self._key, reason), "credential_accepted")
        }
        self._seen -= settled
        return not self._seen

    def failed(self, why: str) -> None:
        """Logs that a credential's key or token could not be refreshed; the last one is used as long as it is
        valid."""
        self._count("refresh")
        if not self.muted:
            self._notices.begin(
                (*self._key, "refresh"), "warning", "credential_not_refreshed", **self._fields, why=why
            )

    def recovered(self) -> None:
        self._notices.end((*self._key, "refresh"), "credential_refreshed")


def look_at_alias(notices: Notices, alias: str, healths: Sequence[Health]) -> None:
    """Begins or ends the notice that none of an alias's targets is healthy."""
    if any(health.closed for health in healths):
        notices.end(("alias", alias), "alias_has_target")
    else:
        notices.begin(("alias", alias), "error", "alias_without_target", alias=alias, targets=len(healths))

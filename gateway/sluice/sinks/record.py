"""The record of a call: the fields of its log line, the caller, each attempt, and those of its texts that may
be kept."""

from typing import Any

import msgspec

from sluice.proxy.attempt import NO_USAGE, Attempt
from sluice.proxy.call import Call
from sluice.sinks.content import Texts
from sluice.telemetry.logs import LogLine, json_line

_ROUND = 6


class Draft:
    """A record that has not been rendered: that is done outside of the event loop, once for all sinks.
    `size`: about how many bytes it keeps in memory. `at`: when the call ended, in seconds since the epoch."""

    __slots__ = ("_line", "_parts", "at", "size")

    def __init__(self, fields: dict[str, Any], at: float, texts: Texts | None = None) -> None:
        self._parts: tuple[dict[str, Any], Texts | None] | None = (fields, texts)
        self._line = b""
        self.at = at
        self.size = 2048 + (texts.size if texts is not None else 0)

    def line(self) -> bytes:
        """Returns the record as JSON, without a line end. Several threads may call it at a time."""
        parts = self._parts
        if parts is not None:
            fields, texts = parts
            self._line = json_line({**fields, **texts.fields()} if texts is not None else fields)
            self._parts = None
        return self._line

    def texts(self) -> dict[str, Any]:
        """Returns the fields for its texts in the record; takes as long as `line`."""
        fields = msgspec.json.decode(self.line())
        return {"prompt": fields["prompt"], "answer": fields["answer"]}


def fields_of(line: LogLine, call: Call, duration: float, timestamp: str) -> dict[str, Any]:
    """Returns all fields except the texts. `line`: the call's log line. `duration` in seconds."""
    fields: dict[str, Any] = msgspec.to_builtins(line)
    for name in ("level", "timestamp", "event", "attempt_costs", "attempt_times"):
        fields.pop(name, None)
    principal = call.principal
    return {
        "record": "call",
        "timestamp": timestamp,
        **fields,
        "frontend": call.frontend.name,
        "key": principal.key_id,
        "tenant": principal.tenant,
        "duration": fields.get("duration", round(duration, _ROUND)),
        "attempts": [_attempt(attempt, call.received) for attempt in call.attempts],
    }


def _attempt(attempt: Attempt, received: float) -> dict[str, Any]:
    """Times are in seconds: `started` since the call was received, `first_token` since the attempt started."""
    fields: dict[str, Any] = {
        "target": attempt.target.label,
        "outcome": attempt.outcome,
        "started": round(attempt.started - received, _ROUND),
    }
    if server := attempt.server:
        fields["pod"] = server
    if attempt.first_token is not None:
        fields["first_token"] = round(attempt.first_token, _ROUND)
    if attempt.model:
        fields["model"] = attempt.model
    if attempt.provider_id:
        fields["provider_id"] = attempt.provider_id
    if attempt.used is not NO_USAGE:
        fields["usage"] = msgspec.to_builtins(attempt.used)
        fields["estimated"] = attempt.usage is None
    if attempt.cost is not None:
        fields["cost_usd"] = round(attempt.cost, 9)
    return fields

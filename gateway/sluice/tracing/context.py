"""W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/): a call's place in its caller's trace,
and the events of the call. Pure."""

import re
from collections.abc import Callable, Mapping

import msgspec

Bits = Callable[[int], int]
"""Returns random bits, like `random.getrandbits`."""

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-[\x21-\x7e]{1,100})?"
)
_TRACESTATE = re.compile(r"[\t\x20-\x7e]{1,512}")
MIN_WAIT_SECONDS = 0.001
"""Minimum seconds of a wait that is noted."""
MAX_NOTES = 64
"""Maximum notes of one call; later ones are left out."""


class CallNote(msgspec.Struct, frozen=True):
    """Something that happened to a call; `at` on the monotonic clock."""

    name: str
    at: float
    facts: Mapping[str, str | float]


class TraceContext(msgspec.Struct, eq=False):
    """One call in a trace.

    Ids are lower-case hexadecimal digits: 32 of a trace, 16 of a span; `parent` is "" in a new trace.
    `sampled` is passed on to upstreams; `known`: it is the caller's decision. `attempts`: the spans of the
    call's attempts, in order. `clock` is the monotonic one of calls.
    """

    trace: str
    span: str
    parent: str
    sampled: bool
    known: bool
    state: str
    bits: Bits
    clock: Callable[[], float]
    attempts: list[str] = []
    notes: list[CallNote] = []
    _waiting: tuple[str, float] | None = None

    def attempt_lines(self) -> bytes:
        """Returns the header lines of the next attempt, and makes a span for it."""
        span = _span_id(self.bits)
        self.attempts.append(span)
        state = f"tracestate: {self.state}\r\n" if self.state else ""
        flags = "01" if self.sampled else "00"  # an eighth of the time that a format with a width takes
        return f"traceparent: 00-{self.trace}-{span}-{flags}\r\n{state}".encode("ascii")

    def note(self, name: str, facts: Mapping[str, str | float]) -> None:
        """Adds an event at this moment."""
        self._keep(CallNote(name, self.clock(), facts))

    def wait(self, reason: str) -> None:
        """Notes that the call begins to wait: for `limits` (their store), a `queue`, its session's `turn`, or
        a `retry`."""
        self._waiting = reason, self.clock()

    def waited(self) -> None:
        """Notes that the wait is over, if there is one. A task that is cancelled while it waits need not call
        this."""
        if self._waiting is not None:
            (reason, since), self._waiting = self._waiting, None
            now = self.clock()
            if now - since >= MIN_WAIT_SECONDS:
                self._keep(CallNote("waited", now, {"reason": reason, "seconds": now - since}))

    def _keep(self, note: CallNote) -> None:
        if len(self.notes) < MAX_NOTES:
            self.notes.append(note)


def context_of(
    headers: Mapping[str, str], share: float, bits: Bits, clock: Callable[[], float]
) -> TraceContext:
    """Returns the context of a call with these headers (names in lower case).

    This share of new traces is sampled; for a caller's trace the caller decides. An invalid `traceparent`
    begins a new trace, as the standard requires.
    """
    given = headers.get("traceparent")
    found = _TRACEPARENT.fullmatch(given) if given else None
    if found is not None and found[1].strip("0") and found[2].strip("0"):
        state = headers.get("tracestate", "")
        kept = state if _TRACESTATE.fullmatch(state) else ""
        sampled = bool(int(found[3], 16) & 1)
        return TraceContext(found[1], _span_id(bits), found[2], sampled, True, kept, bits, clock)
    sampled = bits(53) < share * (1 << 53)
    ids = f"{bits(192) | _FIRST_BITS:x}"
    return TraceContext(ids[:32], ids[32:], "", sampled, False, "", bits, clock)


_FIRST_BITS = 1 << 191 | 1 << 63
"""The first bit of a trace's id and of a span's, in 48 digits for both. It is always set, because an id of
zeros is forbidden, and a number of a known length is formatted in half the time of one with leading zeros."""


def _span_id(bits: Bits) -> str:
    return f"{bits(64) | 1 << 63:x}"

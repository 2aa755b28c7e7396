"""What is said of a store that fails: at once, once a minute while it lasts, and when it is over."""

from typing import Any

from sluice.storage import PROBLEMS, REASONS, Reason
from sluice.storage.watch import EVERY, QUIET, StoreWatch


class Watched:
    """A watch at a time of the test's choosing."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: list[tuple[str, Any]] = []
        self.counts: list[Reason] = []
        self.watch = StoreWatch("limits", "redis", self.counts.append, self._say, clock=lambda: self.now)

    def _say(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(event, fields["reason"]) for event, fields in self.lines]


def test_every_reason_has_a_sentence() -> None:
    assert set(PROBLEMS) == set(REASONS)


def test_a_failure_is_said_once_then_once_a_minute_and_when_it_is_over() -> None:
    w = Watched()
    for _ in range(601):
        w.watch.failed("oom")
        w.now += 0.5
    assert w.said == [("store_failing", "oom")] * 6
    assert [fields["failures"] for _, fields in w.lines] == [1, 121, 241, 361, 481, 601]
    assert w.lines[1][1] == {"store": "limits", "kind": "redis", "seconds": EVERY, "reason": "oom", "problem": PROBLEMS["oom"],
                             "failures": 121}  # fmt: skip
    assert w.counts == ["oom"] * 601
    w.watch.succeeded()
    assert w.said[-1] == ("store_well", "oom")
    w.watch.succeeded()
    assert len(w.lines) == 7


def test_another_reason_is_said_at_once_but_not_in_turn_for_ever() -> None:
    w = Watched()
    w.watch.failed("connection")
    w.now += QUIET
    w.watch.failed("loading")
    assert w.said == [("store_failing", "connection"), ("store_failing", "loading")]
    for number in range(1000):
        w.watch.failed("connection" if number % 2 else "loading")
        w.now += 0.01
    assert len(w.lines) <= 2 + 1000 * 0.01 / QUIET + 1


def test_what_comes_and_goes_is_no_flood_of_lines() -> None:
    w = Watched()
    for _ in range(1000):
        w.watch.failed("timeout")
        w.watch.succeeded()
        w.now += 0.01
    assert w.said == [("store_failing", "timeout"), ("store_well", "timeout"), ("store_failing", "timeout")]
    w.now += QUIET
    w.watch.succeeded()
    assert w.said[-1] == ("store_well", "timeout")


def test_the_state_is_told_with_its_reason_and_for_how_long() -> None:
    w = Watched()
    assert w.watch.state() == {"kind": "redis", "state": "ok"}
    w.watch.failed("noauth")
    w.now += 30
    w.watch.failed("noauth")
    w.now += 1
    assert w.watch.state() == {
        "kind": "redis", "state": "failing", "reason": "noauth", "problem": PROBLEMS["noauth"],
        "failures": 2, "since": 31.0, "last": 1.0,
    }  # fmt: skip
    w.watch.succeeded()
    assert w.watch.state() == {"kind": "redis", "state": "ok"}

"""Lines about what lasts: when it begins, once a minute, and when it is over."""

from typing import Any

from sluice.errors import UpstreamError
from sluice.routing.health import BreakerPolicy, Health
from sluice.telemetry.notices import EVERY, Notices, TargetNotices
from tests.routing.test_health import Clock

BROKEN = UpstreamError("server_error", status=500)
REFUSED = UpstreamError("bad_credentials", status=401)


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


class Desk:
    """Two targets: alias `one` has the first alone, alias `both` has both."""

    def __init__(self) -> None:
        self.clock, self.log = Clock(), Log()
        self.notices = Notices(self.log, self.clock)
        of_first: dict[str, list[Health]] = {}
        of_second: dict[str, list[Health]] = {}
        policy = BreakerPolicy(failures=2, open_for=5)
        self.first = Health(self.clock, policy, TargetNotices(self.notices, "up", "m", of_first))
        self.second = Health(self.clock, policy, TargetNotices(self.notices, "other", "n", of_second))
        of_first["one"] = [self.first]
        of_first["both"] = of_second["both"] = [self.first, self.second]

    def fail(self, health: Health, times: int, error: UpstreamError = BROKEN) -> None:
        for _ in range(times):
            health.begin()
            health.failed(error)

    def wait(self, seconds: float) -> None:
        """Time passes, a second at a time."""
        for _ in range(round(seconds)):
            self.clock.now += 1
            self.notices.tick(self.clock.now)


def test_a_breaker_that_opens_and_closes_is_said_once_each_and_once_a_minute_between() -> None:
    desk = Desk()
    desk.fail(desk.second, 2)
    assert desk.log.lines == [
        ("warning", "breaker_open", {"upstream": "other", "model": "n", "error": "server_error"})
    ]
    for _ in range(10):  # each probe fails
        desk.wait(15)
        desk.fail(desk.second, 1)
    assert desk.log.events == ["breaker_open"] * 3
    assert desk.log.lines[-1][2]["lasts"] == 2 * EVERY
    desk.second.begin()
    desk.second.succeeded()
    assert desk.log.lines[3:] == [
        (
            "warning",
            "breaker_closed",
            {"upstream": "other", "model": "n", "error": "server_error", "lasted": 150.0},
        )
    ]
    desk.wait(200)
    assert len(desk.log.lines) == 4


def test_an_alias_is_without_a_target_when_the_last_one_goes_and_has_one_when_the_first_is_back() -> None:
    desk = Desk()
    desk.fail(desk.first, 2)
    assert [(level, event, fields.get("alias")) for level, event, fields in desk.log.lines] == [
        ("warning", "breaker_open", None),
        ("error", "alias_without_target", "one"),
    ]
    desk.fail(desk.second, 5)
    assert [(event, fields.get("alias")) for _, event, fields in desk.log.lines[2:]] == [
        ("breaker_open", None),
        ("alias_without_target", "both"),
    ]
    desk.first.succeeded()
    assert {(event, fields.get("alias")) for _, event, fields in desk.log.lines[4:]} == {
        ("breaker_closed", None),
        ("alias_has_target", "one"),
        ("alias_has_target", "both"),
    }


def test_refused_credentials_are_an_error_once_then_once_a_minute_with_their_number() -> None:
    desk = Desk()
    for _ in range(600):
        desk.fail(desk.first, 1, REFUSED)
        desk.wait(1 if desk.first.closed else 0)
        desk.clock.now += 0.1
    refusals = [line for line in desk.log.lines if line[1] == "credentials_refused"]
    assert refusals[0] == (
        "error",
        "credentials_refused",
        {"upstream": "up", "model": "m", "upstream_status": 401},
    )
    assert len(refusals) == 2
    assert refusals[1][2]["times"] > 500


def test_credentials_that_come_and_go_are_no_change_each_time() -> None:
    desk = Desk()
    desk.first = Health(desk.clock, BreakerPolicy(failures=1000), TargetNotices(desk.notices, "up", "m", {}))
    for _ in range(100):
        desk.fail(desk.first, 1, REFUSED)
        desk.first.succeeded()
        desk.clock.now += 0.5
    assert desk.log.events == ["credentials_refused"]
    desk.clock.now += EVERY
    desk.first.succeeded()
    desk.first.succeeded()
    assert desk.log.events == ["credentials_refused", "credentials_accepted"]
    desk.fail(desk.first, 1, REFUSED)
    assert desk.log.events == ["credentials_refused", "credentials_accepted", "credentials_refused"]


def test_what_becomes_of_a_target_that_nobody_follows_is_no_news() -> None:
    desk = Desk()
    notices = TargetNotices(desk.notices, "up", "m")
    health = Health(desk.clock, BreakerPolicy(failures=2, open_for=5), notices)
    notices.follow({"one": [health]})
    desk.fail(health, 2, REFUSED)
    assert desk.log.events == ["credentials_refused", "breaker_open", "alias_without_target"]
    notices.mute()
    desk.notices.forget(("alias", "one"))
    desk.wait(2 * EVERY)
    desk.fail(health, 2, REFUSED)
    health.succeeded()
    assert len(desk.log.lines) == 3
    notices.follow({"one": [health]})
    desk.fail(health, 2)
    assert desk.log.events[3:] == ["breaker_open", "alias_without_target"]

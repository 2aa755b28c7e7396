"""The calls that a process remembers, while its clock is set."""

import pytest

from sluice.telemetry.logs import LogLine
from sluice.telemetry.recent import RecentCalls


class Wall:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Line(LogLine, kw_only=True):
    event: str = "request"


@pytest.mark.parametrize("back", [0.5, 5 * 3600.0])
def test_the_last_minute_is_a_minute_though_the_clock_is_set_back(back: float) -> None:
    wall = Wall()
    recent = RecentCalls(wall)
    say = recent.feed(lambda line: None)
    for _ in range(3):
        say(Line())
        wall.now += 20
    wall.now -= back
    assert len(recent.within(60)[0]) == 3
    wall.now += 61
    assert len(recent.within(60)[0]) == 0
    say(Line())
    times = [at for at, _ in recent.newest(10, None, {}, 1)]
    assert times == sorted(set(times), reverse=True)
    assert times[0] == int(wall.now * 1e6)
    assert len(recent.newest(10, (times[0], 1), {}, 1)) == 3

"""What a wall clock says that jumps, where things are deleted by their age."""

from sluice.storage.steady import BELIEVED_SECONDS, SteadyWall

DAY = 86_400.0


class Host:
    """Its two clocks, in seconds; the wall clock may jump."""

    def __init__(self) -> None:
        self.elapsed = 1_000.0
        self.ahead = 1_800_000_000.0
        self.steady = SteadyWall(lambda: self.elapsed + self.ahead, lambda: self.elapsed)

    def pass_(self, seconds: float) -> float:
        """What the steady clock is behind the wall clock after so many seconds."""
        self.elapsed += seconds
        return self.elapsed + self.ahead - self.steady()


def test_it_is_the_wall_clock_where_that_does_not_jump() -> None:
    host = Host()
    for _ in range(100):
        host.ahead += 0.01  # it is slewed
        assert host.pass_(30) == 0


def test_a_jump_ahead_that_is_set_right_was_none() -> None:
    host = Host()
    host.ahead += 400 * DAY
    assert [host.pass_(60) for _ in range(5)] == [400 * DAY] * 5
    host.ahead -= 400 * DAY
    assert host.pass_(60) == 0
    host.ahead += 400 * DAY  # another one begins anew
    assert host.pass_(BELIEVED_SECONDS - 1) == 400 * DAY


def test_one_that_lasts_is_believed() -> None:
    host = Host()
    host.ahead += 400 * DAY
    assert host.pass_(60) == 400 * DAY
    assert host.pass_(BELIEVED_SECONDS) == 0
    assert host.pass_(60) == 0


def test_a_clock_that_is_set_back_is_believed_at_once() -> None:
    host = Host()
    host.ahead -= 40 * DAY
    assert host.pass_(60) == 0
    assert host.pass_(60) == 0

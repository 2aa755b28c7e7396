"""How long a body may take, by a clock of the test, and how much of all of them is kept."""

import pytest

from sluice.server.bodies import MIN_RATE, Pace, Unfinished

TIMEOUT = 30.0


def lasts(*pieces: tuple[float, int], rounds: int = 1) -> float:
    """When a body is given up that comes in these pieces (seconds of silence before each, its bytes), over
    and over again."""
    now = 100.0
    pace = Pace(TIMEOUT, now)
    for _ in range(rounds):
        for silence, size in pieces:
            if now + silence >= pace.due:
                return pace.due - 100
            now += silence
            pace.came(size, now)
    return pace.due - 100


FOREVER = 10_000
PACES: list[tuple[str, list[tuple[float, int]], int, float]] = [
    ("nothing comes", [], 0, 30),
    ("a byte a second", [(1, 1)], FOREVER, 31),
    ("a byte a second behind four MiB at once", [(1, 4 << 20), *[(1, 1)] * FOREVER], 1, 32),
    ("a stall behind four MiB at once", [(0.001, 4 << 20)], 1, 30.01),
    ("a stall behind an hour of good pace", [(1, 2 * MIN_RATE)], 3600, 3630),
    ("half the rate", [(1, MIN_RATE // 2)], FOREVER, 61),
    ("bursts a hair below the timeout, and too small", [(29, 20 * MIN_RATE)], FOREVER, 80),
]


@pytest.mark.parametrize(
    ("pieces", "rounds", "bound"), [row[1:] for row in PACES], ids=[row[0] for row in PACES]
)
def test_a_body_that_stalls_or_trickles_ends(
    pieces: list[tuple[float, int]], rounds: int, bound: float
) -> None:
    assert 29.9 <= lasts(*pieces, rounds=rounds) <= bound


@pytest.mark.parametrize(
    "pieces",
    [
        [(1.0, MIN_RATE)],
        [(0.01, 1000)],
        [(20.0, 20 * MIN_RATE)],
        [(29.0, 64 << 10), (0.1, 64 << 10)],
        [(10.0, 16 << 10), (0.0, 1)],
    ],
    ids=["just the rate", "a phone", "bursts", "a tunnel now and then", "segments"],
)
def test_a_body_that_comes_at_the_rate_may_take_its_time(pieces: list[tuple[float, int]]) -> None:
    assert lasts(*pieces, rounds=1000) > sum(silence for silence, _ in pieces) * 1000


class Keeper:
    def __init__(self) -> None:
        self.gave_up = 0

    def give_up(self) -> None:
        self.gave_up += 1


def test_the_one_that_was_silent_longest_gives_up() -> None:
    unfinished = Unfinished(100)
    a, b, c = Keeper(), Keeper(), Keeper()
    unfinished.keep(a, 40)
    unfinished.keep(b, 40)
    unfinished.keep(a, 50)
    unfinished.keep(c, 10)
    assert (unfinished.size, a.gave_up, b.gave_up, c.gave_up) == (100, 0, 0, 0)
    unfinished.keep(c, 11)
    assert (unfinished.size, a.gave_up, b.gave_up, c.gave_up) == (61, 0, 1, 0)
    unfinished.keep(b, 0)
    assert unfinished.size == 61, "it had given up all there was"


def test_as_many_give_up_as_there_must() -> None:
    unfinished = Unfinished(100)
    small = [Keeper() for _ in range(10)]
    for keeper in small:
        unfinished.keep(keeper, 10)
    large = Keeper()
    unfinished.keep(large, 55)
    assert [keeper.gave_up for keeper in small] == [1] * 6 + [0] * 4
    assert (unfinished.size, large.gave_up) == (95, 0)


def test_one_that_is_larger_than_all_may_be_gives_up_itself() -> None:
    unfinished = Unfinished(100)
    other, large = Keeper(), Keeper()
    unfinished.keep(other, 10)
    unfinished.keep(large, 101)
    assert (unfinished.size, other.gave_up, large.gave_up) == (0, 1, 1)


def test_what_is_complete_is_not_kept() -> None:
    unfinished = Unfinished(100)
    keeper = Keeper()
    for _ in range(10):
        unfinished.keep(keeper, 90)
        unfinished.keep(keeper, 0)
    assert (unfinished.size, keeper.gave_up) == (0, 0)

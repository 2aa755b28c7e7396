"""What only the store in memory has to do: forget, and never suspend."""

import pytest

from sluice.errors import Unavailable
from sluice.limits import Claim, Limit
from sluice.limits.memory import MemoryStore

LIMIT = Limit(capacity=2, rate=1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_full_buckets_are_forgotten() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    for caller in range(50_000):
        clock.now += 0.01
        await store.take([Claim(f"address:{caller}", LIMIT), Claim(f"tenant:{caller}", LIMIT)])
    assert len(store) < 1_000  # in a second, the time a bucket needs to fill, 200 are made


async def test_buckets_that_are_not_full_are_kept() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    await store.take([Claim("debtor", LIMIT, 2)])
    await store.settle([Claim("debtor", LIMIT, 1_000_000)])
    for caller in range(1_500):
        clock.now += 1
        await store.take([Claim(f"address:{caller}", LIMIT)])
    assert not (await store.take([Claim("debtor", LIMIT)])).admitted
    assert len(store) < 200


async def test_a_bucket_is_not_forgotten_by_the_call_that_claims_it() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    claims = [Claim(f"k{number}", LIMIT, 2) for number in range(5)]
    for _ in range(100):
        clock.now += 2
        assert (await store.take(claims)).admitted
        assert not any([(await store.take([claim])).admitted for claim in claims])


async def test_memory_is_bounded_even_where_no_bucket_is_full() -> None:
    store = MemoryStore(Clock(), max_buckets=500)
    for caller in range(5_000):
        await store.take([Claim(f"address:{caller}", LIMIT)])
    assert len(store) < 600


@pytest.mark.parametrize(
    "claims", [[Claim("a", LIMIT)], [Claim("a", LIMIT), Claim("b", LIMIT)], [Claim("a", LIMIT, 9)], []]
)
def test_a_take_never_suspends(claims: list[Claim]) -> None:
    taking = MemoryStore(Clock()).take(claims)
    with pytest.raises(StopIteration):
        taking.send(None)  # type: ignore[attr-defined]


BUDGET = Limit(capacity=2, rate=0)


@pytest.mark.parametrize("expires", [0.0, 5_000.0])
async def test_a_budget_is_kept_until_it_expires_however_many_others_come(expires: float) -> None:
    clock, wall = Clock(), Clock()
    store = MemoryStore(clock, wall=wall, max_buckets=100)
    spent = Claim("month", BUDGET, 2, expires=expires)
    assert (await store.take([spent])).admitted
    for caller in range(2_000):
        await store.take([Claim(f"address:{caller}", LIMIT)])
    clock.now, wall.now = 10_000, 4_999
    for caller in range(2_000):
        await store.take([Claim(f"address:{caller}", LIMIT)])
    assert not (await store.take([spent])).admitted
    wall.now = 5_000
    for caller in range(2_000):
        await store.take([Claim(f"address:{caller}", LIMIT)])
    assert (await store.take([spent])).admitted is (expires > 0)


async def test_a_budget_too_many_is_refused_and_no_other_forgotten_for_it() -> None:
    store = MemoryStore(Clock(), wall=Clock(), max_buckets=50)
    for number in range(100):
        assert (await store.take([Claim(f"k{number}", BUDGET, 2, expires=1e9)])).admitted
    with pytest.raises(Unavailable):
        await store.take([Claim("one more", BUDGET, expires=1e9)])
    assert not any(
        [(await store.take([Claim(f"k{number}", BUDGET, expires=1e9)])).admitted for number in range(100)]
    )
    assert (await store.take([Claim("refills", LIMIT)])).admitted


async def test_a_wall_clock_that_jumps_ahead_and_back_has_forgotten_no_budget() -> None:
    clock, wall = Clock(), Clock()
    wall.now = 1_000.0
    store = MemoryStore(clock, wall=wall)
    spent = Claim("month", BUDGET, 2, expires=90_000)
    assert (await store.take([spent])).admitted
    wall.now += 40 * 86_400
    for caller in range(200):
        await store.take([Claim(f"address:{caller}", LIMIT)])
    wall.now -= 40 * 86_400
    assert not (await store.take([spent])).admitted

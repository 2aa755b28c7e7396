"""A guarded store that decides alone admits its share of what all gateways may admit together."""

import math
from collections.abc import Sequence

import pytest

from sluice.limits import Claim, Limit, Slot, Verdict
from sluice.limits.faults import BucketStoreFailed
from sluice.limits.guarded import Guarded, share_of
from sluice.limits.memory import MemoryStore

WHOLE = Limit(capacity=12, rate=4)


class Broken(MemoryStore):
    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        raise BucketStoreFailed("reply")

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> None:
        raise BucketStoreFailed("reply")


class Clock:
    def __init__(self) -> None:
        self.now = 1024.0

    def __call__(self) -> float:
        return self.now


async def admitted(store: Guarded, claim: Claim, calls: int) -> int:
    return sum([(await store.take([claim])).admitted for _ in range(calls)])


@pytest.mark.parametrize(
    ("replicas", "burst", "in_one_second"), [(1, 12, 4), (2, 6, 2), (3, 4, 1), (4, 3, 1), (100, 1, 0)]
)
async def test_capacity_and_rate_are_divided_by_the_number_of_gateways(
    replicas: int, burst: int, in_one_second: int
) -> None:
    clock = Clock()
    store = Guarded(Broken(), MemoryStore(clock), replicas=replicas)
    assert await admitted(store, Claim("k", WHOLE), 30) == burst
    clock.now += 1
    assert await admitted(store, Claim("k", WHOLE), 30) == in_one_second


async def test_a_call_that_fits_the_whole_bucket_fits_its_share_once() -> None:
    clock = Clock()
    store = Guarded(Broken(), MemoryStore(clock), replicas=3)
    claims = [Claim("k", WHOLE, 5), Claim("k", WHOLE, 6), Claim("other", WHOLE, 12)]
    assert (await store.take(claims)).admitted
    refused = await store.take(claims)
    assert not refused.admitted
    assert refused.retry_after < math.inf
    clock.now += math.ceil(refused.retry_after)
    assert (await store.take(claims)).admitted


async def test_what_exceeds_the_whole_bucket_is_never_admitted() -> None:
    store = Guarded(Broken(), MemoryStore(Clock()), replicas=3)
    assert (await store.take([Claim("k", WHOLE, 13)])).retry_after == math.inf
    assert (await store.take([Claim("k", WHOLE, 7), Claim("k", WHOLE, 6)])).retry_after == math.inf


async def test_settling_counts_whole_amounts_against_the_share() -> None:
    store = Guarded(Broken(), MemoryStore(Clock()), replicas=3)
    verdict = await store.take([Claim("k", WHOLE, 0)])
    assert verdict.by is not None
    await verdict.by.settle([Claim("k", WHOLE, 6)])
    assert (await store.take([Claim("k", WHOLE, 0)])).levels[0].remaining == pytest.approx(-2, abs=0.01)
    await verdict.by.settle([Claim("k", WHOLE, -100)])
    assert (await store.take([Claim("k", WHOLE, 0)])).levels[0].remaining == pytest.approx(4, abs=0.01)


def test_a_gateway_on_its_own_has_the_whole_limit() -> None:
    claims = [Claim("k", WHOLE)]
    assert share_of(claims, 1) is claims

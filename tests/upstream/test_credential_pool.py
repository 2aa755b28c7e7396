"""Which credential a request takes, and which are left alone."""

from collections import Counter
from collections.abc import Iterable

import pytest

from sluice.backends.transport import UpstreamRequest
from sluice.errors import UpstreamError, UpstreamErrorKind
from sluice.upstream.credential_pool import (
    CredentialPool,
    CredentialState,
    PooledCredential,
    Reason,
    reason_of,
)


class Plain:
    fields = frozenset({"authorization"})

    def sign_now(self, request: UpstreamRequest) -> bytes | None:
        return b"authorization: x\r\n"

    async def ready(self) -> None: ...

    async def renewed(self, lines: bytes) -> bool:
        return False

    def secrets(self) -> Iterable[str]:
        return ()

    async def close(self) -> None: ...


class Watching:
    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def refused(self, reason: Reason, seconds: float) -> None:
        self.told.append((reason, seconds))

    def accepted(self) -> bool:
        self.told.append(("accepted", 0.0))
        return True


class Pool:
    """One of members with these weights, and a clock that the test sets."""

    def __init__(self, *weights: float) -> None:
        self.now = 0.0
        self.members = [
            PooledCredential(str(at), weight, Plain(), Watching()) for at, weight in enumerate(weights)
        ]
        self.pool = CredentialPool(self.members, lambda: self.now, lambda: 0.0)

    def names(self, count: int) -> str:
        return "".join(self.pool.pick().name for _ in range(count))  # type: ignore[union-attr]


def told(member: PooledCredential) -> list[tuple[str, float]]:
    assert isinstance(member.watcher, Watching)
    return member.watcher.told


def test_takes_turns_by_weight_and_smoothly() -> None:
    assert Pool(3, 1).names(8) == "00100010"
    assert Pool(1, 1, 1).names(6) == "012012"
    assert Counter(Pool(5, 3, 2).names(1000)) == {"0": 500, "1": 300, "2": 200}


def test_begins_where_chance_says() -> None:
    chances = iter((0.0, 0.9))
    members = [PooledCredential(name, 1, Plain(), Watching()) for name in "ab"]
    assert [CredentialPool(members, lambda: 0.0, lambda: next(chances)).pick()] == [members[1]]


def test_one_of_weight_zero_is_taken_only_where_no_other_is_usable() -> None:
    pool = Pool(1, 0)
    assert pool.names(3) == "000"
    pool.pool.refused(pool.members[0], "bad_credentials")
    assert pool.names(3) == "111"


def test_a_refused_one_is_left_alone_by_itself_and_for_longer_each_time() -> None:
    pool = Pool(1, 1)
    first = pool.members[0]
    for seconds in (15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0):
        pool.pool.refused(first, "bad_credentials")
        assert told(first)[-1] == ("bad_credentials", seconds)
        assert pool.names(3) == "111"
        assert pool.pool.standing(first) is CredentialState.COOLING_DOWN
        pool.now += seconds
        assert "0" in pool.names(2)
        assert pool.pool.standing(first) is CredentialState.USABLE


def test_a_limited_one_is_left_alone_for_the_wait_that_was_said() -> None:
    pool = Pool(1, 1)
    for said, seconds in ((None, 1.0), (7.0, 7.0), (3600.0, 60.0)):
        pool.pool.refused(pool.members[1], "rate_limited", said)
        assert pool.pool.wait() == 0.0
        assert pool.names(2) == "00"
        pool.now += seconds
        assert "1" in pool.names(2)


def test_an_answer_makes_it_usable_at_once_and_its_next_refusal_a_first_one() -> None:
    pool = Pool(1, 1)
    first = pool.members[0]
    pool.pool.refused(first, "billing")
    pool.pool.refused(first, "billing")
    pool.pool.accepted(first)
    pool.pool.refused(first, "billing")
    assert told(first) == [("billing", 15.0), ("billing", 30.0), ("accepted", 0.0), ("billing", 15.0)]
    pool.pool.accepted(pool.members[1])
    assert told(pool.members[1]) == []  # nothing was wrong


def test_where_all_are_left_alone_the_first_to_be_usable_is_asked_once() -> None:
    pool = Pool(1, 1)
    pool.pool.refused(pool.members[0], "rate_limited", 20.0)
    pool.pool.refused(pool.members[1], "rate_limited", 10.0)
    chosen = pool.pool.pick()
    assert chosen is pool.members[1]
    assert pool.pool.pick([chosen]) is None
    assert pool.pool.wait() == 10.0


def test_a_single_one_is_always_taken() -> None:
    pool = Pool(1)
    pool.pool.refused(pool.members[0], "bad_credentials")
    assert pool.names(1) == "0"
    assert pool.pool.pick(pool.members) is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bad_credentials", "bad_credentials"),
        ("billing", "billing"),
        ("rate_limited", "rate_limited"),
        ("bad_request", None),
        ("server_error", None),
    ],
)
def test_only_the_account_is_blamed_for_what_is_its_fault(
    kind: UpstreamErrorKind, reason: Reason | None
) -> None:
    assert reason_of(UpstreamError(kind)) == reason

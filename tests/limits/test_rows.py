"""Rows of the file that the processes of one host share: their names and values."""

import math

from sluice.limits import Limit
from sluice.limits.bucket import rule_of
from sluice.limits.rows import (
    BUCKET,
    LEASE,
    NAME_BYTES,
    BucketRow,
    end_of,
    ends_prefix,
    given_back,
    name_of_bucket,
    name_of_lease,
    name_of_places,
    needed_for,
    state_of,
)

BUDGET = rule_of(Limit(100.0, 0.0))
RATE = rule_of(Limit(10.0, 1.0))


def row(reserved: int = 0) -> BucketRow:
    made = BucketRow(BUDGET, 0, name_of_bucket("budget"))
    made.backlog, made.reserved, made.until = BUDGET.cost(30.0), reserved, 7.0
    return made


def test_names_tell_kinds_apart_and_have_one_length() -> None:
    names = [name_of_bucket("a"), name_of_places("a"), name_of_bucket("b"), name_of_bucket("\ud800")]
    assert len({*names}) == len(names)
    assert {len(name) for name in names} == {NAME_BYTES}
    assert [name[:1] for name in names] == [b"b", b"p", b"b", b"b"]


def test_a_lease_contains_the_name_of_the_row_that_it_belongs_to() -> None:
    of = name_of_places("streams")
    lease = name_of_lease(of, "holder")
    assert lease[1 : 1 + NAME_BYTES] == of
    assert lease != name_of_lease(of, "another") != name_of_lease(name_of_places("others"), "another")


def test_leases_are_ordered_by_their_ends() -> None:
    name = name_of_lease(name_of_places("streams"), "holder")
    early, late = (end_of(name, LEASE.pack(at, 1, 0, 0)) for at in (255, 256))
    assert early < ends_prefix(256) < late
    assert early.removeprefix(ends_prefix(255)) == name


def test_a_budget_has_its_reserved_ticks_in_place_of_a_time() -> None:
    reserved = BUDGET.cost(20.0)
    assert BUCKET.unpack(state_of(row(reserved)))[0] == reserved
    rated = BucketRow(RATE, 1234, b"")
    assert BUCKET.unpack(state_of(rated))[0] == 1234


def test_a_reservation_that_is_given_back_leaves_the_rest_of_the_budget() -> None:
    state = given_back(state_of(row(BUDGET.cost(20.0))), BUDGET.cost(20.0), BUDGET.unit)
    reserved, backlog, _, _, _, until = BUCKET.unpack(state)
    assert (reserved, backlog, until) == (0, BUDGET.cost(10.0), 7.0)


def test_more_than_was_reserved_is_never_given_back() -> None:
    state = given_back(state_of(row(BUDGET.cost(1.0))), BUDGET.cost(2.0), BUDGET.unit)
    assert BUCKET.unpack(state)[0] == 0


def test_full_and_expired_buckets_are_not_needed_and_budgets_are_never_evicted() -> None:
    backlog = RATE.cost(2.0)
    assert needed_for(0, 0, RATE.pace, expired=False) == 0.0
    assert needed_for(0, backlog, 0, expired=True) == 0.0
    assert needed_for(0, backlog, 0, expired=False) == math.inf
    assert needed_for(0, backlog, RATE.pace, expired=False) == 2_000_000
    assert needed_for(1_500_000, backlog, RATE.pace, expired=False) == 500_000

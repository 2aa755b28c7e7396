"""Budgets by the calendar: where periods begin and end, which buckets they are, when callers are warned."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from sluice.config.types import (
    Alias,
    Budget,
    Config,
    Issuer,
    Key,
    KeyLimits,
    Limits,
    Target,
    Tenant,
    Upstream,
)
from sluice.limits import Level, Limit
from sluice.policies.budgets import (
    MARGIN,
    SoftMark,
    budget_claims,
    budget_prefix,
    period_of,
    seconds_left,
    soft_header,
    soft_marks,
)
from sluice.usage import Figures, Row, Subject
from sluice.usage.opening import days_to_read, opening_charges


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("when", "day", "week", "month"),
    [
        ("2026-11-25T12:00:00", "2026-11-25", "2026-W48", "2026-11"),
        ("2026-11-29T23:59:59.999", "2026-11-29", "2026-W48", "2026-11"),
        ("2026-11-30T00:00:00", "2026-11-30", "2026-W49", "2026-11"),
        ("2024-02-29T10:00:00", "2024-02-29", "2024-W09", "2024-02"),
        ("2026-12-31T23:59:59", "2026-12-31", "2026-W53", "2026-12"),
        ("2027-01-01T00:00:00", "2027-01-01", "2026-W53", "2027-01"),
        ("2027-01-04T00:00:00", "2027-01-04", "2027-W01", "2027-01"),
        ("2024-12-30T00:00:00", "2024-12-30", "2025-W01", "2024-12"),
        ("1970-01-01T00:00:00", "1970-01-01", "1970-W01", "1970-01"),
    ],
)
def test_a_time_belongs_to_one_period_of_each_kind(when: str, day: str, week: str, month: str) -> None:
    wall = at(when)
    assert [period_of(period, wall).name for period in ("day", "week", "month")] == [day, week, month]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("period", "when", "end"),
    [
        ("day", "2024-02-28T23:00:00", "2024-02-29T00:00:00"),
        ("day", "2024-02-29T23:00:00", "2024-03-01T00:00:00"),
        ("day", "2025-02-28T00:00:00", "2025-03-01T00:00:00"),
        ("week", "2026-12-31T00:00:00", "2027-01-04T00:00:00"),
        ("week", "2026-11-30T00:00:00", "2026-12-07T00:00:00"),
        ("month", "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
        ("month", "2026-12-31T23:59:59", "2027-01-01T00:00:00"),
        ("month", "2026-01-31T00:00:00", "2026-02-01T00:00:00"),
    ],
)
def test_a_period_ends_where_the_next_begins(period: str, when: str, end: str) -> None:
    span = period_of(period, at(when))  # type: ignore[arg-type]
    assert span.end == at(end)
    following = period_of(period, span.end)  # type: ignore[arg-type]
    assert following.first == span.after
    assert following.name != span.name


def test_the_machines_time_zone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    wall = at("2026-11-30T00:30:00")
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        assert period_of("day", wall).name == "2026-11-30"
        assert period_of("day", wall).end == at("2026-12-01T00:00:00")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_claims_are_one_bucket_per_period_that_never_refills() -> None:
    wall = at("2026-11-25T12:00:00")
    claims = budget_claims(budget_prefix("key", "shop"), Budget(day=5, month=100), wall, 0.25)
    assert [claim.key for claim in claims] == ["budget:key:shop:2026-11-25", "budget:key:shop:2026-11"]
    assert [claim.limit for claim in claims] == [Limit(5, 0.0), Limit(100, 0.0)]
    assert {(claim.amount, claim.scope, claim.resource) for claim in claims} == {(0.25, "key", "budget")}
    assert [claim.expires - MARGIN for claim in claims] == [
        at("2026-11-26T00:00:00"),
        at("2026-12-01T00:00:00"),
    ]
    assert [seconds_left(claim, wall) for claim in claims] == [12 * 3600, 5.5 * 86400]
    assert seconds_left(claims[0], at("2026-11-26T00:00:01")) == 0
    assert budget_claims("p", Budget(), wall) == ()


def test_callers_are_warned_from_the_soft_mark_on() -> None:
    budget = Budget(day=10, week=40, month=100, soft=0.8)
    levels = [Level(1.7, 0), Level(9, 0), Level(-3, 0)]
    marks = soft_marks(budget, levels)
    assert [mark.period for mark in marks] == ["day", "month"]
    assert soft_header(marks) == "day 83%, month 103%"
    assert soft_marks(budget, [Level(2.01, 0), Level(40, 0), Level(100, 0)]) == []
    assert soft_marks(budget, [Level(2, 0), Level(40, 0), Level(100, 0)]) == [SoftMark("day", 0.8)]
    assert soft_header([SoftMark("day", 0.29)]) == "day 29%"


# over a restart

TIERS = ((Target(upstream="openai", model="m"),),)
CONFIG = Config(
    upstreams={
        "openai": Upstream(backend="echo", limits=KeyLimits(budget=Budget(month=1000))),
        "open": Upstream(backend="echo"),
    },
    aliases={"chat": Alias(tiers=TIERS, limits=KeyLimits(budget=Budget(day=50)))},
    keys=(
        Key(
            id="shop", digest="sha256:" + "0" * 64, limits=KeyLimits(budget=Budget(day=5, week=20, month=50))
        ),
        Key(id="free", digest="sha256:" + "1" * 64),
    ),
    jwt=(
        Issuer(
            issuer="https://idp",
            audience="a",
            algorithms=("RS256",),
            plans={"gold": KeyLimits(budget=Budget(month=9))},
        ),
    ),
    tenants={"shop": Tenant(limits=KeyLimits(budget=Budget(month=70)))},
    limits=Limits(overall=KeyLimits(budget=Budget(month=5000))),
)


def row(day: str, key: str, tenant: str, dollars: float) -> Row:
    return Subject(day, key, tenant, "chat", "openai/m"), Figures(requests=1, nanos=round(dollars * 1e9))


def charged(rows: Iterable[Row], wall: float) -> dict[str, float]:
    return {claim.key: claim.amount for claim in opening_charges(rows, CONFIG, wall)}


def test_a_restart_charges_what_was_spent_in_the_periods_that_run() -> None:
    rows = [
        row("2026-10-31", "shop", "shop", 100),  # of the month before
        row("2026-11-22", "shop", "shop", 1),  # of the week before
        row("2026-11-23", "shop", "shop", 2),
        row("2026-11-25", "shop", "shop", 4),
        row("2026-11-25", "free", "shop", 8),
        row("2026-11-25", "jwt:https://idp", "https://idp|ann", 16),
    ]
    assert charged(rows, at("2026-11-25T12:00:00")) == {
        "budget:key:shop:2026-11-25": 4,
        "budget:key:shop:2026-W48": 6,
        "budget:key:shop:2026-11": 7,
        "budget:tenant:shop:2026-11": 15,
        "budget:alias:chat:2026-11-25": 28,
        "budget:upstream:openai:2026-11": 31,
        "budget:overall:all:2026-11": 31,
        "budget:key:jwt:https://idp|ann:2026-11": 16,
    }


def test_a_week_over_new_year_counts_from_its_monday() -> None:
    rows = [
        row("2026-12-27", "shop", "s", 1),
        row("2026-12-28", "shop", "s", 2),
        row("2027-01-01", "shop", "s", 4),
    ]
    found = charged(rows, at("2027-01-01T10:00:00"))
    assert found["budget:key:shop:2026-W53"] == 6
    assert found["budget:key:shop:2027-01"] == found["budget:key:shop:2027-01-01"] == 4
    assert days_to_read(at("2027-01-01T10:00:00")) == [
        "2026-12-28", "2026-12-29", "2026-12-30", "2026-12-31", "2027-01-01",
    ]  # fmt: skip


def test_budgets_of_keys_that_are_not_in_the_file_are_charged_too() -> None:
    wall = at("2026-11-25T12:00:00")
    [charge] = [
        claim
        for claim in opening_charges(
            [row("2026-11-25", "dynamic", "t", 3)], CONFIG, wall, {"dynamic": KeyLimits(budget=Budget(day=4))}
        )
        if claim.scope == "key"
    ]
    assert (charge.key, charge.amount, charge.limit) == ("budget:key:dynamic:2026-11-25", 3, Limit(4, 0.0))


def test_where_nobody_has_a_budget_nothing_is_charged() -> None:
    bare = Config(upstreams={}, aliases={})
    assert opening_charges([row("2026-11-25", "shop", "shop", 1)], bare, at("2026-11-25T00:00:00")) == []

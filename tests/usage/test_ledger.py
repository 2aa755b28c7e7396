"""The ledger: each call once, each batch once, whatever becomes of the store."""

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sluice.model.events import Usage
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import Call
from sluice.usage import (
    BATCH,
    MAX_EXACT,
    Figures,
    Row,
    RowRefused,
    Subject,
    UsageBatch,
    UsageFailed,
    UsageStore,
    sound,
)
from sluice.usage.ledger import OTHER, UsageLedger
from sluice.usage.memory import MemoryUsage

NOON = 1_795_608_000.0  # 2026-11-25T12:00:00Z
DAY = "2026-11-25"
NO_USAGE = Usage()


def attempt(
    model: str = "openai/m", used: Usage = NO_USAGE, cost: float | None = None, *, reported: bool = True
) -> Attempt:
    target: Any = SimpleNamespace(label=model)
    return Attempt(target, 0.0, usage=used if reported else None, used=used, cost=cost)


def call(
    *attempts: Attempt,
    key: str = "shop",
    answered: Attempt | None = None,
    tags: Sequence[tuple[str, str]] = (),
) -> Call:
    principal = SimpleNamespace(key_id=key, tenant="acme")
    route = SimpleNamespace(name="chat")
    of = SimpleNamespace(
        principal=principal, route=route, attempts=list(attempts), answered=answered, tags=tags
    )
    return cast(Call, of)


def subject(model: str = "openai/m", key: str = "shop", day: str = DAY) -> Subject:
    return Subject(day, key, "acme", "chat", model)


class Flaky:
    """A store that fails as it is told: before it has counted a batch, or after."""

    def __init__(self, store: UsageStore) -> None:
        self.store = store
        self.fails: list[str] = []
        self.batches: list[UsageBatch] = []

    async def add(self, batch: UsageBatch) -> None:
        how = self.fails.pop(0) if self.fails else ""
        if how == "before":
            raise UsageFailed(how)
        self.batches.append(batch)
        await self.store.add(batch)
        if how == "after":
            raise UsageFailed(how)
        if how == "hangs":
            await asyncio.Event().wait()

    async def of_day(self, day: str, dimension: str = "") -> Sequence[Row]:
        return await self.store.of_day(day, dimension)

    async def prune(self, before: str, dimension: str = "") -> None:
        await self.store.prune(before, dimension)

    async def close(self) -> None:
        await self.store.close()


def ledger(store: UsageStore | None = None, wall: float = NOON, **options: Any) -> UsageLedger:
    return UsageLedger(store or MemoryUsage(), wall=lambda: wall, **options)


async def held(of: UsageLedger, day: str = DAY) -> dict[Subject, Figures]:
    return dict(await of.store.of_day(day))


async def test_a_call_counts_under_the_target_that_answered_and_tokens_where_they_arose() -> None:
    book = ledger()
    cut = attempt("a/m", Usage(10, 3), 0.001, reported=False)
    refused = attempt("b/m")
    answered = attempt("c/m", Usage(20, 5, 4, 2), 0.002)
    book.add(call(cut, refused, answered, answered=answered), failed=False)
    await book.flush()
    assert await held(book) == {
        subject("a/m"): Figures(input=10, output=3, nanos=1_000_000, estimated=1),
        subject("c/m"): Figures(1, 0, 20, 5, 4, 2, 2_000_000, 0),
    }


async def test_a_call_that_failed_or_was_never_sent_counts_too() -> None:
    book = ledger()
    book.add(call(attempt("a/m"), attempt("b/m")), failed=True)
    book.add(call(), failed=True)
    book.add(call(attempt("a/m", Usage(1, 1))), failed=False)  # the client left
    await book.flush()
    assert await held(book) == {
        subject("b/m"): Figures(requests=1, errors=1),
        subject(""): Figures(requests=1, errors=1),
        subject("a/m"): Figures(requests=1, input=1, output=1),
    }


async def test_a_call_belongs_to_the_utc_day_on_which_it_ended() -> None:
    wall = [NOON]
    book = UsageLedger(MemoryUsage(), wall=lambda: wall[0])
    for moment in (NOON, NOON + 43199.9, NOON + 43200, NOON - 43200.1, NOON):
        wall[0] = moment
        book.add(call(), failed=False)
    await book.flush()
    days = ("2026-11-24", DAY, "2026-11-26")
    assert [sum(figures.requests for figures in (await held(book, day)).values()) for day in days] == [
        1,
        3,
        1,
    ]


async def test_a_batch_that_fails_is_kept_and_brought_again() -> None:
    failures: list[UsageFailed] = []
    store = Flaky(MemoryUsage())
    book = ledger(store, failed=failures.append)
    store.fails = ["before", "after", "before"]
    for flushes in range(4):
        book.add(call(), failed=False)
        assert await book.flush() is (flushes == 3)
    assert len(failures) == 3
    assert (await held(book))[subject("")].requests == 4


async def test_a_flush_that_is_given_up_half_way_is_not_counted_twice(store: UsageStore) -> None:
    flaky = Flaky(store)
    book = ledger(flaky)
    book.add(call(), failed=False)
    flaky.fails = ["hangs"]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await book.flush()
    book.add(call(), failed=False)
    assert await book.flush()
    assert (await held(book))[subject("")].requests == 2


async def test_no_failure_loses_or_doubles_anything(store: UsageStore) -> None:
    dice = random.Random(7)
    flaky = Flaky(store)
    book = ledger(flaky)
    total = 0
    for _ in range(60):
        for _ in range(dice.randrange(4)):
            cost = dice.randrange(10**9)
            total += cost
            book.add(call(attempt(f"a/{dice.randrange(5)}", Usage(1, 1), cost / 1e9)), failed=False)
        flaky.fails = [dice.choice(["", "before", "after"])]
        await book.flush()
    flaky.fails = []
    assert await book.flush()
    rows = await held(book)
    assert sum(figures.nanos for figures in rows.values()) == total


async def test_a_large_batch_is_cut_and_goes_on_where_it_was() -> None:
    store = Flaky(MemoryUsage())
    book = ledger(store)
    for number in range(BATCH * 2 + 1):
        book.add(call(key=f"k{number}"), failed=False)
    store.fails = ["", "after"]
    assert not await book.flush()
    assert await book.flush()
    assert [len(batch.rows) for batch in store.batches] == [BATCH, BATCH, BATCH, 1]
    assert len(await held(book)) == BATCH * 2 + 1
    assert {figures.requests for figures in (await held(book)).values()} == {1}


async def test_while_the_store_is_down_what_waits_is_bounded_and_the_sums_stay_right() -> None:
    folded: list[int] = []
    store = Flaky(MemoryUsage())
    book = ledger(store, most=10, folded=lambda: folded.append(1))
    store.fails = ["before"] * 5
    for number in range(50):
        book.add(call(attempt("a/m", Usage(1, 0)), key=f"k{number}"), failed=False)
        if number % 10 == 0:
            await book.flush()
    assert await book.flush()
    rows = await held(book)
    assert len(rows) <= 22
    assert (
        sum(figures.requests for figures in rows.values())
        == sum(figures.input for figures in rows.values())
        == 50
    )
    assert rows[Subject(DAY, OTHER, OTHER, OTHER, OTHER)].requests == len(folded) > 0


class Picky(Flaky):
    """A store that can keep no row of these keys."""

    def __init__(self, store: UsageStore, *keys: str) -> None:
        super().__init__(store)
        self.keys = keys
        self.asked = 0

    async def add(self, batch: UsageBatch) -> None:
        self.asked += 1
        if any(subject.key in self.keys for subject, _ in batch.rows):
            raise RowRefused("no")
        await super().add(batch)


@pytest.mark.parametrize("bad", [["k0"], ["k3"], [f"k{2 * BATCH}"], ["k1", "k499", "k500", "k777"]])
async def test_a_row_that_is_refused_is_put_aside_and_all_others_arrive_once(
    bad: list[str], store: UsageStore
) -> None:
    aside: list[Row] = []
    picky = Picky(store, *bad)
    book = ledger(picky, put_aside=aside.append)
    for number in range(BATCH * 2 + 1):
        book.add(call(key=f"k{number}"), failed=False)
    picky.fails = ["after"]
    while not await book.flush():
        pass
    assert sorted(row[0].key for row in aside) == sorted(bad)
    rows = await held(book)
    assert len(rows) == BATCH * 2 + 1 - len(bad)
    assert {figures.requests for figures in rows.values()} == {1}
    assert picky.asked < 30 * len(bad)


async def test_a_store_s_own_fault_is_a_failure_and_ends_nothing() -> None:
    failures: list[UsageFailed] = []

    class Broken(Flaky):
        async def add(self, batch: UsageBatch) -> None:
            raise TypeError("a fault")

    store = Broken(MemoryUsage())
    book = ledger(store, failed=failures.append)
    book.add(call(), failed=False)
    assert not await book.flush()
    assert [str(failure) for failure in failures] == ["TypeError"]


@pytest.mark.parametrize(
    "row",
    [
        (subject(), Figures(output=MAX_EXACT + 1)),
        (subject(), Figures(nanos=-1)),
        (subject(), Figures(input=cast(int, 1.5))),
        (subject(), Figures(input=cast(int, "1"))),
        (subject(key="\ud800"), Figures(requests=1)),
        (subject(key=cast(str, None)), Figures(requests=1)),
    ],
)
async def test_a_row_that_is_not_sound_never_reaches_a_store(row: Row) -> None:
    aside: list[Row] = []
    book = ledger(put_aside=aside.append)
    book.add(call(), failed=False)
    book._rows[row[0]] = row[1]
    assert not sound(row)
    assert await book.flush()
    assert aside == [row]
    assert row[0] not in await held(book)


async def test_days_older_than_400_are_forgotten() -> None:
    book = ledger()
    await book.store.add(UsageBatch("w", 1, "2025-10-20", [(subject(day="2025-10-20"), Figures(requests=1))]))
    await book.store.add(UsageBatch("w", 2, "2025-10-21", [(subject(day="2025-10-21"), Figures(requests=1))]))
    book.add(call(), failed=False)
    await book.flush()
    assert not await held(book, "2025-10-20")
    assert await held(book, "2025-10-21")


async def test_it_brings_a_batch_a_second_and_the_rest_at_the_end(store: UsageStore) -> None:
    slept: list[float] = []
    rounds = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await rounds.acquire()

    flaky = Flaky(store)
    book = UsageLedger(flaky, wall=lambda: NOON, sleep=sleep)
    running = asyncio.create_task(book.run())
    book.add(call(), failed=False)
    rounds.release()
    while len(slept) < 2:
        await asyncio.sleep(0.001)
    assert slept == [1.0, 1.0]
    assert (await held(book))[subject("")].requests == 1
    running.cancel()
    await asyncio.wait([running])
    book.add(call(), failed=False)
    await book.close()
    assert len(flaky.batches) == 2


# by the hour, and by tags


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def by(of: UsageLedger, dimension: str, day: str = DAY) -> dict[tuple[str, str], int]:
    """Requests by key and value."""
    return {(row.key, row.value): figures.requests for row, figures in await of.store.of_day(day, dimension)}


async def test_hours_are_kept_beside_the_days_and_add_up_to_them() -> None:
    clock = Clock(NOON + 3599.9)
    book = UsageLedger(MemoryUsage(), wall=clock, hourly_days=8)
    answered = attempt(used=Usage(10, 3), cost=0.001)
    book.add(call(answered, answered=answered), failed=False)
    book.add(call(key="other"), failed=True)
    clock.now += 0.1
    book.add(call(answered, answered=answered), failed=False)
    await book.flush()
    clock.now += 11 * 3600
    book.add(call(answered, answered=answered), failed=False)
    await book.flush()
    assert await by(book, "hour") == {("shop", "12"): 1, ("other", "12"): 1, ("shop", "13"): 1}
    assert await by(book, "hour", "2026-11-26") == {("shop", "00"): 1}
    days = await held(book)
    assert days[subject()] == Figures(2, 0, 20, 6, nanos=2_000_000)
    hours = await book.store.of_day(DAY, "hour")
    assert sum(figures.nanos for _, figures in hours) == 2_000_000


async def test_hours_are_not_kept_where_nobody_wants_them() -> None:
    book = ledger()
    book.add(call(), failed=False)
    await book.flush()
    assert await by(book, "hour") == {}
    assert len(await held(book)) == 1


async def test_old_hours_are_forgotten_before_their_days() -> None:
    clock = Clock()
    book = UsageLedger(MemoryUsage(), wall=clock, hourly_days=2)
    for _ in range(4):
        book.add(call(), failed=False)
        await book.flush()
        clock.now += 86400
    assert not await by(book, "hour")
    assert await by(book, "hour", "2026-11-26")
    assert await held(book)


async def test_a_call_counts_once_under_each_of_its_tags_with_all_that_it_used() -> None:
    book = ledger()
    cut, answered = attempt("a/m", Usage(10, 3), 0.001), attempt("b/m", Usage(20, 5), 0.002)
    book.add(
        call(cut, answered, answered=answered, tags=[("project", "alpha"), ("feature", "")]), failed=False
    )
    book.add(call(tags=[("project", "beta"), ("feature", "")]), failed=True)
    await book.flush()
    project = dict(await book.store.of_day(DAY, "tag:project"))
    assert project[subject("b/m")._replace(value="alpha")] == Figures(1, 0, 20, 5, nanos=2_000_000)
    assert project[subject("a/m")._replace(value="alpha")] == Figures(0, 0, 10, 3, nanos=1_000_000)
    assert project[subject("")._replace(value="beta")] == Figures(1, 1)
    days, feature = await held(book), dict(await book.store.of_day(DAY, "tag:feature"))
    assert feature == days


async def test_values_of_a_tag_are_bounded_a_day() -> None:
    clock = Clock()
    book = UsageLedger(MemoryUsage(), wall=clock)
    assert [book.apart("project", f"v{number}", 3) for number in range(5)] == ["v0", "v1", "v2", OTHER, OTHER]
    assert book.apart("project", "v1", 3) == "v1"
    assert book.apart("feature", "v9", 3) == "v9"
    clock.now += 86400
    assert book.apart("project", "v9", 3) == "v9"


async def test_rows_of_hours_and_tags_survive_a_store_that_fails() -> None:
    dice = random.Random(3)
    flaky = Flaky(MemoryUsage())
    book = UsageLedger(flaky, wall=Clock(), hourly_days=8)
    for _ in range(60):
        flaky.fails = [dice.choice(["", "before", "after"]) for _ in range(dice.randrange(4))]
        book.add(call(tags=[("project", "alpha")]), failed=False)
        await book.flush()
    flaky.fails = []
    assert await book.flush()
    for dimension, value in (("", ""), ("hour", "12"), ("tag:project", "alpha")):
        assert await by(book, dimension) == {("shop", value): 60}


async def test_a_wall_clock_that_jumps_ahead_deletes_no_usage_and_counts_each_call_once() -> None:
    wall = [NOON]
    book = UsageLedger(MemoryUsage(), wall=lambda: wall[0], steady=lambda: NOON, hourly_days=30)
    for moment in (NOON, NOON + 800 * 86400, NOON - 7200, NOON):
        wall[0] = moment
        book.add(call(), failed=False)
        await book.flush()
    assert sum(figures.requests for figures in (await held(book)).values()) == 3
    hours = {row.value: figures.requests for row, figures in await book.store.of_day(DAY, "hour")}
    assert hours == {"10": 1, "12": 2}

"""What calls take and give back, told when they would be admitted, at a time of the test's choosing."""

import asyncio
import contextlib
import math
import random
from collections.abc import Sequence

import msgspec
import pytest

from sluice.config.types import (
    Alias,
    Budget,
    EndUsers,
    KeyLimits,
    Limit,
    Limits,
    Queue,
    Rate,
    Seconds,
    Team,
    Tenant,
    windows_of,
)
from sluice.errors import RateLimited
from sluice.frontends.openai.request import chat_of
from sluice.limits import Claim, Slot
from sluice.limits.memory import MemoryStore
from sluice.model.chat import ChatRequest, Sampling
from sluice.model.events import Usage
from sluice.policies.budgets import budget_claims, budget_prefix
from sluice.policies.claims import bucket_of, reserved
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import Call
from tests.policies.calls import UNLIMITED, Desk, Slow, turns
from tests.proxy.scripts import Scene


def window(rate: float, burst: float) -> Limit:
    return Limit(rate=Rate(rate), burst=burst)


def bucket(limits: KeyLimits, resource: str, number: int = 0, scope: str = "key:k") -> Claim:
    return Claim(f"{scope}:{resource}:{number}", bucket_of(windows_of(getattr(limits, resource))[number]))


@pytest.mark.parametrize("seed", range(40))
async def test_a_refused_call_is_admitted_exactly_when_it_was_told(seed: int) -> None:
    chance = random.Random(seed)

    def some(tokens: int) -> KeyLimits:
        requests = tuple(
            window(chance.uniform(0.01, 3), chance.randint(1, 4)) for _ in range(chance.randint(0, 3))
        )
        return KeyLimits(
            requests=requests, tokens=window(chance.uniform(1, 40), tokens) if chance.random() < 0.7 else ()
        )

    key, tenant, alias = some(60), Tenant(some(90)), Alias(tiers=(), limits=some(150))
    desk = Desk(limits=Limits(address=window(0.5, 5), overall=some(200)), tenants={"tenant": tenant})
    refused = 0
    while refused < 10:
        call = desk.call(key, alias, tokens=chance.randint(1, 50))
        began, wait = desk.now, await told(desk, call)
        if wait:
            refused += 1
            early = min(0.05, wait / 2)
            desk.now = began + wait - early
            assert await told(desk, call) == pytest.approx(early, abs=1e-5)
            desk.now = began + wait
            assert not await told(desk, call)
        desk.now += chance.random()


async def told(desk: Desk, call: Call) -> float:
    """The seconds after which the call is told to come back; 0 where it is admitted."""
    try:
        await desk.enter(call)
    except RateLimited as error:
        return error.retry_after
    return 0.0


async def test_a_call_is_settled_to_what_its_attempts_used() -> None:
    limits = KeyLimits(tokens=(window(1, 100), window(0.5, 1000)), streams=1)
    targets = Scene([]).targets
    cases = [
        ([], 0),  # nothing was generated: nothing is charged
        ([Usage(7, 60)], 67),  # more than was reserved: debt
        ([Usage(), Usage(3, 2)], 5),  # a failed attempt costs nothing
        ([Usage(4, 10), Usage(4, 11)], 29),  # two that said something
    ]
    for spent, expected in cases:
        desk = Desk()
        call = desk.call(limits, tokens=20)  # the prompt is of 2
        admission = await desk.enter(call)
        assert await desk.level(bucket(limits, "tokens")) == 100 - 22
        with pytest.raises(RateLimited) as full:
            await desk.enter(desk.call(limits, tokens=20))
        assert (full.value.scope, full.value.resource, full.value.retry_after) == ("key", "streams", 1.0)
        call.attempts += [Attempt(targets[0], 0.0, used=usage) for usage in spent]
        await desk.leave(admission)
        assert await desk.level(bucket(limits, "tokens")) == pytest.approx(100 - expected)
        assert await desk.level(bucket(limits, "tokens", 1)) == pytest.approx(1000 - expected)
        await desk.enter(desk.call(limits, tokens=1))


async def test_debt_keeps_a_caller_away_for_as_long_as_it_takes_to_pay() -> None:
    limits = KeyLimits(tokens=window(2, 40))
    desk = Desk()
    call = desk.call(limits, tokens=10)
    admission = await desk.enter(call)
    call.attempts.append(Attempt(Scene([]).targets[0], 0.0, used=Usage(20, 60)))
    await desk.leave(admission)
    with pytest.raises(RateLimited) as error:
        await desk.enter(desk.call(limits, tokens=8))
    assert error.value.retry_after == pytest.approx((40 + 10) / 2)
    assert dict(error.value.headers)["x-ratelimit-remaining-tokens"] == "0"
    assert not error.value.final


async def test_what_never_fits_says_that_retrying_is_no_use() -> None:
    limits = KeyLimits(tokens=window(2, 40))
    desk = Desk()
    with pytest.raises(RateLimited) as error:
        await desk.enter(desk.call(limits, tokens=100))
    assert error.value.final
    assert error.value.retry_after == math.inf
    assert await desk.level(bucket(limits, "tokens")) == 40


async def test_a_refusal_takes_nothing_from_any_scope() -> None:
    few, many = (
        KeyLimits(requests=window(0.001, 2)),
        KeyLimits(requests=window(0.001, 50), tokens=window(1, 5000), streams=50),
    )
    desk = Desk(limits=Limits(address=window(0.001, 40), overall=many), tenants={"tenant": Tenant(many)})
    alias = Alias(tiers=(), limits=few)
    for _ in range(2):
        await desk.enter(desk.call(many, alias, tokens=8))
    for _ in range(5):
        with pytest.raises(RateLimited) as error:
            await desk.enter(desk.call(many, alias, tokens=8))
        assert (error.value.scope, error.value.resource) == ("alias", "requests")
        headers = dict(error.value.headers)
        assert headers["x-ratelimit-limit-requests"] == "2", "what refused is told"
        assert headers["x-ratelimit-remaining-tokens"] == "4980"
    for scope in ("key:k", "tenant:tenant", "overall:all"):
        assert await desk.level(bucket(many, "requests", scope=scope)) == 48
        assert await desk.level(bucket(many, "tokens", scope=scope)) == 4980
    for scope in ("key", "tenant", "overall"):
        for resource in ("requests", "tokens", "streams"):
            assert desk.metrics.child("ratelimit_decisions", scope, resource, "admitted").value == 2
    assert desk.metrics.child("ratelimit_decisions", "alias", "requests", "refused").value == 5


async def test_a_spent_budget_ends_with_its_period() -> None:
    limits = KeyLimits(budget=Budget(day=1.0, soft=0.5))
    desk = Desk()
    await desk.store.take(budget_claims(budget_prefix("key", "k"), Budget(day=1.0), desk.now, 0.6))
    call = desk.call(limits)
    await desk.enter(call)
    assert ("x-sluice-budget", "day 60%") in call.headers
    await desk.store.settle(budget_claims(budget_prefix("key", "k"), Budget(day=1.0), desk.now, 0.5))
    with pytest.raises(RateLimited) as error:
        await desk.enter(desk.call(limits))
    assert error.value.final
    assert error.value.resource == "budget"
    assert error.value.retry_after == 86400 - 1000
    desk.now = 86400.0
    await desk.enter(desk.call(limits))


async def test_an_address_without_anything_left_is_refused_without_asking_the_store() -> None:
    store = Slow(MemoryStore(lambda: desk.now))
    desk = Desk(limits=Limits(address=window(0.1, 2)), store=store)
    for _ in range(2):
        await desk.limiter.charge("192.0.2.7")
    with pytest.raises(RateLimited) as first:
        await desk.limiter.charge("192.0.2.7")
    asked = len(store.asked)
    desk.now += 5.0
    with pytest.raises(RateLimited) as second:
        desk.limiter.check("192.0.2.7")
    assert second.value.retry_after == pytest.approx(first.value.retry_after - 5.0)
    assert len(store.asked) == asked
    desk.limiter.check("192.0.2.8")
    desk.now += 5.0
    desk.limiter.check("192.0.2.7")
    await desk.limiter.charge("192.0.2.7")


async def test_one_round_trip_before_a_call_and_none_after_it_where_only_requests_are_counted() -> None:
    plain, metered = (
        KeyLimits(requests=window(1, 100)),
        KeyLimits(requests=window(1, 100), tokens=window(1, 9000), streams=3),
    )
    for limits, expected in ((plain, ["take"]), (metered, ["take", "settle"])):
        store = Slow(MemoryStore(lambda: 0.0))
        desk = Desk(limits=Limits(overall=limits), tenants={"tenant": Tenant(limits)}, store=store)
        await desk.leave(await desk.enter(desk.call(limits, Alias(tiers=(), limits=limits))))
        await desk.limiter.close()
        assert store.asked == expected


async def test_settling_outlives_the_call_and_closing_waits_for_it() -> None:
    limits = KeyLimits(streams=1)
    store = Slow(MemoryStore(lambda: 0.0))
    desk = Desk(store=store)
    admission = await desk.enter(desk.call(limits))
    store.gate.clear()

    async def leaving() -> None:
        await admission.__aexit__(None, None, None)

    await asyncio.create_task(leaving())  # whose end nobody waited for
    store.gate.set()
    await desk.limiter.close()
    assert (await store.store.take([], [Slot("key:k:streams", 1, "another")])).admitted


async def test_leases_are_renewed_together_while_they_are_held() -> None:
    limits = KeyLimits(streams=9)
    store = Slow(MemoryStore(lambda: 0.0), lease=0.03)
    desk = Desk(store=store)
    admissions = [await desk.enter(desk.call(limits)) for _ in range(3)]
    async with asyncio.timeout(30):
        while [len({slot.holder for slot in slots}) for slots in store.renewed[-2:]] != [3, 3]:
            await asyncio.sleep(0.005)
    for admission in admissions:
        await desk.leave(admission)
    await asyncio.sleep(0.03)
    renewed = len(store.renewed)
    await asyncio.sleep(0.03)
    assert len(store.renewed) == renewed
    await desk.limiter.close()


# --- the queue


def queued(**limits: object) -> Alias:
    return Alias(tiers=(), limits=KeyLimits(**limits), queue=Queue(size=4, timeout=Seconds(5)))  # type: ignore[arg-type]


async def test_a_place_that_comes_free_goes_to_who_waits_longest() -> None:
    desk, alias = Desk(), queued(streams=1)
    first = await desk.enter(desk.call(alias=alias))
    tasks = [asyncio.create_task(desk.enter(desk.call(alias=alias))) for _ in range(3)]
    for number in range(3):
        await turns()
        assert [task.done() for task in tasks] == [n < number for n in range(3)]
        await desk.leave(first if number == 0 else tasks[number - 1].result())
    await desk.leave(await tasks[2])


async def test_a_full_queue_refuses_at_once_and_takes_nothing() -> None:
    desk, alias = Desk(), queued(streams=1, tokens=window(1, 100))
    first = await desk.enter(desk.call(alias=alias, tokens=8))
    tasks = [asyncio.create_task(desk.enter(desk.call(alias=alias, tokens=8))) for _ in range(4)]
    await turns()
    with pytest.raises(RateLimited) as error:
        await desk.enter(desk.call(alias=alias, tokens=8))
    assert (error.value.scope, error.value.resource, error.value.retry_after) == ("alias", "streams", 1.0)
    assert dict(error.value.headers)["x-ratelimit-remaining-tokens"] == "90"
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await desk.leave(first)
    assert await desk.level(bucket(alias.limits, "tokens", scope="alias:chat")) == 100
    assert len(desk.limiter.alias_queues) == 0


async def test_a_full_queue_names_what_the_waiting_calls_wait_for() -> None:
    """Places that are free are not to blame, though waiting for one would take longer than for the rate."""
    desk, alias = Desk(), queued(streams=100, requests=window(2, 1))
    first = await desk.enter(desk.call(alias=alias))
    tasks = [asyncio.create_task(desk.enter(desk.call(alias=alias))) for _ in range(4)]
    await turns()
    with pytest.raises(RateLimited) as error:
        await desk.enter(desk.call(alias=alias))
    assert (error.value.scope, error.value.resource) == ("alias", "requests")
    assert error.value.retry_after == pytest.approx(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await desk.leave(first)


async def test_a_key_that_is_kept_back_by_its_own_limits_keeps_nobody_else_back() -> None:
    desk, alias = Desk(), queued(streams=2)
    own = KeyLimits(streams=1)
    held = await desk.enter(desk.call(own, alias, name="a"))
    waits = asyncio.create_task(desk.enter(desk.call(own, alias, name="a")))
    await turns()
    assert not waits.done()
    other = await desk.enter(desk.call(own, alias, name="b"))
    await desk.leave(other)
    await turns()
    assert not waits.done()
    await desk.leave(held)
    await desk.leave(await waits)


@pytest.mark.parametrize("scope", ["end_user", "key_alias", "key", "tenant", "team"])
async def test_a_caller_that_waits_for_a_limit_of_its_own_keeps_no_other_caller_back(scope: str) -> None:
    one = KeyLimits(requests=window(0.1, 1))
    desk = Desk(
        limits=Limits(
            address=None, end_users=EndUsers(requests=one.requests) if scope == "end_user" else None
        ),
        tenants={"tenant": Tenant(limits=one if scope == "tenant" else UNLIMITED, team="team")},
        teams={"team": Team(limits=one if scope == "team" else UNLIMITED)},
    )
    alias = Alias(tiers=(), queue=Queue(size=4, timeout=Seconds(60)))
    own = {"key": one, "key_alias": KeyLimits(aliases={"chat": one})}.get(scope, UNLIMITED)

    def call() -> Call:
        limited = desk.call(own, alias, name="a")
        limited.end_user = "tenant|ann"
        return limited

    await desk.leave(await desk.enter(call()))
    waits = asyncio.create_task(desk.enter(call()))
    await turns()
    assert not waits.done()
    free = desk.call(alias=alias, name="b")
    free.principal = msgspec.structs.replace(free.principal, tenant="another")
    other = asyncio.create_task(desk.enter(free))
    await turns()
    assert other.done()
    assert not waits.done()
    waits.cancel()
    await asyncio.wait([waits])


async def test_an_end_user_over_its_limit_keeps_no_other_of_the_key_back() -> None:
    desk = Desk(limits=Limits(address=None, end_users=EndUsers(requests=window(0.1, 1))))
    alias = Alias(tiers=(), queue=Queue(size=4, timeout=Seconds(60)))

    def call(user: str) -> Call:
        found = desk.call(alias=alias)
        found.end_user = f"tenant|{user}"
        return found

    await desk.leave(await desk.enter(call("ann")))
    waits = asyncio.create_task(desk.enter(call("ann")))
    await turns()
    other = asyncio.create_task(desk.enter(call("bob")))
    await turns()
    assert other.done()
    assert not waits.done()
    waits.cancel()
    await asyncio.wait([waits])


async def test_nobody_overtakes_who_waits_for_what_all_share() -> None:
    desk, alias = Desk(), queued(tokens=window(1, 100))
    first = desk.call(alias=alias, tokens=90)
    admission = await desk.enter(first)
    large = asyncio.create_task(desk.enter(desk.call(alias=alias, tokens=50, name="a")))
    await turns()
    small = asyncio.create_task(desk.enter(desk.call(alias=alias, tokens=1, name="b")))
    await turns()
    assert not large.done()
    assert not small.done(), "there is room for it, but it came later"
    await desk.leave(admission)  # all of it is given back
    await asyncio.gather(large, small)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("seed", range(15))
async def test_whoever_gives_up_and_whenever_no_place_and_no_token_is_lost(seed: int, slow: bool) -> None:
    chance = random.Random(seed)
    memory = MemoryStore(lambda: 0.0)
    desk = Desk(store=Slow(memory, lease=30.0) if slow else memory)
    alias = Alias(
        tiers=(),
        limits=KeyLimits(streams=3, tokens=window(0.001, 1000)),
        queue=Queue(size=20, timeout=Seconds(chance.choice([0.001, 0.01, 60]))),
    )
    own = KeyLimits(streams=2)

    async def one(number: int) -> None:
        try:
            admission = await desk.enter(
                desk.call(own, alias, name="abcd"[number % 4], tokens=chance.randint(1, 400))
            )
        except RateLimited:
            return
        try:
            await turns(chance.randint(0, 20))
        finally:
            await admission.__aexit__(None, None, None)

    tasks = [asyncio.create_task(one(number)) for number in range(60)]
    for _ in range(40):
        await turns(chance.randint(0, 4))
        tasks[chance.randrange(60)].cancel()
    await asyncio.wait(tasks, timeout=20)
    assert all(task.done() for task in tasks)
    assert {task.exception() for task in tasks if not task.cancelled()} == {None}
    await desk.limiter.close()
    assert len(desk.limiter.alias_queues) == 0
    claim = bucket(alias.limits, "tokens", scope="alias:chat")
    verdict = await memory.take([Claim(claim.key, claim.limit, 0.0)])
    assert verdict.levels[0].remaining == pytest.approx(1000, abs=1e-3)
    probe = [Slot(f"key:{name}:streams", 2, "probe") for name in "abcd"] + [
        Slot("alias:chat:streams", 3, "probe")
    ]
    places = await memory.take([], probe)
    assert [level.remaining for level in places.levels] == [1, 1, 1, 1, 2], (
        "all are free, but for the probe's"
    )


OUTPUT = 1024
"""What is reserved for an answer without a maximum, unless the configuration says otherwise."""


def asking(**fields: object) -> ChatRequest:
    """A request of a prompt of 2 tokens with these fields."""
    return chat_of({"model": "chat", "messages": [{"role": "user", "content": "12345678"}], **fields})


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, OUTPUT),
        ({"max_tokens": None}, OUTPUT),
        ({"max_tokens": 0}, OUTPUT),
        ({"max_tokens": -1}, OUTPUT),
        ({"max_tokens": -(10**30)}, OUTPUT),
        ({"max_completion_tokens": 0}, OUTPUT),
        ({"max_tokens": 1}, 1),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 40_000, "max_completion_tokens": 1}, 40_000),
        ({"max_tokens": 1, "max_completion_tokens": 40_000}, 40_000),
        ({"max_tokens": 0, "max_completion_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 0}, 5),
    ],
)
def test_never_less_is_reserved_than_can_be_generated(fields: dict[str, object], output: int) -> None:
    amounts = reserved(asking(**fields), [], OUTPUT, 0.0)
    assert (amounts.tokens, amounts.money) == (2 + output, 0.0)


def test_a_maximum_beyond_all_bounds_is_reserved_as_the_most_there_is() -> None:
    chat = msgspec.structs.replace(asking(), sampling=Sampling(max_tokens=10**400))
    assert reserved(chat, [], OUTPUT, 0.0).tokens == 2 + 10**9


async def test_a_maximum_of_nothing_does_not_pass_a_bucket_that_holds_less_than_an_answer() -> None:
    desk = Desk()
    key = KeyLimits(tokens=window(1, 3000))
    for _ in range(2):
        await desk.enter(desk.call(key, tokens=0))
    with pytest.raises(RateLimited):
        await desk.enter(desk.call(key, tokens=0))


@pytest.mark.parametrize("used", [Usage(output=10**400), Usage(output="12")], ids=["400 digits", "text"])  # type: ignore[arg-type]
async def test_places_come_back_whatever_a_call_is_said_to_have_used(used: Usage) -> None:
    """The relay lets no such usage by: should another way lead here, it costs the call's settling and no
    place."""
    limits = KeyLimits(streams=1, tokens=window(0.001, 1000))
    desk = Desk()
    for _ in range(3):
        call = desk.call(limits, tokens=10)
        admission = await desk.enter(call)
        call.attempts.append(Attempt(Scene([]).targets[0], 0.0, used=used))
        with contextlib.suppress(TypeError):
            await desk.leave(admission)
        await turns()
    assert desk.limiter.settlements.settling == 0


async def test_places_come_back_where_the_store_cannot_settle_an_amount() -> None:
    class Strict(MemoryStore):
        async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> None:
            if claims:
                raise ValueError("only a finite amount can be settled")
            await super().settle(claims, slots)

    desk = Desk(store=Strict())
    limits = KeyLimits(streams=1, tokens=window(0.001, 1000))
    for _ in range(3):
        await desk.leave(await desk.enter(desk.call(limits, tokens=10)))


async def test_what_was_taken_is_given_back_where_the_call_cannot_be_told_about_it() -> None:
    desk = Desk()
    limits = KeyLimits(streams=1, tokens=window(0.001, 1000))
    for _ in range(3):
        call = desk.call(limits, tokens=10)
        call.headers = None  # type: ignore[assignment]
        with pytest.raises(TypeError):
            await desk.enter(call)
        await turns()
    await desk.enter(desk.call(limits, tokens=10))


async def test_a_reservation_whose_use_cannot_be_told_ends_charged_as_it_was() -> None:
    """It has a lease in a budget and no place: renewed for ever, it would never be charged."""
    desk = Desk(store=Slow(MemoryStore()))
    limits = KeyLimits(budget=Budget(day=1000.0))
    call = desk.call(limits, tokens=10)
    admission = await desk.enter(call)
    assert desk.limiter.settlements._held
    call.attempts.append(Attempt(Scene([]).targets[0], 0.0, used=Usage(output="12")))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await desk.leave(admission)
    await turns()
    assert not desk.limiter.settlements._held
    assert desk.limiter.settlements.settling == 0


def test_a_key_without_limits_is_shown_none_though_its_address_has_one() -> None:
    desk = Desk(limits=Limits(address=window(1, 5)))
    call = desk.call()
    assert desk.limiter(call) is None
    assert call.headers == []

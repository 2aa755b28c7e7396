"""What every store does that several hosts share: a turn has a lease, and turns are stored in the order of
their leases."""

import asyncio
import secrets

import pytest

from sluice.conversations import LEASE, Lease, SharedConversations, Turn, TurnSuperseded
from sluice.conversations.leases import Leases
from sluice.conversations.postgres import PostgresConversations
from tests.servers import PostgresServer


def lease(session: str = "s", tenant: str = "acme") -> Lease:
    return Lease(tenant, session, secrets.token_urlsafe(16))


def pair(name: str) -> list[Turn]:
    return [Turn("user", name, 1.0), Turn("assistant", f"said {name}", 2.0)]


async def texts(store: SharedConversations, session: str = "s") -> list[str]:
    return [turn.content for turn in await store.recent(await store.open("acme", session), 1000)]


def nobody(change: int) -> None:
    """Is told that somebody waits."""


def leases(store: SharedConversations) -> tuple[Leases, list[tuple[str, Exception]]]:
    failed: list[tuple[str, Exception]] = []
    return Leases(store, lambda operation, error: failed.append((operation, error))), failed


async def test_a_turn_begins_with_what_was_stored_and_gives_its_lease_back(
    shared: SharedConversations,
) -> None:
    first = lease()
    begun = await shared.begin(first, 10)
    assert begun is not None
    assert begun.turns == []
    await shared.finish(first, begun.id, pair("one"))
    second = await shared.begin(lease(), 1)
    assert second is not None
    assert (second.id, second.turns) == (begun.id, pair("one")[1:])


async def test_the_id_is_the_same_before_the_first_turn(shared: SharedConversations) -> None:
    id = await shared.open("acme", "s")
    begun = await shared.begin(lease(), 0)
    assert begun is not None
    assert (begun.id, begun.turns) == (id, [])
    assert await shared.newest(5) == ([], 0)


async def test_one_has_it_and_who_has_waited_longest_is_next(shared: SharedConversations) -> None:
    first, second, third = lease(), lease(), lease()
    begun = await shared.begin(first, 9)
    assert begun is not None
    assert await shared.begin(second, 9) is None
    await asyncio.sleep(0.002)  # who comes in one millisecond comes at the same time
    assert await shared.begin(third, 9) is None
    assert await shared.begin(lease("another"), 9) is not None
    await shared.finish(first, begun.id, pair("one"))
    assert await shared.begin(third, 9) is None
    assert await shared.begin(second, 9) is not None
    await shared.leave(second)
    taken = await shared.begin(third, 9)
    assert taken is not None
    assert taken.turns == pair("one")


async def test_who_leaves_the_queue_or_no_longer_asks_keeps_nobody_waiting(
    shared: SharedConversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, fourth = (lease() for _ in range(4))
    assert await shared.begin(first, 9) is not None
    assert await shared.begin(second, 9) is None
    await asyncio.sleep(0.002)
    assert await shared.begin(third, 9) is None
    await shared.leave(second)
    await shared.leave(first)
    assert await shared.begin(fourth, 9) is None
    for module in ("redis", "postgres"):
        monkeypatch.setattr(f"sluice.conversations.{module}.WAITING", 0.0)
    assert await shared.begin(fourth, 9) is not None


async def test_a_lease_that_ran_out_goes_to_the_next_and_what_comes_then_is_refused(
    shared: SharedConversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = lease(), lease()
    for module in ("redis", "postgres"):
        monkeypatch.setattr(f"sluice.conversations.{module}.LEASE", 0.0)
    one = await shared.begin(first, 9)
    two = await shared.begin(second, 9)
    assert one is not None
    assert two is not None
    assert not await shared.renew(first)
    with pytest.raises(TurnSuperseded):
        await shared.finish(first, one.id, pair("late"))
    await shared.finish(second, two.id, pair("two"))
    assert await texts(shared) == ["two", "said two"]
    with pytest.raises(TurnSuperseded):
        await shared.finish(first, one.id, pair("late"))


async def test_a_lease_that_ran_out_and_that_nobody_took_still_stores(
    shared: SharedConversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("redis", "postgres"):
        monkeypatch.setattr(f"sluice.conversations.{module}.LEASE", -1.0)
    first = lease()
    begun = await shared.begin(first, 9)
    assert begun is not None
    assert await shared.renew(first)
    await shared.finish(first, begun.id, pair("one"))
    assert await texts(shared) == ["one", "said one"]


async def test_a_renewal_that_arrives_after_its_turn_was_stored_does_not_hold_the_lease_again(
    shared: SharedConversations,
) -> None:
    """Renewals go another way than the turn, and packets are lost: the session's next turn would wait."""
    first = lease()
    begun = await shared.begin(first, 9)
    assert begun is not None
    await shared.finish(first, begun.id, pair("one"))
    assert not await shared.renew(first)
    again = lease()
    assert await shared.begin(again, 9) is not None
    await shared.finish(first, begun.id, pair("one"))  # it is sent again
    assert await shared.renew(again)
    await shared.finish(again, begun.id, pair("two"))
    assert await texts(shared) == ["one", "said one", "two", "said two"]


async def test_a_renewal_that_arrives_after_its_lease_was_given_back_does_not_hold_it_again(
    shared: SharedConversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = lease(), lease(), lease()
    assert await shared.begin(first, 9) is not None
    await shared.leave(first)
    assert not await shared.renew(first)
    for module in ("redis", "postgres"):
        monkeypatch.setattr(f"sluice.conversations.{module}.LEASE", -1.0)
    assert await shared.begin(second, 9) is not None
    await shared.leave(second)  # it had run out by then
    monkeypatch.undo()
    assert not await shared.renew(second)
    assert await shared.begin(third, 9) is not None


async def test_a_turn_that_is_sent_again_is_stored_once(shared: SharedConversations) -> None:
    first = lease()
    begun = await shared.begin(first, 9)
    assert begun is not None
    await asyncio.gather(*(shared.finish(first, begun.id, pair("one")) for _ in range(5)))
    second = lease()
    assert await shared.begin(second, 9) is not None
    await shared.finish(first, begun.id, pair("one"))
    assert await texts(shared) == ["one", "said one"]
    assert not await shared.renew(first)
    await shared.leave(first)
    assert await shared.renew(second), "what the first does no longer concerns the second's lease"


async def test_many_turns_from_many_hosts_are_whole_and_each_knows_all_before_it(
    shared: SharedConversations,
) -> None:
    hosts = [leases(shared) for _ in range(4)]

    async def turns(number: int) -> None:
        of, _ = hosts[number]
        for count in range(12):
            held, begun = await of.begin("acme", "s", 1000, nobody)
            pairs = len(begun.turns) // 2
            await of.finish(
                held, begun.id, [Turn("user", f"{number}.{count}", pairs), Turn("assistant", "x", pairs)]
            )

    await asyncio.gather(*(turns(number) for number in range(4)))
    kept = await shared.recent(await shared.open("acme", "s"), 1000)
    assert [turn.created for turn in kept] == [n // 2 for n in range(96)]
    for number in range(4):
        mine = [turn.content for turn in kept if turn.content.startswith(f"{number}.")]
        assert mine == [f"{number}.{count}" for count in range(12)]
    for of, failed in hosts:
        await of.close()
        assert not failed


async def test_a_turn_that_is_cancelled_leaves_the_session_to_others(
    shared: SharedConversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("redis", "postgres"):
        monkeypatch.setattr(f"sluice.conversations.{module}.LEASE", 3600.0)
    of, failed = leases(shared)
    held, _ = await of.begin("acme", "s", 9, nobody)
    waiting = [asyncio.create_task(of.begin("acme", "s", 9, nobody)) for _ in range(3)]
    for task in waiting:
        await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    of.leave(held)
    for cut in range(30):
        task = asyncio.create_task(of.begin("acme", "s", 9, nobody))
        for _ in range(cut):
            await asyncio.sleep(0)
        task.cancel()
        [result] = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(result, BaseException):
            of.leave(result[0])
    async with asyncio.timeout(60):
        held, _ = await of.begin("acme", "s", 9, nobody)
    of.leave(held)
    await of.close()
    assert not failed


async def test_what_is_held_is_renewed_as_long_as_it_is(shared: SharedConversations) -> None:
    rounds = asyncio.Semaphore(0)
    renewed: list[Lease] = []

    async def sleep(seconds: float) -> None:
        await rounds.acquire()

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(shared, name)

        async def renew(self, one: Lease) -> bool:
            renewed.append(one)
            return await shared.renew(one)

    of = Leases(Counting(), lambda operation, error: None, sleep=sleep)  # type: ignore[arg-type]
    one, begun = await of.begin("acme", "one", 9, nobody)
    two, _ = await of.begin("acme", "two", 9, nobody)
    rounds.release()
    while len(renewed) < 2:
        await asyncio.sleep(0.001)
    assert renewed == [one, two]
    await of.finish(one, begun.id, pair("one"))
    await of.leave(two)
    rounds.release()
    assert of._renewing is not None
    await of._renewing
    assert renewed == [one, two]
    await of.close()


async def test_a_lease_in_postgres_that_ends_later_than_any_can_is_cut(postgres: PostgresServer) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    store = PostgresConversations(f"{postgres.url}&schema=late", timeout=30)
    assert await store.begin(Lease("acme", "s", "first"), 10) is not None
    database = await asyncpg.connect(postgres.url.partition("&")[0])
    await database.execute("UPDATE late.sluice_lease SET until = 'infinity'")
    await store.begin(Lease("acme", "s", "second"), 10)
    late = f"until > clock_timestamp() + make_interval(secs => {LEASE})"
    assert not await database.fetch(f"SELECT 1 FROM late.sluice_lease WHERE {late}")
    await database.execute("UPDATE late.sluice_lease SET until = '-infinity'")
    await database.execute("UPDATE late.sluice_lease_waiting SET holder = 'gone', asked = 'infinity'")
    assert await store.begin(Lease("acme", "s", "third"), 10) is not None
    await database.close()
    await store.close()

"""What every store of conversations does about what is not to be kept, and how it is listed page by page."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sluice.conversations import ConversationStore, Retention, Swept, Turn
from sluice.conversations.redis import RedisConversations
from sluice.conversations.sweeper import STEPS, Sweeper
from tests.conversations.conftest import LOCAL, SHARED, Clock, local_store, shared_store

DAY = 86400.0


@pytest.fixture(params=[*LOCAL, *SHARED])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    """As in conftest, but that Redis lists conversations by tenant, too."""
    kind = request.param
    kept = shared_store(kind, request, by_tenant=True) if kind in SHARED else local_store(kind, tmp_path)
    yield kept
    await kept.close()


async def say(
    store: ConversationStore, session: str, clock: Callable[[], float], tenant: str = "acme", turns: int = 1
) -> str:
    id = await store.open(tenant, session)
    for number in range(turns):
        await store.append(
            tenant,
            session,
            id,
            [Turn("user", f"{session}{number}", clock()), Turn("assistant", "yes", clock())],
        )
    return id


async def swept(store: ConversationStore, retention: Retention, now: float) -> Swept:
    """All steps of a sweep together."""
    conversations = messages = 0
    for _ in range(1000):
        step = await store.sweep(retention, now)
        conversations, messages = conversations + step.conversations, messages + step.messages
        if not step.more:
            return Swept(conversations, messages)
    raise AssertionError("it does not end")


async def sessions(store: ConversationStore, tenant: str = "") -> list[str]:
    found, after = set(), ""
    while True:
        page, after = await store.page(after, 3, tenant)
        found |= {one.session for one in page}
        if not after:
            return sorted(found)


async def test_conversations_are_kept_for_so_long_after_their_last_turn(
    store: ConversationStore, clock: Clock
) -> None:
    old = await say(store, "old", clock)
    revived = await say(store, "revived", clock)
    clock.now += DAY
    await say(store, "revived", clock)
    assert await swept(store, Retention(age=2 * DAY), clock()) == Swept()
    assert await swept(store, Retention(age=DAY - 60), clock()) == Swept(conversations=1)
    assert await store.get(old) is None
    assert len(await store.recent(revived, 9)) == 4
    assert (await store.newest(9))[1] == 1
    assert await store.open("acme", "old") != old
    assert await swept(store, Retention(age=DAY - 60), clock()) == Swept()


async def test_of_each_tenant_those_with_the_latest_turns_are_kept(
    store: ConversationStore, clock: Clock
) -> None:
    for session in "abcd":
        await say(store, session, clock)
    await say(store, "x", clock, tenant="other")
    await say(store, "a", clock)
    rule = Retention(conversations=2)
    assert await swept(store, rule, clock()) == Swept(conversations=2)
    assert await sessions(store, "acme") == ["a", "d"]
    assert await sessions(store) == ["a", "d", "x"]
    assert await swept(store, rule, clock()) == Swept()
    await say(store, "e", clock)
    assert await swept(store, rule, clock()) == Swept(conversations=1)
    assert await sessions(store, "acme") == ["a", "e"]


async def test_of_a_long_conversation_the_latest_messages_are_kept(
    store: ConversationStore, clock: Clock
) -> None:
    if isinstance(store, RedisConversations):
        pytest.skip("Redis cuts as turns are stored")
    id = await say(store, "long", clock, turns=5)
    await say(store, "short", clock)
    rule = Retention(messages=4)
    assert await swept(store, rule, clock()) == Swept(messages=6)
    assert [turn.content for turn in await store.recent(id, 99)] == ["long3", "yes", "long4", "yes"]
    await say(store, "long", clock)
    assert await swept(store, rule, clock()) == Swept(messages=2)
    assert await swept(store, rule, clock()) == Swept()


async def test_a_sweep_of_many_goes_step_by_step(
    store: ConversationStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sqlite", "postgres", "redis"):
        monkeypatch.setattr(f"sluice.conversations.{module}.STEP", 3)
        monkeypatch.setattr(f"sluice.conversations.{module}.STEP_MESSAGES", 3, raising=False)
    for number in range(10):
        await say(store, f"s{number}", clock, turns=1 if isinstance(store, RedisConversations) else 3)
    await say(store, "fresh", clock, tenant="other")
    assert (await swept(store, Retention(messages=2, conversations=8), clock())).conversations == 2
    assert {
        len(await store.recent(await store.open("acme", f"s{number}"), 99)) for number in range(2, 10)
    } == {2}
    assert await swept(store, Retention(age=0.5), clock() + 1) == Swept(conversations=9)
    assert await sessions(store) == []


async def test_pages_have_every_conversation(store: ConversationStore, clock: Clock) -> None:
    for number in range(10):
        await say(store, f"s{number}", clock, tenant=f"t{number % 2}")
    assert await sessions(store) == [f"s{number}" for number in range(10)]
    assert await sessions(store, "t1") == ["s1", "s3", "s5", "s7", "s9"]
    assert await sessions(store, "nobody") == []


async def test_messages_come_in_parts_from_the_oldest_on(store: ConversationStore, clock: Clock) -> None:
    id = await say(store, "s", clock, turns=3)
    assert [turn.content for turn in await store.messages(id, 0, 3)] == ["s0", "yes", "s1"]
    assert [turn.content for turn in await store.messages(id, 3, 99)] == ["yes", "s2", "yes"]
    assert await store.messages(id, 6, 9) == []
    assert await store.messages("nothing", 0, 9) == []


async def test_a_person_s_sessions_are_forgotten_by_what_they_begin_with(
    store: ConversationStore, clock: Clock
) -> None:
    for session in ("u1-a", "u1-b", "u1", "u2-a", "ü%_", "ü%_-a"):
        await say(store, session, clock)
        await say(store, session, clock, tenant="other")
    assert await store.delete_of("acme", "u1-") == 2
    assert await store.delete_of("acme", "ü%_") == 2
    assert await sessions(store, "acme") == ["u1", "u2-a"]
    assert len(await sessions(store, "other")) == 6


class Scripted:
    """A store whose steps are given: what they have deleted, or why they fail."""

    def __init__(self, *steps: Swept | Exception) -> None:
        self.steps = [*steps]
        self.asked: list[tuple[Retention, float]] = []

    async def sweep(self, retention: Retention, now: float) -> Swept:
        self.asked.append((retention, now))
        step = self.steps.pop(0) if self.steps else Swept(1, 0, more=True)
        if isinstance(step, Exception):
            raise step
        return step


async def no_time(seconds: float) -> None:
    """As if it had passed."""


async def test_a_sweep_is_bounded_counts_what_it_deleted_and_survives_failures() -> None:
    told: list[Swept] = []
    failed: list[tuple[str, str]] = []
    rule = Retention(age=1.0)
    store = Scripted(Swept(2, 3, more=True), Swept(1, 0), Swept(), Swept(4, 0, more=True), OSError("gone"))
    sweeper = Sweeper(
        lambda: store.sweep(rule, 7.0),
        told.append,
        lambda name, error: failed.append((name, str(error))),
        sleep=no_time,
    )
    for _ in range(4):
        await sweeper.sweep()
    assert told == [Swept(3, 3), Swept(4, 0), Swept(STEPS, 0)]
    assert failed == [("sweep", "gone")]
    assert store.asked[0] == (rule, 7.0)


async def test_a_sweep_that_fails_is_followed_by_the_next_one() -> None:
    failed: list[str] = []
    slept: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise Enough

    store = Scripted(OSError(), Swept(), Swept())
    sweeper = Sweeper(
        lambda: store.sweep(Retention(age=1.0), 7.0),
        print,
        lambda name, error: failed.append(name),
        sleep=sleep,
        chance=lambda: 0.5,
    )
    with pytest.raises(Enough):
        await sweeper.run()
    assert (len(store.asked), failed, slept) == (2, ["sweep"], [3.0, 60.0, 60.0])

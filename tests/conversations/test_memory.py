"""What is kept in memory is bounded: the sessions that were quiet longest are forgotten, and the oldest
messages."""

from sluice.conversations import Turn
from sluice.conversations.memory import MemoryConversations


async def test_forgets_the_session_that_was_quiet_longest() -> None:
    store = MemoryConversations(conversations=3)
    ids = {}
    for at, session in enumerate("abc"):
        ids[session] = await store.open("acme", session)
        await store.append("acme", session, ids[session], [Turn("user", session, at)])
    assert await store.open("acme", "a") == ids["a"]
    await store.append("acme", "d", await store.open("acme", "d"), [Turn("user", "d", 9)])
    assert await store.get(ids["b"]) is None
    assert await store.get(ids["a"]) is not None
    assert await store.open("acme", "b") != ids["b"]


async def test_sessions_that_never_say_anything_are_bounded_too() -> None:
    store = MemoryConversations(conversations=10)
    first = await store.open("acme", "0")
    for n in range(1, 11):
        await store.open("acme", str(n))
    assert await store.open("acme", "0") != first


async def test_keeps_the_latest_messages_of_a_long_conversation() -> None:
    store = MemoryConversations(turns=4)
    id = await store.open("acme", "s")
    for n in range(10):
        await store.append("acme", "s", id, [Turn("user", str(n), n)])
    assert [turn.content for turn in await store.recent(id, 100)] == ["6", "7", "8", "9"]


async def test_a_turn_that_ends_after_its_session_was_forgotten_is_kept_within_the_bound() -> None:
    store = MemoryConversations(conversations=2)
    id = await store.open("acme", "slow")
    for session in "ab":
        await store.append("acme", session, await store.open("acme", session), [Turn("user", session, 1)])
    await store.append("acme", "slow", id, [Turn("user", "late", 2)])
    conversations, count = await store.newest(10)
    assert count == len(conversations) == 2
    assert await store.open("acme", "slow") == id

"""The bounds of the store in memory."""

from gateway.conversations import Turn
from gateway.conversations.memory import MemoryConversations


async def say(store: MemoryConversations, session: str, *contents: str) -> str:
    id = await store.open("t", session)
    await store.append("t", session, id, [Turn("user", content, 1.0) for content in contents])
    return id


async def contents(store: MemoryConversations, id: str) -> list[str]:
    return [turn.content for turn in await store.recent(id, 1000)]


async def test_a_conversation_keeps_its_last_messages() -> None:
    store = MemoryConversations(max_messages=4)
    for number in range(5):
        id = await say(store, "s", f"q{number}", f"a{number}")
    assert await contents(store, id) == ["q3", "a3", "q4", "a4"]


async def test_the_conversation_silent_longest_is_forgotten() -> None:
    store = MemoryConversations(max_conversations=2)
    first, second = await say(store, "1", "x"), await say(store, "2", "x")
    await say(store, "1", "y")
    await say(store, "3", "x")
    assert await contents(store, second) == []
    assert await contents(store, first) == ["x", "y"]
    assert (await store.newest(10))[1] == 2


async def test_all_contents_together_are_bounded() -> None:
    store = MemoryConversations(max_characters=1000, max_messages=3)
    ids = [await say(store, str(number), "x" * 300) for number in range(10)]
    assert [len(await contents(store, id)) for id in ids] == [0] * 7 + [1] * 3
    for _ in range(10):  # messages that were dropped no longer count
        await say(store, "9", "y" * 100)
    assert [len(await contents(store, id)) for id in ids[7:]] == [1, 1, 3]


async def test_a_single_conversation_is_kept_however_long_its_last_message() -> None:
    store = MemoryConversations(max_characters=10)
    await say(store, "1", "x" * 5)
    id = await say(store, "2", "x" * 50)
    assert await contents(store, id) == ["x" * 50]
    assert (await store.newest(10))[1] == 1

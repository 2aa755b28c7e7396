"""What every conversation store does, asked of the one in memory and of the one in a file."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.conversations import ConversationStore, Turn
from gateway.conversations.memory import MemoryConversations
from gateway.conversations.sqlite import SqliteConversations
from gateway.conversations.turnstile import Turnstile

NAUGHTY = Path(__file__).parents[2].parent / "shared" / "security" / "blns" / "blns.json"
TEXTS = [
    "", " ", "a\r\n\tb", "\x00 and on", "\ufeff", "\u202e", "Ω≈ç√", "👩‍👩‍👧‍👦", "\U0010ffff", "\ud83d", "\udc00x", "'); DROP TABLE messages;--",
    "x" * 100_000, '{"role":"system"}', "%s %d {0}", "null",
]  # fmt: skip
times = itertools.count(1_900_000_000)


def turn(question: str, answer: str, *, interrupted: bool = False) -> list[Turn]:
    return [Turn("user", question, next(times)), Turn("assistant", answer, next(times), interrupted)]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    opened: ConversationStore = MemoryConversations() if request.param == "memory" else SqliteConversations(tmp_path / "c.db")
    yield opened
    await opened.close()


async def say(store: ConversationStore, tenant: str, session: str, turns: list[Turn]) -> str:
    id = await store.open(tenant, session)
    await store.append(tenant, session, id, turns)
    return id


async def test_a_session_has_one_id_before_and_after_its_first_turn(store: ConversationStore) -> None:
    first = await store.open("t", "s")
    assert await store.open("t", "s") == first
    assert await say(store, "t", "s", turn("q", "a")) == first
    assert len(first) == 32


async def test_an_id_cannot_be_guessed_from_another_store(store: ConversationStore) -> None:
    other = MemoryConversations()
    assert await store.open("t", "s") != await other.open("t", "s")


async def test_opening_keeps_nothing(store: ConversationStore) -> None:
    id = await store.open("t", "s")
    await store.append("t", "s", id, [])
    assert await store.newest(10) == ([], 0)
    assert await store.get(id) is None
    assert await store.recent(id, 10) == []


async def test_turns_come_back_in_order_and_whole(store: ConversationStore) -> None:
    first, second = turn("q1", "a1"), turn("q2", "a2 cut", interrupted=True)
    id = await say(store, "t", "s", first)
    await say(store, "t", "s", second)
    assert await store.recent(id, 100) == first + second
    assert await store.recent(id, 3) == (first + second)[1:]
    assert await store.recent(id, 0) == []
    found = await store.get(id)
    assert found is not None
    assert found[1] == first + second


async def test_a_conversation_knows_its_session_times_and_last_message(store: ConversationStore) -> None:
    turns = turn("q1", "a1") + turn("q2", "a2")
    id = await say(store, "tenant", "session", turns[:2])
    await say(store, "tenant", "session", turns[2:])
    found = await store.get(id)
    assert found is not None
    conversation = found[0]
    assert (conversation.id, conversation.tenant, conversation.session) == (id, "tenant", "session")
    assert (conversation.created, conversation.updated) == (turns[0].created, turns[-1].created)
    assert conversation.last_message == "a2"


async def test_the_newest_come_first_by_their_last_message(store: ConversationStore) -> None:
    for session in ("a", "b", "c", "a"):
        await say(store, "t", session, turn("q", session))
    newest, total = await store.newest(2)
    assert [conversation.session for conversation in newest] == ["a", "c"]
    assert total == 3


async def test_a_clock_that_steps_back_never_makes_a_conversation_older(store: ConversationStore) -> None:
    await say(store, "t", "a", [Turn("user", "q", 100.0), Turn("assistant", "a", 101.0)])
    await say(store, "t", "b", [Turn("user", "q", 99.0), Turn("assistant", "a", 100.5)])
    await say(store, "t", "a", [Turn("user", "q", 50.0), Turn("assistant", "a", 51.0)])
    newest, _ = await store.newest(10)
    assert [(found.session, found.updated) for found in newest] == [("a", 101.0), ("b", 100.5)]


@pytest.mark.parametrize(("one", "other"), [(("a", "s"), ("b", "s")), (("a", "bs"), ("ab", "s")), (("", "as"), ("a", "s"))])
async def test_tenants_with_the_same_session_never_share_anything(
    store: ConversationStore, one: tuple[str, str], other: tuple[str, str]
) -> None:
    mine, theirs = await say(store, *one, turn("q", "mine")), await say(store, *other, turn("q", "theirs"))
    assert mine != theirs
    assert [said.content for said in await store.recent(mine, 10)] == ["q", "mine"]
    assert [said.content for said in await store.recent(theirs, 10)] == ["q", "theirs"]
    assert (await store.newest(10))[1] == 2


async def test_nothing_is_appended_to_anothers_conversation(store: ConversationStore) -> None:
    id = await say(store, "a", "s", turn("q", "a"))
    for tenant, session in (("b", "s"), ("a", "s2")):
        with pytest.raises(ValueError):
            await store.append(tenant, session, id, turn("q", "foreign"))
    assert len(await store.recent(id, 10)) == 2


@pytest.mark.parametrize("id", ["", "0" * 32, "' OR 1=1", "\x00", "é"])
async def test_an_unknown_id_is_no_conversation(store: ConversationStore, id: str) -> None:
    await say(store, "t", "s", turn("q", "a"))
    assert await store.get(id) is None
    assert await store.recent(id, 10) == []


async def test_any_text_comes_back_as_it_was(store: ConversationStore) -> None:
    for text in TEXTS:
        turns = turn(text, text[::-1])
        id = await say(store, text, text, turns)
        found = await store.get(id)
        assert found is not None
        assert (found[0].tenant, found[0].session, found[0].last_message) == (text, text, text[::-1])
        assert await store.recent(id, 10) == turns


@pytest.mark.skipif(not NAUGHTY.is_file(), reason="the shared data (../shared/security/blns) is absent")
async def test_naughty_strings_come_back_as_they_were(store: ConversationStore) -> None:
    texts = json.loads(NAUGHTY.read_text("utf-8"))
    assert len(texts) > 500
    turns = [said for text in texts for said in turn(text, text)]
    id = await say(store, "t", "s", turns[:200])
    assert await store.recent(id, 200) == turns[:200]
    for number, text in enumerate(texts):
        id = await say(store, f"t{number}", text, turn(text, text))
        assert [said.content for said in await store.recent(id, 2)] == [text, text]


async def test_concurrent_and_cancelled_turns_stay_whole_and_with_their_tenant(store: ConversationStore) -> None:
    chance, turnstile = random.Random(3), Turnstile()
    kept: dict[str, list[str]] = {"a": [], "b": []}

    async def one_turn(tenant: str, number: int) -> None:
        async with turnstile.turn(tenant, "same"):
            id = await store.open(tenant, "same")
            history = [said.content for said in await store.recent(id, 1000)]
            assert all(content.startswith(tenant) for content in history)
            await store.append(tenant, "same", id, turn(f"{tenant}{number}?", f"{tenant}{number}!"))
            kept[tenant].append(f"{tenant}{number}")

    tasks = [asyncio.create_task(one_turn(tenant, number)) for number in range(80) for tenant in "ab"]
    for task in tasks:
        if chance.random() < 0.5:
            asyncio.get_running_loop().call_later(chance.random() * 0.05, task.cancel)
    await asyncio.wait(tasks)
    assert not [task for task in tasks if not task.cancelled() and task.exception()]
    for tenant, said in kept.items():
        contents = [found.content for found in await store.recent(await store.open(tenant, "same"), 1000)]
        pairs = list(zip(contents[::2], contents[1::2], strict=True))
        assert all(question[:-1] == answer[:-1] for question, answer in pairs)
        stored = [question[:-1] for question, _ in pairs]
        assert [name for name in stored if name in said] == said  # a cancelled turn may have been stored, whole
    assert (turnstile.waiting, len(turnstile)) == (0, 0)

"""What every store of conversations does."""

import asyncio
import json
from pathlib import Path

import pytest

from sluice.conversations import ConversationStore, Turn

BLNS = Path(__file__).parents[3] / "shared/security/blns/blns.json"


def turn(text: str, at: float = 1.0, *, role: str = "user", interrupted: bool = False) -> Turn:
    return Turn(role, text, at, interrupted)  # type: ignore[arg-type]


async def say(store: ConversationStore, tenant: str, session: str, *turns: Turn) -> str:
    id = await store.open(tenant, session)
    await store.append(tenant, session, id, turns)
    return id


async def test_the_id_of_a_session_stays_the_same_before_and_after_its_first_turn(
    store: ConversationStore,
) -> None:
    id = await store.open("acme", "s")
    assert await store.open("acme", "s") == id
    await store.append("acme", "s", id, [turn("hello")])
    assert await store.open("acme", "s") == id


async def test_ids_are_long_and_never_alike(store: ConversationStore) -> None:
    ids = [await store.open("acme", f"s{n}") for n in range(100)]
    assert len(set(ids)) == 100
    assert min(map(len, ids)) >= 22  # 128 bits and more


async def test_a_session_without_a_turn_is_not_listed(store: ConversationStore) -> None:
    id = await store.open("acme", "s")
    assert await store.newest(10) == ([], 0)
    assert await store.get(id) is None
    assert await store.recent(id, 10) == []


async def test_an_empty_turn_stores_nothing(store: ConversationStore) -> None:
    id = await say(store, "acme", "s")
    assert await store.get(id) is None


async def test_turns_come_back_as_they_went_in_and_in_their_order(store: ConversationStore) -> None:
    turns = [
        turn("one", 1.25),
        turn("two", 2.5, role="assistant", interrupted=True),
        turn("", 3.0),
        Turn("assistant", "thought of", 3.0, thoughts='[["Hm.","sig",""]]'),
        turn("four", 2.0, role="assistant"),  # the clock has stepped back: order is that of appending
    ]
    id = await say(store, "acme", "s", *turns[:2])
    await say(store, "acme", "s", *turns[2:])
    assert await store.recent(id, 100) == turns
    found = await store.get(id)
    assert found is not None
    conversation, all_turns = found
    assert all_turns == turns
    assert (conversation.created, conversation.updated, conversation.last_message) == (1.25, 2.0, "four")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0, []), (1, ["3"]), (2, ["2", "3"]), (4, ["0", "1", "2", "3"]), (9, ["0", "1", "2", "3"])],
)
async def test_recent_gives_the_last_ones_oldest_first(
    store: ConversationStore, limit: int, expected: list[str]
) -> None:
    id = await say(store, "acme", "s", *(turn(str(n)) for n in range(4)))
    assert [found.content for found in await store.recent(id, limit)] == expected


async def test_newest_gives_the_ones_updated_last_first_and_counts_all(store: ConversationStore) -> None:
    for at, session in enumerate("abcd"):
        await say(store, "acme", session, turn(session, at))
    await say(store, "acme", "a", turn("again", 9))
    conversations, count = await store.newest(3)
    assert ([found.session for found in conversations], count) == (["a", "d", "c"], 4)
    assert await store.newest(0) == ([], 4)


async def test_the_preview_of_a_long_message_is_short(store: ConversationStore) -> None:
    await say(store, "acme", "s", turn("é" * 100_000))
    [conversation], _ = await store.newest(1)
    assert conversation.last_message == "é" * 200


async def test_two_tenants_with_the_same_session_never_see_each_other(store: ConversationStore) -> None:
    async def talk(tenant: str) -> None:
        for n in range(50):
            await say(
                store, tenant, "same", turn(f"{tenant} {n}"), turn(f"to {tenant} {n}", role="assistant")
            )

    await asyncio.gather(talk("acme"), talk("umbrella"))
    ids = {tenant: await store.open(tenant, "same") for tenant in ("acme", "umbrella")}
    assert ids["acme"] != ids["umbrella"]
    for tenant, id in ids.items():
        expected = [text for n in range(50) for text in (f"{tenant} {n}", f"to {tenant} {n}")]
        assert [found.content for found in await store.recent(id, 1000)] == expected


async def test_names_that_only_look_alike_are_other_sessions(store: ConversationStore) -> None:
    names = [
        ("a", "b"),
        ("a", "B"),
        ("a", "b "),
        ("a\0b", ""),
        ("a", "\0b"),
        ("ab", ""),
        ("", "ab"),
        ("a", "%"),
        ("é", "s"),
        ("e\u0301", "s"),
    ]
    ids = [await say(store, tenant, session, turn(f"{tenant}/{session}")) for tenant, session in names]
    assert len(set(ids)) == len(names)
    for (tenant, session), id in zip(names, ids, strict=True):
        assert await store.recent(id, 9) == [turn(f"{tenant}/{session}")]


async def test_concurrent_turns_are_stored_whole(store: ConversationStore) -> None:
    id = await store.open("acme", "s")

    async def one(n: int) -> None:
        await store.append("acme", "s", id, [turn(f"q{n}"), turn(f"a{n}", role="assistant")])

    await asyncio.gather(*(one(n) for n in range(200)))
    contents = [found.content for found in await store.recent(id, 1000)]
    pairs = list(zip(contents[::2], contents[1::2], strict=True))
    assert sorted(pairs) == sorted((f"q{n}", f"a{n}") for n in range(200))


async def test_a_cancelled_turn_is_stored_whole_or_not_at_all(store: ConversationStore) -> None:
    id = await store.open("acme", "s")
    tasks = []
    for n in range(100):
        pair = [turn(f"q{n}"), turn(f"a{n}", role="assistant")]
        tasks.append(asyncio.ensure_future(store.append("acme", "s", id, pair)))
        await asyncio.sleep(0)
        if n % 2:
            tasks[-1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    contents = [found.content for found in await store.recent(id, 1000)]
    assert {f"q{n}" for n in range(0, 100, 2)} <= set(contents)
    assert [text.replace("q", "a") for text in contents[::2]] == contents[1::2]


async def test_hostile_texts_come_back_unchanged(store: ConversationStore) -> None:
    texts = [
        "\0",
        "a\0b",
        "'; DROP TABLE turn; --",
        "\r\n",
        "\ud7ff\ue000\U0010ffff",
        " " * 1000,
        "\u202e",
        "x" * 1_000_000,
    ]
    if BLNS.is_file():
        texts += json.loads(BLNS.read_text("utf-8"))
    else:
        print(f"only {len(texts)} texts of our own: ../shared/security/blns is not there")
    for number, text in enumerate(dict.fromkeys(texts)):
        id = await say(
            store, f"tenant {text}", text, turn(text, number), turn(text, number, role="assistant")
        )
        assert [found.content for found in await store.recent(id, 9)] == [text, text], repr(text)
        found = await store.get(await store.open(f"tenant {text}", text))
        assert found is not None
        assert (found[0].tenant, found[0].session) == (f"tenant {text}", text)


async def test_an_unknown_id_is_no_conversation(store: ConversationStore) -> None:
    await say(store, "acme", "s", turn("hello"))
    assert await store.get("nothing") is None
    assert await store.recent("nothing", 5) == []


async def test_closing_twice_is_harmless(store: ConversationStore) -> None:
    await store.close()
    await store.close()


async def test_a_conversation_that_is_deleted_is_gone_and_begins_anew(store: ConversationStore) -> None:
    id, other = await say(store, "acme", "s", turn("secret")), await say(store, "acme", "other", turn("kept"))
    assert await store.delete(id)
    assert not await store.delete(id)
    assert not await store.delete("nothing")
    assert await store.get(id) is None
    assert await store.recent(id, 9) == []
    assert ([found.id for found in (await store.newest(9))[0]], (await store.newest(9))[1]) == ([other], 1)
    again = await say(store, "acme", "s", turn("anew"))
    assert [found.content for found in await store.recent(again, 9)] == ["anew"]


async def test_what_a_tenant_has_is_deleted_and_nobody_else_s(store: ConversationStore) -> None:
    for n in range(0, 450, 50):
        await asyncio.gather(*(say(store, "acme", str(m), turn("secret")) for m in range(n, n + 50)))
    kept = await say(store, "acme2", "s", turn("kept"))
    assert await store.delete_of("acme") == 450
    assert await store.delete_of("acme") == 0
    assert [found.id for found in (await store.newest(9))[0]] == [kept]

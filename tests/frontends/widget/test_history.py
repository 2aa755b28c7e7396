"""GET /v1/chat/messages: what a session's caller gets of it, what others get, and what is refused."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sluice.conversations import ConversationsFailed, Turn
from sluice.conversations.memory import MemoryConversations
from sluice.identity.keys import digest_of
from sluice.policies.turns import MAX_HISTORY_CHARACTERS
from tests.api.serving import CONFIG, KEY, PAGE, FakeRequest, Served, served

OTHER = "sk-sluice-other"
ELSEWHERE = "https://elsewhere.example.com"
WITH_TOKENS = (
    CONFIG.replace(
        "keys: [", f'keys: [{{id: other, digest: "{digest_of(OTHER)}", default_alias: chat, tenant: other}}, '
    )
    + f"tokens: {{secret: {'s' * 40}}}\n"
)
MESSAGES = "/v1/chat/messages"


async def chat(there: Served, session: str, message: str, **more: Any) -> None:
    body = {"sessionId": session, "message": message}
    assert (await there.ask("POST", "/v1/chat", body, **more)).status == 200


async def read(there: Served, session: str, query: str = "", **more: Any) -> FakeRequest:
    return await there.ask("GET", f"{MESSAGES}?sessionId={session}{query}", **more)


def texts(answer: FakeRequest) -> list[tuple[str, str]]:
    assert answer.status == 200, answer.answer
    return [(one["role"], one["content"]) for one in answer.json["messages"]]


async def token_for(there: Served, **wanted: Any) -> str:
    minted = await there.ask("POST", "/v1/tokens", {"origin": PAGE, **wanted})
    assert minted.status == 200, minted.answer
    token: str = minted.json["token"]
    return token


async def test_the_messages_of_a_session_come_newest_last_with_their_times() -> None:
    async with served() as there:
        await chat(there, "s", "one")
        await chat(there, "s", "two")
        answer = await read(there, "s")
        assert texts(answer) == [
            ("user", "one"),
            ("assistant", "You said: one"),
            ("user", "two"),
            ("assistant", "Turn 2, you said: two"),
        ]
        assert answer.json["sessionId"] == "s"
        assert {frozenset(one) for one in answer.json["messages"]} == {
            frozenset(("role", "content", "createdAt"))
        }
        times = [one["createdAt"] for one in answer.json["messages"]]
        assert times == sorted(times)
        assert answer.told["cache-control"] == "no-store"
        assert texts(await read(there, "s", "&limit=3")) == texts(answer)[1:]
        assert texts(await read(there, "s", "&limit=1")) == texts(answer)[3:]


async def test_nothing_of_the_system_prompt_or_the_reasoning_is_in_it() -> None:
    async with served(CONFIG.replace("resumable: true", "resumable: true, system: hush-hush")) as there:
        await chat(there, "s", "hi")
        cut = [
            Turn("user", "and?", 5.0),
            Turn("assistant", "half", 6.5, interrupted=True, thoughts='[["hush-hush","x",""]]'),
        ]
        store = there.runtime.conversations
        await store.append("test", "s", await store.open("test", "s"), cut)
        answer = await read(there, "s")
        assert texts(answer)[2:] == [("user", "and?"), ("assistant", "half")]
        assert answer.json["messages"][3] == {
            "role": "assistant",
            "content": "half",
            "createdAt": "1970-01-01T00:00:06.500Z",
            "interrupted": True,
        }
        assert b"hush-hush" not in answer.answer


async def test_a_session_that_there_is_not_looks_like_one_without_a_turn_and_as_one_of_another_tenant() -> (
    None
):
    async with served(WITH_TOKENS) as there:
        await chat(there, "s", "mine")
        for answer in (await read(there, "none"), await read(there, "s", key=OTHER)):
            assert answer.status == 200
            assert answer.json["messages"] == []
        listed, total = await there.runtime.conversations.newest(10)
        assert (len(listed), total) == (1, 1)  # reading begins none


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "sessionId"),
        ("?sessionId=", "sessionId"),
        ("?sessionId=a%20b", "sessionId"),
        ("?sessionId=s%0A", "sessionId"),
        (f"?sessionId={'s' * 129}", "sessionId"),
        *((f"?sessionId=s&limit={limit}", "limit") for limit in ("0", "201", "-1", "x", "1.5", "0001", "٣")),
    ],
)
async def test_a_wrong_query_is_refused_by_the_field_s_name(query: str, field: str) -> None:
    async with served() as there:
        answer = await there.ask("GET", MESSAGES + query)
        assert (answer.status, answer.json["error"]) == (400, "Invalid query parameters")
        assert [one["field"] for one in answer.json["details"]] == [field]


async def test_a_token_reads_the_sessions_that_it_may_chat_in_and_no_other_s() -> None:
    async with served(WITH_TOKENS) as there:
        page: dict[str, Any] = {"headers": {"origin": PAGE}}
        await chat(there, "s", "the key's own")
        seventeen = await token_for(there, sessionPrefix="visitor-17:", ownSessions=True)
        eighteen = await token_for(there, sessionPrefix="visitor-18:", ownSessions=True)
        await chat(there, "s", "of seventeen", key=seventeen, **page)
        mine = await read(there, "s", key=seventeen, **page)
        assert texts(mine)[0] == ("user", "of seventeen")
        assert mine.told["access-control-allow-origin"] == PAGE
        again = await token_for(there, sessionPrefix="visitor-17:", ownSessions=True)
        assert texts(await read(there, "s", key=again, **page)) == texts(mine)  # after a reload
        for session in ("s", "visitor-17::s", "visitor-17:s"):
            assert texts(await read(there, session, key=eighteen, **page)) == []
        assert texts(await read(there, "visitor-17::s")) == texts(mine)  # its server, by the key


@pytest.mark.parametrize("session", ["visitor-17:s", "visitor-18:s", "s"])
async def test_a_session_that_is_not_the_token_s_is_refused_whether_there_is_one_or_not(session: str) -> None:
    async with served(WITH_TOKENS) as there:
        await chat(there, "visitor-17:s", "hi")
        token = await token_for(there, sessionPrefix="visitor-19:")
        answer = await read(there, session, key=token, headers={"origin": PAGE})
        assert (answer.status, answer.json["error"]) == (403, "Forbidden")


@pytest.mark.parametrize("origin", [ELSEWHERE, ""])
async def test_a_token_reads_from_its_origin_alone(origin: str) -> None:
    async with served(WITH_TOKENS) as there:
        token = await token_for(there, sessionPrefix="v:", ownSessions=True)
        answer = await read(there, "s", key=token, headers={"origin": origin})
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.told


async def test_a_page_s_preflight_and_wrong_methods_and_keys() -> None:
    async with served() as there:
        preflight = await there.ask("OPTIONS", MESSAGES, key="", headers={"origin": PAGE})
        assert preflight.status == 204
        assert "GET" in preflight.told["access-control-allow-methods"]
        assert "x-widget-api-key" in preflight.told["access-control-allow-headers"]
        assert (await there.ask("POST", MESSAGES, {})).status == 405
        assert (await read(there, "s", key="sk-wrong")).status == 401
        assert (await there.ask("GET", MESSAGES, key="")).status == 401


async def test_it_counts_against_the_address() -> None:
    async with served(CONFIG.replace("address: null", "address: { rate: 2/min, burst: 2 }")) as there:
        assert [(await read(there, "s")).status for _ in range(3)] == [200, 200, 429]
        assert (await read(there, "s")).json["error"] == "Too many requests"


class Failing(MemoryConversations):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def recent(self, id: str, limit: int) -> list[Turn]:
        raise self.error


@pytest.mark.parametrize(
    "error", [ConversationsFailed("timeout"), ConversationsFailed("key"), OSError(), TimeoutError()]
)
async def test_a_store_that_does_not_answer_is_said_so_and_counted(error: Exception) -> None:
    async with served() as there:
        there.runtime.turns._store = Failing(error)
        answer = await read(there, "s")
        assert (answer.status, answer.json["error"], answer.json["code"]) == (
            503,
            "Service unavailable",
            "unavailable",
        )
        [line] = [line for line in there.log if line["event"] == "conversation_not_kept"]
        assert line["operation"] == "recent"


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ([1, MAX_HISTORY_CHARACTERS - 1], 2),
        ([1, MAX_HISTORY_CHARACTERS], 1),
        ([1, 1, MAX_HISTORY_CHARACTERS // 2, MAX_HISTORY_CHARACTERS // 2], 2),
        ([1, MAX_HISTORY_CHARACTERS + 1], 1),
    ],
)
async def test_long_messages_are_fewer_and_the_newest_is_always_there(
    sizes: Sequence[int], left: int
) -> None:
    async with served() as there:
        store = there.runtime.conversations
        turns = [Turn("user", "x" * size, 1.0) for size in sizes]
        await store.append("test", "s", await store.open("test", "s"), turns)
        assert await there.runtime.turns.past("test", "s", 50) == turns[-left:]


async def test_it_waits_for_no_turn_that_is_running_and_the_log_does_not_have_the_session() -> None:
    async with served(CONFIG.replace("{backend: echo}", "{backend: echo, delay: 1h}")) as there:
        running = asyncio.create_task(chat(there, "secret-session", "hi"))
        while not there.runtime.pipeline.runs:
            await asyncio.sleep(0)
        assert texts(await read(there, "secret-session")) == []
        running.cancel()
        await asyncio.wait([running])
        assert "secret-session" not in str(there.log)
        assert any(line.get("route") == MESSAGES for line in there.log)
    assert KEY not in str(there.log)

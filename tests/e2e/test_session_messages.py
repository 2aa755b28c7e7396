"""What was said in a session is read again, from every kind of store, over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.servers import postgres_server, redis_server

HEADERS = {"x-api-key": KEY}


def config(state: str) -> str:
    return f"""{HEAD}
state: "{state}"
upstreams: {{echo: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """The address of a store of this kind."""
    match kind:
        case "memory":
            yield "memory"
        case "sqlite":
            yield f"sqlite:{folder}/conversations.db"
        case "redis":
            with redis_server() as server:
                yield server.url
        case _:
            with postgres_server() as database:
                yield database.url


async def said(g: Running, session: aiohttp.ClientSession, name: str, query: str = "") -> list[str]:
    async with session.get(f"{g.url}/v1/chat/messages?sessionId={name}{query}", headers=HEADERS) as response:
        assert response.status == 200, await response.text()
        return [f"{one['role']}: {one['content']}" for one in (await response.json())["messages"]]


async def turn(g: Running, session: aiohttp.ClientSession, name: str, message: str) -> None:
    body = {"sessionId": name, "message": message}
    async with session.post(f"{g.url}/v1/chat/stream", json=body, headers=HEADERS) as response:
        assert b'"done"' in await response.read()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "postgres"])
async def test_a_turn_whose_end_was_read_is_among_the_messages_of_its_session(
    kind: str, tmp_path: Path
) -> None:
    with store(kind, tmp_path) as state:
        async with aiohttp.ClientSession() as session:
            async with gateway(config(state)) as g:
                assert await said(g, session, "s") == []
                await turn(g, session, "s", "one")
                await turn(g, session, "other", "elsewhere")
                await turn(g, session, "s", "zwei ä\n\U0001f600")
                expected = [
                    "user: one",
                    "assistant: You said: one",
                    "user: zwei ä\n\U0001f600",
                    "assistant: Turn 2, you said: zwei ä\n\U0001f600",
                ]
                assert await said(g, session, "s") == expected
                assert await said(g, session, "s", "&limit=3") == expected[1:]
                assert await said(g, session, "none") == []
            if kind != "memory":
                async with gateway(config(state)) as g:  # another process, later
                    assert await said(g, session, "s") == expected


@pytest.mark.usefixtures("every_server")
async def test_the_messages_are_there_on_every_server() -> None:
    async with gateway(config("memory")) as g, aiohttp.ClientSession() as session:
        await turn(g, session, "s", "one")
        assert await said(g, session, "s") == ["user: one", "assistant: You said: one"]


async def test_while_the_store_is_down_no_history_is_said_to_be_empty() -> None:
    with redis_server() as server:
        async with gateway(config(server.url)) as g, aiohttp.ClientSession() as session:
            await turn(g, session, "s", "one")
            server.kill()
            url = f"{g.url}/v1/chat/messages?sessionId=s"
            async with session.get(url, headers=HEADERS) as response:
                body = await response.json()
                assert (response.status, body["error"]) == (503, "Service unavailable")
            assert g.metric('sluice_conversation_store_errors_total{op="recent",store="redis"}') == 1
            server.start()

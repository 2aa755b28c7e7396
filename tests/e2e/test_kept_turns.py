"""A turn whose answer is complete is stored, whatever becomes of its client and of the process, and before
the next one."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from sluice.conversations import Turn
from sluice.conversations.memory import MemoryConversations
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.e2e.test_disconnect import Caller
from tests.upstream.calls import until

HEADERS = {"x-api-key": KEY}
MODES = pytest.mark.parametrize("path", ["/v1/chat/stream", "/v1/chat"])


def config(echo: str = "", alias: str = "") -> str:
    return f"""{HEAD}
upstreams: {{echo: {{backend: echo{echo}}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]{alias}}}}}
"""


class Waiting(MemoryConversations):
    """A store that has to wait until the test opens `gate`. `begun` counts the turns that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.begun = 0
        self.closed = False
        self.fails: Exception | None = None

    def append_now(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> bool:
        return False

    async def append(self, tenant: str, session: str, id: str, turns: Sequence[Turn]) -> None:
        self.begun += 1
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        assert not self.closed
        super().append_now(tenant, session, id, turns)

    async def close(self) -> None:
        self.closed = True

    def turns(self) -> list[Turn]:
        """Of the only session."""
        return [turn for kept in self._kept.values() for turn in kept.turns]


def waiting(g: Running) -> Waiting:
    """Put it in the place of the gateway's store."""
    store = g.runtime.conversations._store = Waiting()
    return store


async def caller(g: Running, path: str, message: str = "hi") -> Caller:
    """A client on a raw socket that has sent a turn of session "s"."""
    _, made = await asyncio.get_running_loop().create_connection(Caller, *g.address)
    body = json.dumps({"sessionId": "s", "message": message}).encode()
    head = (
        f"POST {g.prefix}{path} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
    )
    made.transport.write(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    return made


async def turn(client: aiohttp.ClientSession, message: str) -> str:
    """One whole turn of session "s"; what was answered."""
    async with client.post("/v1/chat", json={"sessionId": "s", "message": message}) as response:
        assert response.status == 200, await response.text()
        text: str = json.loads(await response.text())["message"]
        return text


def told(store: Waiting) -> list[tuple[str, str, bool]]:
    return [(turn.role, turn.content, turn.interrupted) for turn in store.turns()]


@pytest.mark.usefixtures("every_server")
@MODES
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_leaves_while_its_turn_is_being_stored_loses_nothing(path: str, how: str) -> None:
    async with gateway(config()) as g:
        store = waiting(g)
        client = await caller(g, path)
        await until(lambda: store.begun == 1)
        getattr(client.transport, how)()
        await until(lambda: not g.connected and not g.runtime.pipeline.runs)
        store.gate.set()
        await until(lambda: len(store.turns()) == 2)
        assert told(store) == [("user", "hi", False), ("assistant", "You said: hi", False)]
        [line] = g.requests
        assert line["end"] == "done"


async def test_the_next_turn_waits_for_the_one_before_it_though_its_client_has_left() -> None:
    async with gateway(config()) as g, aiohttp.ClientSession(g.url, headers=HEADERS) as client:
        store = waiting(g)
        first = await caller(g, "/v1/chat/stream", "one")
        await until(lambda: store.begun == 1)
        first.transport.abort()
        second = asyncio.create_task(turn(client, "two"))
        await until(lambda: g.metric('sluice_requests_waiting{alias="chat"}') == 1)
        store.gate.set()
        assert await second == "Turn 2, you said: two"
        assert [text for _, text, _ in told(store)] == [
            "one",
            "You said: one",
            "two",
            "Turn 2, you said: two",
        ]


@MODES
async def test_the_end_of_an_answer_is_sent_when_its_turn_is_stored(path: str) -> None:
    async with gateway(config(", tokens: 5, delay: 1ms")) as g:
        store = waiting(g)
        client = await caller(g, path)
        await until(lambda: store.begun == 1)
        [run] = g.runtime.pipeline.runs
        assert run.unsent_end is not None
        assert b"done" not in client.received
        store.gate.set()
        await until(lambda: client.received.endswith((b"0\r\n\r\n", b"}")))
        assert len(store.turns()) == 2
        client.transport.close()


async def test_an_answer_ends_though_its_store_takes_too_long_and_the_next_turn_still_waits() -> None:
    async with gateway(config()) as g, aiohttp.ClientSession(g.url, headers=HEADERS) as client:
        store = waiting(g)
        g.runtime.turns.patience = 0.01
        assert await turn(client, "one") == "You said: one"
        assert store.turns() == []
        second = asyncio.create_task(turn(client, "two"))
        await until(lambda: g.metric('sluice_requests_waiting{alias="chat"}') == 1)
        store.gate.set()
        assert await second == "Turn 2, you said: two"


async def test_the_alias_s_deadline_does_not_take_the_end_from_a_complete_answer() -> None:
    async with (
        gateway(config(alias=", timeout: 50ms")) as g,
        aiohttp.ClientSession(g.url, headers=HEADERS) as client,
    ):
        store = waiting(g)
        g.runtime.turns.patience = 60.0
        assert await turn(client, "one") == "You said: one"
        assert store.turns() == []
        store.gate.set()


@pytest.mark.parametrize("error", [OSError("full"), ValueError("a fault of the store's")])
async def test_a_store_that_fails_keeps_no_session_waiting(error: Exception) -> None:
    async with gateway(config()) as g, aiohttp.ClientSession(g.url, headers=HEADERS) as client:
        store = waiting(g)
        store.fails = error
        store.gate.set()
        assert await turn(client, "one") == await turn(client, "one")
        assert g.metric('sluice_conversation_store_errors_total{op="append",store="memory"}') == 2
        assert {line["error"] for line in g.log_lines if line["event"] == "conversation_not_kept"} == {
            type(error).__name__
        }


@pytest.mark.parametrize("how", ["at its end", "in the middle"])
async def test_leaving_waits_for_the_turns_that_are_being_stored(how: str) -> None:
    async with gateway(
        config(", tokens: 3, first_token_delay: 0s, delay: 60s" if how == "in the middle" else "")
    ) as g:
        store = waiting(g)
        client = await caller(g, "/v1/chat/stream")
        await until(
            lambda: b'"type":"token"' in client.received if how == "in the middle" else store.begun == 1
        )
        leaving = asyncio.create_task(g.__aexit__(None, None, None))
        await until(lambda: store.begun == 1 and not g.runtime.pipeline.runs)
        assert not store.closed
        store.gate.set()
        await leaving
        assert store.closed
        assert told(store)[0] == ("user", "hi", False)
        assert [interrupted for _, _, interrupted in told(store)] == [False, how == "in the middle"]


async def test_what_a_memory_store_keeps_is_kept_before_the_end_is_sent_and_without_a_task() -> None:
    async with gateway(config()) as g, aiohttp.ClientSession(g.url, headers=HEADERS) as client:
        tasks: list[Any] = []
        append_now = g.runtime.conversations.append_now

        def noting(*arguments: Any) -> bool:
            [run] = g.runtime.pipeline.runs
            tasks.append((run.unsent_end, run.writer.begun))
            return append_now(*arguments)

        g.runtime.conversations.append_now = noting  # type: ignore[method-assign]
        assert await turn(client, "one") == "You said: one"
        assert tasks == [(None, False)]
        assert not g.runtime.turns._storing


async def test_a_shadow_stores_no_turn() -> None:
    shadow = ", shadow: {upstream: echo, model: other, share: 1.0}"
    async with (
        gateway(config(", tokens: 5, delay: 1ms", shadow)) as g,
        aiohttp.ClientSession(g.url, headers=HEADERS) as client,
    ):
        store = waiting(g)
        store.gate.set()
        await turn(client, "one")
        await until(lambda: not g.runtime.pipeline.shadows.runs)
        assert store.begun == 1

"""Conversations in a store of several hosts, over HTTP: listed, forgotten, and a store that is down."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.servers import redis_server
from tests.upstream.calls import until

HEADERS = {"x-api-key": KEY, "x-admin-api-key": KEY}
BASE = "/v1/admin/conversations"


def config(state: str) -> str:
    return f"""{HEAD}
state: "{state}"
upstreams: {{echo: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""


class Client:
    def __init__(self, g: Running, session: aiohttp.ClientSession) -> None:
        self._g = g
        self._session = session

    async def turn(self, name: str) -> tuple[str, str]:
        """What was answered to a turn of this session, and the header that says that there was no history."""
        body = {"sessionId": name, "message": "hi"}
        async with self._session.post(f"{self._g.url}/v1/chat", json=body, headers=HEADERS) as response:
            assert response.status == 200
            return (await response.json())["message"], response.headers.get("x-sluice-history", "")

    async def admin(self, method: str, path: str = "", key: str = KEY) -> tuple[int, Any]:
        url = f"{self._g.url}{BASE}{path}"
        async with self._session.request(method, url, headers={"x-admin-api-key": key}) as response:
            return response.status, await response.json()


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_conversations_are_forgotten_one_by_one_or_all_of_a_tenant(kind: str) -> None:
    with redis_server() as server:
        state = "memory" if kind == "memory" else server.url
        async with gateway(config(state)) as g, aiohttp.ClientSession() as session:
            client = Client(g, session)
            for name in "abcd":
                await client.turn(name)
            assert (await client.turn("a"))[0] == "Turn 2, you said: hi"
            _, listed = await client.admin("GET")
            ids = {one["sessionId"]: one["_id"] for one in listed["conversations"]}
            assert await client.admin("DELETE", f"/{ids['a']}", key="sk-wrong") != (
                200,
                {"id": ids["a"], "deleted": True},
            )
            assert await client.admin("DELETE", f"/{ids['a']}") == (200, {"id": ids["a"], "deleted": True})
            assert (await client.admin("DELETE", f"/{ids['a']}"))[0] == 404
            assert (await client.turn("a"))[0] == "You said: hi"
            assert (await client.admin("DELETE"))[0] == 400
            assert await client.admin("DELETE", "?tenant=nobody") == (200, {"deleted": 0})
            assert await client.admin("DELETE", "?tenant=test&session=b") == (200, {"deleted": 1})
            assert await client.admin("DELETE", "?tenant=test&session=b") == (200, {"deleted": 0})
            for name in ("u1-a", "u1-b"):
                await client.turn(name)
            assert (await client.admin("DELETE", "?tenant=test&session_prefix="))[0] == 400
            assert (await client.admin("DELETE", "?tenant=test&session_prefix=u1-&session=a"))[0] == 400
            # misspelt: not all of the tenant
            status, refused = await client.admin("DELETE", "?tenant=test&sessionPrefix=u1-")
            assert (status, "Unknown parameter sessionPrefix" in str(refused)) == (400, True)
            assert await client.admin("DELETE", "?tenant=test&session_prefix=u1-") == (200, {"deleted": 2})
            assert await client.admin("DELETE", "?tenant=test") == (200, {"deleted": 3})
            assert (await client.admin("GET"))[1]["total"] == 0


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_messages_have_ids_that_stay_and_their_times_in_milliseconds(kind: str, tmp_path: Path) -> None:
    async with (
        gateway(config("memory" if kind == "memory" else f"sqlite:{tmp_path}/s.db")) as g,
        aiohttp.ClientSession() as session,
    ):
        client = Client(g, session)
        await client.turn("a")
        await client.turn("a")
        (listed,) = (await client.admin("GET"))[1]["conversations"]
        found = (await client.admin("GET", f"/{listed['_id']}"))[1]
        assert found["conversation"] == listed
        assert len({message["_id"] for message in found["messages"]}) == 4
        for one in (listed, *found["messages"]):
            created = datetime.fromisoformat(one["createdAt"]).timestamp()
            assert one["_creationTime"] == pytest.approx(created * 1000, abs=1)
        await client.turn("a")
        again = (await client.admin("GET", f"/{listed['_id']}"))[1]["messages"]
        assert again[:4] == found["messages"]


async def test_a_bad_limit_is_told_as_a_query_s() -> None:
    async with gateway(config("memory")) as g, aiohttp.ClientSession() as session:
        status, body = await Client(g, session).admin("GET", "?limit=201")
        assert (status, body["error"]) == (400, "Invalid query parameters")
        assert body["details"][0]["field"] == "limit"


@pytest.mark.parametrize("path", ["/health", "/v1/openapi.json"])
async def test_any_page_may_read_what_is_the_same_for_everybody(path: str) -> None:
    async with gateway(config("memory")) as g, aiohttp.ClientSession() as session:
        for headers in ({}, {"origin": "https://elsewhere.example"}):
            async with session.get(g.url + path, headers=headers) as response:
                assert response.status == 200
                assert response.headers.getall("access-control-allow-origin") == ["*"]
                assert response.headers["cache-control"] == "no-store"
        async with session.get(g.url + "/v1/models", headers={"x-api-key": KEY}) as response:
            assert "access-control-allow-origin" not in response.headers


async def test_what_is_not_to_be_kept_is_deleted_beside_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.conversations.sweeper.EVERY", 0.02)
    text = config("memory") + "retention: {age: 30d, messages: 4, conversations: 2}\n"
    async with gateway(text) as g, aiohttp.ClientSession() as session:
        client = Client(g, session)
        for name in "baaac":  # the same is deleted whenever it is swept
            await client.turn(name)

        def deleted(what: str) -> float:
            return g.metric(f'sluice_retention_deleted_total{{what="{what}"}}')

        await until(lambda: deleted("conversations") == 1 and deleted("messages") == 2)
        assert [one["sessionId"] for one in (await client.admin("GET"))[1]["conversations"]] == ["c", "a"]
        assert {"conversations", "messages"} <= next(
            line for line in g.log_lines if line["event"] == "conversations_swept"
        ).keys()


async def test_while_the_store_is_down_calls_go_on_without_history_and_say_so() -> None:
    with redis_server() as server:
        async with gateway(config(f"{server.url}&timeout=5")) as g, aiohttp.ClientSession() as session:
            client = Client(g, session)
            await client.turn("a")
            server.kill()
            assert await client.turn("a") == ("You said: hi", "unavailable")
            assert (await client.admin("GET"))[0] == 503
            assert g.runtime.watches["conversations"].failing == "connection"
            server.start()
            await client.turn("a")
            assert await client.turn("a") == ("Turn 2, you said: hi", "")
            assert g.runtime.watches["conversations"].failing is None


async def lines(g: Running, session: aiohttp.ClientSession, path: str) -> list[Any]:
    async with session.get(f"{g.url}/v1/admin/{path}", headers=HEADERS) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson"), (
            await response.text()
        )
        return [json.loads(line) async for line in response.content]


@pytest.mark.usefixtures("every_server")
async def test_all_that_is_kept_of_a_tenant_is_exported_and_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sluice.api.admin_export.PAGE", 2)
    monkeypatch.setattr("sluice.api.admin_export.MESSAGES", 3)
    async with (
        gateway(config("memory") + "responses: {store: memory}\n") as g,
        aiohttp.ClientSession() as session,
    ):
        client = Client(g, session)
        assert await lines(g, session, "conversations/export") == []
        for name in ("u1-a", "u1-b", "u2-a", "u1-a", "u2-b"):
            await client.turn(name)
        found = await lines(g, session, "conversations/export?tenant=test&session_prefix=u1-")
        assert sorted((line["sessionId"], line["first"], len(line["messages"])) for line in found) == [
            ("u1-a", 0, 3),
            ("u1-a", 3, 1),
            ("u1-b", 0, 2),
        ]
        assert {line["tenant"] for line in found} == {"test"}
        one = await lines(g, session, "conversations/export?tenant=test&session=u1-a")
        assert [(line["sessionId"], line["first"], len(line["messages"])) for line in one] == [
            ("u1-a", 0, 3),
            ("u1-a", 3, 1),
        ]
        assert await lines(g, session, "conversations/export?tenant=test&session=u1-") == []
        assert [m["content"] for line in found if line["sessionId"] == "u1-b" for m in line["messages"]] == [
            "hi",
            "You said: hi",
        ]
        assert len(await lines(g, session, "conversations/export")) == 5
        assert await lines(g, session, "conversations/export?tenant=nobody") == []
        async with session.head(f"{g.url}{BASE}/export", headers=HEADERS) as response:
            assert (response.status, await response.read()) == (200, b"")
        for number in range(5):
            body = {"model": "chat", "input": f"Question {number}"}
            async with session.post(
                f"{g.url}/v1/responses", json=body, headers={"authorization": f"Bearer {KEY}"}
            ) as response:
                assert response.status == 200
        kept = await lines(g, session, "responses/export?tenant=test")
        assert {f"Question {number}" in json.dumps(kept) for number in range(5)} == {True}
        assert all(line["response"]["id"] == line["id"] for line in kept)
        assert len(kept) == 5
        for method, path in (
            ("GET", "responses/export"),
            ("DELETE", "responses"),
            ("GET", "conversations/export?tenant="),
            ("GET", "conversations/export?tenant=test&session_prefix="),
            ("GET", "conversations/export?tenant=test&session="),
            ("GET", "conversations/export?session=u1-a"),
            ("GET", "conversations/export?tenant=test&session=u1-a&session_prefix=u1-"),
            ("GET", "conversations/export?tennant=test"),
            ("GET", "responses/export?tenant=test&session=u1-a"),
            ("DELETE", "responses?tenant=test&session=u1-a"),
        ):
            async with session.request(method, f"{g.url}/v1/admin/{path}", headers=HEADERS) as response:
                assert response.status == 400
        async with session.delete(f"{g.url}/v1/admin/responses?tenant=test", headers=HEADERS) as response:
            assert await response.json() == {"deleted": 5}
        assert await lines(g, session, "responses/export?tenant=test") == []


async def test_an_export_says_what_cannot_be_read_and_is_cut_where_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.api.admin_export.PAGE", 1)
    key = 'encryption: {keys: "' + "1122" * 16 + '"}\n'
    async with gateway(config(f"sqlite:{tmp_path}/s.db") + key) as g, aiohttp.ClientSession() as session:
        for name in "ab":
            await Client(g, session).turn(name)
    async with gateway(config(f"sqlite:{tmp_path}/s.db")) as g, aiohttp.ClientSession() as session:
        assert [line["unreadable"] for line in await lines(g, session, "conversations/export")] == [
            True,
            True,
        ]
        pages = iter([g.runtime.conversations.page])

        async def page(*arguments: Any) -> Any:
            for of in pages:
                return await of(*arguments)
            raise OSError("gone")

        monkeypatch.setattr(g.runtime.conversations, "page", page)
        with pytest.raises(aiohttp.ClientError):
            await lines(g, session, "conversations/export")
        async with session.get(f"{g.url}{BASE}/export", headers=HEADERS) as response:
            assert response.status == 503

"""What somebody else has put into a store (other types, cut or foreign values) stops no call and no page, and hides
nothing that is ours."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as client

from tests.e2e.gateways import DIGEST, KEY, Running, gateway
from tests.servers import postgres_server, redis_server

HEADERS = {"x-api-key": KEY, "x-admin-api-key": KEY}
PAGES = (
    "/v1/admin/conversations", "/v1/admin/conversations/export", "/v1/admin/conversations/export?tenant=acme",
    "/v1/admin/responses/export?tenant=acme", "/admin/keys", "/admin/keys/made", "/admin/usage",
    "/admin/usage?by=day,key,model&format=csv", "/admin/usage?by=hour", "/admin/budgets", "/admin/overview", "/admin/tenants",
    "/readyz?verbose", "/metrics",
)  # fmt: skip


def config(kept: str, limits: str = "memory", resume: str = "memory") -> str:
    return f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
keys:
  - {{id: test, tenant: acme, digest: "{DIGEST}", default_alias: chat, limits: {{budget: {{day: 500, month: 1000}}}}}}
admin: {{digest: "{DIGEST}", store: "{kept}"}}
limits: {{address: null, store: "{limits}"}}
state: "{kept}"
responses: {{store: "{kept}"}}
resume: "{resume}"
usage: {{hourly_days: 8}}
upstreams: {{echo: {{backend: echo, tokens: 2, delay: 0}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]], resumable: true}}}}
prices: {{models: {{m: {{input: 1, output: 1}}}}}}
"""


class Asker:
    """Fills a store through its gateway, and asks for all that is in it."""

    def __init__(self, g: Running, session: aiohttp.ClientSession) -> None:
        self.g = g
        self._session = session
        self._response: dict[str, Any] = {}
        self._stream = ""
        self._conversations: list[str] = []

    async def ask(self, method: str, path: str, **body: Any) -> tuple[int, str]:
        admin = path.startswith(("/admin", "/v1/admin", "/readyz", "/metrics"))
        url = (self.g.admin_url if admin else self.g.url) + path
        async with self._session.request(
            method, url, headers=HEADERS, **({"json": body} if body else {})
        ) as found:
            return found.status, (await found.read()).decode()

    async def call(self, session: str, path: str = "/v1/chat") -> tuple[int, str]:
        return await self.ask("POST", path, sessionId=session, message="hi")

    async def fill(self) -> None:
        for session in ("one", "one", "two", "two"):
            assert (await self.call(session))[0] == 200
        self._response = json.loads((await self.ask("POST", "/v1/responses", model="chat", input="One"))[1])
        _, lines = await self.call("two", "/v1/chat/stream")
        self._stream = json.loads(lines.splitlines()[0])["streamId"]
        assert (await self.ask("POST", "/admin/keys", id="made", tenant="acme", aliases=["chat"]))[0] in (
            200,
            201,
        )
        self._conversations = [one["_id"] for one in await self.listed()]
        assert (await self.ask("GET", "/admin/usage"))[0] == 200  # what was used is brought to the store

    async def listed(self) -> list[dict[str, Any]]:
        status, answer = await self.ask("GET", "/v1/admin/conversations")
        assert status == 200, answer
        found: list[dict[str, Any]] = json.loads(answer)["conversations"]
        return found

    async def everything(self) -> None:
        """Calls go on, and nothing is an error of the gateway's own."""
        for session in ("one", "two", "three"):
            status, answer = await self.call(session)
            assert status == 200, answer
        assert (await self.call("one", "/v1/chat/stream"))[0] == 200
        assert (await self.ask("POST", "/v1/responses", model="chat", input="Two"))[0] == 200
        kept, item = self._response["id"], {"type": "item_reference", "id": self._response["output"][0]["id"]}
        asked: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/v1/responses", {"model": "chat", "input": "Two", "previous_response_id": kept}),
            ("POST", "/v1/responses", {"model": "chat", "input": [item, {"role": "user", "content": "Two"}]}),
            ("GET", f"/v1/responses/{kept}", {}),
            ("GET", f"/v1/responses/{kept}/input_items", {}),
            ("GET", f"/v1/chat/stream/{self._stream}?after=0", {}),
            ("GET", "/v1/chat/messages?sessionId=one", {}),
            ("GET", "/v1/limits", {}),
            *(("GET", page, {}) for page in PAGES),
            *(("GET", f"/v1/admin/conversations/{id}", {}) for id in self._conversations),
            ("PATCH", "/admin/keys/made", {"name": "x"}),
            ("PATCH", "/admin/budgets", {"scope": "key", "owner": "test", "period": "day", "spent": 0.5}),
            ("DELETE", f"/v1/responses/{kept}", {}),
            ("DELETE", "/v1/admin/responses?tenant=acme", {}),
            *(("DELETE", f"/v1/admin/conversations/{id}", {}) for id in self._conversations),
            ("DELETE", "/v1/admin/conversations?tenant=acme", {}),
            ("DELETE", "/admin/keys/made", {}),
        ]
        for method, path, body in asked:
            status, answer = await self.ask(method, path, **body)
            assert status in (200, 204, 400, 404, 409, 503), (method, path, status, answer)
        assert [line for line in self.g.log_lines if line["event"] in ("crash", "library")] == []


@asynccontextmanager
async def filled(text: str) -> AsyncIterator[Asker]:
    async with gateway(text) as g, aiohttp.ClientSession() as session:
        asker = Asker(g, session)
        await asker.fill()
        yield asker


# --- Redis


@asynccontextmanager
async def in_redis() -> AsyncIterator[tuple[Asker, Any, Callable[[], Awaitable[None]]]]:
    """With the server's client, and what puts everything back as it was."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis_server())
        raw = await stack.enter_async_context(client.Redis(port=server.port))
        url = f"{server.url}&timeout=20"
        asker = await stack.enter_async_context(filled(config(url, url, url)))
        dumps = {key: await raw.dump(key) for key in await raw.keys("*")}

        async def restore() -> None:
            await raw.flushdb()
            for key, dump in dumps.items():
                await raw.restore(key, 0, dump, replace=True)

        yield asker, raw, restore


async def spoil(raw: Any, key: bytes, value: bytes) -> None:
    match await raw.type(key):
        case b"string":
            await raw.set(key, value)
        case b"list":
            for place in range(await raw.llen(key)):
                await raw.lset(key, place, value)
        case b"hash":
            for field in await raw.hkeys(key):
                await raw.hset(key, field, value)
            await raw.hset(key, value, value)
        case b"zset":
            await raw.zadd(key, {value: 1e12, b"also" + value: "inf", b"first" + value: "-inf", b"half": 0.5})
        case b"stream":
            await raw.xadd(key, {value: value})


@pytest.mark.parametrize("value", [b"\xff\xfe", b"-7", b"{}", b'["x", 1, null]', b"9" * 400, b"[" * 5000])
async def test_odd_values_in_redis_stop_nothing(value: bytes) -> None:
    async with in_redis() as (asker, raw, _):
        for key in await raw.keys("*"):
            if not key.endswith(b":lease"):  # waited for until it ends, as one of ours is
                await spoil(raw, key, value)
        await asker.everything()


@pytest.mark.parametrize("kind", ["string", "hash", "zset"])
async def test_values_of_other_types_in_redis_stop_nothing(kind: str) -> None:
    async with in_redis() as (asker, raw, _):
        for key in await raw.keys("*"):
            if (await raw.type(key)).decode() != kind:
                await raw.delete(key)
                match kind:
                    case "string":
                        await raw.set(key, b"\xff")
                    case "hash":
                        await raw.hset(key, b"\xff", b"\xff")
                    case _:
                        await raw.zadd(key, {b"\xff": 1})
        await asker.everything()


async def test_what_is_odd_in_redis_hides_nothing_else() -> None:
    async with in_redis() as (asker, raw, restore):
        [one] = [key for key in await raw.keys("*:conversation:*") if await raw.type(key) == b"hash"
                 and await raw.hget(key, "session") == b"one"]  # fmt: skip
        [day] = await raw.keys("*:budget:key:test:2???-??-??")
        [usage] = await raw.keys("sluice:usage:????-??-??")

        async def cut() -> None:
            await raw.hdel(one, "created")

        async def another_type() -> None:
            await raw.delete(one)
            await raw.set(one, "x")

        async def not_text() -> None:
            await raw.hset(one, "tenant", b"\xff")

        async def no_time() -> None:
            await raw.hset(one, "updated", "yesterday")

        for work in (cut, another_type, not_text, no_time):
            await restore()
            await work()
            assert [found["sessionId"] for found in await asker.listed()] == ["two"]
            _, lines = await asker.ask("GET", "/v1/admin/conversations/export")
            assert [json.loads(line)["sessionId"] for line in lines.splitlines()] == ["two"]
        await restore()
        await raw.set(day, "x")
        _, answer = await asker.ask("GET", "/admin/budgets")
        assert [found["period"] for found in json.loads(answer)["budgets"]] == ["month"]
        requests = json.loads((await asker.ask("GET", "/admin/usage"))[1])["total"]["requests"]
        await raw.hset(
            usage, mapping={"x": "1", '["a","b","c","d","requests"]': "x", '["a","b","c","d","input"]': "1.5"}
        )
        assert json.loads((await asker.ask("GET", "/admin/usage"))[1])["total"]["requests"] == requests > 0


async def test_keys_are_followed_though_odd_ones_stand_among_them() -> None:
    async with in_redis() as (asker, raw, _):
        await raw.zadd("{sluice}:keys:revision", {b"\xff": 0.5, "endless": "inf"})
        await raw.hset("{sluice}:keys:data", mapping={b"\xff": b"\xff", "endless": "[" * 5000})
        _, made = await asker.ask("POST", "/admin/keys", id="new", tenant="acme", aliases=["chat"])
        assert json.loads(made)["id"] == "new"
        table = asker.g.state.keys.table
        table.drop("new")  # as another process has it, which has to hear of it
        await raw.hincrby("{sluice}:keys", "generation", 1)
        follower = asker.g.state.keys
        follower._seen = 0
        async with asyncio.timeout(60):
            while table.get("new") is None:
                await asyncio.sleep(0.01)
        await raw.hset("{sluice}:keys", "generation", -7)  # a poll ends nevertheless
        async with asyncio.timeout(60):
            while not follower.down:
                await asyncio.sleep(0.01)
        assert (await asker.ask("GET", "/admin/keys"))[0] == 200


# --- files


@pytest.mark.parametrize("value", [b"\xff\xfe", "x y", float("inf"), -7, None], ids=repr)
async def test_odd_columns_of_a_file_stop_nothing(value: Any, tmp_path: Path) -> None:
    """None: text that is not UTF-8."""
    path = tmp_path / "all.db"
    async with filled(config(f"sqlite:{path}")) as asker:
        database = sqlite3.connect(path, isolation_level=None, timeout=30)
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                if column in ("number", "conversation", "generation") or table == "sluice_part":
                    continue
                new, values = ("?", (value,)) if value is not None else ("CAST(x'fffe41' AS TEXT)", ())
                with suppress(sqlite3.IntegrityError):  # a number that SQLite itself has
                    database.execute(f"UPDATE OR IGNORE {table} SET {column} = {new}", values)
        database.close()
        await asker.everything()


# --- PostgreSQL


@pytest.mark.parametrize("bytes", ["\\xfffe", "[]"])
async def test_odd_columns_of_tables_stop_nothing(bytes: str) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    odd = {
        "bytea": f"'{bytes}'::bytea", "text": "repeat('9', 400)", "double precision": "'NaN'", "bigint": "-7",
        "date": "'infinity'", "timestamp with time zone": "'-infinity'", "ARRAY": f"ARRAY['{bytes}'::bytea]",
    }  # fmt: skip
    with postgres_server() as server:
        async with filled(config(f"{server.url}&timeout=20s")) as asker:
            database = await asyncpg.connect(server.url.partition("&")[0])
            columns = await database.fetch(
                "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_name LIKE 'sluice%'"
            )
            for table, column, kind in columns:
                if kind in odd and column not in ("number", "generation") and table != "sluice_part":
                    try:
                        await database.execute(f"UPDATE {table} SET {column} = {odd[kind]}")
                    except asyncpg.PostgresError:  # a key, or a reference
                        continue
            await database.close()
            await asker.everything()

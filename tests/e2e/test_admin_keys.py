"""Dynamic keys over HTTP: their life, several gateways on one store, a store in trouble, and that nothing
secret gets out."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sluice.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway
from tests.servers import RedisServer, redis_server

CONFIGURED, ADMIN = "sk-sluice-configured", "sk-sluice-admin"
PAGE = "https://shop.example"
HANG = 20
"""Seconds after which a test gives up."""
CONFIG = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
limits: {{address: null}}
admin: {{digest: "{digest_of(ADMIN)}", store: "STORE", pepper: PEPPER}}
upstreams: {{echo: {{backend: echo}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]]}}
  code: {{tiers: [[{{upstream: echo, model: m}}]]}}
keys:
  - {{id: file, digest: "{digest_of(CONFIGURED)}", default_alias: chat, limits: {{requests: {{rate: 10/min}}}}}}
"""


class Operator:
    """A gateway, and a client with the admin's key."""

    def __init__(self, running: Running, client: aiohttp.ClientSession) -> None:
        self.running = running
        self.client = client

    async def ask(
        self, method: str, path: str = "", body: Any = None, admin: str = ADMIN, base: str = ""
    ) -> tuple[int, Any]:
        url = URL(f"{base or self.running.url}/admin/keys{path}", encoded=True)
        async with self.client.request(
            method, url, json=body, headers={"x-admin-api-key": admin}
        ) as response:
            return response.status, await response.json()

    async def make(self, id: str, **fields: Any) -> str:
        """A new key."""
        status, answer = await self.ask("POST", body={"id": id, "default_alias": "chat"} | fields)
        assert status == 201, answer
        key: str = answer["key"]
        return key

    async def use(self, key: str, **headers: str) -> int:
        body = {"sessionId": "s", "message": "hi"}
        async with self.client.post(
            f"{self.running.url}/v1/chat", json=body, headers={"x-api-key": key, **headers}
        ) as response:
            await response.read()
            return response.status


@asynccontextmanager
async def serving(store: str = "memory", pepper: str = "null", more: str = "") -> AsyncIterator[Operator]:
    text = CONFIG.replace("STORE", store).replace("PEPPER", pepper) + more
    async with gateway(text) as running, aiohttp.ClientSession() as client:
        yield Operator(running, client)


async def becomes(expected: object, ask: Callable[..., Awaitable[object]], *arguments: Any) -> None:
    """Ask until that is the answer."""
    async with asyncio.timeout(HANG):
        while await ask(*arguments) != expected:
            pass


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What outlives a gateway and can be shared."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/state.db"
    server: RedisServer = request.getfixturevalue("redis")
    return server.url + "&health_check_interval=0"


async def test_the_life_of_a_key() -> None:
    async with serving() as it:
        status, made = await it.ask(
            "POST", body={"id": "shop", "aliases": ["chat"], "limits": {"requests": {"rate": "500/min"}}}
        )
        key = made.pop("key")
        assert status == 201
        assert key.startswith("sk-sluice-")
        assert (made["id"], made["tenant"], made["source"], made["enabled"], made["last_four"]) == (
            "shop",
            "shop",
            "admin",
            True,
            key[-4:],
        )
        assert made["limits"]["requests"] == {"rate": "500/min", "burst": None}
        assert await it.ask("GET", "/shop") == (200, made)
        assert await it.use(key) == 200
        assert {line["key"] for line in it.running.requests} == {None, "shop"}

        status, changed = await it.ask("PATCH", "/shop", {"enabled": False})
        assert (status, changed) == (200, made | {"enabled": False})
        assert await it.use(key) == 401
        status, changed = await it.ask(
            "PATCH", "/shop", {"enabled": True, "aliases": ["code"], "tenant": "x"}
        )
        assert (status, changed["details"][0]["field"]) == (400, "tenant")
        status, changed = await it.ask(
            "PATCH", "/shop", {"enabled": True, "aliases": ["code", "chat"], "default_alias": "chat"}
        )
        assert (status, changed["aliases"], changed["limits"]) == (200, ["code", "chat"], made["limits"])
        assert await it.use(key) == 200

        status, rotated = await it.ask("POST", "/shop/rotate")
        new = rotated["key"]
        assert (status, rotated["last_four"], rotated["old_key_until"]) == (200, new[-4:], None)
        assert [await it.use(one) for one in (key, new)] == [401, 200]
        assert (await it.ask("POST", "/shop/disable"))[1]["enabled"] is False
        assert await it.use(new) == 401
        assert (await it.ask("POST", "/shop/enable"))[0] == 200
        assert await it.use(new) == 200
        assert await it.ask("DELETE", "/shop") == (200, {"id": "shop", "deleted": True})
        assert await it.use(new) == 401
        for method, path in (
            ("GET", "/shop"),
            ("DELETE", "/shop"),
            ("POST", "/shop/rotate"),
            ("PATCH", "/shop"),
        ):
            assert (await it.ask(method, path, {"enabled": True} if method == "PATCH" else None))[0] == 404
        assert await it.use(await it.make("shop")) == 200
        done = [(line["action"], line["id"]) for line in it.running.log_lines if line["event"] == "admin_key"]
        actions = ["create", "update", "update", "rotate", "disable", "enable", "delete", "create"]
        assert done == [(action, "shop") for action in actions]


async def test_the_admins_key_is_asked_for_on_both_ports() -> None:
    async with serving() as it:
        strangers = [
            ("GET", ""),
            ("POST", ""),
            ("GET", "/file"),
            ("DELETE", "/file"),
            ("POST", "/file/rotate"),
        ]
        for base in (it.running.url, it.running.admin_url):
            for admin in ("", "nobody", CONFIGURED):
                for method, path in strangers:
                    assert (await it.ask(method, path, {"id": "x"}, admin, base))[0] == 401
            assert (await it.ask("POST", body={"id": f"k{base[-1]}"}, base=base))[0] in (201, 409)
            assert (await it.ask("GET", base=base))[1]["total"] >= 2


async def test_an_id_is_given_once_and_the_configurations_keys_change_there() -> None:
    async with serving() as it:
        await it.make("a")
        for id in ("a", "file"):
            status, answer = await it.ask("POST", body={"id": id})
            assert (status, answer["error"], answer["code"]) == (409, "Conflict", "conflict")
        changes = [("PATCH", "/file", {"enabled": False}), ("DELETE", "/file", None)]
        changes += [("POST", f"/file/{action}", None) for action in ("rotate", "disable", "enable")]
        for method, path, body in changes:
            status, answer = await it.ask(method, path, body)
            assert status == 409
            assert "configuration" in answer["reason"]
        status, found = await it.ask("GET", "/file")
        assert (status, found["source"], found["limits"]["requests"]["rate"]) == (200, "config", "10/min")
        assert not {"last_four", "digest", "key"} & set(found)
        assert await it.use(CONFIGURED) == 200


WRONG: list[tuple[Any, list[str]]] = [
    ({}, ["body"]),
    ({"id": ""}, ["id"]),
    ({"id": "a b"}, ["id"]),
    ({"id": "-a"}, ["id"]),
    ({"id": "é"}, ["id"]),
    ({"id": "x" * 129}, ["id"]),
    ({"id": "a\n"}, ["id"]),
    ({"id": 7}, ["id"]),
    ({"id": "a", "secret": "x"}, ["secret"]),
    ({"id": "a", "digest": "x"}, ["digest"]),
    ({"id": "a", "tenant": " "}, ["tenant"]),
    ({"id": "a", "aliases": ["chat", "nope", "*"]}, ["aliases[1]"]),
    ({"id": "a", "aliases": "chat"}, ["aliases"]),
    ({"id": "a", "aliases": ["chat"], "default_alias": "code"}, ["default_alias"]),
    ({"id": "a", "default_alias": "nope"}, ["default_alias"]),
    ({"id": "a", "limits": {"requests": {"rate": "fast"}}}, ["limits.requests.rate"]),
    (
        {"id": "a", "limits": {"requests": [{"rate": "1/s"}, {"rate": "1/s", "burst": 0}]}},
        ["limits.requests[1].burst"],
    ),
    ({"id": "a", "limits": {"requests": {"rate": "1/s", "brst": 1}}}, ["limits.requests.brst"]),
    ({"id": "a", "limits": {"streams": 0, "weight": 0}}, ["limits.streams", "limits.weight"]),
    ({"id": "a", "limits": {"budget": {"day": -1, "soft": 2}}}, ["limits.budget.day", "limits.budget.soft"]),
    ({"id": "a", "limits": {"requests": {"rate": 10**40}}}, ["body"]),
    ({"id": "a", "origins": ["https://shop.example/"]}, ["origins[0]"]),
    ({"id": "a", "expires": "tomorrow"}, ["expires"]),
    ({"id": "a", "expires": "2099-12-31T23:59:59"}, ["expires"]),
    ({"id": "a", "enabled": "yes"}, ["enabled"]),
    ({"id": "a b", "expires": "x", "aliases": 1}, ["aliases", "id"]),
]


async def test_what_is_wrong_is_named_field_by_field() -> None:
    async with serving() as it:
        await it.make("there")
        for body, fields in WRONG:
            status, answer = await it.ask("POST", body=body)
            assert (status, [detail["field"] for detail in answer.get("details", ())]) == (400, fields), body
            if set(body) - {"id", "tenant"}:
                change = {name: value for name, value in body.items() if name != "id"}
                status, answer = await it.ask("PATCH", "/there", change)
                expected = [field for field in fields if field != "id"]
                if expected:
                    assert (status, [detail["field"] for detail in answer["details"]]) == (400, expected), (
                        body
                    )
        for overlap in ("-1s", "soon", -1, True, "91d", 1e300, [1]):
            assert (await it.ask("POST", "/there/rotate", {"overlap": overlap}))[0] == 400
        assert (await it.ask("POST", "/there/rotate", {"over": 1}))[0] == 400
        assert (await it.ask("PATCH", "/there", {}))[0] == 400
        for raw in (b"", b"[]", b"{", b'{"id":"a","id":"b"}', b"\xff"):
            headers = {"x-admin-api-key": ADMIN, "Content-Type": "application/json"}
            async with it.client.post(f"{it.running.url}/admin/keys", data=raw, headers=headers) as response:
                assert response.status == 400
        async with it.client.post(
            f"{it.running.url}/admin/keys", data="id=a", headers={"x-admin-api-key": ADMIN}
        ) as response:
            assert response.status == 415
        assert (await it.ask("GET", "?limit=0"))[0] == 400
        assert (await it.ask("GET", "/there/nothing"))[0] == 404
        assert (await it.ask("GET", "/there/rotate"))[0] == 405
        assert (await it.ask("POST", "/there"))[0] == 405
        assert (await it.ask("GET"))[1]["total"] == 2


@pytest.mark.parametrize("id", ["a/b", "a/rotate", "org:team@x", "0", "a..b", "x" * 128])
async def test_ids_with_odd_characters_work_like_others(id: str, tmp_path: Path) -> None:
    path = "/" + id.replace("/", "%2F").replace(":", "%3A").replace("@", "%40")
    async with serving(f"sqlite:{tmp_path}/s.db") as it:
        key = await it.make(id)
        assert await it.use(key) == 200
        assert (await it.ask("GET", path))[1]["id"] == id
        new = (await it.ask("POST", f"{path}/rotate"))[1]["key"]
        assert [await it.use(one) for one in (key, new)] == [401, 200]
        assert (await it.ask("GET", f"?after={path[1:-1]}"))[0] == 200
        assert (await it.ask("DELETE", path))[0] == 200
        assert await it.use(new) == 401
        for strange in ("%00", "%ff", "a%0ab", "..%2f..", "%"):
            assert (await it.ask("GET", f"/{strange}"))[0] == 404


async def test_a_thousand_keys_are_listed_by_pages(tmp_path: Path) -> None:
    async with serving(f"sqlite:{tmp_path}/s.db") as it:
        for start in range(0, 1000, 50):
            await asyncio.gather(*(it.make(f"k{number:04}") for number in range(start, start + 50)))
        ids: list[str] = []
        after: str | None = ""
        while after is not None:
            _, page = await it.ask("GET", f"?limit=150&after={after}")
            ids += [key["id"] for key in page["keys"]]
            assert page["total"] == 1001
            after = page["next"]
        assert ids == ["file", *(f"k{number:04}" for number in range(1000))]
        assert it.running.metric("sluice_dynamic_keys") == 1000


async def test_what_a_key_may_not_do_it_does_not() -> None:
    async with serving() as it:
        code = await it.make("code", aliases=["code"], default_alias="code")
        few = await it.make("few", limits={"requests": {"rate": "1/min", "burst": 2}})
        shop = await it.make("shop", origins=[PAGE])
        past = await it.make("past", expires="2020-01-01T00:00:00Z")
        async with it.client.get(f"{it.running.url}/v1/models", headers={"x-api-key": code}) as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["code"]
        assert [await it.use(few) for _ in range(3)] == [200, 200, 429]
        assert [await it.use(shop, Origin=origin) for origin in (PAGE, "https://evil.example")] == [200, 403]
        assert await it.use(past) == 401
        async with it.client.options(f"{it.running.url}/v1/chat", headers={"Origin": PAGE}) as response:
            assert response.headers["Access-Control-Allow-Origin"] == PAGE
        await it.ask("DELETE", "/shop")
        async with it.client.options(f"{it.running.url}/v1/chat", headers={"Origin": PAGE}) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
        reasons = [line["reason"] for line in it.running.requests if line.get("reason")]
        assert reasons == ["expired"]


async def test_a_revoked_key_is_looked_up_by_id_no_more() -> None:
    async with serving() as it:
        await it.make("a")
        by_id = it.running.runtime.authenticator.key
        assert (by_id("a") is not None, by_id("file") is not None, by_id("b")) == (True, True, None)
        await it.ask("POST", "/a/disable")
        assert by_id("a") is None


async def test_an_old_key_works_until_its_overlap_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as it:
        now = [1_900_000_000.0]
        monkeypatch.setattr(it.running.runtime.keys.table, "clock", lambda: now[0])
        first = await it.make("a")
        status, rotated = await it.ask("POST", "/a/rotate", {"overlap": "10m"})
        second = rotated["key"]
        assert (status, rotated["rotated"], rotated["old_key_until"]) == (
            200,
            "2030-03-17T17:46:40.000Z",
            "2030-03-17T17:56:40.000Z",
        )
        now[0] += 599
        assert [await it.use(key) for key in (first, second)] == [200, 200]
        now[0] += 1
        assert [await it.use(key) for key in (first, second)] == [401, 200]
        third = (await it.ask("POST", "/a/rotate", {"overlap": 5}))[1]["key"]
        assert [await it.use(key) for key in (second, third)] == [200, 200]
        await it.ask("POST", "/a/disable")
        assert [await it.use(key) for key in (second, third)] == [401, 401]


async def test_a_stream_that_runs_when_its_key_is_deleted_goes_on() -> None:
    async with serving() as it:
        key = await it.make("a")
        body = {"sessionId": "s", "message": "tokens=20 delay_ms=5"}
        async with it.client.post(
            f"{it.running.url}/v1/chat/stream", json=body, headers={"x-api-key": key}
        ) as response:
            await response.content.readline()
            await it.ask("DELETE", "/a")
            assert await it.use(key) == 401
            *_, last = (await response.read()).splitlines()
            assert json.loads(last)["type"] == "done"


async def test_tokens_that_a_key_minted_for_pages_end_with_it() -> None:
    async with serving(more='\ntokens: {secret: "a secret of at least 32 bytes, not more"}\n') as it:
        key = await it.make("a", origins=[PAGE])
        url = f"{it.running.url}/v1/tokens"
        async with it.client.post(
            url, json={"origin": PAGE, "sessionPrefix": "s."}, headers={"x-api-key": key}
        ) as response:
            token = (await response.json())["token"]

        async def asked() -> int:
            headers = {"Authorization": f"Bearer {token}", "Origin": PAGE}
            body = {"sessionId": "s.1", "message": "hi"}
            async with it.client.post(f"{it.running.url}/v1/chat", json=body, headers=headers) as response:
                return response.status

        assert await asked() == 200
        await it.ask("POST", "/a/disable")
        assert await asked() == 401
        await it.ask("POST", "/a/enable")
        assert await asked() == 200
        await it.ask("DELETE", "/a")
        assert await asked() == 401


# several gateways


async def test_what_one_gateway_revokes_the_other_refuses(store: str) -> None:
    async with serving(store) as one, serving(store) as two:
        keys = [await one.make(f"k{number}") for number in range(4)]
        for key in keys:
            await becomes(200, two.use, key)
        await one.ask("POST", "/k0/disable")
        await one.ask("DELETE", "/k1")
        new = (await two.ask("POST", "/k2/rotate"))[1]["key"]
        await two.ask("PATCH", "/k3", {"expires": "2020-01-01T00:00:00Z"})
        for it in (one, two):
            for key in keys:
                await becomes(401, it.use, key)
            await becomes(200, it.use, new)
        assert (await one.ask("GET"))[1]["keys"] == (await two.ask("GET"))[1]["keys"]
        await becomes(200, two.use, new)
        for id in ("k0", "k2", "k3"):
            assert (await one.ask("DELETE", f"/{id}"))[0] == 200


async def test_the_admin_api_of_every_gateway_knows_a_key_at_once(store: str) -> None:
    async with serving(store) as one, serving(store) as two:
        for number in range(5):
            await one.make(f"k{number}")
            assert (await two.ask("GET", f"/k{number}"))[0] == 200
            await one.ask("POST", f"/k{number}/disable")
            assert (await two.ask("GET", f"/k{number}"))[1]["enabled"] is False
            assert (await two.ask("DELETE", f"/k{number}"))[0] == 200
            assert (await one.ask("GET", f"/k{number}"))[0] == 404


async def test_changes_by_two_gateways_at_once_are_all_made(store: str) -> None:
    async with serving(store) as one, serving(store) as two:
        made = await asyncio.gather(
            *(it.ask("POST", body={"id": "same"}) for it in (one, two) for _ in range(4))
        )
        assert sorted(status for status, _ in made) == [201] + [409] * 7
        changes = [
            one.ask("PATCH", "/same", {"aliases": ["chat"]}),
            two.ask("PATCH", "/same", {"origins": [PAGE]}),
            one.ask("POST", "/same/disable"),
            two.ask("PATCH", "/same", {"limits": {"streams": 3}}),
        ]
        assert {status for status, _ in await asyncio.gather(*changes)} == {200}
        for it in (one, two):
            await becomes(True, _all_made, it)
        assert (await one.ask("DELETE", "/same"))[0] == 200


async def _all_made(it: Operator) -> bool:
    _, key = await it.ask("GET", "/same")
    return (key["aliases"], key["origins"], key["enabled"], key["limits"]["streams"]) == (
        ["chat"],
        [PAGE],
        False,
        3,
    )


async def test_keys_outlive_a_restart(store: str) -> None:
    async with serving(store) as it:
        on, off = await it.make("on"), await it.make("off")
        await it.ask("POST", "/off/disable")
    async with serving(store) as it:
        assert [await it.use(key) for key in (on, off)] == [200, 401]
        assert (await it.ask("GET"))[1]["total"] == 3
        for id in ("on", "off"):
            await it.ask("DELETE", f"/{id}")


async def test_keys_and_conversations_share_the_file_of_the_state(tmp_path: Path) -> None:
    state = f'\nstate: "sqlite:{tmp_path}/state.db"\n'
    for turn in range(2):
        text = CONFIG.replace('"STORE"', "null").replace("PEPPER", "null") + state
        async with gateway(text) as running, aiohttp.ClientSession() as client:
            it = Operator(running, client)
            key = await it.make(f"k{turn}", tenant="t")
            assert await it.use(key) == 200
            _, total = await running.runtime.conversations.newest(10)
            assert (total, (await it.ask("GET"))[1]["total"]) == (1, turn + 2)


async def test_another_pepper_invalidates_all_keys(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/s.db"
    async with serving(store, pepper="salt") as it:
        key = await it.make("a")
        assert await it.use(key) == 200
    for pepper, expected in (("pepper", 401), ("null", 401), ("salt", 200)):
        async with serving(store, pepper=pepper) as it:
            assert [await it.use(key), await it.use(CONFIGURED)] == [expected, 200]


# a store in trouble


async def test_while_redis_is_frozen_known_keys_work_and_changes_are_refused() -> None:
    with redis_server() as server:
        async with serving(server.url) as it, AsyncExitStack() as stack:
            key = await it.make("a")
            server.stop()
            stack.callback(server.resume)
            async with asyncio.timeout(HANG):
                assert [await it.use(known) for known in (key, CONFIGURED)] == [200, 200]
                refused = [("POST", "", {"id": "b"}), ("POST", "/a/disable", None), ("DELETE", "/a", None)]
                for method, path, body in refused:
                    status, answer = await it.ask(method, path, body)
                    assert (status, answer["code"], answer["error"]) == (
                        503,
                        "unavailable",
                        "Service unavailable",
                    )
                await becomes(True, _down, it)
                assert (await it.ask("GET", "/a"))[0] == 200
                assert await it.use(key) == 200
            server.resume()
            await becomes(False, _down, it)
            assert await it.use(key) == 200
            assert (await it.ask("GET"))[1]["total"] == 2
            assert (await it.ask("POST", "/a/disable"))[0] == 200
            assert await it.use(key) == 401
            lines = [line for line in it.running.log_lines if line.get("store") == "keys"]
            assert [(line["event"], line["reason"]) for line in lines] == [
                ("store_failing", "timeout"),
                ("store_well", "timeout"),
            ]
            assert it.running.metric("sluice_key_store_errors_total") >= 3


async def _down(it: Operator) -> bool:
    await it.ask("GET")
    return it.running.runtime.keys.down


async def test_a_gateway_starts_without_its_store_and_knows_the_keys_when_it_comes() -> None:
    with redis_server() as server:
        async with serving(server.url) as it:
            key = await it.make("a")
            server.stop()
            try:
                async with serving(server.url) as late:
                    assert [await late.use(CONFIGURED), await late.use(key)] == [200, 401]
                    server.resume()
                    await becomes(200, late.use, key)
            finally:
                server.resume()


# secrets


async def test_nothing_secret_gets_out(store: str) -> None:
    canary = "canary-pepper-4711"
    async with serving(store, pepper=canary) as it:
        secrets = [await it.make("a")]
        secrets.append((await it.ask("POST", "/a/rotate", {"overlap": "1h"}))[1]["key"])
        digests = [it.running.runtime.keys.table.digest(secret) for secret in secrets]
        told = []
        for method, path, body in [
            ("GET", "", None), ("GET", "/a", None), ("PATCH", "/a", {"enabled": True}), ("POST", "/a/disable", None),
            ("POST", "/a/enable", None), ("POST", "", {"id": "a"}), ("POST", "", {"id": secrets[0], "tenant": [secrets[1]]}),
            ("POST", "", {"id": "b", "aliases": [digests[0]], "expires": secrets[1]}), ("GET", f"/{secrets[0]}", None),
            ("DELETE", f"/{secrets[1]}", None), ("POST", f"/{secrets[1]}/{secrets[0]}", None),
        ]:  # fmt: skip
            told.append(json.dumps(await it.ask(method, path, body)))
        for secret in secrets:
            assert await it.use(secret) == 200
        await it.ask("DELETE", "/a")
        for secret in secrets:
            assert await it.use(secret) == 401
        log, metrics = it.running.log_bytes.getvalue().decode(), it.running.runtime.exposition().decode()
        runtime = it.running.runtime
        dumped = repr(runtime.config) + repr(runtime.keys.__dict__) + repr(runtime.authenticator.__dict__)
        hidden = [canary, *secrets, *(digest.partition(":")[2] for digest in digests)]
        for place, text in (("log", log), ("metrics", metrics), ("repr", dumped)):
            assert not [secret for secret in hidden if secret in text], place
        echo = json.dumps([digests[0]])[2:-2]  # an unknown alias is named to who named it: the operator
        assert not [secret for secret in hidden for text in told if secret in text.replace(echo, "")]
        assert 'key="a"' not in metrics

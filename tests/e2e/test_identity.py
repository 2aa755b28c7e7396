"""Issuers whose keys are fetched, and tokens for web pages, over HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt
import pytest

from sluice.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway
from tests.identity.provider import Provider, provider

STREAM, WHOLE, OPENAI, TOKENS = "/v1/chat/stream", "/v1/chat", "/v1/chat/completions", "/v1/tokens"
SHOP, SERVER, ADMIN = (f"sk-sluice-{name}" for name in ("shop", "server", "admin"))
SECRET = "a secret that is long enough for HS256"
PAGE, OTHER_PAGE = "https://shop.example", "https://other.example"

CONFIG = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
limits: {{address: null}}
admin: {{digest: "{digest_of(ADMIN)}"}}
tokens: {{secret: "{SECRET}", longest: 10m}}
upstreams: {{echo: {{backend: echo}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]], resumable: true}}
  code: {{tiers: [[{{upstream: echo, model: m}}]]}}
keys:
  - {{id: shop, digest: "{digest_of(SHOP)}", default_alias: chat, origins: ["{PAGE}", "{OTHER_PAGE}"], LIMITS}}
  - {{id: server, digest: "{digest_of(SERVER)}", default_alias: chat}}
"""


@asynccontextmanager
async def serving(more: str = "", limits: str = "") -> AsyncIterator[tuple[Running, aiohttp.ClientSession]]:
    text = CONFIG.replace("LIMITS", limits) + more
    async with gateway(text) as running, aiohttp.ClientSession(running.url) as client:
        yield running, client


def by_url(idp: Provider) -> str:
    return f"""
jwt:
  - {{issuer: "{idp.url}", audience: sluice, algorithms: [ES256], jwks_url: "{idp.url}/jwks.json", default_alias: chat,
      limits: {{requests: {{rate: 1/h, burst: 1}}}}, plans: {{gold: {{requests: {{rate: 1/h, burst: 3}}}}}}}}
"""


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


async def ask(
    client: aiohttp.ClientSession, headers: dict[str, str], path: str = WHOLE, **fields: Any
) -> tuple[int, Any]:
    usual = (
        {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        if path == OPENAI
        else {"message": "hi"}
    )
    async with client.post(path, json={**usual, **fields}, headers=headers) as response:
        text = await response.text()
        return response.status, json.loads(text) if response.content_type == "application/json" else text


async def chat(client: aiohttp.ClientSession, credential: str, session: str = "s", **fields: Any) -> int:
    return (await ask(client, bearer(credential), sessionId=session, **fields))[0]


# issuers whose keys are fetched


async def test_a_token_is_verified_by_the_keys_that_its_issuer_publishes_now() -> None:
    async with provider() as idp:
        idp.publish("k1")
        async with serving(by_url(idp)) as (running, client):
            assert await chat(client, idp.token("k1", sub="one")) == 200
            idp.publish("k1", "k2")
            assert await chat(client, idp.token("k2", sub="two")) == 200
            flood = [chat(client, idp.token("k9", name=f"made-up-{number}")) for number in range(20)]
            assert await asyncio.gather(*flood) == [401] * 20
            idp.publish("k1", "k2", "k3")
            assert await chat(client, idp.token("k3", sub="three")) == 200
            assert (
                running.metric(f'sluice_jwks_fetches_total{{issuer="{idp.url}",outcome="ok"}}') == idp.fetches
            )
            assert running.metric('sluice_auth_failures_total{reason="unknown_key"}') == 20
            assert [line["keys"] for line in running.log_lines if line["event"] == "jwks"] == [1]


async def test_a_gateway_is_ready_and_serves_keys_while_its_issuer_is_silent() -> None:
    async with provider() as idp:
        idp.publish("k1")
        idp.gate.clear()
        async with serving(by_url(idp)) as (running, client):
            async with client.get(running.admin_url + "/readyz") as response:
                assert response.status == 200
            assert await chat(client, SERVER) == 200
            waiting = [asyncio.create_task(chat(client, idp.token("k1", sub=f"u{n}"))) for n in range(10)]
            await idp.asked.wait()
            assert await chat(client, SERVER) == 200
            assert not any(task.done() for task in waiting)
            idp.gate.set()
            assert await asyncio.gather(*waiting) == [200] * 10
            assert idp.fetches == 1


async def test_a_token_whose_issuer_cannot_be_asked_is_not_called_wrong() -> None:
    async with provider() as idp:
        pass
    async with serving(by_url(idp)) as (running, client):
        status, answer = await ask(client, bearer(idp.token("k1")), sessionId="s")
        assert (status, answer["code"]) == (503, "unavailable")
        status, answer = await ask(client, bearer(idp.token("k1")), OPENAI)
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        assert await chat(client, SERVER) == 200
        assert [line["outcome"] for line in running.log_lines if line["event"] == "jwks"] == ["unreachable"]


async def test_the_plan_that_a_token_names_limits_its_tenant() -> None:
    async with provider() as idp:
        idp.publish("k1")
        async with serving(by_url(idp)) as (_, client):
            for name, plan, admitted in (
                ("a", "gold", 3),
                ("b", None, 1),
                ("c", "platinum", 1),
                ("d", ["gold"], 1),
            ):
                token = idp.token("k1", sub=name, plan=plan)
                assert [await chat(client, token) for _ in range(4)] == [200] * admitted + [429] * (
                    4 - admitted
                )


# tokens for web pages


async def mint(client: aiohttp.ClientSession, key: str = SHOP, **fields: Any) -> dict[str, Any]:
    async with client.post(TOKENS, json={"origin": PAGE, **fields}, headers={"x-api-key": key}) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Cache-Control"] == "no-store"
        minted: dict[str, Any] = await response.json()
        return minted


def page(minted: dict[str, Any], origin: str = PAGE) -> dict[str, str]:
    return {**bearer(minted["token"]), "Origin": origin}


async def test_a_page_chats_with_a_token_that_a_key_minted_for_it() -> None:
    async with serving() as (running, client):
        minted = await mint(client)
        assert set(minted) == {"token", "expiresAt", "origin", "alias", "sessionPrefix"}
        assert (minted["origin"], minted["alias"]) == (PAGE, "chat")
        session = minted["sessionPrefix"] + "1"
        for path in (STREAM, "/chat", WHOLE):
            async with client.post(
                path, json={"sessionId": session, "message": "hi"}, headers=page(minted)
            ) as response:
                assert response.status == 200
                assert response.headers["Access-Control-Allow-Origin"] == PAGE
                await response.read()
        assert (await ask(client, page(minted), OPENAI))[0] == 200
        status, answer = await ask(
            client, {"x-widget-api-key": minted["token"], "Origin": PAGE}, sessionId=session
        )
        assert (status, answer["message"]) == (200, "Turn 4, you said: hi")
        assert {line["key"] for line in running.requests} == {"shop"}
        assert minted["token"] not in running.log_bytes.getvalue().decode()


async def test_a_token_is_bound_to_its_origin_alias_and_sessions() -> None:
    async with serving() as (_, client):
        minted = await mint(client, sessionPrefix="visitor-17:")
        mine = {"sessionId": "visitor-17:a"}
        assert (await ask(client, page(minted), **mine))[0] == 200
        assert (await ask(client, bearer(minted["token"]), **mine))[0] == 403  # no Origin: not a page
        for origin in (OTHER_PAGE, "https://evil.example", "null", PAGE + ":8443", "http://shop.example"):
            assert (await ask(client, page(minted, origin), **mine))[0] == 403
        assert (await ask(client, page(minted), **mine, model="code"))[0] == 404
        for session in ("visitor-18:a", "visitor-17", "x-visitor-17:", "VISITOR-17:a", "s"):
            status, answer = await ask(client, page(minted), sessionId=session)
            assert (status, answer["code"]) == (403, "forbidden")
            assert "prefix" in answer["reason"]
        async with client.get("/v1/models", headers=page(minted)) as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["chat"]
        async with client.get("/v1/models/code", headers=page(minted)) as response:
            assert response.status == 404
        for path in ("/v1/admin/conversations", "/v1/admin/conversations/x"):
            async with client.get(
                path, headers={**page(minted), "x-admin-api-key": minted["token"]}
            ) as response:
                assert response.status == 401


async def test_only_a_key_with_that_origin_mints() -> None:
    async with provider() as idp:
        idp.publish("k1")
        async with serving(by_url(idp)) as (running, client):
            minted = await mint(client)
            refused = [
                ({}, {}, 401),
                ({"x-api-key": "sk-nobody"}, {}, 401),
                ({"x-api-key": SERVER}, {}, 403),  # a key without origins
                ({"x-api-key": SHOP}, {"origin": "https://evil.example"}, 403),
                (bearer(idp.token("k1")), {}, 403),
                (page(minted), {}, 403),
                ({"x-api-key": SHOP}, {"alias": "nope"}, 404),
                ({"x-api-key": SHOP}, {"seconds": 601}, 400),
                ({"x-api-key": SHOP}, {"seconds": "60"}, 400),
                ({"x-api-key": SHOP}, {"sessionPrefix": "visitor"}, 400),
                ({"x-api-key": SHOP}, {"sesionPrefix": "visitor-"}, 400),
                ({"x-api-key": SHOP}, {"origin": None}, 400),
            ]
            for headers, fields, expected in refused:
                async with client.post(TOKENS, json={"origin": PAGE, **fields}, headers=headers) as response:
                    assert (response.status, fields) == (expected, fields)
            for data in (b"", b"[]", b"{", b'{"origin": "a", "origin": "b"}'):
                headers = {"x-api-key": SHOP, "Content-Type": "application/json"}
                async with client.post(TOKENS, data=data, headers=headers) as response:
                    assert response.status == 400
            async with client.post(TOKENS, data="origin=x", headers={"x-api-key": SHOP}) as response:
                assert response.status == 415
            async with client.get(TOKENS, headers={"x-api-key": SHOP}) as response:
                assert response.status == 405
            lines = [line for line in running.log_lines if line.get("route") == TOKENS]
            assert [line["key"] for line in lines if line["status"] == 200] == ["shop"]


async def test_without_the_section_there_are_no_tokens() -> None:
    text = "\n".join(line for line in CONFIG.splitlines() if not line.startswith("tokens:")).replace(
        "LIMITS", ""
    )
    async with (
        gateway(text) as running,
        aiohttp.ClientSession(running.url) as client,
        client.post(TOKENS, json={"origin": PAGE}, headers={"x-api-key": SHOP}) as response,
    ):
        assert (response.status, (await response.json())["code"]) == (404, "not_found")


async def test_a_hundred_tokens_have_what_their_key_has() -> None:
    async with serving(limits="limits: {requests: {rate: 1/h, burst: 3}}") as (_, client):
        minted = [await mint(client) for _ in range(5)]
        statuses = [(await ask(client, page(one), sessionId=one["sessionPrefix"]))[0] for one in minted]
        assert statuses == [200, 200, 200, 429, 429]
        assert await chat(client, SHOP) == 429


async def test_a_token_that_is_not_right_is_refused() -> None:
    async with serving() as (running, client):
        minted = await mint(client, seconds=1)
        head, body, signature = minted["token"].split(".")
        claims = jwt.decode(minted["token"], options={"verify_signature": False})
        again = {**claims, "exp": int(time.time()) + 300}
        typed = {"typ": "sluice-browser+jwt"}
        wrong = {
            "unsigned": f"{head}.{body}.",
            "changed": f"{head}.{body[:-2]}AA.{signature}",
            "by another secret": jwt.encode(again, "x" * 32, "HS256", typed),
            "another algorithm": jwt.encode(again, SECRET * 2, "HS512", typed),
            "of another key": jwt.encode({**again, "key": "nobody"}, SECRET, "HS256", typed),
            "expired": jwt.encode({**claims, "exp": int(time.time()) - 1}, SECRET, "HS256", typed),
        }
        for name, token in wrong.items():
            status, _ = await ask(client, {**bearer(token), "Origin": PAGE}, sessionId="s")
            assert (name, status) == (name, 401)
        assert running.metric('sluice_auth_failures_total{reason="expired"}') >= 1


async def test_pages_may_read_answers_to_chats_but_nobody_reads_minted_tokens() -> None:
    async with serving() as (_, client):
        for path, allowed in ((STREAM, PAGE), ("/chat", PAGE), (WHOLE, PAGE), (OPENAI, PAGE), (TOKENS, None)):
            headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
            async with client.options(path, headers=headers) as response:
                assert (response.status, response.headers.get("Access-Control-Allow-Origin")) == (
                    204,
                    allowed,
                )
        headers = {"x-api-key": SHOP, "Origin": PAGE}
        async with client.post(TOKENS, json={"origin": PAGE}, headers=headers) as response:
            assert response.status == 200
            assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_a_page_resumes_its_own_streams_and_no_others() -> None:
    async with serving() as (_, client):
        mine, renewed, other = [
            await mint(client, sessionPrefix=prefix) for prefix in ("one-", "one-", "two-")
        ]
        _, text = await ask(client, page(mine), STREAM, sessionId="one-a")
        stream = json.loads(text.splitlines()[0])["streamId"]
        for headers, expected in (
            (page(mine), 200), (page(renewed), 200), (page(other), 404), (page(mine, OTHER_PAGE), 403),
            (bearer(mine["token"]), 403), (bearer(SHOP), 404), (bearer(SERVER), 404),
        ):  # fmt: skip
            async with client.get(f"{STREAM}/{stream}", headers=headers) as response:
                assert response.status == expected
                if expected == 200:
                    assert await response.text() == text


async def test_a_widget_that_makes_up_its_session_chats_and_reaches_nobody_elses() -> None:
    async with serving() as (running, client):
        mine, other = await mint(client), await mint(client)
        for path in (STREAM, "/chat", WHOLE):
            status, answer = await ask(client, page(mine), path, sessionId="widget-1")
            assert status == 200
        assert answer["message"] == "Turn 3, you said: hi"
        # another visitor, who knows all of the first one's ids
        for session in ("widget-1", mine["sessionPrefix"] + ":widget-1", mine["sessionPrefix"] + "widget-1"):
            status, answer = await ask(client, page(other), sessionId=session)
            assert (status, answer["message"]) == (200, "You said: hi")
        # the server's key has sessions of its own, too
        status, answer = await ask(client, {"x-api-key": SHOP}, sessionId="widget-1")
        assert (status, answer["message"]) == (200, "You said: hi")
        found, _ = await running.runtime.conversations.newest(10)
        assert {one.session for one in found} >= {"widget-1", mine["sessionPrefix"] + ":widget-1"}


async def renew(client: aiohttp.ClientSession, headers: dict[str, str]) -> tuple[int, Any, Any]:
    async with client.post(f"{TOKENS}/renew", headers=headers) as response:
        return response.status, await response.json(), response.headers


async def test_an_open_page_renews_its_token_and_goes_on_in_its_session() -> None:
    async with serving() as (running, client):
        minted = await mint(client, seconds=60)
        assert (await ask(client, page(minted), sessionId="w"))[0] == 200
        status, renewed, headers = await renew(client, page(minted))
        assert (status, headers["Access-Control-Allow-Origin"], headers["Cache-Control"]) == (
            200,
            PAGE,
            "no-store",
        )
        assert set(renewed) == {"token", "expiresAt", "renewableUntil", "origin", "alias", "sessionPrefix"}
        assert renewed["sessionPrefix"] == minted["sessionPrefix"]
        status, answer = await ask(client, page(renewed), sessionId="w")
        assert (status, answer["message"]) == (200, "Turn 2, you said: hi")
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        async with client.options(f"{TOKENS}/renew", headers=asked) as response:
            assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (204, PAGE)
        assert renewed["token"] not in running.log_bytes.getvalue().decode()


async def test_only_a_page_renews_and_only_its_own_token() -> None:
    async with serving() as (running, client):
        minted = await mint(client)
        for headers, expected in (
            ({}, 401), ({"Origin": PAGE}, 401), (bearer(minted["token"]), 403), (page(minted, OTHER_PAGE), 403),
            (page(minted, "https://evil.example"), 403), ({**bearer(SHOP), "Origin": PAGE}, 401),
            ({**bearer(minted["token"][:-3] + "xxx"), "Origin": PAGE}, 401),
        ):  # fmt: skip
            assert (await renew(client, headers))[0] == expected, headers
        assert running.metric('sluice_auth_failures_total{reason="missing"}') == 2
        made = {"id": "made", "default_alias": "chat", "origins": [PAGE]}
        async with client.post("/admin/keys", json=made, headers={"x-admin-api-key": ADMIN}) as response:
            key = (await response.json())["key"]
        minted = await mint(client, key)
        assert (await renew(client, page(minted)))[0] == 200
        async with client.post("/admin/keys/made/disable", headers={"x-admin-api-key": ADMIN}) as response:
            assert response.status == 200
        assert (await renew(client, page(minted)))[0] == 401
        assert (await ask(client, page(minted), sessionId="w"))[0] == 401


@pytest.mark.parametrize("path", [STREAM, OPENAI])
async def test_a_token_that_is_nested_without_end_is_a_401(path: str) -> None:
    async with provider() as idp, serving(by_url(idp)) as (running, client):
        deep = jwt.utils.base64url_encode(b'{"alg": "ES256", "x": ' + b"[" * 1500).decode()
        for token in (f"{deep}.{deep}.x", f"e30.{deep}.x"):
            assert (await ask(client, bearer(token), path))[0] == 401
        assert not [line for line in running.log_lines if line["event"] == "crash"]

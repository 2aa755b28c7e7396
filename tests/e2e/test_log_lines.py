"""What somebody who is woken at night finds in the log: at which level, with which words, and not a thousand
times."""

import asyncio
import json
from typing import Any

import aiohttp

from sluice.usage import UsageFailed
from tests.e2e.answers import ask
from tests.e2e.gateways import DIGEST, HEAD, KEY, Running, gateway
from tests.e2e.test_figures import asked, config, pair
from tests.fakes.faulty import Provider, Turn, cut, healthy, refusing
from tests.fakes.rawserver import sized
from tests.upstream.calls import until

ECHO = "upstreams: {echo: {backend: echo}}\naliases: {chat: {tiers: [[{upstream: echo, model: echo}]]}}\n"
ONE = "tiers: [[{upstream: one, model: m}]], retry: {same_target: 0}, heartbeat: null"


def lines(g: Running, event: str) -> list[dict[str, Any]]:
    return [line for line in g.log_lines if line["event"] == event]


async def wrong_key(turn: Turn) -> None:
    error = {
        "message": "Incorrect API key provided",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    turn.peer.send(sized(json.dumps({"error": error}).encode(), 401, ("Content-Type", "application/json")))


async def get(g: Running, path: str, **headers: str) -> int:
    async with aiohttp.ClientSession(g.url) as client, client.get(path, headers=headers) as response:
        return response.status


async def test_an_answer_of_5xx_and_an_error_within_an_answer_are_warnings() -> None:
    async with pair(refusing("server"), healthy, ONE) as (g, one):
        await asked(g, "openai stream")
        one.behaviour = cut(5)
        await asked(g, "openai stream")
        one.behaviour = healthy
        await asked(g, "openai stream")
        assert [(line["status"], line["level"]) for line in lines(g, "request")] == [
            (502, "warning"),
            (200, "warning"),
            (200, "info"),
        ]
        await get(g, "/nothing")
        assert [(line["status"], line["level"]) for line in lines(g, "request")][3:] == [(404, "info")]


async def test_warnings_are_written_where_the_level_is_warning() -> None:
    async with Provider(refusing("server")) as one, gateway(config(ONE, one.url), level="warning") as g:
        await asked(g, "openai stream")
        one.behaviour = healthy
        await asked(g, "openai stream")
        assert [line["status"] for line in lines(g, "request")] == [502]


async def test_a_429_names_the_scope_and_the_resource() -> None:
    few = HEAD.replace(
        "default_alias: chat}", "default_alias: chat, limits: {requests: {rate: 1/day, burst: 1}}}"
    )
    async with gateway(few + ECHO) as g:
        async with aiohttp.ClientSession(g.url) as client:
            for _ in range(2):
                await ask(client, "widget stream", "chat")
        assert [
            (line["status"], line.get("scope"), line.get("resource")) for line in lines(g, "request")
        ] == [
            (200, None, None),
            (429, "key", "requests"),
        ]
    address = HEAD.replace("address: null", "address: {rate: 1/day, burst: 1}")
    async with gateway(address + ECHO) as g:
        for _ in range(2):
            await get(g, "/v1/models", **{"x-api-key": KEY})
        assert [(line.get("scope"), line.get("resource")) for line in lines(g, "request")][1:] == [
            ("address", "requests")
        ]
    limit = "limits: {requests: {rate: 1/day, burst: 1}}"
    async with Provider(healthy) as one, gateway(config(ONE, one.url, breaker=limit)) as g:
        for _ in range(2):
            await asked(g, "openai stream")
        assert [(line.get("scope"), line.get("resource")) for line in lines(g, "request")][1:] == [
            ("upstream", "requests")
        ]


async def test_a_401_names_the_clients_address_on_every_route() -> None:
    proxied = HEAD.replace("drain_delay: 0", 'drain_delay: 0, trusted_proxies: ["127.0.0.0/8"]')
    async with gateway(proxied + ECHO) as g:
        headers = {"x-api-key": "sk-wrong", "X-Forwarded-For": "203.0.113.9:4711"}
        async with aiohttp.ClientSession(g.url, headers=headers) as client:
            for path in ("/v1/chat", "/v1/chat/completions"):
                async with client.post(path, json={"model": "chat", "messages": []}) as response:
                    assert response.status == 401
        for path in ("/v1/models", "/v1/admin/conversations", "/admin/keys", "/admin/usage"):
            assert await get(g, path, **headers) == 401
        await get(g, "/v1/models", **{"x-api-key": KEY})
        assert [line.get("address") for line in lines(g, "request")] == ["203.0.113.9"] * 6 + [None]
        assert b"sk-wrong" not in g.log_bytes.getvalue()


async def test_refused_credentials_an_open_breaker_and_an_alias_without_target_are_said_once() -> None:
    async with pair(
        wrong_key, healthy, ONE, breaker="breaker: {failures: 3, open_for: 1ms, open_max: 1ms}"
    ) as (
        g,
        one,
    ):
        for _ in range(20):
            await asked(g, "openai stream")
        named = {"upstream": "one", "model": "m"}
        for event, level, fields in (
            ("credentials_refused", "error", named | {"upstream_status": 401}),
            ("breaker_open", "warning", named | {"error": "bad_credentials"}),
            ("alias_without_target", "error", {"alias": "chat"}),
        ):
            [line] = lines(g, event)
            assert line["level"] == level
            assert line.items() >= fields.items()
        one.behaviour = healthy
        await asked(g, "openai stream")
        assert len(lines(g, "breaker_closed")) == len(lines(g, "alias_has_target")) == 1


async def test_an_alias_with_another_target_has_one() -> None:
    async with pair(refusing("server"), healthy, breaker="breaker: {failures: 1}") as (g, _):
        await asked(g, "openai stream")
        assert len(lines(g, "breaker_open")) == 1
        assert lines(g, "alias_without_target") == []


async def test_usage_that_is_not_stored_is_said_once_an_outage() -> None:
    async with gateway(HEAD + ECHO) as g:
        store = g.runtime.usage.store
        add = store.add

        async def fails(batch: Any) -> None:
            raise UsageFailed("out")

        store.add = fails  # type: ignore[method-assign]
        async with aiohttp.ClientSession(g.url) as client:
            await ask(client, "widget stream", "chat")
        await until(lambda: not g.runtime.pipeline.runs)
        g.runtime.deferred.flush()
        for _ in range(3):
            assert not await g.runtime.usage.flush()
        [line] = [line for line in g.log_lines if line["level"] == "warning"]
        assert (line["event"], line["store"]) == ("store_failing", "usage")
        store.add = add  # type: ignore[method-assign]
        assert await g.runtime.usage.flush()
        assert len(lines(g, "store_well")) == 1


async def test_a_proxy_that_is_not_configured_and_addresses_that_cannot_be_read_are_said_once() -> None:
    async with gateway(HEAD + ECHO) as g:
        for n in range(3):
            await get(g, "/v1/models", **{"x-api-key": KEY, "X-Forwarded-For": f"203.0.113.{n}"})
        [line] = lines(g, "client_address_unheeded")
        assert line["level"] == "warning"
        assert "trusted_proxies" in line["hint"]
        assert "203.0.113" not in str(line)
    proxied = HEAD.replace("drain_delay: 0", 'drain_delay: 0, trusted_proxies: ["127.0.0.0/8"]')
    async with gateway(proxied + ECHO) as g:
        for n in range(3):
            await get(g, "/v1/models", **{"x-api-key": KEY, "X-Forwarded-For": f"s3cret {n}"})
        [line] = lines(g, "client_address_unreadable")
        assert (line["level"], line["header"]) == ("warning", "x-forwarded-for")
        assert b"s3cret" not in g.log_bytes.getvalue()
        assert g.metric('sluice_client_address_unreadable_total{header="x-forwarded-for"}') == 3
        assert lines(g, "client_address_unheeded") == []


async def test_several_header_lines_are_one_list() -> None:
    proxied = HEAD.replace("drain_delay: 0", 'drain_delay: 0, trusted_proxies: ["127.0.0.0/8", "10.0.0.0/8"]')
    async with gateway(proxied + ECHO) as g:
        reader, writer = await asyncio.open_connection(*g.address)
        lists = [
            "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.9\r\nx-forwarded-for: 10.0.0.7:80, 10.0.0.8\r\n",
            'Forwarded: for=198.51.100.1, for="203.0.113.9:1"\r\nForwarded: for=10.0.0.7;proto=http\r\n',
        ]
        for head in lists:
            writer.write(f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
            await reader.readuntil(b"}")
        await until(lambda: len(lines(g, "request")) == 2)
        assert [line["address"] for line in lines(g, "request")] == ["203.0.113.9"] * 2
        writer.close()


async def test_a_key_without_limits_is_shown_none() -> None:
    """Whatever its address has: that one is told to whom it refuses."""
    address = HEAD.replace("address: null", "address: {rate: 2/day, burst: 2}")
    async with (
        gateway(address + ECHO) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
    ):
        for status in (200, 200, 429):
            async with client.post("/v1/chat", json={"sessionId": "s", "message": "hi"}) as response:
                assert response.status == status
                shown = [name for name in response.headers if name.lower().startswith("x-ratelimit")]
                assert bool(shown) == (status == 429)


async def test_addresses_are_not_limited_unless_the_configuration_says_so() -> None:
    text = HEAD.replace("limits: {address: null}", "") + ECHO
    assert DIGEST in text
    async with (
        gateway(text, level="warning") as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
    ):
        assert g.runtime.config.server.trusted_proxies == ()
        for _ in range(150):
            async with client.get("/v1/models") as response:
                assert response.status == 200

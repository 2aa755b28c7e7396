"""Limits of every scope and resource over HTTP, and what callers are told of them."""

import asyncio
import itertools
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from sluice.limits import Slot
from tests.e2e.buckets import left, taken
from tests.e2e.gateways import Running, gateway
from tests.fakes.dialects import INPUT, TOKENS
from tests.fakes.faulty import Behaviour, Provider, Turn, healthy, refusing, stall
from tests.servers import redis_server
from tests.upstream.calls import until

FULL = os.environ.get("SLUICE_FULL") == "1"
ONE, TWO = "sk-sluice-one", "sk-sluice-two"
OPENAI, STREAM = "/v1/chat/completions", "/v1/chat/stream"


prefixes = (f"test{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield f"{server.url}&timeout=30"


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    """Where the limits are kept; a Redis that every test has a prefix of its own in."""
    if request.param == "memory":
        return "memory"
    url: str = request.getfixturevalue("redis")
    return url


@asynccontextmanager
async def serving(
    behaviour: Behaviour = healthy,
    *,
    one: str = "{}",
    two: str = "{}",
    alias: str = "",
    tiers: str = "[[{upstream: fake, model: m}]]",
    fake: str = "",
    more: str = "",
    address: str = "null",
    tenants: tuple[str, str] = ("acme", "acme"),
    store: str = "memory",
) -> AsyncIterator[tuple[Running, Provider, aiohttp.ClientSession]]:
    """Two keys, of one tenant unless said otherwise; `fake` and `spare` are two names of one provider."""
    async with Provider(behaviour) as provider:
        config = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
limits: {{address: {address}, store: "{store}", prefix: "{next(prefixes)}", output_tokens: 20}}
keys:
  - {{id: one, digest: "{digest_of(ONE)}", tenant: {tenants[0]}, default_alias: chat, limits: {one}}}
  - {{id: two, digest: "{digest_of(TWO)}", tenant: {tenants[1]}, default_alias: chat, limits: {two}}}
upstreams:
  fake: {{backend: openai, base_url: "{provider.url}"{fake}}}
  spare: {{backend: openai, base_url: "{provider.url}"}}
aliases: {{chat: {{tiers: {tiers}, retry: {{same_target: 0}}{alias}}}}}
{more}"""
        async with gateway(config) as running, aiohttp.ClientSession(running.url) as client:
            yield running, provider, client


async def ask(client: aiohttp.ClientSession, key: str = ONE, **fields: Any) -> tuple[int, Any, Any]:
    """Status, headers and body of a whole answer."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "12345678"}], **fields}
    async with client.post(OPENAI, json=body, headers={"x-api-key": key}) as response:
        return response.status, response.headers, await response.json()


async def hold(client: aiohttp.ClientSession, key: str = ONE, **fields: Any) -> aiohttp.ClientResponse:
    """A stream that has begun."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "12345678"}], "stream": True, **fields}
    return await client.post(OPENAI, json=body, headers={"x-api-key": key})


async def test_all_windows_hold_and_the_tightest_is_told() -> None:
    windows = "{requests: [{rate: 1000/s}, {rate: 3/h}, {rate: 500/min}]}"
    async with serving(one=windows) as (_, _, client):
        for remaining in "210":
            status, headers, _ = await ask(client)
            assert status == 200
            assert headers["x-ratelimit-limit-requests"] == "3"
            assert headers["x-ratelimit-remaining-requests"] == remaining
        status, headers, body = await ask(client)
        assert status == 429
        assert 1100_000 < int(headers["retry-after-ms"]) <= 1200_000
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert "requests" in body["error"]["message"]
        assert "key" in body["error"]["message"]


async def test_tokens_are_reserved_and_settled_into_debt(store: str) -> None:
    async with serving(store=store, one="{tokens: {rate: 60/min, burst: 40}}") as (g, _, client):
        status, headers, _ = await ask(client, max_tokens=10)
        assert status == 200
        assert headers["x-ratelimit-limit-tokens"] == "40"
        assert headers["x-ratelimit-remaining-tokens"] == "28"
        debt = INPUT + len(TOKENS) - 40
        assert -debt <= await left(g, "key", "one", "tokens") < -debt + 5
        status, headers, body = await ask(client, max_tokens=10)
        assert status == 429
        assert headers["x-ratelimit-remaining-tokens"] == "0"
        assert debt + 7 <= int(headers["Retry-After"]) <= debt + 12
        assert "tokens" in body["error"]["message"]
        status, headers, _ = await ask(client, max_tokens=39)
        assert (status, headers["x-should-retry"]) == (429, "false")
        assert "Retry-After" not in headers


async def test_streams_at_a_time_are_counted_while_they_last(store: str) -> None:
    async with serving(stall(1), store=store, one="{streams: 2, requests: {rate: 100/s}}") as (g, _, client):
        streams = [await hold(client) for _ in range(2)]
        status, headers, body = await ask(client)
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "streams" in body["error"]["message"]
        assert headers["x-ratelimit-limit-requests"] == "100"
        streams[0].close()
        await until(lambda: len(g.runtime.pipeline.runs) == 1 and not g.runtime.limits.settlements.settling)
        streams.append(await hold(client))
        assert streams[-1].status == 200
        for stream in streams:
            stream.close()
        await over(g)
        assert await taken(g, "key", "one") == 0


async def test_a_tenants_limits_are_over_all_its_keys_and_an_aliass_over_all_callers() -> None:
    few = "{requests: {rate: 1/h, burst: 3}}"
    tenant = {"more": f"tenants: {{acme: {{limits: {few}}}}}"}
    for scope, options in (("tenant", tenant), ("alias", {"alias": f", limits: {few}"})):
        async with serving(**options) as (g, _, client):  # type: ignore[arg-type]
            statuses = [(await ask(client, key))[0] for key in (ONE, TWO, ONE, TWO)]
            assert statuses == [200, 200, 200, 429]
            series = f'sluice_ratelimit_decisions_total{{decision="%s",resource="requests",scope="{scope}"}}'
            assert g.metric(series % "admitted") == 3
            assert g.metric(series % "refused") == 1


async def test_what_one_scope_refuses_no_other_is_charged_for() -> None:
    plenty = "{requests: {rate: 1/h, burst: 50}, tokens: {rate: 1/h, burst: 90000}, streams: 50}"
    scopes = (("key", "one"), ("tenant", "acme"))
    tenants = f"tenants: {{acme: {{limits: {plenty}}}}}"
    async with serving(one=plenty, more=tenants, alias=", limits: {streams: 1}") as (g, _, client):
        assert (await ask(client))[0] == 200
        await over(g)
        before = [await left(g, *scope, resource) for scope in scopes for resource in ("requests", "tokens")]
        assert (await g.runtime.store.take([], [Slot("alias:chat:streams", 1, "another")])).admitted
        for _ in range(5):
            assert (await ask(client))[0] == 429
        after = [await left(g, *scope, resource) for scope in scopes for resource in ("requests", "tokens")]
        assert after == pytest.approx(before, abs=0.1)
        assert [await taken(g, *scope) for scope in scopes] == [0, 0]


async def over(g: Running) -> None:
    """Waits until all calls have ended and are settled."""
    await until(lambda: not g.runtime.pipeline.runs and not g.runtime.limits.settlements.settling)


ONCE = ", limits: {requests: {rate: 6/h, burst: 1}}"


async def test_an_upstream_without_room_is_passed_over_and_is_none_the_worse_for_it() -> None:
    options = {
        "tiers": "[[{upstream: fake, model: m}], [{upstream: spare, model: m}]]",
        "fake": ", limits: {requests: {rate: 6/h, burst: 1}}",
    }
    async with serving(**options) as (g, _, client):
        for _ in range(4):
            assert (await ask(client))[0] == 200
        assert [line["attempts"] for line in g.requests] == [["fake/m ok"], *[["spare/m ok"]] * 3]
        targets = g.runtime.routes["chat"].targets
        assert all(target.health.healthy() and target.load.in_flight == 0 for target in targets)
        assert (
            g.metric(
                'sluice_ratelimit_decisions_total{decision="refused",resource="requests",scope="upstream"}'
            )
            == 3
        )


async def test_all_upstreams_without_room_say_when_there_is_some() -> None:
    async with serving(fake=ONCE, one="{requests: {rate: 100/s}}") as (
        g,
        provider,
        client,
    ):
        assert (await ask(client))[0] == 200
        status, headers, body = await ask(client)
        assert status == 429
        assert 590 < int(headers["Retry-After"]) <= 600
        assert headers["x-ratelimit-limit-requests"] == "100"
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert len(provider.turns) == 1
        assert g.requests[-1]["end"] == "limit"
        assert g.metric('sluice_rate_limited_total{alias="chat",resource="requests",scope="upstream"}') == 1


async def test_an_upstreams_places_come_back_when_its_attempts_end(store: str) -> None:
    async with serving(
        stall(1), store=store, fake=", limits: {streams: 1, tokens: {rate: 1/h, burst: 5000}}"
    ) as (
        g,
        _,
        client,
    ):
        stream = await hold(client)
        assert (await ask(client))[0] == 429
        stream.close()
        await over(g)
        assert await taken(g, "upstream", "fake") == 0
        assert await left(g, "upstream", "fake", "tokens") == pytest.approx(
            5000 - 3, abs=0.1
        )  # prompt and piece


async def test_answers_that_fail_tell_the_limits_too() -> None:
    limits = "{requests: {rate: 100/s}, tokens: {rate: 1/h, burst: 5000}}"
    async with serving(refusing("server"), one=limits) as (g, _, client):
        status, headers, _ = await ask(client)
        assert status == 502
        assert headers["x-ratelimit-limit-requests"] == "100"
        assert headers["x-ratelimit-limit-tokens"] == "5000"
        assert headers["x-ratelimit-reset-tokens"].endswith("s")
        assert await left(g, "key", "one", "tokens") == pytest.approx(5000, abs=0.1)


async def test_money_is_reserved_by_the_dearest_target_and_settled_by_the_one_that_answered() -> None:
    tiers = "[[{upstream: fake, model: m}], [{upstream: spare, model: m}]]"
    more = "prices: {models: {fake/m: {input: 1000, output: 1000}, spare/m: {input: 10000, output: 10000}}}"
    async with serving(one="{money: {rate: 0.001/h, burst: 5}}", tiers=tiers, more=more) as (g, _, client):
        assert (await ask(client, max_tokens=400))[0] == 200  # 402 tokens at most, at a cent each
        assert await left(g, "key", "one", "money") == pytest.approx(5 - 0.067, abs=1e-4)
        status, _, body = await ask(client, max_tokens=500)
        assert status == 429
        assert "money" in body["error"]["message"]


async def test_a_request_that_is_no_call_is_charged_to_its_address_alone() -> None:
    async with serving(address="{rate: 1/h, burst: 3}", one="{requests: {rate: 1/h, burst: 3}}") as (
        g,
        _,
        client,
    ):
        assert (await ask(client, messages="x"))[0] == 400
        assert (await ask(client, model="nope"))[0] == 404
        status, headers, _ = await ask(client)
        assert (status, headers["x-ratelimit-remaining-requests"]) == (200, "2")
        status, headers, body = await ask(client)
        assert status == 429
        assert "address" in body["error"]["message"]
        assert await left(g, "key", "one", "requests") == pytest.approx(2, abs=0.1)
        async with client.get("/v1/models", headers={"x-api-key": ONE}) as response:
            assert response.status == 429


# --- waiting


def session(client: aiohttp.ClientSession, name: str = "s", key: str = ONE) -> Any:
    return client.post(STREAM, json={"sessionId": name, "message": "hi"}, headers={"x-api-key": key})


async def test_who_waits_for_a_turn_of_its_session_holds_no_place() -> None:
    release = asyncio.Event()

    async def held(turn: Turn) -> None:
        await release.wait()
        await healthy(turn)

    async with serving(held, one="{streams: 1}") as (g, provider, client):
        first = asyncio.create_task(_read(session(client)))
        await until(lambda: len(provider.turns) == 1)
        second = asyncio.create_task(_read(session(client)))
        await until(lambda: g.metric('sluice_requests_waiting{alias="chat"}') == 1)
        assert g.metric('sluice_queue_length{alias="chat"}') == 0
        assert await taken(g, "key", "one") == 1
        release.set()
        assert [await first, await second] == [200, 200]


async def _read(request: Any) -> int:
    async with request as response:
        await response.read()
        status: int = response.status
        return status


QUEUE = ", queue: {size: 10, timeout: 20s}, limits: {streams: 1}"


async def test_a_queue_lets_everyone_in_one_after_the_other(store: str) -> None:
    async with serving(store=store, alias=QUEUE) as (g, _, client):
        answers = await asyncio.gather(*(ask(client, (ONE, TWO)[n % 2]) for n in range(10)))
        assert [status for status, _, _ in answers] == [200] * 10
        assert g.metric('sluice_requests_waiting{alias="chat"}') == 0
        assert await taken(g, "alias", "chat") == 0


async def test_a_queue_lets_a_call_in_when_its_bucket_has_refilled(store: str) -> None:
    alias = ", queue: {size: 10, timeout: 20s}, limits: {requests: {rate: 20/s, burst: 1}}"
    async with serving(store=store, alias=alias) as (_, _, client):
        answers = await asyncio.gather(*(ask(client) for _ in range(5)))
        assert [status for status, _, _ in answers] == [200] * 5


async def test_a_flood_of_one_key_keeps_no_other_waiting() -> None:
    order: list[str] = []
    go = asyncio.Event()

    async def noted(turn: Turn) -> None:
        order.append(json.loads(turn.request.body)["user"])
        await go.wait()
        await healthy(turn)

    async with serving(noted, alias=QUEUE) as (g, provider, client):
        tasks = [asyncio.create_task(ask(client, user="one"))]
        await until(lambda: len(provider.turns) == 1)
        tasks += [asyncio.create_task(ask(client, user="one")) for _ in range(8)]
        await until(lambda: g.metric('sluice_requests_waiting{alias="chat"}') == 8)
        tasks.append(asyncio.create_task(ask(client, TWO, user="two")))
        await until(lambda: g.metric('sluice_requests_waiting{alias="chat"}') == 9)
        assert g.metric('sluice_queue_length{alias="chat"}') == 9
        go.set()
        assert [status for status, _, _ in await asyncio.gather(*tasks)] == [200] * 10
        assert "two" in order[:3], order


async def test_who_waits_too_long_or_one_too_many_is_told_when_to_come_back() -> None:
    alias = ", queue: {size: 1, timeout: 100ms}, limits: {streams: 1}, heartbeat: 50ms"
    async with serving(stall(1), alias=alias) as (g, _, client):
        stream = await hold(client)
        late = asyncio.create_task(ask(client))
        await until(lambda: g.metric('sluice_requests_waiting{alias="chat"}') == 1)
        status, headers, _ = await ask(client)
        assert (status, headers["Retry-After"]) == (429, "1")
        status, headers, body = await late
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "streams" in body["error"]["message"]
        stream.close()
        assert g.metric('sluice_rate_limited_total{alias="chat",resource="streams",scope="alias"}') == 2
        assert (
            g.metric('sluice_queue_length{alias="chat"}'),
            g.metric('sluice_queue_length_max{alias="chat"}'),
        ) == (0, 1)


async def test_a_stream_that_waits_in_the_queue_is_kept_alive() -> None:
    alias = ", queue: {size: 9, timeout: 20s}, limits: {streams: 1}, heartbeat: 50ms"
    async with serving(stall(1), alias=alias) as (_, provider, client):
        stream = await hold(client)
        waiting = await hold(client)
        assert await waiting.content.readany()
        assert len(provider.turns) == 1
        stream.close()
        await until(lambda: len(provider.turns) == 2)
        waiting.close()


# --- tenants (proof 5)

TURNS = 10_000 if FULL else 500
AT_ONCE = 20


@pytest.mark.timeout(900 if FULL else 60)
async def test_tenants_with_the_same_sessions_never_see_each_others_messages() -> None:
    """Concurrent, half of them cancelled at any moment: what the provider is sent is one tenant's alone."""
    chance = random.Random(5)
    foreign: list[str] = []
    seen = {"one": 0, "two": 0}

    async def watch(turn: Turn) -> None:
        text = turn.request.body.decode()
        owners = {owner for owner in seen if f"of-{owner}" in text}
        if len(owners) == 1:
            seen[owners.pop()] += 1
        else:
            foreign.append(text)
        turn.begin()
        for _ in range(chance.randint(0, 60)):
            turn.say(1)
            await asyncio.sleep(0)
        turn.say()
        turn.finish()
        turn.end()

    queue = ", queue: {size: 100, timeout: 60s}, limits: {streams: 8}"
    async with serving(watch, alias=queue, tenants=("one", "two")) as (g, _, client):

        async def turn(number: int) -> None:
            owner, key = (("one", ONE), ("two", TWO))[number % 2]
            body = {"sessionId": f"s{number // 2 % 3}", "message": f"message {number} of-{owner}"}
            async with client.post(STREAM, json=body, headers={"x-api-key": key}) as response:
                await response.read()

        for first in range(0, TURNS, AT_ONCE):
            tasks = [asyncio.create_task(turn(first + number)) for number in range(AT_ONCE)]
            for task in chance.sample(tasks, AT_ONCE // 2):
                for _ in range(chance.randint(0, 30)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait(tasks)
        await over(g)
        listed, _ = await g.runtime.conversations.newest(100)
        for conversation in listed:
            _, turns = await g.runtime.conversations.get(conversation.id) or (None, [])
            assert len({turn.content.partition("of-")[2] for turn in turns if turn.role == "user"}) == 1
        assert len(listed) == 6
    assert foreign == []
    assert min(seen.values()) > TURNS / 8

"""Budgets by the admin API: what is spent, reserved and left, and to correct it; with every store of
limits."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.gateway_process import serving as process
from tests.e2e.gateways import Running, gateway
from tests.servers import RedisServer, redis_server

KEY, ADMIN = "sk-sluice-one", "sk-sluice-admin"
PRICE = 1000.0
"""US dollars for a million tokens: a tenth of a cent for each."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "shared", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        return f"{server.url}&timeout=10"
    return "memory" if request.param == "memory" else f"shared:{tmp_path}/limits"


class Operator:
    def __init__(self, g: Running, client: aiohttp.ClientSession) -> None:
        self.g = g
        self._client = client

    async def ask(
        self, method: str = "GET", query: str = "", key: str = ADMIN, **body: Any
    ) -> tuple[int, Any]:
        options = {"json": body} if body else {}
        url = f"{self.g.admin_url}/admin/budgets{query}"
        async with self._client.request(method, url, headers={"x-admin-api-key": key}, **options) as response:
            return response.status, await response.json()

    async def budget(self, scope: str = "key", owner: str = "one", period: str = "month") -> dict[str, Any]:
        status, answer = await self.ask(query=f"?scope={scope}&owner={owner}")
        assert status == 200
        found: dict[str, Any] = next(one for one in answer["budgets"] if one["period"] == period)
        return found

    def call(self, **fields: Any) -> Any:
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": "12345678"}],
            "max_tokens": 100,
            **fields,
        }
        return self._client.post(f"{self.g.url}/v1/chat/completions", json=body, headers={"x-api-key": KEY})

    async def spent(self, amount: float) -> None:
        while (
            abs((await self.budget())["spent_usd"] - amount) > 0.01 * amount
            or (await self.budget())["reserved_usd"]
        ):
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(store: str, tokens: int = 5, delay: str = "0") -> AsyncIterator[Operator]:
    config = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
limits: {{address: null, store: "{store}", prefix: "p{os.urandom(6).hex()}", overall: {{budget: {{day: 1000}}}}}}
admin: {{digest: "{digest_of(ADMIN)}"}}
tenants: {{acme: {{limits: {{budget: {{week: 500}}}}}}}}
keys: [{{id: one, tenant: acme, digest: "{digest_of(KEY)}", limits: {{budget: {{day: 10, month: 20}}}}}}]
upstreams: {{echo: {{backend: echo, tokens: {tokens}, delay: {delay}, first_token_delay: 1ms}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}
prices: {{models: {{m: {{input: {PRICE}, output: {PRICE}}}}}}}
"""
    async with gateway(config) as g, aiohttp.ClientSession() as client:
        yield Operator(g, client)


async def test_what_is_spent_and_reserved_is_told_while_a_call_goes_on_and_after_it(store: str) -> None:
    async with serving(store, tokens=3, delay="60s") as it:
        async with it.call(stream=True) as response:
            await response.content.readline()
            during = await it.budget()
            assert (during["spent_usd"], during["reserved_usd"]) == (0.0, pytest.approx(0.102))
            assert during["left_usd"] == pytest.approx(19.898)
        while (await it.budget())["reserved_usd"]:
            await asyncio.sleep(0)
        after = await it.budget()
        assert 0 < after["spent_usd"] < 0.01
        assert after["left_usd"] == pytest.approx(20 - after["spent_usd"])


async def test_all_budgets_are_listed_in_pages(store: str) -> None:
    async with serving(store) as it:
        async with it.call() as response:
            assert response.status == 200
            used = (await response.json())["usage"]["total_tokens"] / 1000
        await it.spent(used)
        status, answer = await it.ask()
        assert (status, answer["next"]) == (200, None)
        assert [
            (one["scope"], one["owner"], one["period"], one["limit_usd"]) for one in answer["budgets"]
        ] == [
            ("key", "one", "day", 10.0),
            ("key", "one", "month", 20.0),
            ("overall", "all", "day", 1000.0),
            ("tenant", "acme", "week", 500.0),
        ]
        assert [one["spent_usd"] for one in answer["budgets"]] == [pytest.approx(used)] * 4
        found, after = [], ""
        while after is not None:
            _, page = await it.ask(query=f"?limit=1&after={after}")
            found += page["budgets"]
            after = page["next"]
        assert [one["owner"] for one in found] == ["one", "one", "all", "acme"]


async def test_a_budget_is_corrected_and_the_correction_is_logged(store: str) -> None:
    async with serving(store) as it:
        for spent, admitted in ((19.99, False), (0.02, True), (25.0, False), (0.0, True)):
            status, answer = await it.ask("PATCH", scope="key", owner="one", period="month", spent=spent)
            assert (status, answer["spent_usd"], answer["left_usd"]) == (
                200,
                pytest.approx(spent),
                pytest.approx(20 - spent),
            )
            assert (await it.budget())["spent_usd"] == pytest.approx(spent)
            assert (await it.budget(period="day"))["spent_usd"] < 1
            async with it.call() as response:
                assert (response.status == 200) == admitted
            while (await it.budget())["reserved_usd"]:
                await asyncio.sleep(0)
        lines = [line for line in it.g.log_lines if line["event"] == "admin_budget"]
        assert [(line["owner"], line["period"]) for line in lines] == [("one", "month")] * 4
        assert [line["spent"] for line in lines] == [19.99, 0.02, 25.0, 0.0]
        assert lines[1]["spent_before"] == pytest.approx(19.99)


async def test_what_makes_no_sense_is_refused() -> None:
    async with serving("memory") as it:
        good = {"scope": "key", "owner": "one", "period": "month", "spent": 1}
        assert (await it.ask("PATCH", **good))[0] == 200
        for change in (
            {"spent": -1}, {"spent": 1e10}, {"spent": "1"}, {"spent": None}, {"period": "year"}, {"scope": "x"}, {"more": 1},
        ):  # fmt: skip
            assert (await it.ask("PATCH", **{**good, **change}))[0] == 400
        for owner in ("nobody", "x" * 5000, "\x00"):
            assert (await it.ask("PATCH", **{**good, "owner": owner}))[0] == 404
        for change in ({"period": "week"}, {"scope": "upstream"}):
            assert (await it.ask("PATCH", **{**good, **change}))[0] == 404
        for missing in good:
            assert (
                await it.ask("PATCH", **{name: value for name, value in good.items() if name != missing})
            )[0] == 400
        assert (await it.ask(query="?scope=nothing"))[0] == 400
        assert (await it.ask(query="?owner=nobody"))[0] == 404
        assert (await it.ask(query="?limit=0"))[0] == 400
        assert (await it.ask(key="wrong"))[0] == 401
        assert (await it.ask("PATCH", key="wrong", **good))[0] == 401
        assert (await it.budget())["spent_usd"] == 1.0


async def test_a_store_that_does_not_answer_is_no_budget_of_nothing() -> None:
    with redis_server() as server:
        async with serving(server.url) as it:
            assert (await it.budget())["spent_usd"] == 0.0
            server.kill()
            assert (await it.ask())[0] == 503
            assert (await it.ask("PATCH", scope="key", owner="one", period="month", spent=1))[0] == 503


def of_process(store: str) -> str:
    """A gateway of two workers whose calls reserve a third of the budget each."""
    return f"""
server: {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s, workers: 2}}
limits: {{address: null, store: "{store}"}}
admin: {{digest: "{digest_of(ADMIN)}"}}
keys: [{{id: one, digest: "{digest_of(KEY)}", default_alias: chat, limits: {{budget: {{month: 20}}}}}}]
upstreams: {{echo: {{backend: echo, tokens: 2, first_token_delay: 1ms, delay: 60s}}, quick: {{backend: echo, tokens: 2}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}, quick: {{tiers: [[{{upstream: quick, model: m}}]]}}}}
prices: {{models: {{m: {{input: {PRICE}, output: {PRICE}}}}}}}
"""


@pytest.mark.parametrize("whom", ["workers", "all"])
async def test_what_killed_processes_had_reserved_is_given_back(tmp_path: Path, whom: str) -> None:
    """Three streams of 6 dollars each, then kill -9: what is spent is what was used before."""
    text = of_process(f"shared:{tmp_path}/limits")
    used = 0.0
    with contextlib.suppress(RuntimeError), process(text) as g:  # RuntimeError: it was killed
        await asyncio.to_thread(g.wait_for, lambda _: len(g.records("started")) == 2, 30)
        async with aiohttp.ClientSession(g.api, headers={"x-api-key": KEY}) as client:
            body = {
                "model": "chat",
                "stream": True,
                "max_tokens": 6000,
                "messages": [{"role": "user", "content": "hi"}],
            }
            quick = {**body, "model": "quick", "stream": False, "max_tokens": 10}
            async with client.post("/v1/chat/completions", json=quick) as response:
                used = (await response.json())["usage"]["total_tokens"] * PRICE / 1e6
            streams = [await client.post("/v1/chat/completions", json=body) for _ in range(3)]
            for stream in streams:
                await stream.content.readline()
            assert (await state(g))["reserved_usd"] == pytest.approx(18.0, rel=0.01)
            async with client.post("/v1/chat/completions", json=body) as response:
                assert response.status == 429
            if whom == "all":
                g.process.kill()
            for record in g.records("worker_started"):
                os.kill(record["worker_pid"], signal.SIGKILL)
            for stream in streams:
                stream.close()
        if whom == "workers":
            await settled(g, used)
    assert used > 0
    if whom == "all":
        with process(text) as g:
            await settled(g, used)


async def state(g: GatewayProcess) -> dict[str, Any]:
    """The budget."""
    headers = {"x-admin-api-key": ADMIN}
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{g.admin}/admin/budgets", headers=headers) as response,
    ):
        found: dict[str, Any] = (await response.json())["budgets"][0]
        return found


async def settled(g: GatewayProcess, spent: float) -> None:
    """Returns when nothing is reserved any more. What is spent must be `spent` then, to 1 %."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                if not (found := await state(g))["reserved_usd"]:
                    break
            await asyncio.sleep(0.01)
    assert found["spent_usd"] == pytest.approx(spent, rel=0.01)

"""What operators are shown of several workers: the same from whichever of them answers, and of all of
them."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.e2e.test_reload import running
from tests.e2e.test_targets import ask

CALLS = 24


def config(workers: int) -> str:
    return f"""
server:
  {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s, workers: {workers}}}
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat}}]
admin: {{digest: "{DIGEST}", ui: true}}
limits: {{address: null}}
upstreams:
  echo: {{backend: echo}}
  away: {{backend: openai, base_url: "http://127.0.0.1:9/v1", breaker: {{failures: 1, open_for: 300s, open_max: 300s}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]]}}
  broken: {{tiers: [[{{upstream: away, model: m}}]], retry: {{same_target: 0}}}}
"""


async def call(gateway: GatewayProcess, model: str = "chat", *, stream: bool = False) -> None:
    """By a connection of its own: the system chooses the worker."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    async with (
        aiohttp.ClientSession(headers={"x-api-key": KEY}) as session,
        session.post(f"{gateway.api}/v1/chat/completions", json=body) as response,
    ):
        await response.read()


async def shown(gateway: GatewayProcess, path: str) -> dict[str, Any]:
    """Once all workers have answered: on a busy machine one may take more than its second."""
    while True:
        status, found = await ask(gateway, path, "GET")
        assert status == 200
        if not found.get("missing_workers"):
            return dict(found)


@pytest.mark.parametrize("workers", [1, 3])
async def test_overview_and_calls_are_those_of_all_workers(workers: int) -> None:
    with serving(config(workers)) as gateway:
        await running(gateway, workers)
        for _ in range(CALLS):
            await call(gateway)
        for _ in range(4 * workers):  # whichever answers
            overview = await shown(gateway, "/admin/overview")
            assert overview["requests"]["2xx"] >= CALLS
            assert (overview["workers"], overview["missing_workers"]) == (workers, [])
            assert overview["targets"] == {"closed": 2, "half_open": 0, "open": 0}
            found: list[dict[str, Any]] = []
            page: dict[str, Any] = {"next": ""}
            while page["next"] is not None:
                before = f"&before={page['next']}" if page["next"] else ""
                page = await shown(gateway, f"/admin/calls?limit=5{before}")
                found += page["calls"]
            assert len({one["request_id"] for one in found}) == len(found) == CALLS
            assert page["kept"] == CALLS
            assert [one["at"] for one in found] == sorted((one["at"] for one in found), reverse=True)
            assert all(("worker" in one) == (workers > 1) for one in found)
            chat, _ = (await shown(gateway, "/admin/aliases"))["aliases"]
            assert chat["tiers"][0]["targets"][0]["answered"] == CALLS
        assert (await shown(gateway, "/admin/calls?alias=nobody"))["calls"] == []


@pytest.mark.parametrize("workers", [1, 3])
async def test_texts_are_those_of_all_workers(workers: int) -> None:
    with serving(config(workers) + "log: {content: full}\n") as gateway:
        await running(gateway, workers)
        for _ in range(CALLS // 2):
            await call(gateway)
        for _ in range(2 * workers):  # whichever answers
            calls = (await shown(gateway, "/admin/calls?content=true"))["calls"]
            assert len(calls) == CALLS // 2
            for one in calls:
                assert one["content"]["prompt"]["messages"] == [{"role": "user", "content": "hi"}]
                assert one["content"]["answer"]["text"] == "You said: hi"
        if workers > 1:
            assert len({one["worker"] for one in calls}) > 1
        assert all("content" not in one for one in (await shown(gateway, "/admin/calls"))["calls"])


async def test_aliases_show_a_breaker_that_another_worker_has_opened_and_requests_of_those_that_have_ended() -> (
    None
):
    with serving(config(3)) as gateway:
        await running(gateway, 3)
        for _ in range(6):
            await call(gateway)
            await call(gateway, "broken")
        for _ in range(12):
            aliases = (await shown(gateway, "/admin/aliases"))["aliases"]
            [state] = [
                alias["tiers"][0]["targets"][0]["state"] for alias in aliases if alias["alias"] == "broken"
            ]
            assert state == "open"
            overview = await shown(gateway, "/admin/overview")
            assert overview["targets"]["open"] == 1
            assert overview["requests"]["5xx"] >= 6
        assert (await ask(gateway, "/admin/restart"))[0] == 202
        await asyncio.to_thread(gateway.until, lambda: gateway.records("restarted"))
        overview = await shown(gateway, "/admin/overview")
        assert overview["requests"]["2xx"] >= 6
        assert overview["requests"]["5xx"] >= 6


@pytest.mark.parametrize("workers", [1, 3])
async def test_the_live_stream_tells_of_all_workers_whichever_has_it(workers: int) -> None:
    with serving(config(workers)) as gateway:
        await running(gateway, workers)
        for _ in range(CALLS):
            await call(gateway, stream=True)
        for _ in range(2):
            await call(gateway, "broken")
        for _ in range(workers):
            told = await live(gateway, errors=2)
            overview = told["overview"]
            assert overview["recent"]["calls"] == CALLS + 2
            assert overview["recent"]["errors"] == 2
            assert overview["recent"]["first_token_p95"] >= overview["recent"]["first_token_p50"] > 0
            assert len(told["errors"]["calls"]) == 2
            assert len(told["processes"]["workers"]) == workers
            assert overview["cost_today_usd"] is None, "the echo model has no price"
            assert sum(step["calls"] for step in overview["recent"]["steps"]) == CALLS + 2


async def live(gateway: GatewayProcess, errors: int) -> dict[str, Any]:
    """The newest data of each event, once all have come and every worker has answered, with so many errors."""
    told: dict[str, Any] = {}
    headers = {"x-admin-api-key": KEY}
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{gateway.admin}/admin/overview/live") as response,
    ):
        assert (response.status, response.content_type) == (200, "text/event-stream")
        async for line in response.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                told[name] = json.loads(value)
            elif (
                not field
                and {*told} == {"overview", "errors", "processes"}
                and not told["overview"]["missing_workers"]
                and len(told["errors"]["calls"]) == errors
            ):
                return told
    raise AssertionError("the stream ended")

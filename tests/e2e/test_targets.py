"""Targets are switched off and on while the gateway runs, over all workers; workers are replaced, and the
gateway drained."""

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateway_process import DIGEST, GatewayProcess, serving
from tests.e2e.test_reload import ADMIN, COUNTS, clients, running
from tests.runtime.held import Provider, begin, whole


def config(workers: int, first: str, second: str, delay: str = "0s") -> str:
    return f"""
server:
  {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: {delay}, workers: {workers}}}
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat}}]
admin: {{digest: "{DIGEST}"}}
limits: {{address: null}}
upstreams:
  first: {{backend: openai, base_url: "{first}"}}
  second: {{backend: openai, base_url: "{second}"}}
aliases:
  chat: {{tiers: [[{{upstream: first, model: org/m}}], [{{upstream: second, model: m}}]]}}
  sole: {{tiers: [[{{upstream: first, model: org/m}}]]}}
"""


async def ask(gateway: GatewayProcess, path: str, method: str = "POST") -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(gateway.admin, headers=ADMIN) as session,
        session.request(method, path) as response,
    ):
        return response.status, await response.json()


async def target(gateway: GatewayProcess, upstream: str = "first") -> dict[str, Any]:
    status, answer = await ask(gateway, "/admin/targets", "GET")
    assert status == 200
    assert answer["missing_workers"] == []
    [found] = [target for target in answer["targets"] if target["upstream"] == upstream]
    return dict(found)


async def until(gateway: GatewayProcess, **wanted: object) -> dict[str, Any]:
    """The target, once it is said to be so."""
    while True:
        found = await target(gateway)
        if all(found[name] == value for name, value in wanted.items()):
            return found
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", COUNTS)
async def test_a_target_that_is_switched_off_gets_no_call_from_any_worker_until_it_is_on_again(
    workers: int,
) -> None:
    async with Provider() as first, Provider() as second:
        with serving(config(workers, first.url, second.url)) as gateway:
            await running(gateway, workers)
            async with clients(gateway, 6) as sessions:

                async def answers(alias: str = "chat") -> list[int]:
                    return [(await whole(client, alias))[0] for client in sessions]

                assert await answers() == [200] * 6
                before = len(first.requests)
                assert before == 6
                status, answer = await ask(gateway, "/admin/targets/first/org/m/disable")
                assert (status, answer) == (200, {"upstream": "first", "model": "org/m", "state": "disabled"})
                assert await answers() == [200] * 6
                assert await answers("sole") == [503] * 6
                assert (len(first.requests), len(second.requests)) == (before, 6)
                found = await target(gateway)
                assert (found["state"], found["aliases"], found["breaker"]) == (
                    "disabled",
                    ["chat", "sole"],
                    "closed",
                )
                assert len(found.get("workers", [0])) == workers
                assert (await ask(gateway, "/admin/reload"))[0] == 200
                assert await answers() == [200] * 6
                assert len(first.requests) == before, "a reload does not switch it on"
                assert (await ask(gateway, "/admin/targets/first/org/m/enable"))[0] == 200
                assert await answers() == await answers("sole") == [200] * 6
                assert len(first.requests) == before + 12
            assert (await ask(gateway, "/admin/targets/first/other/disable"))[0] == 404


@pytest.mark.parametrize("workers", COUNTS)
async def test_a_target_that_is_drained_ends_its_calls_and_gets_no_new_ones(workers: int) -> None:
    async with Provider() as first, Provider() as second:
        with serving(config(workers, first.url, second.url)) as gateway:
            await running(gateway, workers)
            async with clients(gateway, 6) as sessions:
                streams = [await begin(client) for client in sessions]
                await until(gateway, in_flight=6)
                assert (await ask(gateway, "/admin/targets/first/org/m/drain"))[0] == 200
                assert (await target(gateway))["state"] == "draining"
                async with clients(gateway, 6) as others:
                    assert [(await whole(client))[0] for client in others] == [200] * 6
                assert len(second.requests) == 6
                first.gate.set()
                assert [await stream.text() for stream in streams] == ["begin end"] * 6
                found = await until(gateway, in_flight=0)
                assert found["state"] == "drained"
                assert found["first_token_seconds"] > 0


@pytest.mark.parametrize("workers", COUNTS)
async def test_what_is_wrong_with_a_target_is_told(workers: int) -> None:
    async with Provider() as second:
        with serving(config(workers, "http://127.0.0.1:9", second.url)) as gateway:
            await running(gateway, workers)
            async with clients(gateway, 1) as [client]:
                for _ in range(6):
                    assert (await whole(client))[0] == 200
            found = await target(gateway)
            assert (found["breaker"], found["last_error"]) == ("open", "connect_error")
            assert found["ready_at"] > found["last_error_at"] > 0


async def test_workers_are_replaced_one_after_another_and_no_call_fails() -> None:
    async with Provider() as first, Provider() as second:
        # The delay: a kept connection of an old worker is closed once it was idle for a second behind it, and a
        # busy machine has a caller wait that long between its calls.
        with serving(config(3, first.url, second.url, delay="1h")) as gateway:
            await running(gateway, 3)
            over = asyncio.Event()
            statuses: Counter[object] = Counter()

            async def caller() -> None:
                async with clients(gateway, 1) as [client]:
                    while not over.is_set():
                        try:
                            statuses[(await whole(client))[0]] += 1
                        except aiohttp.ClientError as error:
                            statuses[repr(error)] += 1

            async with clients(gateway, 6) as sessions:
                streams = [await begin(client) for client in sessions]
                callers = [asyncio.create_task(caller()) for _ in range(4)]
                before = {
                    worker["pid"] for worker in (await ask(gateway, "/admin/status", "GET"))[1]["workers"]
                }
                assert (await ask(gateway, "/admin/targets/second/m/disable"))[0] == 200
                assert (await ask(gateway, "/admin/restart"))[0] == 202
                await asyncio.to_thread(
                    gateway.until, lambda: any('"restarted"' in line for line in list(gateway.lines)), 60
                )
                reached = statuses[200]
                while statuses[200] < reached + 20:
                    await asyncio.sleep(0.01)
                status = (await ask(gateway, "/admin/status", "GET"))[1]
                serving_now = {worker["pid"] for worker in status["workers"] if worker["state"] == "serving"}
                assert len(serving_now) == 3
                assert not serving_now & before
                assert (await target(gateway, "second"))["state"] == "disabled", "the new ones know it"
                first.gate.set()
                assert [await stream.text() for stream in streams] == ["begin end"] * 6
                over.set()
                await asyncio.gather(*callers)
            gateway.process.terminate()  # and a second time by `serving`, which ends the delay
            await asyncio.to_thread(gateway.until, lambda: len(gateway.records("draining")) == 6)
            assert set(statuses) == {200}


@pytest.mark.parametrize("workers", COUNTS)
async def test_the_gateway_is_drained_by_its_admin_port(workers: int) -> None:
    async with Provider() as first, Provider() as second:
        with serving(config(workers, first.url, second.url)) as gateway:
            await running(gateway, workers)
            async with clients(gateway, 3) as sessions:
                streams = [await begin(client) for client in sessions]
                assert (await ask(gateway, "/admin/drain"))[0] == 202
                await asyncio.to_thread(gateway.until, lambda: len(gateway.records("draining")) == workers)
                first.gate.set()
                assert [await stream.text() for stream in streams] == ["begin end"] * 3
            assert await asyncio.to_thread(gateway.process.wait, 20) == 0


async def test_one_process_cannot_replace_itself() -> None:
    async with Provider() as first, Provider() as second:
        with serving(config(1, first.url, second.url)) as gateway:
            await running(gateway, 1)
            assert (await ask(gateway, "/admin/restart"))[0] == 409
            [worker] = (await ask(gateway, "/admin/status", "GET"))[1]["workers"]
            assert (worker["pid"], worker["state"]) == (gateway.process.pid, "serving")

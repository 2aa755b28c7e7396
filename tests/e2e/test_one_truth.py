"""One answer for all workers: what is counted is counted once, and stays."""

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from sluice.runtime.descriptors import limit_of_files, places
from tests.e2e.gateway_process import DIGEST, KEY, ROOT, GatewayProcess, serving
from tests.e2e.test_workers import client, config, listening, pids, stream

REQUESTS = 'sluice_requests_total{alias="chat",code="2xx",frontend="widget"}'


def values(text: str) -> dict[str, float]:
    """By series, as the exposition writes it."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line[:1] not in ("#", "")
    }


def growing(text: str) -> dict[str, float]:
    """All that must never go back."""
    return {
        f"{sample.name}{json.dumps(sample.labels)}": sample.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }


async def scraped(gateway: GatewayProcess) -> str:
    async with aiohttp.ClientSession() as session, session.get(gateway.admin + "/metrics") as response:
        assert response.status == 200
        return await response.text()


async def test_every_scrape_counts_the_calls_of_all_workers() -> None:
    with serving(config(3, tokens=2, delay="0ms")) as gateway:
        await asyncio.to_thread(listening, gateway, 3)
        async with client(gateway) as session:
            ends = Counter([await stream(session, str(number)) for number in range(60)])
        assert ends == {"done": 60}
        for _ in range(6):
            found = values(await scraped(gateway))
            assert found[REQUESTS] == 60
            assert found['sluice_stream_end_total{alias="chat",frontend="widget",reason="done"}'] == 60
            assert found['sluice_time_to_first_token_seconds_count{alias="chat",frontend="widget"}'] == 60
            assert found['sluice_streams_in_flight{alias="chat",frontend="widget"}'] == 0
            assert found['sluice_breaker_state{model="echo",upstream="echo"}'] == 0
            assert found["sluice_workers"] == 3
            assert found['sluice_worker_restarts_total{reason="ended"}'] == 0
            assert all(
                found[f'sluice_event_loop_lag_seconds_count{{worker="{worker}"}}'] > 0 for worker in (1, 2, 3)
            )
            assert (
                found['sluice_client_connections_max{port="api"}']
                == 3 * places(limit_of_files(), 10_000).clients
            )
            assert (
                found[
                    "sluice_build_info"
                    + next(name for name in found if "build_info" in name).removeprefix("sluice_build_info")
                ]
                == 1
            )
            assert "sluice_worker" not in found


async def test_a_killed_workers_counts_stay_and_are_what_clients_have_seen() -> None:
    with serving(config(3, tokens=3, delay="1ms")) as gateway:
        await asyncio.to_thread(listening, gateway, 3)
        over = asyncio.Event()
        ends: Counter[str] = Counter()
        async with client(gateway) as session:

            async def caller(number: int) -> None:
                while not over.is_set():
                    ends[await stream(session, str(number))] += 1

            before: dict[str, float] = {}

            async def check() -> None:
                now = growing(await scraped(gateway))
                back = {
                    name: (value, now.get(name))
                    for name, value in before.items()
                    if now.get(name, -1) < value
                }
                assert not back
                before.update(now)

            callers = [asyncio.create_task(caller(number)) for number in range(9)]
            for count, worker in enumerate((1, 2, 3), 4):
                reached = ends["done"]
                while ends["done"] < reached + 40:
                    await check()
                os.kill(pids(gateway)[worker], signal.SIGKILL)
                await check()
                await asyncio.to_thread(listening, gateway, count)
            over.set()
            await asyncio.gather(*callers)
            await check()
        assert set(ends) <= {"done", "cut"}
        found = values(await scraped(gateway))
        assert found[REQUESTS] == ends["done"]
        assert found['sluice_worker_restarts_total{reason="ended"}'] == 3
        assert found['sluice_streams_in_flight{alias="chat",frontend="widget"}'] == 0


async def test_a_worker_that_is_replaced_is_no_reason_not_to_be_ready() -> None:
    with serving(config(2, tokens=100_000, delay="1ms")) as gateway:
        await asyncio.to_thread(listening, gateway, 2)
        async with client(gateway) as session:
            streams = [
                await session.post("/v1/chat/stream", json={"sessionId": str(n), "message": "hi"})
                for n in range(8)
            ]
            os.kill(pids(gateway)[1], signal.SIGTERM)
            await asyncio.to_thread(listening, gateway, 3)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as admin:
                for _ in range(20):
                    async with admin.get(gateway.admin + "/readyz") as response:
                        assert response.status == 200
            for response in streams:
                response.close()


HANGS = """
import signal, time

def hang_on_signal(*_):
    while True:
        time.sleep(0.01)

signal.signal(signal.SIGPROF, hang_on_signal)
"""


async def test_a_worker_whose_loop_does_nothing_is_replaced_and_says_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    with serving(config(2, tokens=1), env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as gateway:
        await asyncio.to_thread(listening, gateway, 2)
        stuck = pids(gateway)[2]
        os.kill(stuck, signal.SIGPROF)
        await asyncio.to_thread(
            gateway.until, lambda: any('"worker_ended"' in line for line in list(gateway.lines)), 60
        )
        [ended] = gateway.records("worker_ended")
        assert (ended["worker_pid"], ended["silent"]) == (stuck, True)
        assert any("hang_on_signal" in line for line in ended["stack"]), ended["stack"]
        await asyncio.to_thread(listening, gateway, 3)
        assert values(await scraped(gateway))['sluice_worker_restarts_total{reason="silent"}'] == 1


async def test_usage_is_that_of_all_workers_and_what_a_killed_one_has_brought_stays() -> None:
    text = config(3, tokens=2, delay="0ms") + f'admin: {{digest: "{DIGEST}"}}\n'
    with serving(text) as gateway:
        await asyncio.to_thread(listening, gateway, 3)
        async with client(gateway) as session:
            assert {await stream(session, str(number)) for number in range(30)} == {"done"}
            connector = aiohttp.TCPConnector(force_close=True)
            async with aiohttp.ClientSession(
                gateway.admin, headers={"x-admin-api-key": KEY}, connector=connector
            ) as admin:

                async def requests() -> int:
                    async with admin.get("/admin/usage?by=key") as response:
                        return int((await response.json())["total"]["requests"])

                while await requests() < 30:  # every worker brings what it has once a second
                    await asyncio.sleep(0.05)
                os.kill(pids(gateway)[1], signal.SIGKILL)
                await asyncio.to_thread(listening, gateway, 4)
                ending = pids(gateway)[2]
                os.kill(ending, signal.SIGTERM)  # it closes the store that the others go on with
                await asyncio.to_thread(listening, gateway, 5)
                await asyncio.to_thread(
                    gateway.wait_for,
                    lambda record: record["event"] == "worker_ended" and record["worker_pid"] == ending,
                )
                assert {await stream(session, str(number)) for number in range(30)} == {"done"}
                while await requests() < 60:
                    await asyncio.sleep(0.05)
                assert [await requests() for _ in range(6)] == [60] * 6

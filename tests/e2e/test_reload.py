"""The configuration is changed while the gateway runs: real processes, one and three workers."""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.runtime.held import NEW, OLD, Provider, Stream, begin, key, whole

ADMIN = {"x-admin-api-key": KEY}
COUNTS = [1, 3]
BROKEN = [
    "upstreams: [\n",
    "aliases: {a: {tiers: [[{upstream: none, model: m}]]}}\n",
    "nonsense: 1\n",
    "\0",
    "",
]


PATIENT = "timeouts: {connect: 200s, headers: 200s, first_token: 200s, idle: 200s, whole: 200s}"
"""Streams are held while the gateway reloads: on a slow machine that takes its time."""


def config(workers: int, url: str, number: int, *, more: str = "", server: str = "", keys: str = "") -> str:
    """Its alias `now-NUMBER` is new each time, `chat` and its upstream never change."""
    return f"""
server:
  listen: "127.0.0.1:${{API_PORT}}"
  admin_listen: "127.0.0.1:${{ADMIN_PORT}}"
  drain_delay: 0s
  drain_timeout: 2s
  workers: {workers}
  {server}
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat}}{keys}]
admin: {{digest: "{DIGEST}"}}
limits: {{address: null}}
upstreams:
  steady: {{backend: openai, base_url: "{url}", {PATIENT}}}
  echo: {{backend: echo, tokens: {number + 1}}}
aliases:
  chat: {{tiers: [[{{upstream: steady, model: m}}]]}}
  now-{number}: {{tiers: [[{{upstream: echo, model: echo}}]]}}
{more}"""


@asynccontextmanager
async def clients(gateway: GatewayProcess, count: int) -> AsyncIterator[list[aiohttp.ClientSession]]:
    """Each keeps one connection, which the kernel has given to one worker."""
    async with AsyncExitStack() as stack:
        connectors = [aiohttp.TCPConnector(limit=1) for _ in range(count)]
        yield [
            await stack.enter_async_context(aiohttp.ClientSession(gateway.api, connector=c))
            for c in connectors
        ]


async def running(gateway: GatewayProcess, workers: int) -> None:
    await asyncio.to_thread(gateway.wait_for, lambda _: len(gateway.records("started")) >= workers)


def outcomes(gateway: GatewayProcess) -> list[str]:
    """The log's lines about reloads."""
    return [
        line for line in list(gateway.lines) if '"config_reloaded"' in line or '"config_not_reloaded"' in line
    ]


def reloads(gateway: GatewayProcess) -> int:
    return len(outcomes(gateway))


async def reloaded(gateway: GatewayProcess, count: int) -> None:
    """Returns when so many reloads have ended."""
    await asyncio.to_thread(gateway.until, lambda: reloads(gateway) >= count)


async def post(gateway: GatewayProcess) -> tuple[int, Any]:
    """Reload by the admin API; its answer, once the log has it, too."""
    before = reloads(gateway)
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.admin + "/admin/reload", headers=ADMIN) as response,
    ):
        answer = response.status, await response.json()
    await reloaded(gateway, before + 1)
    return answer


async def hang_up(gateway: GatewayProcess) -> str:
    """Reload by SIGHUP; how it ended, by the log."""
    before = reloads(gateway)
    os.kill(gateway.process.pid, signal.SIGHUP)
    await reloaded(gateway, before + 1)
    return str(json.loads(outcomes(gateway)[-1]).get("result", "ok"))


async def ready(gateway: GatewayProcess) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(gateway.admin + "/readyz?verbose") as response:
        return response.status, await response.json()


@pytest.mark.parametrize("workers", COUNTS)
async def test_fifty_reloads_of_which_five_are_broken_fail_no_call_and_cut_no_stream(workers: int) -> None:
    async with Provider() as steady:
        with serving(config(workers, steady.url, 0)) as gateway:
            await running(gateway, workers)
            async with clients(gateway, 8) as sessions, clients(gateway, 20) as others:
                streams: list[Stream] = await asyncio.gather(*(begin(client) for client in others))
                assert {(await whole(client))[0] for client in sessions} == {200}
                over = asyncio.Event()
                statuses: Counter[int] = Counter()

                async def caller(client: aiohttp.ClientSession) -> None:
                    while not over.is_set():
                        statuses[(await whole(client))[0]] += 1

                callers = [asyncio.create_task(caller(client)) for client in sessions[:3]]
                results: Counter[str] = Counter()
                followed = 0
                for number in range(1, 51):
                    broken = number % 10 == 5
                    text = BROKEN[number // 10] if broken else config(workers, steady.url, number)
                    gateway.path.write_text(text)
                    if number % 2:
                        status, answer = await post(gateway)
                        assert status == (422 if broken else 200), answer
                        results[answer["result"]] += 1
                    else:
                        results[await hang_up(gateway)] += 1
                    followed = followed if broken else number
                    for client in sessions[3:]:
                        assert (await whole(client, f"now-{followed}"))[0] == 200
                        assert (await whole(client, f"now-{followed - 1}"))[0] == 404
                over.set()
                await asyncio.gather(*callers)
                steady.gate.set()
                assert {await stream.text() for stream in streams} == {"begin end"}
                assert results == {"ok": 45, "invalid": 5}
                assert set(statuses) == {200}
                assert sum(statuses.values()) >= 50
                assert len(steady.peers) <= len(others) + len(sessions), (
                    "a pool that has not changed keeps its connections"
                )
            metrics = gateway.scrape()
            assert 'sluice_config_reloads_total{result="ok"} 45.0' in metrics
            assert 'sluice_config_reloads_total{result="invalid"} 5.0' in metrics
            assert "sluice_config_last_reload_successful 1.0" in metrics
            [seconds] = re.findall(
                r"^sluice_config_last_reload_duration_seconds (\S+)$", metrics, re.MULTILINE
            )
            assert 0 < float(seconds) < 60
            assert not gateway.records("worker_ended")


def followed(metrics: str) -> list[str]:
    """The hashes of the configuration that the metrics name."""
    return re.findall(r'^sluice_config_info\{hash="(\w+)"\} 1\.0$', metrics, re.MULTILINE)


@pytest.mark.parametrize("workers", COUNTS)
async def test_a_broken_file_changes_nothing_and_is_told_everywhere(workers: int) -> None:
    async with Provider() as steady:
        with serving(config(workers, steady.url, 0)) as gateway:
            await running(gateway, workers)
            first = (await ready(gateway))[1]["config"]
            assert first["last_reload"] is None
            gateway.path.write_text(config(workers, steady.url, 1, more="unknown: 1\n"))
            status, answer = await post(gateway)
            assert status == 422
            assert 'unknown key "unknown"' in answer["problems"][0]
            assert answer["problems"][0].startswith(str(gateway.path))
            for _ in range(2 * workers):
                status, told = await ready(gateway)
                assert status == 200
                assert told["config"]["hash"] == first["hash"]
                assert told["config"]["last_reload"]["result"] == "invalid"
                metrics = gateway.scrape()
                assert "sluice_config_last_reload_successful 0.0" in metrics
                assert 'sluice_config_reloads_total{result="invalid"} 1.0' in metrics
                assert followed(metrics) == [first["hash"]]
            [line] = gateway.records("config_not_reloaded")
            assert line["problems"] == answer["problems"]
            gateway.path.write_text(config(workers, steady.url, 2))
            assert await hang_up(gateway) == "ok"
            second = (await ready(gateway))[1]["config"]["hash"]
            assert second not in ("", first["hash"])
            assert followed(gateway.scrape()) == [second]
            gateway.path.unlink()
            assert (await post(gateway))[1]["problems"] == [
                f"{gateway.path}: cannot be read: no such file or directory"
            ]


@pytest.mark.parametrize("workers", COUNTS)
async def test_what_needs_a_restart_is_named_and_refused_as_a_whole(workers: int) -> None:
    async with Provider() as steady:
        with serving(config(workers, steady.url, 0)) as gateway:
            await running(gateway, workers)
            gateway.path.write_text(
                config(workers + 1, steady.url, 1, server="write_idle: 5s").replace(
                    "${API_PORT}", str(gateway.port + 1)
                )
            )
            status, answer = await post(gateway)
            assert status == 409
            assert answer["needs_restart"] == ["server.listen", "server.write_idle", "server.workers"]
            async with clients(gateway, 4) as sessions:
                assert {(await whole(client, "now-0"))[0] for client in sessions} == {200}
                assert {(await whole(client, "now-1"))[0] for client in sessions} == {404}


@pytest.mark.parametrize("workers", COUNTS)
async def test_keys_can_be_changed_by_the_file(workers: int) -> None:
    async with Provider() as steady:
        with serving(config(workers, steady.url, 0, keys=f", {key('caller', OLD)}")) as gateway:
            await running(gateway, workers)
            async with clients(gateway, 4) as sessions:
                assert {(await whole(client, "chat", OLD))[0] for client in sessions} == {200}
                gateway.path.write_text(config(workers, steady.url, 0, keys=f", {key('caller', NEW)}"))
                assert (await post(gateway))[0] == 200
                assert {(await whole(client, "chat", OLD))[0] for client in sessions} == {401}
                assert {(await whole(client, "chat", NEW))[0] for client in sessions} == {200}


@pytest.mark.parametrize("workers", COUNTS)
async def test_a_watched_file_is_followed_also_behind_a_swapped_symlink(workers: int, tmp_path: Path) -> None:
    async with Provider() as steady:
        with serving(config(workers, steady.url, 0)) as gateway:
            await running(gateway, workers)
            gateway.path.write_text(config(workers, steady.url, 1, server="watch: true"))
            assert await hang_up(gateway) == "ok"
            for number in (
                2,
                3,
            ):  # as a ConfigMap is mounted: the file is a link into a directory that is a link itself
                (tmp_path / str(number)).mkdir()
                (tmp_path / str(number) / "gateway.yaml").write_text(
                    config(workers, steady.url, number, server="watch: true")
                )
            gateway.path.write_text(config(workers, steady.url, 1, server="watch: true") + "# changed\n")
            await reloaded(gateway, 2)
            for number in (2, 3):
                (tmp_path / "new").symlink_to(str(number))
                (tmp_path / "new").rename(tmp_path / "data")
                if number == 2:
                    (tmp_path / "link").symlink_to(tmp_path / "data" / "gateway.yaml")
                    (tmp_path / "link").rename(gateway.path)
                await reloaded(gateway, number + 1)
                async with clients(gateway, 4) as sessions:
                    assert {(await whole(client, f"now-{number}"))[0] for client in sessions} == {200}
            assert len(gateway.records("config_reloaded")) == 4


async def test_a_worker_that_starts_later_follows_what_is_followed_then() -> None:
    async with Provider() as steady:
        with serving(config(2, steady.url, 0)) as gateway:
            await running(gateway, 2)
            gateway.path.write_text(config(2, steady.url, 1))
            assert (await post(gateway))[0] == 200
            gateway.path.write_text("broken")
            assert (await post(gateway))[0] == 422
            for record in gateway.records("worker_started"):
                os.kill(record["worker_pid"], signal.SIGKILL)
            await running(gateway, 4)
            async with clients(gateway, 8) as sessions:
                assert {(await whole(client, "now-1"))[0] for client in sessions} == {200}
            assert (await ready(gateway))[1]["config"]["last_reload"]["result"] == "invalid"


async def test_a_hang_up_sent_to_a_worker_reloads_all() -> None:
    async with Provider() as steady:
        with serving(config(2, steady.url, 0)) as gateway:
            await running(gateway, 2)
            gateway.path.write_text(config(2, steady.url, 1))
            os.kill(gateway.records("worker_started")[0]["worker_pid"], signal.SIGHUP)
            await reloaded(gateway, 1)
            async with clients(gateway, 8) as sessions:
                assert {(await whole(client, "now-1"))[0] for client in sessions} == {200}


@pytest.mark.parametrize("workers", COUNTS)
async def test_nobody_reloads_without_the_admin_key(workers: int) -> None:
    async with Provider() as steady:
        with serving(config(workers, steady.url, 0)) as gateway:
            await running(gateway, workers)
            async with (
                aiohttp.ClientSession() as session,
                session.post(gateway.admin + "/admin/reload", headers={"x-api-key": KEY}) as response,
            ):
                assert response.status == 401, await response.text()
            assert reloads(gateway) == 0
            assert (await post(gateway))[0] == 200

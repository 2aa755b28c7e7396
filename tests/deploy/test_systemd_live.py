"""The units of deploy/systemd, run by a systemd: as their head says, but for other ports, a log in a file and a
shorter watchdog."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deploy.systemd_host import UNITS, SystemdHost, systemd_host
from tests.e2e.gateways import DIGEST, KEY
from tests.fakes.faulty import Provider, Turn, healthy

pytestmark = pytest.mark.skipif(
    not os.environ.get("SLUICE_TEST_DEPLOY"), reason="make test-deploy runs the units by a systemd"
)
PATIENCE = 120.0
BODY = {"model": "chat", "messages": [{"role": "user", "content": "Count"}]}


def config(url: str, aliases: str = "chat", workers: int = 1) -> str:
    routes = "".join(f"  {name}: {{tiers: [[{{upstream: one, model: m}}]]}}\n" for name in aliases.split())
    return f"""
server: {{workers: {workers}, drain_delay: 0, drain_timeout: 60s}}
keys: [{{id: test, digest: "{DIGEST}", aliases: ["*"]}}]
limits: {{address: null}}
upstreams: {{one: {{backend: openai, base_url: "{url}"}}}}
aliases:
{routes}"""


async def until(holds: Callable[[], Any], host: SystemdHost) -> None:
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < end, host.log[-4000:]
        await asyncio.sleep(0.05)


@asynccontextmanager
async def installed(
    directory: Path, behaviour: Any = healthy, drop_in: str = "", **options: Any
) -> AsyncIterator[tuple[SystemdHost, aiohttp.ClientSession, Provider]]:
    """The service runs, installed and started as the unit's head says."""
    assert (
        "install -D -m 0644 gateway.yaml /etc/sluice/gateway.yaml" in (UNITS / "sluice.service").read_text()
    )
    async with Provider(behaviour) as provider:
        with systemd_host(directory, drop_in) as host:
            host.write("/etc/sluice/gateway.yaml", config(provider.url, **options))
            host.run("systemctl", "start", "sluice.socket", "sluice.service")
            # every call has a connection of its own
            connector = aiohttp.TCPConnector(force_close=True)
            headers = {"authorization": f"Bearer {KEY}"}
            async with aiohttp.ClientSession(
                f"http://127.0.0.1:{host.api}", connector=connector, headers=headers
            ) as client:
                yield host, client, provider


async def ask(client: aiohttp.ClientSession, alias: str = "chat", **more: Any) -> int:
    body = {**BODY, "model": alias, **more}
    async with client.post("/v1/chat/completions", json=body) as answer:
        await answer.read()
        return answer.status


async def test_it_runs_as_nobody_in_a_system_that_it_cannot_write_to(tmp_path: Path) -> None:
    async with installed(tmp_path) as (host, client, _):
        assert await ask(client) == 200
        assert host.show("ActiveState", "StatusText", "NotifyAccess") == ["active", "serving", "main"]
        status = dict(
            line.split(":", 1)
            for line in host.run("cat", f"/proc/{host.main}/status").splitlines()
            if ":" in line
        )
        assert 61184 <= int(status["Uid"].split()[0]) <= 65519, "a user of DynamicUser="
        assert [status[name].strip() for name in ("CapEff", "NoNewPrivs", "Seccomp")] == ["0" * 16, "1", "2"]
        limits = host.run("cat", f"/proc/{host.main}/limits")
        allowed = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        assert next(line for line in limits.splitlines() if "open files" in line).split()[3] == str(allowed)
        mounts = host.run("cat", f"/proc/{host.main}/mountinfo")
        root = next(line for line in mounts.splitlines() if line.split()[4] == "/")
        assert root.split()[5].startswith("ro")


async def test_a_reload_is_followed_and_a_file_with_mistakes_is_not(tmp_path: Path) -> None:
    async with installed(tmp_path) as (host, client, provider):
        before = host.main
        host.write("/etc/sluice/gateway.yaml", config(provider.url, "chat other"))
        host.run("systemctl", "reload", "sluice.service")
        await until(lambda: "config_reloaded" in host.log, host)
        assert await ask(client, "other") == 200
        host.write("/etc/sluice/gateway.yaml", "upstreams: [")
        host.run("systemctl", "reload", "sluice.service")
        await until(lambda: "config_not_reloaded" in host.log, host)
        assert await ask(client, "other") == 200
        await until(lambda: host.show("ActiveState", "StatusText") == ["active", "serving"], host)
        assert host.main == before


async def test_no_connection_is_lost_over_a_restart_and_streams_are_answered_to_their_end(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()
    waiting = 0

    async def held(turn: Turn) -> None:
        nonlocal waiting
        if b"held" in turn.request.body:
            waiting += 1
            await gate.wait()
        await healthy(turn)

    async with installed(tmp_path, held, workers=2) as (host, client, _):
        before = host.main
        streams = [
            asyncio.create_task(ask(client, stream=True, messages=[{"role": "user", "content": "held"}]))
            for _ in range(10)
        ]
        while waiting < 10:
            await asyncio.sleep(0.01)
        statuses: list[int] = []
        over = asyncio.Event()

        async def keep_asking() -> None:
            while not over.is_set():
                statuses.append(await ask(client))

        asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
        while len(statuses) < 20:
            await asyncio.sleep(0.01)
        restart = asyncio.create_task(asyncio.to_thread(host.run, "systemctl", "restart", "sluice.service"))
        await until(lambda: host.show("ActiveState", "StatusText") == ["deactivating", "draining"], host)
        gate.set()
        await restart
        after = len(statuses)
        while len(statuses) < after + 20:
            await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*asking)
        assert set(statuses) == {200}
        assert await asyncio.gather(*streams) == [200] * 10
        assert host.main != before
        assert '"inherited":["api","admin"]' in host.log.replace(" ", "")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_process_that_hangs_is_replaced_by_the_watchdog(tmp_path: Path, workers: int) -> None:
    async with installed(tmp_path, drop_in="WatchdogSec=5\n", workers=workers) as (host, client, _):
        before = host.main
        await asyncio.sleep(6)  # it is not killed while it turns
        assert host.main == before
        host.run("kill", "-STOP", str(before))
        await until(lambda: host.main not in (before, 0), host)
        assert await ask(client) == 200, "the socket is systemd's: the connection waits for the next process"
        await until(lambda: host.show("NRestarts", "ActiveState") == ["1", "active"], host)
        assert "Watchdog timeout" in host.log


async def test_a_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    async with installed(tmp_path, workers=2) as (host, client, _):
        before = host.main
        host.run("kill", "-9", str(before))
        await until(lambda: host.main not in (before, 0), host)
        assert await ask(client) == 200
        await until(lambda: host.show("NRestarts", "ActiveState") == ["1", "active"], host)


async def test_a_file_with_mistakes_is_tried_a_few_times_and_then_left_alone(tmp_path: Path) -> None:
    with systemd_host(tmp_path, "RestartSec=100ms\n") as host:
        host.write("/etc/sluice/gateway.yaml", "upstreams: [\n")
        assert "failed" in host.run("systemctl", "start", "sluice.service", check=False)
        await until(lambda: host.show("ActiveState", "SubState") == ["failed", "failed"], host)
        assert host.show("NRestarts") == ["5"]
        assert "gateway.yaml" in host.log


async def test_its_files_of_the_state_directory_outlive_it(tmp_path: Path) -> None:
    async with Provider(healthy) as provider:
        with systemd_host(tmp_path) as host:
            host.write("/etc/sluice/gateway.yaml", config(provider.url) + "state: sqlite:turns.db\n")
            host.run("systemctl", "start", "sluice.socket", "sluice.service")
            host.run("systemctl", "restart", "sluice.service")
            assert "turns.db" in host.run("ls", "/var/lib/private/sluice")
            host.run("systemctl", "stop", "sluice.service")
            assert host.show("Result", "ActiveState") == ["success", "inactive"]

"""`sluice serve` with several workers: real processes on one port, killed, stopped, replaced."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.gateway_process import DIGEST, KEY, ROOT, GatewayProcess, serving
from tests.e2e.test_bad_start import RIGHT, start

HEADERS = {"x-api-key": KEY}
ROUNDS = 10


def config(
    workers: int, *, tokens: int = 20, delay: str = "10ms", limits: str = "{}", server: str = ""
) -> str:
    return f"""
server:
  {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s, workers: {workers}{server}}}
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat, limits: {limits}}}]
limits: {{address: null}}
upstreams: {{echo: {{backend: echo, tokens: {tokens}, delay: {delay}}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""


@asynccontextmanager
async def client(gateway: GatewayProcess) -> AsyncIterator[aiohttp.ClientSession]:
    """A connection for each request, so that the kernel deals them all out."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(gateway.api, headers=HEADERS, connector=connector) as session:
        yield session


def pids(gateway: GatewayProcess) -> dict[int, int]:
    """The workers that were started last, by number."""
    return {record["worker"]: record["worker_pid"] for record in gateway.records("worker_started")}


def started(gateway: GatewayProcess, number: int) -> list[int]:
    """The processes that have been this worker."""
    return [
        record["worker_pid"] for record in gateway.records("worker_started") if record["worker"] == number
    ]


def listening(gateway: GatewayProcess, count: int) -> None:
    """Returns when so many workers have said that they listen."""
    gateway.wait_for(lambda _: len(gateway.records("started")) >= count)


async def stream(session: aiohttp.ClientSession, name: str) -> str:
    """How it ended."""
    try:
        async with session.post("/v1/chat/stream", json={"sessionId": name, "message": "hi"}) as response:
            lines = (await response.text()).splitlines()
            return str(json.loads(lines[-1])["type"])
    except aiohttp.ClientConnectorError:
        return "refused"
    except aiohttp.ClientError:
        return "cut"


def test_all_workers_start_on_one_port_and_say_what_they_do_not_share() -> None:
    with serving(config(3)) as gateway:
        listening(gateway, 3)
        assert {record["worker"] for record in gateway.records("started")} == {1, 2, 3}
        assert any("each worker keeps its own conversations" in line for line in gateway.errors)


async def test_a_limit_holds_over_all_workers_exactly() -> None:
    """A worker that the machine stops for longer than the others wait for the table's lock makes them count
    alone meanwhile (`limits.when_down: open`), and they say so: such a round shows nothing, and is repeated.
    """
    for _ in range(ROUNDS):
        with serving(config(4, tokens=1, limits="{requests: {rate: 1/day, burst: 20}}")) as gateway:
            listening(gateway, 4)
            [used] = gateway.records("limits_store")
            assert used["configured"] == "memory"
            async with client(gateway) as session:

                async def call(number: int) -> int:
                    async with session.post(
                        "/v1/chat", json={"sessionId": str(number), "message": "hi"}
                    ) as response:
                        return response.status

                answers = Counter(await asyncio.gather(*map(call, range(200))))
        if not gateway.records("store_failing"):
            assert answers == {200: 20, 429: 180}
            return
    pytest.skip("the machine stopped a worker for more than 50 ms in each round")


async def test_a_killed_worker_costs_its_own_streams_alone_and_is_replaced() -> None:
    with serving(config(3)) as gateway:
        listening(gateway, 3)
        before = pids(gateway)
        over = asyncio.Event()
        ends: Counter[str] = Counter()
        async with client(gateway) as session:

            async def caller(number: int) -> None:
                while not over.is_set():
                    ends[await stream(session, str(number))] += 1

            callers = [asyncio.create_task(caller(number)) for number in range(30)]
            while ends["done"] < 60:
                await asyncio.sleep(0.01)
            os.kill(before[2], signal.SIGKILL)
            await asyncio.to_thread(
                gateway.wait_for, lambda record: record["event"] == "worker_ended" and record["worker"] == 2
            )
            await asyncio.to_thread(listening, gateway, 4)
            reached = ends["done"]
            while ends["done"] < reached + 60:
                await asyncio.sleep(0.01)
            over.set()
            await asyncio.gather(*callers)
        assert set(ends) == {"done", "cut"}, (
            "what was dealt to it and not accepted waits for the next one (DECISIONS 57)"
        )
        assert 0 < ends["cut"] < 30
        after = pids(gateway)
        assert [number for number in before if before[number] != after[number]] == [2]


async def test_all_workers_finish_their_streams_at_sigterm() -> None:
    with serving(config(3, tokens=100)) as gateway:
        listening(gateway, 3)
        async with client(gateway) as session:
            streams = [
                await session.post("/v1/chat/stream", json={"sessionId": str(n), "message": "hi"})
                for n in range(12)
            ]
            for response in streams:
                await response.content.readline()
            gateway.process.terminate()
            ends = [json.loads((await response.text()).splitlines()[-1])["type"] for response in streams]
        assert ends == ["done"] * 12
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0
        assert len(gateway.records("stopped")) == 3


async def test_a_second_signal_ends_the_workers_delay() -> None:
    with serving(config(2).replace("drain_delay: 0s", "drain_delay: 60s")) as gateway:
        listening(gateway, 2)
        gateway.process.send_signal(signal.SIGINT)
        gateway.wait_for(lambda _: len(gateway.records("draining")) == 2)
        gateway.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0


def test_a_worker_that_keeps_ending_is_started_after_longer_and_longer() -> None:
    with serving(config(2)) as gateway:
        listening(gateway, 2)
        for count, number in enumerate([signal.SIGTERM, signal.SIGKILL, signal.SIGKILL], 3):
            os.kill(pids(gateway)[1], number)
            listening(gateway, count)
        ended = gateway.records("worker_ended")
        assert [(record["code"], record["again_in"]) for record in ended] == [(0, 0.0), (-9, 0.5), (-9, 1.0)]
        assert {record["worker"] for record in ended} == {1}


def test_workers_that_do_not_end_in_time_are_killed() -> None:
    with serving(config(2, server=", drain_timeout: 0s")) as gateway:
        listening(gateway, 2)
        os.kill(pids(gateway)[1], signal.SIGSTOP)
        gateway.process.terminate()
        assert gateway.process.wait(20) == 0
        assert gateway.records("workers_killed")[0]["workers"] == [1]


def test_a_killed_supervisor_leaves_no_workers() -> None:
    def kill() -> GatewayProcess:
        with serving(config(3)) as gateway:
            listening(gateway, 3)
            gateway.process.kill()
            gateway.wait_for(lambda _: len(gateway.records("stopped")) == 3)
            [output, _] = gateway._readers
            output.join(20)
            assert not output.is_alive(), "somebody still has our standard output"
        raise AssertionError("its exit code was 0")

    with pytest.raises(RuntimeError, match="ended with -9"):
        kill()


def problems(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if not line.startswith("warning: ")]


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "that would share it"])
@pytest.mark.parametrize("taken", ["API_PORT", "ADMIN_PORT"])
def test_a_port_in_use_is_one_line_and_exit_1(taken: str, shares: bool, tmp_path: Path) -> None:
    with socket.socket() as other:
        if shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = start(tmp_path, RIGHT.replace("server: {", "server: {workers: 3, "), **{taken: port})
    assert (done.returncode, done.stdout) == (1, "")
    [line] = problems(done.stderr)
    assert port in line
    assert "in use" in line


def test_a_worker_that_cannot_start_ends_all_with_its_message(tmp_path: Path) -> None:
    text = RIGHT.replace("server: {", "server: {workers: 3, ") + "limits: {store: 'shared:/nowhere/limits'}\n"
    done = start(tmp_path, text)
    assert done.returncode == 1
    [line] = problems(done.stderr)
    assert "/nowhere/limits" in line
    assert [json.loads(line).get("worker") for line in done.stdout.splitlines()] == [None, 1, None]


def test_a_worker_that_is_killed_before_it_listens_is_started_again_beside_those_that_serve() -> None:
    with serving(config(2)) as gateway:
        for number in range(1, 4):
            gateway.wait_for(lambda record: record["event"] == "started" and record["worker"] == 1)
            gateway.wait_for(lambda _, at=number: len(started(gateway, 2)) >= at)
            os.kill(started(gateway, 2)[-1], signal.SIGKILL)
        gateway.wait_for(lambda record: record["event"] == "started" and record["worker"] == 2)
        assert gateway.process.poll() is None


# --- one of several ends


BODY = b'{"sessionId": "%d", "message": "hi"}'


async def ask(gateway: GatewayProcess, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has sent a call."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = BODY % number
    head = f"POST /v1/chat HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return reader, writer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_waits_to_be_accepted_by_a_worker_that_ends_is_served(number: signal.Signals) -> None:
    with serving(config(2, tokens=1)) as gateway:
        listening(gateway, 2)
        stopped = pids(gateway)[1]
        os.kill(stopped, signal.SIGSTOP)
        clients = [
            await ask(gateway, number) for number in range(60)
        ]  # the kernel deals half of them to each
        os.kill(stopped, number)
        if number != signal.SIGKILL:
            os.kill(stopped, signal.SIGCONT)
        answers = [await reader.read() for reader, _ in clients]
        assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * 60
        for _, writer in clients:
            writer.close()


@pytest.mark.parametrize("keep", [False, True], ids=["a connection each", "kept connections"])
async def test_no_call_is_lost_while_workers_are_replaced_one_after_the_other(keep: bool) -> None:
    with serving(config(2, tokens=1, delay="1ms")) as gateway:
        listening(gateway, 2)
        over = asyncio.Event()
        ends: Counter[object] = Counter()
        connector = aiohttp.TCPConnector(force_close=not keep, limit=0)
        async with aiohttp.ClientSession(gateway.api, headers=HEADERS, connector=connector) as session:

            async def caller(number: int) -> None:
                while not over.is_set():
                    try:
                        async with session.post(
                            "/v1/chat", json={"sessionId": str(number), "message": "hi"}
                        ) as response:
                            await response.read()
                            ends[response.status] += 1
                    except aiohttp.ClientError as error:
                        ends[repr(error)] += 1

            callers = [asyncio.create_task(caller(number)) for number in range(20)]
            for count, worker in enumerate((1, 2), 3):
                reached = ends[200]
                while ends[200] < reached + 40:
                    await asyncio.sleep(0.01)
                os.kill(pids(gateway)[worker], signal.SIGTERM)
                await asyncio.to_thread(listening, gateway, count)
            over.set()
            await asyncio.gather(*callers)
        assert set(ends) == {200}, ends


async def test_a_worker_that_drains_has_its_place_taken_before_it_ends() -> None:
    with serving(config(2, tokens=100_000, delay="1ms")) as gateway:
        listening(gateway, 2)
        async with client(gateway) as session:
            streams = [
                await session.post("/v1/chat/stream", json={"sessionId": str(n), "message": "hi"})
                for n in range(20)
            ]
            drained = pids(gateway)[1]
            os.kill(drained, signal.SIGTERM)
            await asyncio.to_thread(listening, gateway, 3)
            assert pids(gateway)[1] != drained
            os.kill(drained, 0)
            for response in streams:
                response.close()
        await asyncio.to_thread(gateway.wait_for, lambda record: record["event"] == "worker_ended")
        [ended] = gateway.records("worker_ended")
        assert (ended["worker_pid"], ended["code"], ended["again_in"]) == (drained, 0, 0.0)


# --- a killed supervisor


def second(text: str, folder: Path, gateway: GatewayProcess) -> "subprocess.Popen[str]":
    """Another gateway on the ports of this one."""
    (folder / "second.yaml").write_text(text)
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "API_PORT": str(gateway.port),
        "ADMIN_PORT": gateway.admin.rpartition(":")[2],
    }
    command = [sys.executable, "-m", "sluice", "serve", "--config", "second.yaml"]
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("workers", [1, 2])
async def test_after_a_killed_supervisor_a_gateway_starts_while_streams_of_the_old_one_end(
    workers: int, tmp_path: Path
) -> None:
    async def kill() -> None:
        with serving(
            config(2, tokens=400, delay="5ms").replace("drain_delay: 0s", "drain_delay: 60s")
        ) as gateway:
            listening(gateway, 2)
            async with client(gateway) as session:
                streams = [
                    await session.post("/v1/chat/stream", json={"sessionId": str(n), "message": "hi"})
                    for n in range(8)
                ]
                gateway.process.kill()
                after = second(config(workers, tokens=1), tmp_path, gateway)
                assert after.stdout is not None
                try:
                    for _ in range(workers):
                        while '"started"' not in (line := await asyncio.to_thread(after.stdout.readline)):
                            assert line, "it did not start"
                    async with session.post(
                        "/v1/chat", json={"sessionId": "new", "message": "hi"}
                    ) as response:
                        assert (await response.json())["message"] == "tok0"
                    ends = [
                        json.loads((await response.text()).splitlines()[-1])["type"] for response in streams
                    ]
                    assert ends == ["done"] * 8
                finally:
                    after.terminate()
                    await asyncio.to_thread(after.communicate, timeout=20)

    with pytest.raises(RuntimeError, match="ended with -9"):
        await kill()


# --- signals that mean nothing yet


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_that_other_servers_know_do_no_harm(workers: int) -> None:
    with serving(config(workers, tokens=1)) as gateway:
        listening(gateway, workers)
        processes = [gateway.process.pid, *pids(gateway).values()]
        names = ["SIGQUIT", "SIGUSR1"]
        for process in processes:
            for name in names:
                os.kill(process, signal.Signals[name])
        gateway.wait_for(lambda _: len(gateway.records("signal_ignored")) == len(names) * len(processes))
        assert Counter(record["signal"] for record in gateway.records("signal_ignored")) == dict.fromkeys(
            names, len(processes)
        )
        assert f"sluice_workers {workers if workers > 1 else 0}" in gateway.scrape()
        assert not gateway.records("worker_ended")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_closed_terminal_ends_the_gateway_that_was_started_on_it(workers: int) -> None:
    master, terminal = os.openpty()
    takes_terminal = (
        "import fcntl, os, sys, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    shell = f"exec {sys.executable} -c '{takes_terminal}' \"$@\""
    with serving(
        config(workers, tokens=1), output=terminal, shell=f"exec setsid sh -c '{quoted(shell)}' sh \"$@\""
    ) as gateway:
        os.close(terminal)
        seen = b""
        while seen.count(b" started ") < workers:
            seen += os.read(master, 4096)
        assert b"{" not in seen, "text, on a terminal"
        os.kill(gateway.process.pid, signal.SIGHUP)
        while b"config_reloaded" not in seen:
            seen += os.read(master, 4096)
        os.close(master)
        assert gateway.process.wait(20) == 0


def quoted(shell: str) -> str:
    """To stand between single quotes."""
    return shell.replace("'", "'\\''")

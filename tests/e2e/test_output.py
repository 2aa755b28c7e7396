"""Standard output and error that nobody reads, that are closed or full: calls, health and SIGTERM go on, in
every process."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateway_process import KEY, ROOT, GatewayProcess, serving
from tests.e2e.test_bad_start import RIGHT
from tests.e2e.test_workers import config
from tests.telemetry.test_logs import fill

CALLS = 500


@contextmanager
def stuck_pipe() -> Iterator[int]:
    """A pipe that is full, and that nobody reads."""
    reads, writes = os.pipe()
    try:
        fill(writes)
        yield writes
    finally:
        os.close(reads)
        os.close(writes)


@contextmanager
def readerless_pipe() -> Iterator[int]:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        yield writes
    finally:
        os.close(writes)


@contextmanager
def full_device() -> Iterator[int]:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        yield full
    finally:
        os.close(full)


OUTPUTS: dict[str, Callable[[], Any]] = {
    "nobody reads": stuck_pipe,
    "no reader": readerless_pipe,
    "full": full_device,
}


async def calls(gateway: GatewayProcess, count: int = CALLS) -> None:
    """So many calls, and the process's health, are answered."""
    connector = aiohttp.TCPConnector(force_close=True, limit=16)  # so that all workers get some
    async with aiohttp.ClientSession(headers={"x-api-key": KEY}, connector=connector) as session:

        async def call(number: int) -> int:
            async with session.post(
                gateway.api + "/v1/chat", json={"sessionId": str(number), "message": "hi"}
            ) as response:
                await response.read()
                return response.status

        assert set(await asyncio.gather(*map(call, range(count)))) == {200}
        for _ in range(8):
            async with session.get(gateway.admin + "/livez") as response:
                assert response.status == 200


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", OUTPUTS)
async def test_calls_health_and_sigterm_do_not_wait_for_a_reader(kind: str, workers: int) -> None:
    with OUTPUTS[kind]() as output, serving(config(workers, tokens=1, delay="0s"), output=output) as gateway:
        await calls(gateway)
        # leaving the block ends it by SIGTERM


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
async def test_closed_descriptors_are_no_sockets_number(closed: str, workers: int) -> None:
    text = config(workers, tokens=1, delay="0s")
    with serving(text, output=subprocess.DEVNULL, shell=f'exec "$@" {closed}') as gateway:
        await calls(gateway)


async def test_a_reader_that_leaves_in_between_costs_nothing_but_the_lines() -> None:
    reads, writes = os.pipe()
    try:
        with serving(config(2, tokens=1, delay="0s"), output=writes) as gateway:
            await calls(gateway, 50)
            os.close(reads)
            await calls(gateway, 50)
    finally:
        os.close(writes)


async def test_a_reader_that_was_away_gets_every_line_whole_or_is_told_how_many_it_did_not_get() -> None:
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as reader:
        try:
            with serving(config(2, tokens=1, delay="0s"), output=writes) as gateway:
                filled = fill(writes)
                await calls(gateway)
                whole = asyncio.get_running_loop().run_in_executor(None, reader.read)
        finally:
            os.close(writes)
        text = (await whole).replace(b"." * filled, b"", 1)
    found = [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]
    missing = sum(line["lines"] for line in found if line["event"] == "log_lines_dropped")
    assert sum(line["event"] == "request" and "alias" in line for line in found) + missing >= CALLS
    assert {"workers_stopped", "stopped"} <= {line["event"] for line in found}


def run(arguments: list[str], shell: str, folder: Path) -> int:
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "sluice", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "API_PORT": "1", "ADMIN_PORT": "2"}
    return subprocess.run(command, cwd=folder, env=env, timeout=60, stdin=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("outputs", [">&-", ">&- 2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_commands_say_by_their_exit_code_what_they_cannot_print(outputs: str, tmp_path: Path) -> None:
    (tmp_path / "right.yaml").write_text(RIGHT)
    (tmp_path / "wrong.yaml").write_text(RIGHT + "limitz: {}\n")
    shell = f'exec "$@" {outputs}'
    assert run(["check", "right.yaml"], shell, tmp_path) == 0
    assert run(["check", "wrong.yaml"], shell, tmp_path) == 1
    assert run(["serve", "--config", "wrong.yaml"], shell, tmp_path) == 1
    assert run(["serve", "--config", "missing.yaml"], shell, tmp_path) == 1


def test_a_wrong_start_does_not_wait_for_a_reader_of_its_message(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(RIGHT + "limitz: {}\n")
    with stuck_pipe() as writes:
        command = [sys.executable, "-m", "sluice", "serve", "--config", "wrong.yaml"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "API_PORT": "1", "ADMIN_PORT": "2"}
        done = subprocess.run(command, cwd=tmp_path, env=env, timeout=60, stdout=writes, stderr=writes)
    assert done.returncode == 1

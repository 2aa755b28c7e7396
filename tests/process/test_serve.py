"""The gateway's own opening and closing; draining is in tests/e2e/test_drain.py."""

import asyncio
import io
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sluice.config.loader import Loaded
from sluice.process.gateway import Gateway
from sluice.process.ports import CannotListen
from sluice.telemetry.logs import LogLines
from tests.runtime.held import SERVER, loaded

TEXT = f"{SERVER}upstreams: {{echo: {{backend: echo}}}}\naliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}\n"
ROOT = Path(__file__).parents[2]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def on_port(port: int, option: str) -> Loaded:
    found = loaded(TEXT)
    server = msgspec.structs.replace(found.config.server, **{option: f"127.0.0.1:{port}"})
    return msgspec.structs.replace(found, config=msgspec.structs.replace(found.config, server=server))


async def test_it_opens_and_closes_and_leaves_no_task_and_no_descriptor() -> None:
    async with Gateway(loaded(TEXT), LogLines(io.BytesIO())):
        pass  # what is imported and opened for good
    tasks, files = asyncio.all_tasks(), descriptors()
    async with Gateway(loaded(TEXT), LogLines(io.BytesIO())) as gateway:
        reader, writer = await asyncio.open_connection(*gateway.address)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert descriptors() == files


async def test_http2_is_switched_on_for_the_apis_port_alone() -> None:
    pytest.importorskip("h2", reason="h2 is not installed (the extra http2)")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    async with Gateway(
        loaded(TEXT.replace("server: {", "server: {http2: true, ")), LogLines(io.BytesIO())
    ) as gateway:
        for address, expected in ((gateway.address, b"\x04"), (gateway.admin_address, b"1.1 400")):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(preface)
            assert expected in await reader.read(12)  # a frame of the type SETTINGS, or a status
            writer.close()


@pytest.mark.parametrize("option", ["listen", "admin_listen"])
async def test_where_it_cannot_listen_everything_is_closed_again(option: str) -> None:
    tasks = asyncio.all_tasks()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CannotListen):
            async with Gateway(on_port(taken.getsockname()[1], option), LogLines(io.BytesIO())):
                raise AssertionError("it listens")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks


async def test_what_fails_before_it_listens_closes_everything_again() -> None:
    tasks, files = asyncio.all_tasks(), descriptors()
    gateway = Gateway(loaded(TEXT), LogLines(io.BytesIO()), before_listening=lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await gateway.__aenter__()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert descriptors() == files


async def test_it_leaves_the_log_of_the_process_alone() -> None:
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        before = [*logging.getLogger().handlers]
        async with Gateway(loaded(TEXT), LogLines(io.BytesIO())):
            assert logging.getLogger().handlers == before
    finally:
        logging.getLogger().removeHandler(handler)


def test_only_the_command_gives_the_log_of_libraries_another_form(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(TEXT)
    program = f"""
import logging, os, signal, threading
from sluice.process import serve
from sluice.process.source import ConfigSource

class Watched(serve.Gateway):
    async def __aenter__(self):
        opened = await super().__aenter__()
        logging.getLogger("foreign").warning("a caller's secret")
        os.kill(os.getpid(), signal.SIGTERM)
        return opened

serve.Gateway = Watched
source = ConfigSource({str(tmp_path / "gateway.yaml")!r})
raise SystemExit(serve.run(source.load(), source))
"""
    paths = os.pathsep.join([str(ROOT / "gateway"), str(ROOT / "plugins")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False, capture_output=True, timeout=60, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b'"logger":"foreign"' in done.stdout
    assert b"secret" not in done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(b"}")

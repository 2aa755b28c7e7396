"""Where `sluice serve` listens: Unix sockets, IPv6, sockets of systemd's; and what it tells systemd."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from sluice.config.loader import check
from sluice.process.asking import NoAdminAnswer, ask
from tests.e2e.gateway_process import DIGEST, KEY, ROOT, GatewayProcess, serving
from tests.e2e.gateways import gateway
from tests.process.test_ports import has_ipv6

REST = f"""
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat}}]
admin: {{digest: "{DIGEST}"}}
limits: {{address: null}}
upstreams: {{echo: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""
PASSING = """exec "$1" -c "import os, sys
for at, passed in enumerate(os.environ.pop('PASSED').split()):
    os.dup2(int(passed), 3 + at)
os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])" "$@"
"""
"""Passes sockets as systemd does: from descriptor 3 on, for the process that becomes the gateway."""


def config(listen: str, workers: int = 1, more: str = "") -> str:
    admin = "admin_listen: '127.0.0.1:${ADMIN_PORT}', drain_delay: 0s"
    return f'server: {{listen: "{listen}", {admin}, workers: {workers}{more}}}\n{REST}'


async def stream(connector: aiohttp.BaseConnector, at: str = "http://localhost") -> bytes:
    """A call's whole stream."""
    headers = {"x-api-key": KEY}
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        session.post(at + "/v1/chat/stream", json={"sessionId": "s", "message": "hi"}) as response,
    ):
        assert response.status == 200
        return await response.read()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_unix_socket_is_listened_on_by_all_and_taken_over_from_who_has_ended(
    workers: int, tmp_path: Path
) -> None:
    path = tmp_path / "api.sock"
    text = config(f"unix:{path}", workers, ", socket_mode: '0600'")
    for _ in range(2):  # the first one leaves its file
        with serving(text) as running:
            running.until(lambda: len(running.records("started")) == workers)
            for _ in range(4):
                assert b'"done"' in await stream(aiohttp.UnixConnector(str(path), force_close=True))
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            second = await asyncio.to_thread(_start_another, text, running)
            assert "server.listen" in second
            assert "another process listens there" in second
            assert b'"done"' in await stream(aiohttp.UnixConnector(str(path)))
        assert path.is_socket()


def _start_another(text: str, running: GatewayProcess) -> str:
    """What a second gateway on the same address says."""
    second = running.path.parent / "second.yaml"
    second.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "sluice", "serve", "--config", str(second)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "ADMIN_PORT": "0"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = await asyncio.to_thread(_refused, config(f"unix:{tmp_path}/file"), tmp_path)
    assert "cannot listen on unix:" in done
    assert (tmp_path / "file").read_text() == "mine"


def _refused(text: str, folder: Path) -> str:
    (folder / "gateway.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "sluice", "serve", "--config", str(folder / "gateway.yaml")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "ADMIN_PORT": "0"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


async def test_operators_may_have_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_ADMIN_KEY", KEY)
    url = f"unix:{tmp_path}/admin.sock"
    async with gateway(f'server: {{listen: "127.0.0.1:0", admin_listen: "{url}", drain_delay: 0}}\n{REST}'):
        status, answer = await asyncio.to_thread(ask, url, "GET", "/admin/keys")
        assert (status, [key["id"] for key in answer["keys"]]) == (200, ["test"])
    with pytest.raises(NoAdminAnswer, match=r"admin\.sock"):
        await asyncio.to_thread(ask, url, "GET", "/admin/status")


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("listen", ["[::1]:${API_PORT}", ":${API_PORT}"])
async def test_ipv6_is_listened_on(listen: str, workers: int) -> None:
    with serving(config(listen, workers)) as running:
        assert b'"done"' in await stream(aiohttp.TCPConnector(), f"http://[::1]:{running.port}")
        if listen.startswith(":"):
            assert b'"done"' in await stream(aiohttp.TCPConnector(), f"http://127.0.0.1:{running.port}")


@pytest.mark.parametrize("workers", [1, 2])
async def test_connections_to_an_inherited_socket_wait_while_the_gateway_is_restarted(workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        at = f"http://127.0.0.1:{passed.getsockname()[1]}"
        env = {"LISTEN_FDS": "1", "PASSED": str(passed.fileno())}
        text = config("127.0.0.1:1", workers)  # not bound
        with serving(text, env, shell=PASSING, sockets=[passed]) as running:
            event = "started" if workers == 1 else "supervising"
            assert running.wait_for(lambda record: record["event"] == event)["inherited"] == ["api"]
            for _ in range(4):
                assert b'"done"' in await stream(aiohttp.TCPConnector(force_close=True), at)
        waiting = asyncio.create_task(stream(aiohttp.TCPConnector(), at))
        await asyncio.sleep(0)
        with serving(text, env, shell=PASSING, sockets=[passed]):
            assert b'"done"' in await waiting


@contextmanager
def manager(folder: Path) -> Iterator[socket.socket]:
    """systemd's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(folder / "notify"))
        heard.settimeout(60)
        yield heard


def told(heard: socket.socket, first: bytes) -> dict[str, str]:
    """The next message that begins so; beats of the watchdog come in between."""
    while not (message := heard.recv(4096)).startswith(first):
        assert message == b"WATCHDOG=1"
    return dict(line.split("=", 1) for line in message.decode().splitlines())


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_is_told_of_readiness_reloads_and_the_end(workers: int, tmp_path: Path) -> None:
    with manager(tmp_path) as heard:
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with serving(config("127.0.0.1:${API_PORT}", workers), env) as running:
            assert told(heard, b"READY=1")["STATUS"] == "serving"
            running.until(lambda: len(running.records("started")) == workers)
            for text in (
                running.path.read_text() + "\nlog: {level: bogus}\n",
                running.path.read_text() + "\n",
            ):
                running.path.write_text(text)
                running.process.send_signal(signal.SIGHUP)
                assert int(told(heard, b"RELOADING=1")["MONOTONIC_USEC"]) > 0
                assert told(heard, b"READY=1")
            for _ in range(3):
                assert told(heard, b"WATCHDOG=1")
            running.process.send_signal(signal.SIGTERM)
            assert int(told(heard, b"STOPPING=1")["EXTEND_TIMEOUT_USEC"]) >= 60_000_000
            assert running.process.wait(60) == 0


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("unix:", "expected unix:/path"),
        ("unix:/" + "x" * 120, "of at most 103 bytes"),
        ("8080", "expected host:port, such as 127.0.0.1:8080 or [::1]:8080, or unix:/path"),
    ],
)
def test_addresses_that_cannot_be_are_found_by_the_check(listen: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f'server: {{listen: "{listen}"}}\n{REST}')
    (problem,) = map(str, check(str(file)).problems)
    assert ": server.listen: " in problem
    assert words in problem

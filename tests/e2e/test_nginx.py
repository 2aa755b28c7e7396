"""A real nginx in front of a real gateway: tokens arrive one by one.

Proven by order, not by time: the fake provider says token k + 1 only after the client has read token k, so
whoever holds tokens back, anywhere on the way, stops the stream for good. Done with our deploy/nginx.conf and
with nginx's own defaults (buffering on, HTTP/1.0 to the gateway, gzip too), where `X-Accel-Buffering: no`
alone must do.
"""

import asyncio
import http.client
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.e2e.gateway_process import DIGEST, ROOT, free_port, serving
from tests.fakes.counting import DIALECTS, OPENAI, WIDGET, Call, Counting, counted
from tests.fakes.rawserver import RawServer

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIG = f"""
upstreams: {{ local: {{ backend: openai, base_url: "${{UPSTREAM}}/v1" }} }}
aliases: {{ chat: {{ tiers: [[{{ upstream: local, model: any }}]], heartbeat: null }} }}
keys: [{{ id: test, digest: "{DIGEST}", default_alias: chat }}]
"""
MAIN = """
daemon off; pid nginx.pid; error_log stderr warn; worker_processes 1;
events { worker_connections 128; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include site.conf;
}
"""
OURS = (ROOT / "deploy" / "nginx.conf").read_text()
DEFAULTS = "server { listen 80; location / { proxy_pass http://127.0.0.1:8080; } }"
GZIP = "gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any; " + DEFAULTS
DEAF = "proxy_ignore_headers X-Accel-Buffering; " + DEFAULTS
SITES = {"ours": OURS, "defaults": DEFAULTS, "defaults with gzip": GZIP}


@contextmanager
def nginx(site: str, gateway_port: int) -> Iterator[int]:
    """nginx with `site`, of which only the two addresses are changed, as somebody who is not root. Yields its
    port."""
    assert NGINX is not None
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="nginx-"))
    site = site.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(
        "127.0.0.1:8080", f"127.0.0.1:{gateway_port}"
    )
    (directory / "site.conf").write_text(site)
    (directory / "nginx.conf").write_text(MAIN)
    user = _unprivileged(directory)
    command = [NGINX, "-p", str(directory), "-e", "stderr", "-c", "nginx.conf"]
    with (directory / "log").open("w+") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, cwd=directory
        )
        try:
            _until_listening(process, directory / "nginx.pid", directory / "log")
            yield port
        finally:
            process.terminate()
            process.wait(10)
            shutil.rmtree(directory)


def _unprivileged(directory: Path) -> int | None:
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in (directory, *directory.iterdir()):
        os.chown(path, nobody, -1)
    return nobody


def _until_listening(process: "subprocess.Popen[bytes]", pid: Path, log: Path) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        if pid.exists():  # written once it listens
            return
        time.sleep(0.02)  # a poll of another process: nothing else can wake us
    pytest.fail(f"nginx does not start:\n{log.read_text()}")


@asynccontextmanager
async def stack(site: str) -> AsyncIterator[tuple[int, Counting, RawServer]]:
    """Provider, gateway and nginx, and the port to call."""
    provider = Counting()
    async with RawServer(provider) as server:
        with serving(CONFIG, {"UPSTREAM": server.url}) as gateway, nginx(site, gateway.port) as port:
            yield port, provider, server


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("site", SITES)
async def test_tokens_arrive_one_by_one_through_nginx(site: str, dialect: str) -> None:
    path, body = DIALECTS[dialect]
    async with stack(SITES[site]) as (port, provider, _), asyncio.timeout(30):
        call = await Call.start(port, path, body)
        await counted(call, provider)
        await call.until(b'"done"' if dialect == "ndjson" else b"data: [DONE]")
        call.writer.close()
        assert call.received.startswith(b"HTTP/1.1 200 ")


async def test_this_would_notice_an_nginx_that_buffers() -> None:
    path, body = WIDGET
    async with stack(DEAF) as (port, provider, _):
        call = await Call.start(port, path, body)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await counted(call, provider)
        call.writer.close()


async def test_a_client_that_leaves_nginx_ends_the_upstream_call() -> None:
    path, body = OPENAI
    async with stack(OURS) as (port, _, server), asyncio.timeout(30):
        call = await Call.start(port, path, body)
        await call.until(b"tok0;")
        call.writer.close()
        await server.all_closed()


async def test_whole_answers_and_errors_pass_through_nginx() -> None:
    async with stack(OURS) as (port, provider, _), asyncio.timeout(30):
        for heard in provider.heard:
            heard.set()
        call = await Call.start(port, "/v1/chat", {"sessionId": "s", "message": "count"})
        await call.until(b"tok0;")
        call.writer.close()
        refused = await Call.start(port, "/v1/chat", {"sessionId": "s"})
        await refused.until(b"Invalid request payload")
        refused.writer.close()
        assert refused.received.startswith(b"HTTP/1.1 400 ")


async def test_what_is_the_operators_stays_in() -> None:
    def status(port: int, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", path)
        found = connection.getresponse().status
        connection.close()
        return found

    async with stack(OURS) as (port, _, _):
        for path in (
            "/admin/keys",
            "/v1/admin/conversations",
            "/admin",
            "//admin/usage",
            "/v1/./admin/x",
            "/%61dmin/keys",
        ):
            assert await asyncio.to_thread(status, port, path) == 403, path
        assert await asyncio.to_thread(status, port, "/v1/models") == 401


def test_the_gateway_keeps_idle_connections_longer_than_nginx() -> None:
    assert "keepalive_timeout 60s;" in OURS, (
        "nginx must close an idle connection first: the gateway's default is 75s"
    )

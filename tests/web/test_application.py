"""What only the aiohttp application does: mounting, configurations of three kinds, admin, logging, and what
`serve` imports.

The API itself is tested by the contract tests in tests/e2e, which run on it as well.
"""

import asyncio
import gzip
import json
import logging
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.pytest_plugin import AiohttpClient

from sluice.config.loader import load
from sluice.errors import ConfigError
from sluice.identity.keys import digest_of
from sluice.web import admin, application

KEY = "sk-test"
CONFIG: dict[str, Any] = {
    "keys": [{"id": "test", "digest": digest_of(KEY), "aliases": ["*"], "default_alias": "chat"}],
    "limits": {"address": None},
    "upstreams": {"echo": {"backend": "echo"}},
    "aliases": {"chat": {"tiers": [[{"upstream": "echo", "model": "echo"}]]}},
}
HEADERS = {"x-api-key": KEY}
ASKED = {"sessionId": "s", "message": "hi"}


@pytest.fixture(params=["mapping", "path", "loaded"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps(CONFIG))
    return {"mapping": lambda: CONFIG, "path": lambda: path, "loaded": lambda: load(str(path))}[
        request.param
    ]()


async def test_is_made_of_a_path_a_mapping_or_what_was_loaded(
    config: Any, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(application(config))
    async with client.post("/v1/chat", json=ASKED, headers=HEADERS) as response:
        assert (await response.json())["message"] == "You said: hi"
        assert "Server" not in response.headers
        assert len(response.headers.getall("Date")) == 1


async def test_headers_have_the_names_of_the_dialect(aiohttp_client: AiohttpClient) -> None:
    limited = {**CONFIG, "keys": [{**CONFIG["keys"][0], "limits": {"requests": {"rate": "10/min"}}}]}
    client = await aiohttp_client(application(limited))
    asked = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for stream in (False, True):
        async with client.post("/v1/messages", json={**asked, "stream": stream}, headers=HEADERS) as response:
            assert response.headers["anthropic-ratelimit-requests-limit"] == "10"
            assert not [name for name in response.headers if name.lower().startswith("x-ratelimit")]


def test_what_is_wrong_with_a_mapping_is_said_when_the_application_is_made() -> None:
    with pytest.raises(ConfigError) as wrong:
        application({**CONFIG, "aliasses": {}})
    assert 'unknown key "aliasses"' in str(wrong.value)


async def test_the_admin_application_shows_the_same_gateway(aiohttp_client: AiohttpClient) -> None:
    app = application(CONFIG)
    root = web.Application()
    root.add_subapp("/llm/", app)
    root.add_subapp("/ops/", admin(app))
    client = await aiohttp_client(root)
    async with client.post("/llm/v1/chat", json=ASKED, headers=HEADERS) as response:
        assert response.status == 200
    async with client.get("/ops/metrics") as response:
        assert 'sluice_requests_total{alias="chat",code="2xx",frontend="widget"} 1' in await response.text()
    for path, status in (("/llm/metrics", 404), ("/ops/v1/models", 404), ("/llm", 404), ("/ops/readyz", 200)):
        async with client.get(path, headers=HEADERS) as response:
            assert response.status == status, path


async def test_the_admin_application_of_one_that_does_not_run_is_unavailable(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(admin(application(CONFIG)))
    async with client.get("/readyz") as response:
        assert response.status == 503


@pytest.mark.parametrize("path", ["/ab/v1/models", "/ab/v1/models?x", "/ab/v1/mod%65ls"])
async def test_paths_below_the_prefix_are_read_as_they_were_sent(
    path: str, aiohttp_client: AiohttpClient
) -> None:
    root = web.Application()
    root.add_subapp("/ab/", application(CONFIG))
    server = (await aiohttp_client(root)).server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
    status = (await reader.readline()).split()[1]
    writer.close()
    assert status == (
        b"404" if path.endswith("%65ls") else b"200"
    )  # no escape is undone, as on our own server


@pytest.mark.parametrize("mounted", [False, True])
async def test_a_compressed_body_is_read_whoever_decompresses_it(
    mounted: bool, aiohttp_client: AiohttpClient
) -> None:
    app = root = application(CONFIG)
    if mounted:
        root = web.Application()
        root.add_subapp("/llm/", app)
    client = await aiohttp_client(root)
    headers = {**HEADERS, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    data = gzip.compress(json.dumps(ASKED).encode())
    async with client.post("/llm/v1/chat" if mounted else "/v1/chat", data=data, headers=headers) as response:
        assert (response.status, (await response.json())["message"]) == (200, "You said: hi")


async def test_a_body_that_the_hosts_middleware_has_read_is_still_there(
    aiohttp_client: AiohttpClient,
) -> None:
    @web.middleware
    async def reads(request: web.Request, handler: Any) -> web.StreamResponse:
        await request.read()
        response: web.StreamResponse = await handler(request)
        return response

    root = web.Application(middlewares=[reads])
    root.add_subapp("/llm/", application(CONFIG))
    client = await aiohttp_client(root)
    async with client.post("/llm/v1/chat", json=ASKED, headers=HEADERS) as response:
        assert (await response.json())["message"] == "You said: hi"


async def test_a_credential_that_is_given_twice_is_refused(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(application(CONFIG))
    twice = [("x-api-key", KEY), ("x-api-key", KEY)]
    async with client.post("/v1/chat", json=ASKED, headers=twice) as response:
        assert response.status == 401


async def test_the_process_is_left_alone_and_lines_go_to_a_logger(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sluice")
    root = logging.getLogger()
    before = (
        list(root.handlers),
        root.level,
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
    )
    client = await aiohttp_client(application(CONFIG))
    async with client.post("/v1/chat", json=ASKED, headers=HEADERS) as response:
        await response.read()
    await client.close()
    assert before == (
        root.handlers,
        root.level,
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
    )
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "sluice"]
    assert [(line["status"], line["key"]) for line in lines if line["event"] == "request"] == [(200, "test")]


def test_the_process_of_serve_imports_no_part_of_this(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps(CONFIG | {"server": {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}}))
    program = f"""
import asyncio, io, sys
from sluice.config.loader import load
from sluice.process.gateway import Gateway
from sluice.telemetry.logs import LogLines
async def main():
    async with Gateway(load({str(path)!r}), LogLines(io.BytesIO())):
        print(sorted(name for name in sys.modules if name.startswith(("aiohttp", "sluice.web", "sluice.testing"))))
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_run_by_run_app_it_ends_in_order_on_sigterm() -> None:
    slow = {
        **CONFIG,
        "server": {"drain_timeout": "100ms"},
        "upstreams": {"echo": {"backend": "echo", "tokens": 100_000, "delay": "5ms"}},
    }
    program = f"""
import socket
from aiohttp import web
from sluice.web import application
taken = socket.create_server(("127.0.0.1", 0))
print(taken.getsockname()[1], flush=True)
web.run_app(application({slow!r}), sock=taken, print=None, access_log=None)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        client = HTTPConnection("127.0.0.1", int(process.stdout.readline()), timeout=120)
        client.request(
            "POST", "/v1/chat/stream", json.dumps(ASKED), {**HEADERS, "Content-Type": "application/json"}
        )
        response = client.getresponse()
        assert b'"start"' in response.readline()
        process.terminate()
        last = json.loads(response.read().splitlines()[-1])
        assert (last["type"], last["code"]) == ("error", "unavailable")
        assert process.wait(120) == 0

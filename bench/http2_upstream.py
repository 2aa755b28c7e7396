"""What a request and a token cost the client: our HTTP/1.1 connections beside HTTP/2 by the library h2, both
over TLS.

    .venv/bin/python bench/http2_upstream.py [--clients http1,h2,httpx1,httpx2] [--rounds 3]

The far side is a gateway of its own with the embedded model and `server.http2`, so both protocols bring the
same answers from the same process. Each client runs in a process of its own, whose CPU time (the kernel's
included) is what counts:

    http1            sluice.upstream, as the gateway has it
    h2               h2 and nothing else: streams of up to 100 to a connection, each with its window; validation switched off
    httpx1, httpx2   httpx with HTTP/1.1, and with HTTP/2 (pip install 'httpx[http2]')

A token's price is the difference between long and short streams, over the tokens between. DECISIONS 195 draws
the conclusion.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-sluice-test"
DIGEST = "sha256:3da3c6227765663687b751dbba62ec96985d8b966491f2f59d8d0b4d2f38a6dc"
PATH = "/v1/chat/completions"
PER_CONNECTION = 100
WINDOW = 1 << 20
CONFIG = """
server:
  {{ listen: "127.0.0.1:{api}", admin_listen: "127.0.0.1:{admin}", drain_delay: 0s, http2: true, tls: {{ cert: "{cert}" }} }}
upstreams: {{ echo: {{ backend: echo }} }}
aliases: {{ echo: {{ tiers: [[{{ upstream: echo, model: echo }}]] }} }}
keys: [{{ id: bench, digest: "{digest}" }}]
limits: {{ address: null }}
log: {{ level: error }}
"""
Ask = Callable[[bytes], Awaitable[int]]
"""Sends one request, reads its answer to the end, and gives the answer's size."""


def body(tokens: int, gap_us: int) -> bytes:
    said = f"tokens={tokens} gap_us={gap_us} ttft_us=0"
    return json.dumps(
        {"model": "echo", "stream": True, "messages": [{"role": "user", "content": said}]}
    ).encode()


# --- clients


async def http1(base: str, tls: ssl.SSLContext, streams: int) -> Ask:
    from sluice.backends.transport import UpstreamRequest
    from sluice.upstream import HttpTransport

    transport = HttpTransport(base, credentials=(("authorization", f"Bearer {KEY}"),), tls=tls)
    headers = (("content-type", "application/json"),)

    async def ask(body: bytes) -> int:
        size = 0

        def sink(data: bytes) -> None:
            nonlocal size
            size += len(data)

        async with transport.send(
            UpstreamRequest(base + PATH, headers, body), connect=60, headers=600
        ) as response:
            assert response.status == 200, response.status
            await response.pump(sink)
        return size

    return ask


async def h2(base: str, tls: ssl.SSLContext, streams: int) -> Ask:
    import h2.config
    import h2.connection
    import h2.events
    import h2.settings

    host, port = base.removeprefix("https://").split(":")
    loop = asyncio.get_running_loop()
    config = h2.config.H2Configuration(
        header_encoding=None,
        validate_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_inbound_headers=False,
        normalize_outbound_headers=False,
    )
    fixed = [
        (b":method", b"POST"), (b":scheme", b"https"), (b":authority", f"{host}:{port}".encode()), (b":path", PATH.encode()),
        (b"authorization", f"Bearer {KEY}".encode()), (b"content-type", b"application/json"),
    ]  # fmt: skip

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.h2 = h2.connection.H2Connection(config)
            self.streams: dict[int, list[Any]] = {}
            settings = {
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            }
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
            self.h2.initiate_connection()
            self.h2.increment_flow_control_window(8 * WINDOW)
            transport.write(self.h2.data_to_send())

        def ask(self, body: bytes) -> "asyncio.Future[int]":
            ended: asyncio.Future[int] = loop.create_future()
            id = self.h2.get_next_available_stream_id()
            self.streams[id] = [ended, 0]
            self.h2.send_headers(id, [*fixed, (b"content-length", b"%d" % len(body))])
            self.h2.send_data(id, body, end_stream=True)
            self.transport.write(self.h2.data_to_send())
            return ended

        def data_received(self, data: bytes) -> None:
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.streams[event.stream_id][1] += len(event.data)
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended, size = self.streams.pop(event.stream_id)
                    ended.set_result(size)
                elif isinstance(event, h2.events.ResponseReceived):
                    assert dict(event.headers)[b":status"] == b"200"
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    raise SystemExit(str(event))
            if out := self.h2.data_to_send():
                self.transport.write(out)

    tls.set_alpn_protocols(["h2"])
    connections = []
    for _ in range(-(-streams // PER_CONNECTION)):
        transport, connection = await loop.create_connection(Connection, host, int(port), ssl=tls)
        assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        connections.append(connection)

    async def ask(body: bytes) -> int:
        return await min(connections, key=lambda one: len(one.streams)).ask(body)

    return ask


async def httpx_(base: str, tls: ssl.SSLContext, streams: int, http2: bool) -> Ask:
    import httpx

    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    clients = [
        httpx.AsyncClient(
            base_url=base,
            verify=tls,
            http2=http2,
            headers=headers,
            limits=limits,
            timeout=600,
            trust_env=False,
        )
        for _ in range(-(-streams // PER_CONNECTION) if http2 else 1)
    ]
    turns = iter(range(1 << 30))

    async def ask(body: bytes) -> int:
        size = 0
        async with clients[next(turns) % len(clients)].stream("POST", PATH, content=body) as response:
            assert response.status_code == 200, response.status_code
            assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            async for data in response.aiter_raw():
                size += len(data)
        return size

    return ask


async def httpx1(base: str, tls: ssl.SSLContext, streams: int) -> Ask:
    return await httpx_(base, tls, streams, False)


async def httpx2(base: str, tls: ssl.SSLContext, streams: int) -> Ask:
    return await httpx_(base, tls, streams, True)


CLIENTS = {"http1": http1, "h2": h2, "httpx1": httpx1, "httpx2": httpx2}


async def measured(
    name: str, base: str, ca: str, streams: int, asked: int, tokens: int, gap_us: int, warm: int = 3
) -> float:
    """Microseconds of CPU, all of the requests together: `streams` at a time, once each has had `warm` ones
    before.

    With none before, the connections that they open are counted, too.
    """
    tls = ssl.create_default_context(cafile=ca)
    before = time.process_time()
    ask = await CLIENTS[name](base, tls, streams)
    left = iter(range(asked))

    async def caller() -> None:
        for _ in left:
            assert await ask(body(tokens, gap_us)) > 100

    for _ in range(warm):
        await asyncio.gather(*(ask(body(1, 0)) for _ in range(streams)))
    if warm:
        before = time.process_time()
    await asyncio.gather(*(caller() for _ in range(streams)))
    return (time.process_time() - before) * 1e6


# --- the whole


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def run(name: str, base: str, ca: str, **work: int) -> float:
    argv = [sys.executable, __file__, "--client", json.dumps({"name": name, "base": base, "ca": ca, **work})]
    return float(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", default="http1,h2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        import uvloop

        print(uvloop.run(measured(**json.loads(options.client))))
        return

    import trustme

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the gateway is ended, too
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        cert, ca = Path(folder) / "server.pem", Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(cert))
        api, admin = free_port(), free_port()
        config = Path(folder) / "gateway.yaml"
        config.write_text(CONFIG.format(api=api, admin=admin, cert=cert, digest=DIGEST))
        serve = [sys.executable, "-m", "sluice", "serve", "--config", str(config)]
        gateway = subprocess.Popen(
            serve, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.DEVNULL
        )
        try:
            ready(f"http://127.0.0.1:{admin}/readyz", gateway)
            table(options.clients.split(","), f"https://127.0.0.1:{api}", str(ca), options.rounds)
        finally:
            gateway.terminate()
            gateway.wait(30)


def ready(url: str, gateway: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and gateway.poll() is None:
        try:
            build_opener(ProxyHandler({})).open(url, timeout=5)
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the gateway does not become ready")


def table(clients: list[str], base: str, ca: str, rounds: int) -> None:
    """Medians of rounds in which the clients take turns."""
    works = {
        "request, 1 at a time": {"streams": 1, "asked": 500, "tokens": 1, "gap_us": 0},
        "request, 32 at a time": {"streams": 32, "asked": 2000, "tokens": 1, "gap_us": 0},
        "request, 200 at a time": {"streams": 200, "asked": 2000, "tokens": 1, "gap_us": 0},
        "request, 200 at once, connections opened": {
            "streams": 200,
            "asked": 200,
            "tokens": 1,
            "gap_us": 0,
            "warm": 0,
        },
        "token, 1 stream": {"streams": 1, "asked": 1, "tokens": 1000, "gap_us": 2000},
        "token, 200 streams": {"streams": 200, "asked": 200, "tokens": 50, "gap_us": 100000},
    }
    print("µs of CPU |", " | ".join(clients))
    for what, work in works.items():
        found: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(rounds):
            for name in clients:
                cost = run(name, base, ca, **work)
                if what.startswith("token"):
                    cost -= run(name, base, ca, **{**work, "tokens": 1})
                    found[name].append(cost / (work["asked"] * (work["tokens"] - 1)))
                else:
                    found[name].append(cost / work["asked"])
        print(
            what, "|", " | ".join(f"{statistics.median(values):.0f}" for values in found.values()), flush=True
        )


if __name__ == "__main__":
    main()

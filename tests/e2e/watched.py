"""A gateway that is asked wrongly, over raw sockets, and what must be true of it afterwards.

    async with watched() as watch:
        answer = await watch.refusal(post(STREAM, b"{"), 400, STREAM)

When it is left, it looks whether the provider heard anything, whether a conversation was kept, and whether a
canary (it stands in the key, in wrong credentials, in prompts, session ids and in the provider's key) is in a
log line, a metric or an error. After each refusal the connection either serves another request or has been
said to close, and closes.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, sized

CANARY = "c4n4ry"
KEY = f"sk-sluice-{CANARY}"
ADMIN = "sk-admin"
LIMIT = 64 << 10
STREAM, WHOLE, OPENAI = "/v1/chat/stream", "/v1/chat", "/v1/chat/completions"
SECURITY = Path(__file__).resolve().parents[3] / "shared" / "security"

CONFIG = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0, body_limit: {LIMIT}}}
limits: {{address: null}}
admin: {{digest: "{digest_of(ADMIN)}"}}
keys: [{{id: test, digest: "{digest_of(KEY)}", aliases: [chat, echo], default_alias: chat}}]
upstreams:
  fake: {{backend: openai, base_url: "PROVIDER", api_key: "sk-upstream-{CANARY}"}}
  echo: {{backend: echo}}
aliases:
  chat: {{tiers: [[{{upstream: fake, model: m}}]], retry: {{same_target: 0}}}}
  echo: {{tiers: [[{{upstream: echo, model: m}}]]}}
  other: {{tiers: [[{{upstream: fake, model: m}}]]}}
"""

needs_suite = pytest.mark.skipif(
    not SECURITY.is_dir(), reason=f"the collections of bad input are not here ({SECURITY})"
)


class Answer(msgspec.Struct):
    """`headers` with lower-case names; `raw` is the head as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, raw: bytes, *, head: bool = False) -> Answer:
        self.writer.write(raw)
        return await self.answer(head=head)

    async def answer(self, *, head: bool = False) -> Answer:
        async with asyncio.timeout(30):
            raw = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = raw[:-4].decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            status = int(first.split(" ")[1])
            return Answer(
                status, headers, b"" if head or status in (100, 204) else await self._body(headers), raw
            )

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    async def closed(self) -> bool:
        async with asyncio.timeout(30):
            return await self.reader.read() == b""


class Watch:
    """A gateway to be asked wrongly. `heard` is what the provider was asked."""

    def __init__(self, running: Running, provider: RawServer) -> None:
        self.running = running
        self.provider = provider
        self.wires: list[Wire] = []
        self.errors: list[bytes] = []

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection(*self.running.address))
        self.wires.append(wire)
        return wire

    async def refusal(self, raw: bytes, status: int, path: str) -> Answer:
        """Ask, see that it is refused in the dialect of the path, counted and logged once, and that the
        connection is fit for another or closed."""
        wire = await self.wire()
        counted = self.counted(status)
        answer = await wire.ask(raw)
        self.errors.append(answer.raw + answer.body)
        assert answer.status == status, answer
        well_said(answer, path)
        if answer.headers.get("connection") == "close":
            assert await wire.closed()
        else:
            assert (await wire.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
        lines = [
            line for line in self.running.requests if line["request_id"] == answer.headers["x-request-id"]
        ]
        assert [line["status"] for line in lines] == [status]
        assert self.counted(status) == counted + 1
        return answer

    def counted(self, status: int) -> float:
        """Requests that were answered with a status of this class."""
        lines = self.running.runtime.exposition().decode().splitlines()
        ours = [
            line
            for line in lines
            if line.startswith("sluice_requests_total") and f'"{status // 100}xx"' in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in ours)

    async def stored(self) -> int:
        wire = await self.wire()
        head = f"GET /v1/admin/conversations HTTP/1.1\r\nHost: x\r\nx-admin-api-key: {ADMIN}\r\n\r\n"
        total: int = (await wire.ask(head.encode())).json["total"]
        return total

    def silent(self) -> None:
        """Nothing that must not be seen was written."""
        seen = self.running.log_bytes.getvalue() + self.running.runtime.exposition() + b"".join(self.errors)
        assert CANARY.encode() not in seen
        assert not [line for line in self.running.log_lines if line["event"] == "crash"]


async def _unexpected(request: Request, peer: Peer) -> None:
    peer.send(sized(b"{}", 500))


@asynccontextmanager
async def watched(*, calls: bool = False) -> AsyncIterator[Watch]:
    """`calls`: some of what is sent is right, so that conversations are kept."""
    async with (
        RawServer(_unexpected) as provider,
        gateway(CONFIG.replace("PROVIDER", provider.url)) as running,
    ):
        watch = Watch(running, provider)
        yield watch
        assert provider.requests == []
        if not calls:
            assert await watch.stored() == 0
        for wire in watch.wires:
            wire.writer.close()
        watch.silent()


def well_said(answer: Answer, path: str) -> None:
    """The error's shape: OpenAI's on its paths, else the widget's with a code, an id and, for 400, the
    reason."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json["error"]
    ours = path.startswith(("/v1/chat", "/v1/tokens", "/v1/admin", "/v1/openapi.json")) and path != OPENAI
    if path.startswith("/v1/") and not ours:
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["code"]
        return
    assert isinstance(error, str)
    assert answer.json["code"]
    assert answer.json["requestId"] == answer.headers["x-request-id"]
    if answer.status == 400:
        assert error == "Invalid request payload"
        assert all(detail["field"] and detail["reason"] for detail in answer.json["details"])
        assert answer.json["details"]


def post(
    path: str, body: bytes, *headers: str, credential: str | None = f"x-api-key: {KEY}", media: str = "json"
) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers]
    if credential is not None:
        lines.append(credential)
    if media:
        lines.append(f"Content-Type: application/{media}")
    if not any(line.lower().startswith("transfer-encoding") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def widget(**fields: Any) -> bytes:
    return json.dumps({"sessionId": f"s-{CANARY}", "message": f"hi {CANARY}"} | fields).encode()


def openai(**fields: Any) -> bytes:
    return json.dumps(
        {"model": "chat", "messages": [{"role": "user", "content": f"hi {CANARY}"}]} | fields
    ).encode()


def without(body: bytes, field: str) -> bytes:
    return json.dumps({name: value for name, value in json.loads(body).items() if name != field}).encode()

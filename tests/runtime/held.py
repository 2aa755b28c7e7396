"""Providers whose streams stop in the middle until the test lets them go on, and configurations to swap."""

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from sluice.config.loader import Loaded, load
from sluice.identity.keys import digest_of
from sluice_plugins.echo import EchoResponse
from tests.e2e.gateways import KEY
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk, sized

OLD, NEW = "sk-sluice-old", "sk-sluice-new"
SERVER = (
    'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}\nlimits: {address: null}\n'
)
ENDS = b"data: [DONE]\n\n"


def key(id: str, secret: str, more: str = "") -> str:
    return f'{{id: {id}, digest: "{digest_of(secret)}", default_alias: chat{more}}}'


def loaded(text: str) -> Loaded:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(text if "\nlog:" in text else f"{text}\nlog: {{level: debug}}\n")
        return load(str(path))


def event(text: str, finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]
    wire: dict[str, Any] = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
    }
    return b"data: " + json.dumps(wire | ({"usage": usage} if usage else {})).encode() + b"\n\n"


class Provider(RawServer):
    """Says "begin", waits until `gate` is open, and says " end"; whole answers come at once. A million tokens
    each way."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.gate = asyncio.Event()
        self.held = 0

    async def _answer(self, request: Request, peer: Peer) -> None:
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000, "total_tokens": 2_000_000}
        if request.method == "GET":
            peer.send(sized(b"{}"))
            return
        if not json.loads(request.body).get("stream"):
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": "whole"},
                "finish_reason": "stop",
            }
            wire = {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }
            peer.send(sized(json.dumps(wire).encode(), 200, ("Content-Type", "application/json")))
            return
        peer.send(CHUNKED + chunk(event("begin")))
        self.held += 1
        await self.gate.wait()
        self.held -= 1
        peer.send(chunk(event(" end", "stop", usage) + ENDS) + LAST_CHUNK)


def hold_echoes(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The echo model says its first token, and the others when the returned event is set."""
    gate = asyncio.Event()
    begun: set[int] = set()

    async def until(self: EchoResponse, due: float) -> None:
        if id(self) in begun:
            await gate.wait()
        begun.add(id(self))
        await asyncio.sleep(0)

    monkeypatch.setattr(EchoResponse, "_until", until)
    return gate


class Stream:
    """A stream that has begun."""

    def __init__(self, response: aiohttp.ClientResponse, first: bytes) -> None:
        self.response = response
        self._first = first

    async def text(self) -> str:
        """The whole answer, which has to be complete."""
        lines = (self._first + await self.response.read()).decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""], lines
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2] if line.startswith("data: ")]
        assert not [chunk for chunk in chunks if "error" in chunk]
        return "".join(
            choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
        )


async def begin(
    client: aiohttp.ClientSession, alias: str = "chat", secret: str = KEY, prompt: str = "hi"
) -> Stream:
    """Ask for a stream and wait for its first text."""
    body = {"model": alias, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    response = await client.post(
        "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
    )
    assert response.status == 200, await response.text()
    first = b""
    while b'"content":"' not in first.replace(b'"content":""', b"").replace(b'": "', b'":"'):
        line = await response.content.readuntil(b"\n\n")
        assert line, first
        first += line
    return Stream(response, first)


async def whole(client: aiohttp.ClientSession, alias: str = "chat", secret: str = KEY) -> tuple[int, Any]:
    """The status and the body of a whole answer."""
    body = {"model": alias, "messages": [{"role": "user", "content": "hi"}]}
    async with client.post(
        "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
    ) as response:
        return response.status, await response.json()


def client_of(url: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0))

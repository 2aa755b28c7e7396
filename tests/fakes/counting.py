"""A provider that counts, and a client that lets it: tokens are proven to arrive one by one, by order and not
by time.

The provider says token k + 1 only after the client has read token k, so whoever holds tokens back, anywhere
on the way, stops the stream for good.
"""

import asyncio
import json

from tests.e2e.gateway_process import KEY
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, Request, chunk

TOKENS = 8
WIDGET = ("/v1/chat/stream", {"sessionId": "s", "message": "count"})
OPENAI = (
    "/v1/chat/completions",
    {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "count"}]},
)
DIALECTS = {"ndjson": WIDGET, "sse": OPENAI}


class Counting:
    """A provider that counts, and waits after each number until it is `heard`."""

    def __init__(self) -> None:
        self.heard = [asyncio.Event() for _ in range(TOKENS)]

    async def __call__(self, request: Request, peer: Peer) -> None:
        peer.send(CHUNKED + _delta({"role": "assistant", "content": ""}))
        for number, heard in enumerate(self.heard):
            peer.send(_delta({"content": f"tok{number};"}))
            await heard.wait()
        peer.send(_delta({}, "stop") + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)


def _delta(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "any", "choices": [choice]}
    return chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


class Call:
    """A client that sends one request and looks at the bytes as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.received = b""

    @classmethod
    async def start(
        cls, port: int, path: str, body: dict[str, object] | None, *headers: str, host: str = "127.0.0.1"
    ) -> "Call":
        """As a caller at the address `host`; without a body by GET."""
        call = cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0)))
        content = json.dumps(body).encode() if body is not None else b""
        lines = [
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
            "Host: gateway",
            f"x-api-key: {KEY}",
            *headers,
        ]
        lines += ["Content-Type: application/json", "Connection: close", f"Content-Length: {len(content)}"]
        call.writer.write("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + content)
        return call

    async def until(self, text: bytes, times: int = 1) -> None:
        while self.received.count(text) < times:
            data = await self._reader.read(65536)
            assert data, f"the answer ended without {text!r}:\n{self.received.decode()}"
            self.received += data

    async def end(self) -> None:
        while data := await self._reader.read(65536):
            self.received += data
        self.writer.close()

    @property
    def status(self) -> int:
        return int(self.received[9:12])


async def counted(call: Call, provider: Counting, first: int = 0) -> None:
    for number in range(first, TOKENS):
        await call.until(b"tok%d;" % number)
        provider.heard[number].set()

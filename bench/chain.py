"""What one call costs between the sockets: the whole policy and relay chain on canned bytes, no kernel in the
way.

    python bench/chain.py [--profile] [--ndjson] [--whole] [--policy] [--events 64]

`--events`: so many more text events, each in a read of its own; the price of one is printed, too.

Steadier than any load test; for finding where the time goes, not for comparing with anything else.
"""

import argparse
import asyncio
import cProfile
import io
import itertools
import pstats
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import sluice_config
from multidict import CIMultiDict, CIMultiDictProxy

from sluice.api.app import Api
from sluice.config.loader import load
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState
from sluice.telemetry.logs import LogLines

FRAME = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n'
)
ANSWER = (
    FRAME % (b'{"role":"assistant","content":""}', b"null")
    + FRAME % (b'{"content":"w@1234567890123"}', b"null")
    + FRAME % (b"{}", b'"stop"')
    + b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":'
    b'{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}\n\ndata: [DONE]\n\n'
)
BODY = (
    b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"system","content":"You are a helpful assistant."},'
    b'{"role":"user","content":"tokens=1 gap_us=0"}]}'
)
NDJSON = b'{"sessionId":"session-%d","message":"tokens=1 gap_us=0"}'
HEADERS = [
    ("Host", "127.0.0.1:1"), ("Content-Type", "application/json"), ("Accept", "text/event-stream"),
    ("Content-Length", "160"), ("x-api-key", sluice_config.KEY),
]  # fmt: skip


TEXT = FRAME % (b'{"content":"w@1234567890123"}', b"null")


class Response:
    status = 200
    headers = {"content-type": "text/event-stream"}  # noqa: RUF012
    events = 0

    async def pump(self, sink: Any) -> None:
        for _ in range(self.events):
            sink(TEXT)
        sink(ANSWER)

    async def read(self, limit: int) -> bytes:
        return b""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def abort(self, error: BaseException) -> None: ...


class Sending:
    async def __aenter__(self) -> Response:
        return Response()

    async def __aexit__(
        self, kind: type | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Canned:
    def send(self, request: Any, *, connect: float, headers: float, reader: Any = None) -> Sending:
        return Sending()

    async def close(self) -> None: ...


class Request:
    raw_headers = tuple((name.encode(), value.encode()) for name, value in HEADERS)
    headers = CIMultiDictProxy(CIMultiDict(HEADERS))
    peer = "127.0.0.1"
    method = "POST"
    query: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, path: str, body: bytes) -> None:
        self.received = time.monotonic()
        self.extra: list[tuple[str, str]] = []
        self.caller: str | None = None
        self.path = path
        self.status = 0
        self.begun = False
        self.last_write = self.blocked_since = 0.0
        self._body = body

    def body_now(self) -> bytes:
        return self._body

    async def body(self) -> bytes:
        return self._body

    def reply(self, status: int, body: bytes, headers: Any = (), content_type: str = "") -> None:
        self.status = status
        self.begun = True
        if status != 200:
            raise SystemExit(f"{status} {body!r}")

    def begin(self, content_type: str, headers: Any) -> None:
        self.status = 200
        self.begun = True

    def write(self, data: bytes, *, last: bool = False) -> None: ...
    def writable(self) -> bool:
        return True

    def attach(self, upstream: Any) -> None: ...
    def detach(self) -> None: ...
    def abort(self) -> None: ...


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        text = sluice_config.config(whole_policy=options.policy)
        path.write_text(text.replace("$mock", "1").replace("$port", "8080").replace("$admin", "8081"))
        loaded = load(str(path))
    async with ProcessState(loaded, LogLines(io.BytesIO())) as state, Snapshot(loaded, state) as snapshot:
        for route in snapshot.routes.values():
            for tier in route.tiers:
                tier.targets = [_canned(target) for target in tier.targets]
        await measure(options, Api(snapshot), state)


async def measure(options: argparse.Namespace, api: Api, state: ProcessState) -> None:
    body = BODY.replace(b'"stream":true', b'"stream":false') if options.whole else BODY
    sessions = itertools.count()

    async def calls(count: int) -> None:
        for _ in range(count):
            if options.ndjson:
                await api(Request("/v1/chat/stream", NDJSON % next(sessions)))
            else:
                await api(Request("/v1/chat/completions", body))
            await asyncio.sleep(0)  # what is settled in tasks of its own
        state.lines.flush()

    await calls(2000)
    best = min([await _timed(calls) for _ in range(7)])
    print(f"{best:.1f} µs per call")
    if options.events:
        Response.events = options.events
        await calls(200)
        more = min([await _timed(calls, 500) for _ in range(7)])
        print(f"{(more - best) / options.events:.2f} µs per event")
    if options.profile:
        profile = cProfile.Profile()
        profile.enable()
        await calls(5000)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


def _canned(target: Any) -> Any:
    return msgspec.structs.replace(target, transport=Canned())


async def _timed(calls: Any, count: int = 3000) -> float:
    began = time.process_time()
    await calls(count)
    return (time.process_time() - began) / count * 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("profile", "ndjson", "whole", "policy"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--events", type=int, default=0)
    asyncio.run(main(parser.parse_args()))

"""The API over a fake request: a real snapshot with the echo model, and no sockets."""

import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from multidict import CIMultiDict

from sluice.api.app import Api
from sluice.config.loader import load
from sluice.frontends import Frontend
from sluice.identity.keys import digest_of
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.snapshots import Snapshots
from sluice.runtime.state import ProcessState
from sluice.server.exchange import query_of
from sluice.telemetry.logs import LogLines

KEY, PAGE = "sk-sluice-test", "https://shop.example.com"
CONFIG = f"""
keys: [{{id: test, digest: "{digest_of(KEY)}", default_alias: chat, origins: ["{PAGE}"]}}]
admin: {{digest: "{digest_of(KEY)}"}}
limits: {{address: null}}
upstreams: {{echo: {{backend: echo}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: echo}}]], resumable: true}}
  a/b: {{tiers: [[{{upstream: echo, model: echo}}]]}}
"""
JSON = {"content-type": "application/json"}


class FakeRequest:
    """A request and what it was answered; the body is there at once."""

    peer = "127.0.0.1"
    blocked_since = 0.0

    def __init__(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        key: str = KEY,
    ) -> None:
        target, _, _ = path.partition("?")
        known = {"x-api-key": key} if key else {}
        sent = known | (JSON if body is not None else {}) | dict(headers or {})
        self.method = method
        self.path = target
        self.query = query_of(path)
        self.parameters: Mapping[str, str] = {}
        self.rename: Callable[[Sequence[tuple[str, str]]], Sequence[tuple[str, str]]] | None = None
        self.headers = CIMultiDict(sent)
        self._body = (
            body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        )
        self.headers["content-length"] = str(len(self._body))
        self.raw_headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        self.received = time.monotonic()
        self.caller: str | None = None
        self.extra: list[tuple[str, str]] = []
        self.begun = self.aborted = False
        self.status = 0
        self.last_write = 0.0
        self.bytes_out = 0
        self.content_type = ""
        self.answer = b""
        self.told: CIMultiDict[str] = CIMultiDict()

    @property
    def bytes_in(self) -> int:
        return len(self._body)

    def body_now(self) -> bytes | None:
        return self._body

    async def body(self) -> bytes:
        return self._body

    def reply(
        self,
        status: int,
        body: bytes,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = "application/json",
    ) -> None:
        self._head(status, headers, content_type)
        self.bytes_out = len(body)
        self.answer += body

    def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self._head(200, headers, content_type)

    def _head(self, status: int, headers: Sequence[tuple[str, str]], content_type: str) -> None:
        assert not self.begun, "it has been answered"
        self.begun, self.status, self.content_type = True, status, content_type
        named = headers if self.rename is None else self.rename(headers)
        self.told = CIMultiDict([*self.extra, *named])

    def write(self, data: bytes, *, last: bool = False) -> None:
        self.bytes_out += len(data)
        self.answer += data

    def fail(self, data: bytes) -> None:
        self.answer += data

    def attach(self, upstream: object) -> None: ...
    def detach(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True

    async def writable(self) -> None: ...

    @property
    def json(self) -> Any:
        return json.loads(self.answer)


class Served:
    """`clients` and `operators` are the two APIs; `ask` sends one request to the first."""

    def __init__(self, runtime: Snapshot, lines: io.BytesIO) -> None:
        self.runtime = runtime
        self.clients = Api(runtime)
        self.operators = Api(runtime, operators=True)
        self._lines = lines

    async def ask(self, method: str, path: str, body: object = None, **more: Any) -> FakeRequest:
        request = FakeRequest(method, path, body, **more)
        await self.clients(request)
        return request

    @property
    def log(self) -> list[dict[str, Any]]:
        self.runtime.state.flush()
        return [json.loads(line) for line in self._lines.getvalue().splitlines()]


@asynccontextmanager
async def served(config: str = CONFIG, *more: Frontend) -> AsyncIterator[Served]:
    """The API of a configuration; `more`: further frontends."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(config)
        loaded = load(str(path))
    loaded.frontends.update({frontend.name: frontend for frontend in more})
    lines = io.BytesIO()
    async with ProcessState(loaded, LogLines(lines)) as state, Snapshots(loaded, state) as snapshots:
        yield Served(snapshots.current, lines)


async def shapes() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Methods by path, with `*` for parameters: of the API, and of the admin port."""
    async with served() as there:
        tables = (there.clients.table.shapes(), there.operators.table.shapes())
        clients, operators = [{shape: {*place.methods} for shape, place in table.items()} for table in tables]
        return clients, operators

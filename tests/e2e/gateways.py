"""The gateway in this process, on real sockets: as `sluice serve` runs it, but for signals; or as an aiohttp
application."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from aiohttp import web

from sluice.config.loader import Loaded, load
from sluice.identity.keys import digest_of
from sluice.process.gateway import Gateway
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.snapshots import Snapshots
from sluice.runtime.state import ProcessState
from sluice.telemetry.logs import LogLines, quiet_libraries
from sluice.web import admin, application
from sluice.web.application import GATEWAY

KEY = "sk-sluice-test"
DIGEST = digest_of(KEY)

HEAD = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
keys: [{{id: test, digest: "{DIGEST}", aliases: ["*"], default_alias: chat}}]
admin: {{digest: "{DIGEST}"}}
limits: {{address: null}}
"""
"""The sections that a test usually does not care about: append `upstreams` and `aliases`."""


class Observed:
    """What tests see of a gateway, whichever server it runs on. `prefix`: what the paths of its API begin
    with."""

    state: ProcessState
    snapshots: Snapshots
    log_bytes: io.BytesIO
    address: tuple[str, int]
    admin_address: tuple[str, int]
    prefix = ""
    admin_prefix = ""

    @property
    def runtime(self) -> Snapshot:
        """What new requests are answered by."""
        return self.snapshots.current

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}{self.prefix}"

    @property
    def admin_url(self) -> str:
        host, port = self.admin_address
        return f"http://{host}:{port}{self.admin_prefix}"

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        self.state.flush()
        return [json.loads(line) for line in self.log_bytes.getvalue().splitlines()]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The log's lines about requests."""
        return [line for line in self.log_lines if line["event"] == "request"]

    def metric(self, line: str) -> float:
        """The value of the series that the exposition writes as `line`; 0.0 where there is none."""
        for found in self.runtime.exposition().decode().splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
        return 0.0


class OnSluice(Gateway, Observed):
    """On our own server, as `sluice serve` runs it."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return any(connection.exchange for connection in self.clients.connections)

    @property
    def connected(self) -> bool:
        """Whether there is a client who has not got all of its answer."""
        return bool(self.clients.connections)

    @property
    def unfinished(self) -> int:
        """Bytes that are kept of bodies that have not come to their ends."""
        return self.clients.unfinished.size


class OnAiohttp(Observed):
    """As an aiohttp application; mounted under `prefix`, where there is one. The admin routes are beside
    it."""

    admin_prefix = "/ops"

    def __init__(self, loaded: Loaded, lines: LogLines, prefix: str = "") -> None:
        app = application(loaded, lines=lines)
        self._gateway = app[GATEWAY]
        self.prefix = prefix
        root = web.Application() if prefix else app
        if prefix:
            root.add_subapp(prefix + "/", app)
        self._runners = [
            web.AppRunner(root, access_log=None),
            web.AppRunner(_mounted(admin(app)), access_log=None),
        ]

    async def __aenter__(self) -> Self:
        for runner in self._runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address, self.admin_address = (runner.addresses[0] for runner in self._runners)
        self.state, self.snapshots = self._gateway.state, self._gateway.snapshots
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._runners:
            await self._runners.pop().cleanup()

    async def drain(self, hurry: asyncio.Event) -> None:
        """There is no delay to hurry: aiohttp accepts no more connections before it tells the application."""
        await self._runners[0].cleanup()
        del self._runners[0]

    @property
    def busy(self) -> bool:
        return bool(self._gateway.answering)

    @property
    def connected(self) -> bool:
        return bool(self._gateway.exchanges)

    @property
    def unfinished(self) -> int:
        return self._gateway.unfinished.size


def _mounted(app: web.Application) -> web.Application:
    root = web.Application()
    root.add_subapp(OnAiohttp.admin_prefix + "/", app)
    return root


Running = OnSluice | OnAiohttp
SERVERS: dict[str, Callable[[Loaded, LogLines], Running]] = {
    "sluice": OnSluice,
    "aiohttp": OnAiohttp,
    "mounted": lambda loaded, lines: OnAiohttp(loaded, lines, "/some/prefix"),
}
server = "sluice"
"""The one that gateways run on; tests/e2e/conftest.py sets it for tests that run on several."""


@asynccontextmanager
async def gateway(config: str, *, level: str = "debug") -> AsyncIterator[Running]:
    """A running gateway for the configuration text (YAML)."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(config if "\nlog:" in config else f"{config}\nlog: {{level: {level}}}\n")
        out = io.BytesIO()
        running = SERVERS[server](load(str(path)), LogLines(out))
        running.log_bytes = out
        async with running:
            quiet_libraries(running.state.log)
            yield running


Config = Callable[[str], str]

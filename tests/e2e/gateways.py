"""The gateway in this process, on real sockets: as `sluice serve` runs it, but for signals."""

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sluice.config.loader import load
from sluice.identity.keys import digest_of
from sluice.process.serve import Gateway
from sluice.telemetry.logs import Lines

KEY = "sk-sluice-test"
DIGEST = digest_of(KEY)

HEAD = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
keys: [{{id: test, digest: "{DIGEST}", aliases: ["*"], default_alias: chat}}]
admin: {{digest: "{DIGEST}"}}
limits: {{address: null}}
"""
"""The sections that a test usually does not care about: append `upstreams` and `aliases`."""


class Running(Gateway):
    """A gateway with its log lines at hand."""

    log_bytes: io.BytesIO

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    @property
    def admin_url(self) -> str:
        host, port = self.admin_address
        return f"http://{host}:{port}"

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        self.runtime.flush()
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


@asynccontextmanager
async def gateway(config: str, *, level: str = "debug") -> AsyncIterator[Running]:
    """A running gateway for the configuration text (YAML)."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(config if "\nlog:" in config else f"{config}\nlog: {{level: {level}}}\n")
        out = io.BytesIO()
        running = Running(load(str(path)), Lines(out))
        running.log_bytes = out
        async with running:
            yield running


Config = Callable[[str], str]

"""What a gateway of one alias loads: libraries and parts that are off stay where they are."""

import subprocess
import sys
from pathlib import Path

from sluice_plugins import openai

OFF = (
    "aiohttp", "asyncpg", "backports", "brotli", "cryptography", "difflib", "grpc", "h2", "jwt", "lmdb", "multiprocessing",
    "redis", "sqlite3", "sluice.identity.remote", "sluice.otlp", "sluice.process.supervisor", "sluice.runtime.pods",
    "sluice.server.http2", "sluice.server.tls", "sluice.simulate", "sluice.sinks", "sluice.storage.postgres",
    "sluice.storage.redis", "sluice.testing", "sluice.tracing", "sluice.ui", "sluice.upstream.grpc", "sluice.upstream.http2",
    "sluice.web", "sluice.wire.content_coding",
)  # fmt: skip
CONFIG = """
server: { listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0" }
upstreams: { one: { backend: openai, base_url: "http://127.0.0.1:9/v1", api_key: sk-upstream-0123456789 } }
aliases: { small: { tiers: [[{ upstream: one, model: small }]] } }
"""
PROGRAM = """
import asyncio, io, sys
from sluice.config.loader import load
from sluice.process import serve
from sluice.process.gateway import Gateway
from sluice.telemetry.logs import LogLines

async def main():
    async with Gateway(load(sys.argv[1]), LogLines(io.BytesIO())):
        print("\\n".join(sys.modules))

asyncio.run(main())
"""


def test_a_gateway_of_one_alias_loads_nothing_that_is_off(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "sluice.proxy.pipeline" in loaded
    plugins = Path(openai.__file__).parents[1]
    others = [f"sluice_plugins.{path.parent.name}" for path in plugins.glob("*/backend.py")]
    others.remove("sluice_plugins.openai")
    assert others
    assert [
        name for name in loaded for off in (*OFF, *others) if name == off or name.startswith(f"{off}.")
    ] == []

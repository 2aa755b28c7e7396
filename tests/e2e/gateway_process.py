"""`sluice serve` as operators run it: a process of its own, on free ports, with a configuration as text.

    with serving(ECHO) as gateway:
        httpx.post(gateway.api + "/v1/chat", headers={"x-api-key": KEY}, ...)
        assert gateway.records("request")

A text without a `server:` section gets one; a text with one names its ports as ${API_PORT} and ${ADMIN_PORT}.
Every line that the process writes to stdout is kept; leaving the block stops it by SIGTERM and, if that is
not obeyed, fails. `output`: a file or descriptor for both of its outputs, of which nothing is kept then;
`shell`: a command that `exec`s it; `sockets`: are passed to it.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parents[2]
ALONE = ROOT / "tests" / "alone"
"""Modules that stand in the way of what only the tests need."""
READY_WITHIN = 90.0
STOPPED_WITHIN = 90.0

KEY = "sk-sluice-test"
DIGEST = "sha256:3da3c6227765663687b751dbba62ec96985d8b966491f2f59d8d0b4d2f38a6dc"
SERVER = (
    "server: { listen: '127.0.0.1:${API_PORT}', admin_listen: '127.0.0.1:${ADMIN_PORT}', drain_delay: 0s }\n"
)


class GatewayProcess:
    """A running gateway: `api` and `admin` are base URLs without a slash, `lines` what it has written so far.

    `path`: its configuration file.
    """

    def __init__(self, process: "subprocess.Popen[str]", api_port: int, admin_port: int, path: Path) -> None:
        self.path = path
        self.process = process
        self.port = api_port
        self.api = f"http://127.0.0.1:{api_port}"
        self.admin = f"http://127.0.0.1:{admin_port}"
        self.lines: list[str] = []
        self._records: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._written = threading.Condition()
        self._readers = [
            threading.Thread(target=self._collect, args=pair, daemon=True)
            for pair in ((process.stdout, self.lines), (process.stderr, self.errors))
            if pair[0] is not None
        ]
        for reader in self._readers:
            reader.start()

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log lines so far that are JSON objects, of one event or all."""
        return [record for record in list(self._records) if event is None or record.get("event") == event]

    def wait_for(self, fits: Callable[[dict[str, Any]], bool], timeout: float = 60.0) -> dict[str, Any]:
        """The first log line that fits, as soon as it is written. Raises TimeoutError with all lines."""

        def first() -> dict[str, Any] | None:
            return next((record for record in self.records() if fits(record)), None)

        with self._written:
            self._written.wait_for(lambda: first() is not None, timeout)
        found = first()
        if found is None:
            raise TimeoutError("no such line in:\n" + self.output())
        return found

    def until(self, holds: Callable[[], bool], timeout: float = 60.0) -> None:
        """Returns once this holds of what was written so far. Raises TimeoutError with all lines."""
        with self._written:
            if not self._written.wait_for(holds, timeout):
                raise TimeoutError("it does not hold of:\n" + self.output())

    def output(self) -> str:
        return "\n".join([*self.lines, *self.errors])

    def scrape(self) -> str:
        """The metrics, as the admin port shows them."""
        return _get(self.admin + "/metrics")

    def stop(self) -> int:
        """End it by SIGTERM and return its exit code. Raises subprocess.TimeoutExpired if it does not go."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(STOPPED_WITHIN)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            for reader in self._readers:
                reader.join(5)
        return code

    def _collect(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._written:
                lines.append(line.rstrip("\n"))
                if lines is self.lines:
                    with suppress(ValueError):
                        record = json.loads(line)
                        if isinstance(record, dict):
                            self._records.append(record)
                self._written.notify_all()


@contextmanager
def serving(
    config: str,
    env: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    output: Any = subprocess.PIPE,
    shell: str = 'exec "$@"',
    sockets: Sequence[socket.socket] = (),
) -> Iterator[GatewayProcess]:
    """A gateway that is ready. Raises RuntimeError with its output if it never is, or does not end
    cleanly."""
    with tempfile.TemporaryDirectory() as directory:
        gateway = _start(config, env or {}, Path(directory), cwd, output, shell, sockets)
        try:
            yield gateway
        finally:
            code = gateway.stop()
        if code:
            raise RuntimeError(f"the gateway ended with {code}:\n{gateway.output()}")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(
    config: str, env: Mapping[str, str], directory: Path, cwd: Path | None, output: Any, shell: str,
    sockets: Sequence[socket.socket],
) -> GatewayProcess:  # fmt: skip
    path = directory / "gateway.yaml"
    path.write_text(config if re.search(r"^server:", config, re.MULTILINE) else SERVER + config)
    for _ in range(3):  # another process may take a port between our look and the gateway's
        ports = free_port(), free_port()
        process = subprocess.Popen(
            ["sh", "-c", shell, "sh", sys.executable, "-m", "sluice", "serve", "--config", str(path)],
            cwd=cwd or directory,
            pass_fds=[one.fileno() for one in sockets],
            env={
                **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ALONE}", "PYTHONUNBUFFERED": "1",
                "API_PORT": str(ports[0]), "ADMIN_PORT": str(ports[1]), **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
        )  # fmt: skip
        gateway = GatewayProcess(process, *ports, path)
        try:
            ready = _until_ready(gateway)
        except BaseException:
            process.kill()
            gateway.stop()
            raise
        if ready:
            return gateway
        gateway.stop()
        if output is subprocess.PIPE and "cannot listen" not in gateway.output():
            break  # for another reason
    raise RuntimeError(f"the gateway was not ready:\n{gateway.output()}")


def _until_ready(gateway: GatewayProcess) -> bool:
    deadline = time.monotonic() + READY_WITHIN
    while gateway.process.poll() is None and time.monotonic() < deadline:
        with suppress(URLError, OSError):
            _get(gateway.admin + "/readyz")
            if _listens(gateway.process.pid, int(gateway.admin.rpartition(":")[2])):
                return True
        time.sleep(0.02)  # a poll of another process: nothing else can wake us
    return False


def _listens(pid: int, port: int) -> bool:
    """Whether it is this process, or a child of it, that listens on the port: another gateway may have got it
    since we looked."""
    proc = Path("/proc")
    listening = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for fields in map(str.split, (proc / "net" / table).read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    for each in (str(pid), *(proc / f"{pid}/task/{pid}/children").read_text().split()):
        for descriptor in (proc / each / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if os.readlink(descriptor) in listening:
                    return True
    return False


def _get(url: str) -> str:
    with build_opener(ProxyHandler({})).open(url, timeout=5) as response:
        text: str = response.read().decode()
        return text

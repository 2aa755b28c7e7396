"""Other people's proxies before a gateway, by the files of deploy/: only addresses, and where asked a timer,
are changed."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.gateway_process import ROOT, free_port

DEPLOY = ROOT / "deploy"
SYSTEM = "/usr/sbin:/usr/local/sbin"
NGINX_MAIN = """
daemon off; pid nginx.pid; error_log stderr warn; worker_processes 1;
events { worker_connections 128; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include site.conf;
}
"""


class Ingress:
    """One proxy: `port` to call, in front of the gateway at the port `gateway`.

    `gateway`: how that stands in its file. `idle`: the line of the file that says for how long it waits
    between two reads, and the same with a second; None: it has no such timer. `debian`: Debian has it.
    `gone`: what its log says when it has found out by itself that the gateway takes nothing any more.
    """

    name = ""
    program = ""
    file = ""
    gateway = "127.0.0.1:8080"
    idle: tuple[str, str] | None = None
    debian = True
    gone = ""

    def __init__(self, directory: Path, gateway: int, *, hasty: bool) -> None:
        self.directory = directory
        self.port = free_port()
        self._gateway = gateway
        self._hasty = hasty
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def binary(cls) -> str:
        """Skips the test where there is none."""
        cached = ROOT / ".cache" / "bin" / cls.program
        found = (
            shutil.which(cls.program)
            or shutil.which(cls.program, path=SYSTEM)
            or (str(cached) if cached.is_file() else None)
        )
        if found is None:
            pytest.skip(f"{cls.program} is not installed (make test-deploy fetches it)")
        return found

    def text(self) -> str:
        """What the file of deploy/ says, at our addresses."""
        text = (DEPLOY / self.file).read_text()
        assert self.gateway in text
        text = self.changed(text.replace(self.gateway, self.gateway.replace("8080", str(self._gateway))))
        if self._hasty:
            assert self.idle is not None
            before, after = self.idle
            assert before in text
            text = text.replace(before, after)
        return text

    def changed(self, text: str) -> str:
        """`text` with the port to listen on."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def reload(self, gateway: int) -> None:
        """From now on, or soon, new requests go to that gateway."""
        raise NotImplementedError

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ended(self) -> bool:
        return self._processes[-1].poll() is not None

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def _run(self, *command: str, user: int | None = None) -> None:
        with (self.directory / "log").open("ab") as log:
            env = {**os.environ, "XDG_CONFIG_HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory)}
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                user=user,
                env=env,
            )
        self._processes.append(process)

    def _write(self, name: str, text: str) -> Path:
        """At once and whole, for those that look at it all the time."""
        part = self.directory / f".{name}"
        part.write_text(text)
        return part.rename(self.directory / name)


class Nginx(Ingress):
    name, program, file = "nginx", "nginx", "nginx.conf"
    idle = ("proxy_read_timeout 600s;", "proxy_read_timeout 1s;")

    def changed(self, text: str) -> str:
        return text.replace("listen 80;", f"listen 127.0.0.1:{self.port};")

    def start(self) -> None:
        self._write("site.conf", self.text())
        self._write("nginx.conf", NGINX_MAIN)
        nobody = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        if nobody is not None:
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, nobody, -1)
        self._run(self.binary(), "-p", str(self.directory), "-e", "stderr", "-c", "nginx.conf", user=nobody)

    def reload(self, gateway: int) -> None:
        self._gateway = gateway
        self._write("site.conf", self.text())
        self._processes[0].send_signal(signal.SIGHUP)


class Haproxy(Ingress):
    name, program, file = "haproxy", "haproxy", "ingress/haproxy.cfg"
    idle = ("timeout server 600s", "timeout server 1s")
    gone = "is DOWN"

    def changed(self, text: str) -> str:
        text = text.replace("inter 2s", "inter 50ms").replace("maxconn 100000", "maxconn 100")
        text = text.replace(
            "timeout connect 2s", "timeout connect 2s\n    timeout check 60s"
        )  # busy is not down
        return text.replace("bind :80\n", f"bind 127.0.0.1:{self.port}\n")

    def start(self) -> None:
        self._run(self.binary(), "-W", "-f", str(self._write("haproxy.cfg", self.text())))

    def reload(self, gateway: int) -> None:
        self._gateway = gateway
        self._write("haproxy.cfg", self.text())
        deadline = time.monotonic() + 30
        while "Loading success" not in self.log() and time.monotonic() < deadline:
            time.sleep(0.02)  # the worker serves a moment before the master takes signals
        self._processes[0].send_signal(signal.SIGUSR2)


class Caddy(Ingress):
    name, program, file = "caddy", "caddy", "ingress/Caddyfile"
    idle = ("read_timeout 600s", "read_timeout 1s")

    def __init__(self, directory: Path, gateway: int, *, hasty: bool) -> None:
        super().__init__(directory, gateway, hasty=hasty)
        self._admin = free_port()

    def changed(self, text: str) -> str:
        text = text.replace("\n:80 {", f"\n:{self.port} {{")
        return text.replace(
            "# admin localhost:2019", f"default_bind 127.0.0.1\n\tadmin 127.0.0.1:{self._admin} #"
        )

    def start(self) -> None:
        self._run(
            self.binary(),
            "run",
            "--adapter",
            "caddyfile",
            "--config",
            str(self._write("Caddyfile", self.text())),
        )

    def reload(self, gateway: int) -> None:
        self._gateway = gateway
        file = self._write("Caddyfile", self.text())
        address = f"127.0.0.1:{self._admin}"
        command = [
            self.binary(),
            "reload",
            "--adapter",
            "caddyfile",
            "--config",
            str(file),
            "--address",
            address,
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=self.directory)


class Traefik(Ingress):
    name, program, file = "traefik", "traefik", "ingress/traefik-sluice.yaml"
    idle = None
    debian = False

    def changed(self, text: str) -> str:
        return text

    def start(self) -> None:
        static = (DEPLOY / "ingress" / "traefik.yaml").read_text()
        assert "sluice.yaml" in static
        self._write("sluice.yaml", self.text())
        file = self._write("traefik.yaml", static.replace('":80"', f'"127.0.0.1:{self.port}"'))
        self._run(self.binary(), f"--configFile={file}")

    def reload(self, gateway: int) -> None:
        self._gateway = gateway
        self._write("sluice.yaml", self.text())


class Envoy(Ingress):
    name, program, file = "envoy", "envoy", "ingress/envoy.yaml"
    gateway = "address: 127.0.0.1, port_value: 8080"
    debian = False
    idle = ("stream_idle_timeout: 600s", "stream_idle_timeout: 1s")

    def changed(self, text: str) -> str:
        return text.replace(
            "address: 0.0.0.0, port_value: 80 ", f"address: 127.0.0.1, port_value: {self.port} "
        )

    def start(self) -> None:
        self._epoch()

    def reload(self, gateway: int) -> None:
        self._gateway = gateway
        self._epoch()

    def _epoch(self) -> None:
        epoch = len(self._processes)
        file = self._write(f"envoy{epoch}.yaml", self.text())
        command = [self.binary(), "-c", str(file), "--restart-epoch", str(epoch), "--base-id", str(self.port)]
        self._run(*command, "--concurrency", "1", "--drain-time-s", "60", "--parent-shutdown-time-s", "90")


INGRESSES: dict[str, type[Ingress]] = {one.name: one for one in (Nginx, Haproxy, Caddy, Traefik, Envoy)}


@contextmanager
def ingress(kind: type[Ingress], gateway: int, *, hasty: bool = False) -> Iterator[Ingress]:
    """`hasty`: a second in place of the time that it waits between two reads."""
    kind.binary()
    with tempfile.TemporaryDirectory(prefix=f"{kind.name}-", ignore_cleanup_errors=True) as directory:
        one = kind(Path(directory), gateway, hasty=hasty)
        try:
            one.start()
            yield one
        except TimeoutError:
            print(one.log())
            raise
        finally:
            one.stop()

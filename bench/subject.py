"""A gateway under test: written down in gateways.py, started here, asked here."""

import http.client
import os
import shlex
import shutil
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateways import Entry
from processes import Child, Usage

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Bench:
    """The places and ports of one run, and which CPU is whose."""

    bin: Path
    peers: Path
    work: Path
    before: Path = HERE.parent / ".cache/bench/before"
    gateway_cpu: int = 0
    load_cpu: int = 1
    nice: int = 0
    python: str = ""
    mock_port: int = 19100
    base_port: int = 19200
    start_timeout: float = 90.0


def _metadata(root: Path, work: Path) -> Path:
    """A folder with the metadata of the checkout at `root`: what is installed in .venv may declare other
    entry points."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    folder = work / "metadata" / f"{project['name'].replace('-', '_')}-0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {place}" for name, place in points.items())])
        for group, points in project["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    return folder.parent


class Subject:
    """One gateway (or, without a command, the fake upstream itself), on a port of its own."""

    def __init__(self, name: str, entry: Entry, bench: Bench, port: int) -> None:
        self.name = name
        self._bench = bench
        self.port = port if entry.cmd else bench.mock_port
        self.work = bench.work / name
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.entry = self._filled(entry)
        self.child: Child | None = None
        self._beside: Child | None = None

    def _filled(self, entry: Entry) -> Entry:
        bench = self._bench
        places = {
            "$port": self.port, "$admin": self.port + 1000, "$beside": self.port + 2000, "$mock": bench.mock_port,
            "$work": self.work, "$peers": bench.peers, "$here": HERE, "$repo": HERE.parent, "$before": bench.before,
        }  # fmt: skip
        root = bench.before if entry.root == "$before" else HERE.parent
        layout = (
            ("sluice", "sluice.process.serve")
            if (root / "gateway/sluice").exists()
            else ("gateway", "gateway.serve")
        )
        places |= dict(zip(("$package", "$serve"), layout, strict=True))
        places = {"$py": bench.python or f"{entry.venv}/bin/python", **places}

        def fill(text: str) -> str:
            for name, value in places.items():
                text = text.replace(name, str(value))
            return text

        def fill_all(texts: Mapping[str, str]) -> dict[str, str]:
            return {key: fill(text) for key, text in texts.items()}

        path = [_metadata(root, self.work), root, root / "gateway", root / "plugins"] if entry.root else []
        if bench.python and entry.venv:
            path += [*Path(fill(entry.venv)).glob("lib/python3*/site-packages"), bench.bin / "packages"]
        if path:
            entry = replace(entry, env={**entry.env, "PYTHONPATH": ":".join(map(str, path))})
        return replace(
            entry,
            cmd=fill(entry.cmd), beside=fill(entry.beside), cwd=fill(entry.cwd), cold=fill(entry.cold),
            env=fill_all(entry.env), files=fill_all(entry.files), headers=fill_all(entry.headers),
        )  # fmt: skip

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", **self.entry.headers}

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.work), "LANG": "C.UTF-8", **self.entry.env}

    def body(self, prompt: str, *, stream: bool) -> str:
        return self.entry.body.replace("$prompt", prompt).replace("$stream", str(stream).lower())

    def load(self, prompt: str, *, stream: bool, options: Mapping[str, object]) -> Child:
        """Start `load` on it."""
        entry = self.entry
        argv = [
            str(self._bench.bin / "load"), "--port", str(self.port), "--path", entry.path, "--protocol", entry.protocol,
            "--body", self.body(prompt, stream=stream), "--vary", entry.vary,
        ]  # fmt: skip
        for name, value in entry.headers.items():
            argv += ["--header", f"{name}: {value}"]
        for name, option in options.items():
            argv += [f"--{name}", str(option)]
        return Child(argv, self._bench.load_cpu, self._bench.nice)

    def start(self) -> dict[str, float]:
        """Seconds to the first answer of its health path and to the first whole reply, CPU seconds until
        then."""
        if not self.entry.cmd:
            return {}
        bench, entry = self._bench, self.entry
        for name, text in entry.files.items():
            (self.work / name).write_text(text)
        env = self.env
        cwd = entry.cwd or self.work
        if entry.beside:
            self._beside = Child(
                shlex.split(entry.beside),
                bench.load_cpu,
                bench.nice,
                self.work / "beside.log",
                self.work,
                env,
            )
            time.sleep(0.5)
        began = time.monotonic()
        self.child = Child(shlex.split(entry.cmd), bench.gateway_cpu, bench.nice, self.work / "log", cwd, env)
        ready = 0.0
        while time.monotonic() - began < bench.start_timeout:
            if self.child.popen.poll() is not None:
                raise RuntimeError(f"exited with {self.child.popen.returncode}")
            ready = ready or self._elapsed(began, "GET", entry.ready)
            if ready and (replied := self._elapsed(began, "POST", entry.path)):
                return {"ready_s": ready, "first_reply_s": replied, "startup_cpu_s": self.usage().cpu}
            time.sleep(0.01)
        raise RuntimeError("not ready in time")

    def _elapsed(self, began: float, method: str, path: str) -> float:
        """Seconds since `began` where it answers 200 now, else 0."""
        body = (
            self.body("tokens=1", stream=not self.entry.small).replace("#", "0") if method == "POST" else None
        )
        try:
            status, _ = ask(self.port, path, method, body, self.headers)
        except (OSError, http.client.HTTPException):
            return 0.0
        return time.monotonic() - began if status == 200 else 0.0

    def stop(self) -> None:
        for child in (self.child, self._beside):
            if child:
                child.stop()
        self.child = self._beside = None

    def usage(self) -> Usage:
        return self.child.usage() if self.child else Usage()

    def log_tail(self) -> str:
        log = self.work / "log"
        return log.read_text(errors="replace")[-800:] if log.exists() else ""


def ask(
    port: int,
    path: str,
    method: str = "GET",
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 5,
) -> tuple[int, bytes]:
    """One request to this machine. Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()

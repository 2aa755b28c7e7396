"""What a call costs a Redis: commands, bytes and time, by what the configuration limits and keeps.

    .venv/bin/python bench/redis_calls.py [--calls 500]

Starts a redis-server (Debian's) and `sluice serve` with the embedded echo model for each configuration, sends
calls one after another, and reads `INFO commandstats` and `INFO stats` before and after. Commands that a
script runs are counted apart from those that came over the network.
"""

import argparse
import hashlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "sk-redis-calls"
LOTS = {"rate": "1000000/s", "burst": 1000000}


def configurations(redis: str) -> dict[str, dict[str, Any]]:
    """Sections of the configuration that differ, by name."""
    limits, key = {"limits": {"store": redis, "address": None}}, "key"
    whole = {"requests": [LOTS, {"rate": "100000000/min"}], "tokens": LOTS, "money": LOTS, "streams": 100000,
             "budget": {"month": 1000000}}  # fmt: skip
    return {
        "requests of a key": {**limits, key: {"requests": LOTS}},
        "requests and tokens of a key": {**limits, key: {"requests": LOTS, "tokens": LOTS}},
        "requests, tokens, streams of a key": {
            **limits,
            key: {"requests": LOTS, "tokens": LOTS, "streams": 100000},
        },
        "8 buckets of 3 scopes, a slot, a budget": {
            **limits,
            key: whole,
            "tenants": {"web": {"limits": {"tokens": LOTS}}},
            "alias": {"tokens": LOTS},
        },
        "usage and history in Redis, no limits": {
            "limits": {"address": None},
            "state": redis,
            "session": True,
        },
        "usage in Redis, no limits": {"limits": {"address": None}, "state": redis},
    }


def written(name: str, of: Mapping[str, Any], ports: tuple[int, int]) -> str:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    tiers, key = [[{"upstream": "echo", "model": "echo"}]], {"id": "web", "digest": f"sha256:{digest}"}
    sections = {
        "server": {"listen": f"127.0.0.1:{ports[0]}", "admin_listen": f"127.0.0.1:{ports[1]}", "drain_delay": 0},
        "upstreams": {"echo": {"backend": "echo"}},
        "aliases": {"echo": {"tiers": tiers, "limits": of.get("alias", {})}},
        "keys": [key | {"aliases": ["echo"], "default_alias": "echo", "limits": of.get("key", {})}],
        "prices": {"models": {"echo": {"input": 1.0, "output": 1.0}}},
        **{part: of[part] for part in ("limits", "state", "tenants") if part in of},
    }  # fmt: skip
    return json.dumps(sections)


class Redis:
    """A redis-server without persistence."""

    def __init__(self, directory: str) -> None:
        self.port = free_port()
        program = shutil.which("redis-server") or sys.exit("redis-server is not installed")
        options = (
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            directory,
        )
        self.process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        until(lambda: self.ask("ping") == "PONG")

    def ask(self, *words: str) -> str:
        found = subprocess.run(
            ["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, check=False
        )
        return found.stdout.strip()

    def figures(self) -> dict[str, float]:
        """Calls of each command, bytes in and out, processor seconds."""
        found: dict[str, float] = {}
        for line in self.ask("info", "everything").splitlines():
            name, _, value = line.strip().partition(":")
            if name.startswith("cmdstat_") and (calls := re.match(r"calls=(\d+),usec=(\d+)", value)):
                command = name.removeprefix("cmdstat_")
                found[command] = float(calls[1])
                if command in (
                    "evalsha",
                    "exec",
                    "hincrby",
                    "hincrbyfloat",
                ):  # a script's time has that of its commands
                    found["usec"] = found.get("usec", 0.0) + float(calls[2])
            elif name in ("total_net_input_bytes", "total_net_output_bytes"):
                found[name] = float(value)
        return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def until(holds: Any) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    sys.exit("a server did not start")


@contextmanager
def gateway(text: str, admin: int) -> Iterator[None]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        program = str(Path(sys.executable).with_name("sluice"))
        process = subprocess.Popen([program, "serve", "--config", file.name], stdout=subprocess.DEVNULL)
        try:
            until(lambda: is_ready(admin))
            yield
        finally:
            process.terminate()
            process.wait()


def is_ready(admin: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def send(port: int, calls: int, *, session: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    for number in range(calls):
        if session:
            path, body = "/v1/chat/stream", {"message": "hello there", "sessionId": f"s{number % 10}"}
        else:
            path = "/v1/chat/completions"
            body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "hello there"}]}  # type: ignore[dict-item]
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            sys.exit(f"a call was answered {response.status}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=500)
    calls = parser.parse_args().calls
    print(
        "| limited or kept | commands from the gateway | within scripts | bytes to Redis | bytes back | Redis' time µs |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as directory:
        redis = Redis(directory)
        try:
            for name, of in configurations(f"redis://127.0.0.1:{redis.port}/0").items():
                ports = (free_port(), free_port())
                with gateway(written(name, of, ports), ports[1]):
                    send(ports[0], 20, session="session" in of)
                    time.sleep(1.5)
                    before = redis.figures()
                    send(ports[0], calls, session="session" in of)
                    time.sleep(1.5)  # usage is written in batches
                    after = redis.figures()
                print(row(name, before, after, calls), flush=True)
                redis.ask("flushall")
        finally:
            redis.process.terminate()
            redis.process.wait()


def row(name: str, before: Mapping[str, float], after: Mapping[str, float], calls: int) -> str:
    each = {key: (value - before.get(key, 0.0)) / calls for key, value in after.items()}
    spent = each.pop("usec", 0.0)
    to, back = each.pop("total_net_input_bytes"), each.pop("total_net_output_bytes")
    commands = {
        command: number
        for command, number in sorted(each.items())
        if number >= 0.005 and command not in ("info", "ping")
    }
    scripts = any(command.startswith("eval") for command in commands)
    own = {
        command: number
        for command, number in commands.items()
        if command.startswith(("eval", "multi", "exec")) or not scripts
    }
    within = {command: number for command, number in commands.items() if command not in own}
    shown = (
        ", ".join(f"{command} {number:.2g}" for command, number in some.items()) or "-"
        for some in (own, within)
    )
    return f"| {name} | {' | '.join(shown)} | {to:.0f} | {back:.0f} | {spent:.0f} |"


if __name__ == "__main__":
    main()

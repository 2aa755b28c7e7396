"""Turns of many sessions at once, by clients as they are (curl, one that closes as soon as it has read
`done`, keep-alive), beside a job that takes the processor, in each store: none is lost, and each begins with
all that was before it.

SLUICE_FULL=1: 1,200 turns for each store, 400 by each client, in place of 32 each; and in Redis and PostgreSQL, too (otherwise
tests/e2e/test_hosts.py asks those).
"""

import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.servers import postgres_server, redis_server

FULL = os.environ.get("SLUICE_FULL") == "1"
SESSIONS, ROUNDS = (20, 5) if FULL else (8, 1)
TURNS = 4
Answers = Iterator[dict[str, Any]]
"""The last line of each turn's stream."""


def config(state: str, workers: int = 1, resume: str = "memory") -> str:
    return f"""
server:
  {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s, workers: {workers}}}
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat}}]
admin: {{digest: "{DIGEST}"}}
limits: {{address: null}}
state: {state}
resume: {resume}
upstreams: {{echo: {{backend: echo}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}
  kept: {{tiers: [[{{upstream: echo, model: echo}}]], resumable: true}}
"""


@contextmanager
def beside_a_job() -> Iterator[None]:
    job = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        job.kill()
        job.wait()


def messages() -> list[str]:
    return [f"message {number}" for number in range(1, TURNS + 1)]


def body(session: str, message: str) -> bytes:
    return json.dumps({"sessionId": session, "message": message}).encode()


def last(data: bytes) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(data.splitlines()[-1])
    return line


def by_curl(gateway: GatewayProcess, session: str) -> Answers:
    headers = ["-H", f"x-api-key: {KEY}", "-H", "Content-Type: application/json"]
    for message in messages():
        asked = ["curl", "-sSN", "--noproxy", "*", *headers, "-d", body(session, message).decode()]
        done = subprocess.run([*asked, f"{gateway.api}/v1/chat/stream"], capture_output=True, check=True)
        yield last(done.stdout)


def by_closing(gateway: GatewayProcess, session: str) -> Answers:
    """The socket is closed as soon as the line has come, in whatever state the connection is."""
    for message in messages():
        data = body(session, message)
        head = f"POST /v1/chat/stream HTTP/1.0\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
            got = b""
            while not (b'"type":"done"' in got and got.endswith(b"\n")):
                got += client.recv(65536)
        yield last(got)


def by_keep_alive(gateway: GatewayProcess, session: str) -> Answers:
    client = http.client.HTTPConnection("127.0.0.1", gateway.port)
    for message in messages():
        headers = {"x-api-key": KEY, "Content-Type": "application/json"}
        client.request("POST", "/v1/chat/stream", body(session, message), headers)
        yield last(client.getresponse().read())
    client.close()


CLIENTS: dict[str, Callable[[GatewayProcess, str], Answers]] = {
    "curl": by_curl,
    "closing": by_closing,
    "keep-alive": by_keep_alive,
}


def admin(gateway: GatewayProcess, path: str) -> Any:
    asked = urllib.request.Request(gateway.admin + path, headers={"x-admin-api-key": KEY})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as response:
        return json.load(response)


def kept(gateway: GatewayProcess) -> dict[str, list[str]]:
    """The contents of all conversations, by session."""
    found = admin(gateway, "/v1/admin/conversations?limit=200")["conversations"]
    answers = {of["sessionId"]: admin(gateway, f"/v1/admin/conversations/{of['_id']}") for of in found}
    return {
        session: [message["content"] for message in answer["messages"]] for session, answer in answers.items()
    }


def expected() -> list[str]:
    """What a conversation holds: each answer says how many turns its model has seen."""
    texts = []
    for number, message in enumerate(messages(), 1):
        texts += [message, f"You said: {message}" if number == 1 else f"Turn {number}, you said: {message}"]
    return texts


STORES = ["memory", "sqlite", "sqlite, two workers"]
SERVERS = ["redis, two workers", "postgres, two workers"]


@contextmanager
def conversations(store: str, path: Path) -> Iterator[str]:
    """The address of an empty store."""
    match store.partition(",")[0]:
        case "redis":
            with redis_server() as redis:
                yield f'"{redis.url}&timeout=30"'
        case "postgres":
            with postgres_server() as postgres:
                yield f'"{postgres.url}&timeout=30s"'
        case "sqlite":
            yield f"sqlite:{path}"
        case _:
            yield "memory"


@pytest.mark.timeout(1800 if FULL else 600)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("store", STORES + SERVERS if FULL else STORES)
def test_no_turn_is_lost(client: str, store: str, tmp_path: Path) -> None:
    if client == "curl" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    lost = 0
    for number in range(ROUNDS):
        with (
            conversations(store, tmp_path / f"{number}.db") as state,
            serving(config(state, 2 if "workers" in store else 1)) as gateway,
            beside_a_job(),
        ):
            with ThreadPoolExecutor(SESSIONS) as pool:
                talks = pool.map(
                    lambda name: list(CLIENTS[client](gateway, name)), (f"s{n}" for n in range(SESSIONS))
                )
                said = [[answer["message"] for answer in talk] for talk in talks]
            found = kept(gateway)
        lost += SESSIONS * TURNS - sum(len(texts) for texts in found.values()) // 2
        assert said == [expected()[1::2]] * SESSIONS
        assert found == {f"s{n}": expected() for n in range(SESSIONS)}
    print(f"\n| {store} | {client} | {ROUNDS * SESSIONS * TURNS} turns | {lost} lost |")
    assert lost == 0


@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_a_turn_survives_what_ends_the_process_right_behind_its_last_byte(
    number: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    for round in range(20 if FULL else 3):
        with serving(config(f"sqlite:{path}")) as gateway:
            for count, answer in enumerate(by_closing(gateway, f"s{round}"), 1):
                assert answer["type"] == "done"
                if count == TURNS:
                    (gateway.process.terminate if number == "SIGTERM" else gateway.process.kill)()
            gateway.process.wait()
            gateway.process.returncode = 0
    rounds = 20 if FULL else 3
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "SELECT session, count(*) FROM turn JOIN conversation c ON c.number = conversation GROUP BY 1"
        )
        assert dict(rows) == {f"s{round}": TURNS * 2 for round in range(rounds)}
        [[requests]] = database.execute("SELECT sum(requests) FROM sluice_usage")
        if number == "SIGTERM":  # a kill -9 loses the last second of usage
            assert requests == TURNS * rounds


def test_a_stream_can_be_resumed_elsewhere_though_its_process_ends_right_behind_its_last_byte() -> None:
    with redis_server() as redis:
        text = config("memory", resume=f"{redis.url}&timeout=30")
        for round in range(20 if FULL else 3):
            with serving(text) as gateway:
                data = json.dumps({"sessionId": f"s{round}", "message": "a b c d", "model": "kept"}).encode()
                head = (
                    f"POST /v1/chat/stream HTTP/1.0\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
                )
                with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                    client.sendall(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
                    got = b""
                    while not (b'"type":"done"' in got and got.endswith(b"\n")):
                        got += client.recv(65536)
            lines = got.partition(b"\r\n\r\n")[2].splitlines(keepends=True)
            stream = json.loads(lines[0])["streamId"]
            with serving(text) as another:
                asked = urllib.request.Request(
                    f"{another.api}/v1/chat/stream/{stream}?after=0", headers={"x-api-key": KEY}
                )
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as response:
                    assert response.read() == b"".join(lines[1:])

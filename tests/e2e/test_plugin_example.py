"""Plugins of somebody else's distribution: built, installed beside the gateway, and found by their entry
points."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sluice import entrypoints
from tests.e2e.gateway_process import ROOT
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized
from tests.upstream.calls import until

PIECES = ("The password is sword", "fi", "sh", ", not Sword", "play. Go", " s")
MASKED = "The password is ***, not Swordplay. Go s"
PLUGINS = """
    interceptors: [{name: fixed_answer, prompt: ping, answer: "pong, swordfish"}]
    stages: [{name: word_mask, words: [swordfish, key]}]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example distribution is installed, and nothing else."""
    return built("words", tmp_path_factory.mktemp("words"))


def built(name: str, folder: Path) -> Path:
    """Builds and installs one of plugins/examples; the place where it alone is."""
    source, target = folder / "source", folder / "site"
    shutil.copytree(ROOT / "plugins" / "examples" / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, source],
        check=True,
        capture_output=True,
        timeout=100,
    )
    [wheel] = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", target, wheel], check=True, timeout=100
    )
    return target


@pytest.fixture(autouse=True)
def read_anew() -> Iterator[None]:
    """What is installed is read anew behind each test, too."""
    yield
    entrypoints.installed.cache_clear()


def event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


STREAM = chunked(*map(event, PIECES), event("", "stop"), b"data: [DONE]\n\n")
WHOLE = b'{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"one"},"finish_reason":"stop"}]}'


async def upstream(request: Request, peer: Peer) -> None:
    """Streams where it is asked to."""
    stream = json.loads(request.body).get("stream")
    peer.send(STREAM if stream else sized(WHOLE, 200, ("Content-Type", "application/json")))


def config(url: str, plugins: str = PLUGINS) -> str:
    alias = f"  chat:\n    tiers: [[{{upstream: up, model: m}}]]\n{plugins}"
    return f'{HEAD}\nupstreams: {{up: {{backend: openai, base_url: "{url}/v1"}}}}\naliases:\n{alias}'


def request_of(path: str, prompt: str, stream: bool) -> dict[str, Any]:
    if path == "/v1/chat/completions":
        return {"model": "chat", "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    return {"message": prompt, "sessionId": "s"}


def text_of(path: str, body: bytes, stream: bool) -> str:
    if path == "/v1/chat/completions":
        if not stream:
            return str(json.loads(body)["choices"][0]["message"]["content"])
        chunks = [
            json.loads(part.removeprefix(b"data: "))
            for part in body.split(b"\n\n")
            if part.startswith(b"data: {")
        ]
        return "".join(
            chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]
        )
    if not stream:
        return str(json.loads(body)["message"])
    lines = [json.loads(line) for line in body.splitlines() if line]
    return "".join(line["token"] for line in lines if line["type"] == "token")


async def ask(url: str, path: str, prompt: str, stream: bool) -> tuple[str, Any]:
    body = request_of(path, prompt, stream)
    async with (
        aiohttp.ClientSession(url, headers={"x-api-key": KEY}) as client,
        client.post(path, json=body) as response,
    ):
        assert response.status == 200
        return text_of(path, await response.read(), stream), response.headers


LANES = pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/v1/chat/completions", True),
        ("/v1/chat/completions", False),
        ("/v1/chat/stream", True),
        ("/v1/chat", False),
    ],
    ids=["openai streamed", "openai whole", "ndjson streamed", "ndjson whole"],
)


@LANES
async def test_a_stage_sees_the_text_of_every_lane(
    installed: Path, monkeypatch: pytest.MonkeyPatch, path: str, stream: bool
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    entrypoints.installed.cache_clear()  # another test of this process may have read it
    async with RawServer(upstream) as up, gateway(config(up.url)) as g:
        text, _ = await ask(g.url, path, "Which?", stream)
        assert text == MASKED
        assert json.loads(up.requests[0].body)["stream"] is True, "an answer that is looked at is streamed"
        await until(lambda: bool(g.requests))
        assert (g.requests[0]["end"], g.requests[0]["target"]) == ("done", "up/m")


@LANES
async def test_an_interceptor_answers_by_itself_in_every_lane(
    installed: Path, monkeypatch: pytest.MonkeyPatch, path: str, stream: bool
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    entrypoints.installed.cache_clear()  # another test of this process may have read it
    async with RawServer(upstream) as up, gateway(config(up.url)) as g:
        text, headers = await ask(g.url, path, "ping", stream)
        assert text == "pong, swordfish"
        assert "x-sluice-target" not in headers
        assert not up.requests
        await until(lambda: bool(g.requests))
        line = g.requests[0]
        assert (line["end"], line["target"], line["attempts"], line["tokens_out"]) == ("done", None, [], None)
        assert (line["ttft"] is not None) is stream


async def test_what_an_interceptor_answers_is_kept_as_the_session_s_turn(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    entrypoints.installed.cache_clear()  # another test of this process may have read it
    async with RawServer(upstream) as up, gateway(config(up.url)) as g:
        await ask(g.url, "/v1/chat", "ping", False)
        await ask(g.url, "/v1/chat", "Which?", False)
        messages = json.loads(up.requests[0].body)["messages"]
        assert [message["content"] for message in messages] == ["ping", "pong, swordfish", "Which?"]


async def test_an_alias_without_plugins_passes_answers_on_as_they_come() -> None:
    async with RawServer(upstream) as up, gateway(config(up.url, "")) as g:
        text, _ = await ask(g.url, "/v1/chat/completions", "ping", True)
        assert text == "".join(PIECES)
        assert (await ask(g.url, "/v1/chat/completions", "ping", False))[0] == "one", "asked for as one"


def check(installed: Path, folder: Path, plugins: str) -> list[str]:
    """The problems that `sluice check` finds with the distribution on its path."""
    file = folder / "gateway.yaml"
    file.write_text(config("http://127.0.0.1:1", plugins))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
    command = [sys.executable, "-m", "sluice", "check", "--format", "json", str(file)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
    return [f"{problem['path']}: {problem['message']}" for problem in json.loads(done.stdout)["problems"]]


def test_check_reads_the_options_of_plugins_strictly(installed: Path, tmp_path: Path) -> None:
    assert check(installed, tmp_path, PLUGINS) == []
    readme = (ROOT / "plugins" / "examples" / "words" / "README.md").read_text()
    example = readme.partition("    interceptors:")[2].partition("```")[0]
    assert check(installed, tmp_path, "    interceptors:" + example) == [], "the README's own example"
    [unknown] = check(installed, tmp_path, "    stages: [{name: word_mas, words: [a]}]\n")
    assert "aliases.chat.stages[0].name" in unknown
    assert 'no stage "word_mas"; installed: word_mask' in unknown
    assert 'did you mean "word_mask"?' in unknown
    [typo] = check(installed, tmp_path, "    stages: [{name: word_mask, words: [a], maks: x}]\n")
    assert 'unknown key "maks"' in typo
    [missing] = check(installed, tmp_path, "    interceptors: [{name: fixed_answer, prompt: a}]\n")
    assert 'missing key "answer"' in missing
    [refused] = check(installed, tmp_path, "    stages: [{name: word_mask, words: []}]\n")
    assert "at least one" in refused
    [nameless] = check(installed, tmp_path, "    stages: [{words: [a]}]\n")
    assert 'missing key "name"' in nameless

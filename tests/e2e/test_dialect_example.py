"""The walk of docs/plugins.md: a backend for a made-up dialect, in a distribution of its own, is one file, one
entry point, and golden files."""

import importlib.util
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sluice import entrypoints
from sluice.backends.protocol import Backend
from sluice.errors import UpstreamError
from sluice.model.events import Finished, TextDelta
from tests.e2e.gateway_process import ROOT
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.test_plugin_example import built
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized
from tests.wire import cuts

EXAMPLE = ROOT / "plugins" / "examples" / "tape"
GOLDEN = sorted((EXAMPLE / "golden").glob("*.ndjson"))
ANSWER = (EXAMPLE / "golden" / "answer.ndjson").read_bytes()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the distribution is installed, and nothing else."""
    return built("tape", tmp_path_factory.mktemp("tape"))


@pytest.fixture(autouse=True)
def beside(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is found beside the gateway."""
    monkeypatch.syspath_prepend(str(installed))
    entrypoints.installed.cache_clear()
    yield
    entrypoints.installed.cache_clear()


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    [section] = re.findall(r"^## An upstream dialect\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    [code] = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert code == (EXAMPLE / "sluice_tape.py").read_text()


def module() -> Any:
    spec = importlib.util.spec_from_file_location("sluice_tape", EXAMPLE / "sluice_tape.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def heard(decoder: Any, reads: list[bytes]) -> dict[str, Any]:
    """What a decoder makes of these reads."""
    found: dict[str, Any] = {"text": "", "end": "", "input": 0, "output": 0, "error": ""}
    try:
        for step in (*[partial(decoder.feed, read) for read in reads], decoder.close, decoder.close):
            for event in step():
                if isinstance(event, TextDelta):
                    found["text"] += event.text
                if isinstance(event, Finished) and event.usage is not None:
                    found |= {"end": event.reason, "input": event.usage.input, "output": event.usage.output}
    except UpstreamError as error:
        found["error"] = error.kind
    return found


@pytest.mark.parametrize("golden", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_golden_answers_mean_what_is_beside_them_under_any_cut(golden: Path) -> None:
    tape = module()
    backend = tape.Tape()
    assert isinstance(backend, Backend)
    body, meant = golden.read_bytes(), json.loads(golden.with_suffix(".json").read_text())
    for reads in ([body], *cuts.single(body), cuts.bytewise(body)):
        assert heard(backend.decoder(), reads) == meant, reads


CONFIG = """
upstreams: {player: {backend: tape, base_url: "URL", api_key: sk-of-the-player}, well: {backend: echo, text: well}}
aliases:
  chat: {tiers: [[{upstream: player, model: low}]], retry: {same_target: 0}}
  safe: {tiers: [[{upstream: player, model: low}], [{upstream: well, model: echo}]], retry: {same_target: 0}}
"""
BODY = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "max_tokens": 9,
    "temperature": 0.5,
}


async def test_it_answers_clients_of_every_dialect_with_all_that_a_gateway_has() -> None:
    async def play(request: Request, peer: Peer) -> None:
        lines = json.loads(request.body)["lines"]
        busy = lines[-1]["text"] == "be busy"
        peer.send(sized(b'{"error":"busy"}', 503) if busy else chunked(ANSWER[:40], ANSWER[40:]))

    async with (
        RawServer(play) as server,
        gateway(HEAD + CONFIG.replace("URL", server.url)) as g,
        aiohttp.ClientSession(g.url, headers={"authorization": f"Bearer {KEY}"}) as client,
    ):
        for stream in (False, True):
            body = {"model": "chat", "stream": stream, **BODY}
            async with client.post("/v1/chat/completions", json=body) as response:
                told = await response.text()
                assert (response.status, "ünïcödé 🎉" in told) == (200, True)
        async with client.post(
            "/v1/messages", json={"model": "chat", **BODY, "messages": BODY["messages"][1:]}
        ) as response:
            message = await response.json()
            assert message["content"] == [{"type": "text", "text": "Hello, ünïcödé 🎉"}]
            assert message["usage"]["output_tokens"] == 4
        asked = server.requests[0]
        assert (asked.path, asked.headers["authorization"]) == ("/play", "Bearer sk-of-the-player")
        assert json.loads(asked.body) == {
            "voice": "low", "most": 9, "heat": 0.5,
            "lines": [{"by": "rule", "text": "Be brief."}, {"by": "human", "text": "Hi"}],
        }  # fmt: skip
        busy = {**BODY, "messages": [{"role": "user", "content": "be busy"}]}
        async with client.post("/v1/chat/completions", json={"model": "safe", **busy}) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "well"
        tools = [{"type": "function", "function": {"name": "f"}}]
        async with client.post(
            "/v1/chat/completions", json={"model": "chat", **BODY, "tools": tools}
        ) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "tools")
        assert {
            line["tokens_out"] for line in g.requests if line["alias"] == "chat" and line["end"] == "done"
        } == {4}

"""Codex, headless, works on a task of two commands behind the gateway, whose upstream speaks Chat Completions.

    python tests/clients/codex.py COMMAND...      COMMAND: how `codex` is started

The provider is a script: it has a file written by one command, read by another, and then says that it is done. What is
asserted is that the file is there, that each result came back to the model, and that `codex` printed the last answer. The
upstream leaves out OpenAI's web search (`drop: [tools.web_search]`), which Codex offers with every request.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.clients.claude_code import LAST, PATIENCE, TEXT, call, sse
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk

SETTINGS = """
model = "chat"
model_provider = "sluice"
approval_policy = "never"
sandbox_mode = "danger-full-access"
[model_providers.sluice]
name = "sluice"
base_url = "{url}/v1"
env_key = "SLUICE_KEY"
"""


class Provider:
    """Answers by how many results of tools the request has."""

    def __init__(self) -> None:
        self.results: list[str] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        asked = json.loads(request.body)
        results = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        self.results = max(self.results, results, key=len)
        deltas = self._answer(len(results))
        peer.send(CHUNKED)
        for delta in deltas:
            peer.send(chunk(sse([{"index": 0, "delta": delta, "finish_reason": None}])))
        reason = "tool_calls" if "tool_calls" in deltas[-1] else "stop"
        peer.send(chunk(sse([{"index": 0, "delta": {}, "finish_reason": reason}]) + b"data: [DONE]\n\n") + LAST_CHUNK)

    def _answer(self, done: int) -> list[dict[str, Any]]:
        match done:
            case 0:
                return [{"content": "I write it."}, *call("exec_command", {"cmd": f"echo {TEXT} > note.txt"})]
            case 1:
                return call("exec_command", {"cmd": "cat note.txt"})
            case _:
                return [{"content": f"{word} "} for word in LAST.split(" ")]


def config(provider: str) -> str:
    upstream = f'{{backend: openai, base_url: "{provider}/v1", drop: [tools.web_search]}}'
    return f"{HEAD}\nupstreams: {{up: {upstream}}}\naliases: {{chat: {{tiers: [[{{upstream: up, model: big}}]]}}}}\n"


async def run(command: list[str]) -> None:
    with TemporaryDirectory() as folder:
        work, home = Path(folder) / "work", Path(folder) / "home"
        work.mkdir()
        home.mkdir()
        provider = Provider()
        async with RawServer(provider) as upstream, gateway(config(upstream.url)) as running:
            (home / "config.toml").write_text(SETTINGS.format(url=running.url))
            out, err, code = await codex(command, work, home)
            print(out.strip())
            asked = [(line["route"], line["alias"], line["end"]) for line in running.requests if line.get("alias")]
        assert code == 0, f"codex ended with {code}:\n{out}\n{err}"
        assert (work / "note.txt").read_text().strip() == TEXT
        assert len(provider.results) == 2, provider.results
        assert TEXT in provider.results[1]
        assert LAST in out
        print(f"{len(asked)} requests: {asked}")


async def codex(command: list[str], work: Path, home: Path) -> tuple[str, str, int | None]:
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home), "SLUICE_KEY": KEY, "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, "exec", "--skip-git-repo-check", "Write a short text into note.txt, read it again, and say what it says.",
        cwd=work, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return out.decode(), err.decode(), process.returncode


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))

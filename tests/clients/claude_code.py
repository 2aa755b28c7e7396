"""Claude Code, headless, works on a task of two tools behind the gateway, whose upstream speaks OpenAI's dialect.

    python tests/clients/claude_code.py COMMAND...      COMMAND: how `claude` is started

The provider is a script: it has a file written, read again, and then says what is in it. What is asserted is that the file is
there, that each result came back to the model, and that `claude` printed the last answer.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk

TEXT = "written behind the gateway"
LAST = "The file says what it should."
PATIENCE = 120


class Provider:
    """Answers by how many results of tools the request ends with."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.results: list[str] = []
        self.models: set[str] = set()

    async def __call__(self, request: Request, peer: Peer) -> None:
        asked = json.loads(request.body)
        self.models.add(asked["model"])
        results = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        self.results = max(self.results, results, key=len)
        names = {tool["function"]["name"] for tool in asked.get("tools") or ()}
        deltas = self._answer(len(results)) if {"Write", "Read"} <= names else [{"content": "A file"}]  # else: a title
        peer.send(CHUNKED)
        for delta in deltas:
            peer.send(chunk(sse([{"index": 0, "delta": delta, "finish_reason": None}])))
        reason = "tool_calls" if "tool_calls" in deltas[-1] else "stop"
        peer.send(chunk(sse([{"index": 0, "delta": {}, "finish_reason": reason}])))
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        peer.send(chunk(sse([], usage=usage) + b"data: [DONE]\n\n") + LAST_CHUNK)

    def _answer(self, done: int) -> list[dict[str, Any]]:
        match done:
            case 0:
                return [{"content": "I write it."}, *call("Write", {"file_path": str(self.file), "content": TEXT})]
            case 1:
                return call("Read", {"file_path": str(self.file)})
            case _:
                return [{"content": f"{word} "} for word in LAST.split(" ")]


def call(name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    text = json.dumps(arguments)
    head = {"index": 0, "id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": ""}}
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    more = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    return [{"tool_calls": [head]}, *more]


def sse(choices: list[Any], **more: Any) -> bytes:
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": choices, **more}
    return b"data: %b\n\n" % json.dumps(frame).encode()


def config(provider: str) -> str:
    return f"""{HEAD}
upstreams: {{up: {{backend: openai, base_url: "{provider}/v1"}}}}
aliases:
  claude-sonnet-4-5: {{tiers: [[{{upstream: up, model: big}}]]}}
  claude-haiku-4-5: {{tiers: [[{{upstream: up, model: small}}]]}}
""".replace("default_alias: chat", "default_alias: claude-sonnet-4-5")


async def run(command: list[str]) -> None:
    with TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        provider = Provider(work / "note.txt")
        async with RawServer(provider) as upstream, gateway(config(upstream.url)) as running:
            out, err, code = await claude(command, running.url, work, Path(folder))
            print(out.strip())
            asked = [(line["route"], line["alias"], line["end"]) for line in running.requests if line.get("alias")]
        assert code == 0, f"claude ended with {code}:\n{out}\n{err}"
        assert provider.file.read_text() == TEXT
        assert len(provider.results) == 2, provider.results
        assert TEXT in provider.results[1]
        assert LAST in out
        print(f"{len(asked)} requests: {asked}")


async def claude(command: list[str], url: str, work: Path, home: Path) -> tuple[str, str, int | None]:
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_MODEL": "claude-sonnet-4-5", "ANTHROPIC_DEFAULT_HAIKU_MODEL": "claude-haiku-4-5",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    task = f"Write a short text into {work}/note.txt, read it again, and say what it says."
    process = await asyncio.create_subprocess_exec(
        *command, "-p", task, "--allowedTools", "Write,Read",
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

"""A caller in each client dialect, streamed and whole, who checks the grammar of what it gets to the
letter."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.e2e.gateways import KEY

MODES = ("widget stream", "widget whole", "openai stream", "openai whole")
FULL = "application/x-ndjson; profile=full"
_PATHS = {"widget stream": "/v1/chat/stream", "widget whole": "/v1/chat"}


@dataclass(frozen=True)
class Answer:
    """`error` is the code of the one error, before or within the answer; "" where the answer is complete."""

    status: int
    text: str
    error: str = ""

    @property
    def complete(self) -> bool:
        return not self.error


def request_of(mode: str, alias: str) -> tuple[str, dict[str, Any]]:
    """Path and body."""
    messages = [{"role": "user", "content": "Count"}]
    if mode.startswith("widget"):
        return _PATHS[mode], {"model": alias, "messages": messages}
    return "/v1/chat/completions", {"model": alias, "messages": messages, "stream": mode == "openai stream"}


async def ask(
    client: aiohttp.ClientSession, mode: str, alias: str, headers: Mapping[str, str] | None = None
) -> Answer:
    """Raises AssertionError where the answer breaks its dialect's grammar."""
    path, body = request_of(mode, alias)
    async with client.post(
        path, json=body, headers={"authorization": f"Bearer {KEY}", **(headers or {})}
    ) as response:
        text = await response.text()
        status = response.status
    if status != 200:
        return Answer(status, "", error=_code(json.loads(text)))
    return READERS[mode](text)


def _code(body: dict[str, Any]) -> str:
    code = body["error"]["code"] if isinstance(body["error"], dict) else body["code"]
    assert isinstance(code, str)
    assert code
    return code


def _widget_stream(text: str) -> Answer:
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines() if line]
    kinds = [line["type"] for line in lines]
    assert [n for n, kind in enumerate(kinds) if kind == "start"] == [0], kinds
    assert [kind for kind in kinds if kind in ("done", "error")] == kinds[-1:], kinds
    said = ""
    for line in lines[1:-1]:
        said = "" if line["type"] == "reset" else said + line["token"]
    last = lines[-1]
    if last["type"] == "error":
        return Answer(200, said, error=last["code"])
    assert last["message"] == said.strip(), "done.message is not what was said"
    return Answer(200, said)


def _openai_stream(text: str) -> Answer:
    assert text.endswith("\n\n")
    payloads = [frame[6:] for frame in text[:-2].split("\n\n") if not frame.startswith(":")]
    if payloads[-1] != "[DONE]":
        last = json.loads(payloads.pop())
        assert "error" in last, "neither [DONE] nor an error at the end"
        return Answer(200, *_chunks(payloads)[:1], error=_code(last))
    said, finishes = _chunks(payloads[:-1])
    assert finishes == 1, f"{finishes} finish reasons"
    return Answer(200, said)


def _chunks(payloads: list[str]) -> tuple[str, int]:
    said, finishes = "", 0
    for payload in payloads:
        chunk = json.loads(payload)
        assert "error" not in chunk, "an error that is not the end"
        for choice in chunk["choices"]:
            assert not finishes, "a chunk behind the finish reason"
            said += choice["delta"].get("content") or ""
            finishes += choice["finish_reason"] is not None
    return said, finishes


def _widget_whole(text: str) -> Answer:
    return Answer(200, json.loads(text)["message"])


def _openai_whole(text: str) -> Answer:
    choice = json.loads(text)["choices"][0]
    assert choice["finish_reason"] == "stop"
    return Answer(200, choice["message"]["content"])


READERS = {
    "widget stream": _widget_stream,
    "widget whole": _widget_whole,
    "openai stream": _openai_stream,
    "openai whole": _openai_whole,
}

"""Ollama's Python SDK: the stream of a chat; the whole answer where the body says `whole`."""

from functools import lru_cache
from typing import Any

import ollama
from asks import Shown, run


@lru_cache
def client_of(base_url: str, key: str) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=base_url, headers={"authorization": f"Bearer {key}"}, timeout=60)


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    messages, body = [{"role": "user", "content": "?"}], asked["body"]
    client = client_of(asked["base_url"], asked["key"])
    if body.get("whole"):
        take(await client.chat(model=body["model"], messages=messages, stream=False), shown)
        return
    async for line in await client.chat(model=body["model"], messages=messages, stream=True):
        take(line, shown)


def take(line: Any, shown: Shown) -> None:
    shown.text += line.message.content or ""
    shown.reasoning += line.message.thinking or ""
    shown.calls += [
        [call.function.name, dict(call.function.arguments)] for call in line.message.tool_calls or ()
    ]
    if line.done:
        shown.finish = line.done_reason
        shown.usage = [line.prompt_eval_count, line.eval_count]


if __name__ == "__main__":
    run(ask)

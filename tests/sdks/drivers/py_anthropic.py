"""The anthropic SDK's reader of Messages streams, and the message that it holds at the end; the whole message where
the body says `whole`."""

from functools import lru_cache
from typing import Any

import anthropic
from asks import Shown, run

HTTP = anthropic.DefaultAsyncHttpxClient()  # one for all: each reads the system's authorities anew


@lru_cache
def client_of(base_url: str, key: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=base_url, api_key=key, max_retries=0, timeout=60, http_client=HTTP
    )


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    client, body = client_of(asked["base_url"], asked["key"]), asked["body"]
    if body.pop("whole", False):
        take_message(await client.messages.create(**body, max_tokens=1024), shown)
        return
    async with client.messages.stream(**body, max_tokens=1024) as stream:
        try:
            async for _ in stream:
                pass
        finally:
            take(stream, shown)


def take(stream: Any, shown: Shown) -> None:
    try:
        message = stream.current_message_snapshot
    except AssertionError:
        return  # not a single event came
    take_message(message, shown)


def take_message(message: Any, shown: Shown) -> None:
    for block in message.content:
        match block.type:
            case "text":
                shown.text += block.text
            case "thinking":
                shown.reasoning += block.thinking
            case "tool_use":
                shown.calls.append([block.name, block.input])
    shown.finish = message.stop_reason
    usage = message.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    shown.usage = [usage.input_tokens + cached, usage.output_tokens]


if __name__ == "__main__":
    run(ask)

"""The openai SDK's own accumulation: `chat.completions.stream`, and the snapshot that it holds at the end; the whole
completion where the body says `whole`."""

from functools import lru_cache
from typing import Any

import openai
from asks import Shown, run, text_of

HTTP = openai.DefaultAsyncHttpxClient()  # one for all: each reads the system's authorities anew


@lru_cache
def client_of(base_url: str, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60, http_client=HTTP)


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    client = client_of(asked["base_url"], asked["key"])
    if asked["body"].pop("whole", False):
        take_completion(await client.chat.completions.create(**asked["body"]), shown)
        return
    body = {
        **asked["body"],
        "tools": [strict(tool) for tool in asked["body"].get("tools", ())] or openai.omit,
    }
    async with client.chat.completions.stream(**body, stream_options={"include_usage": True}) as stream:
        try:
            async for _ in stream:
                pass
        except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
            pass  # it refuses to parse what is not whole; the snapshot says it, too
        finally:
            take(stream, shown)


def strict(tool: dict[str, Any]) -> dict[str, Any]:
    """The helper takes no other tools."""
    return {**tool, "function": {**tool["function"], "strict": True}}


def take(stream: Any, shown: Shown) -> None:
    try:
        snapshot = stream.current_completion_snapshot
    except (AssertionError, IndexError):
        return  # not a single chunk came
    take_completion(snapshot, shown)


def take_completion(completion: Any, shown: Shown) -> None:
    if completion.usage:
        shown.usage = [completion.usage.prompt_tokens, completion.usage.completion_tokens]
    for choice in completion.choices[:1]:
        message = choice.message
        shown.finish = choice.finish_reason
        shown.text = text_of(message.content)
        shown.refusal = message.refusal or ""
        extra = message.model_extra or {}
        shown.reasoning = text_of(extra.get("reasoning_content") or extra.get("reasoning"))
        shown.calls = [[call.function.name, call.function.arguments] for call in message.tool_calls or ()]


run(ask)

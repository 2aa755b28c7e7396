"""The openai SDK, its stream iterated and the deltas added up by index, as its README and most programs do
it."""

from functools import lru_cache
from typing import Any

import openai
from asks import Shown, run, text_of

HTTP = openai.DefaultAsyncHttpxClient()  # one for all: each reads the system's authorities anew


@lru_cache
def client_of(base_url: str, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60, http_client=HTTP)


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    calls: dict[Any, list[str]] = {}
    client = client_of(asked["base_url"], asked["key"])
    stream = await client.chat.completions.create(
        **asked["body"], stream=True, stream_options={"include_usage": True}
    )
    try:
        async for chunk in stream:
            for choice in chunk.choices or ():
                if choice.index == 0:
                    take(choice, shown, calls)
            if chunk.usage:
                shown.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
    finally:
        shown.calls = list(calls.values())


def take(choice: Any, shown: Shown, calls: dict[Any, list[str]]) -> None:
    shown.finish = choice.finish_reason or shown.finish
    delta = choice.delta
    if delta is None:
        return
    shown.text += text_of(delta.content)
    shown.refusal += getattr(delta, "refusal", None) or ""
    extra = delta.model_extra or {}
    shown.reasoning += text_of(extra.get("reasoning_content") or extra.get("reasoning"))
    for piece in delta.tool_calls or ():
        call = calls.setdefault(piece.index, ["", ""])
        if piece.function:
            call[0] = call[0] or piece.function.name or ""
            call[1] += text_of(piece.function.arguments)


run(ask)

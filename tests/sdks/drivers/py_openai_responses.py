"""The openai SDK's `responses`: streamed, with its own accumulator beside the deltas, and whole where the
body says `whole`."""

from functools import lru_cache
from typing import Any

import openai
from asks import Shown, run

HTTP = openai.DefaultAsyncHttpxClient()  # one for all: each reads the system's authorities anew


@lru_cache
def client_of(base_url: str, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60, http_client=HTTP)


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    client, body = client_of(asked["base_url"], asked["key"]), asked["body"]
    if body.pop("whole", False):
        take(await client.responses.create(**body), shown)
        return
    text: list[str] = []
    thought: list[str] = []
    async with client.responses.stream(**body) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                text.append(event.delta)
                shown.text = "".join(text)
            elif event.type in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
                thought.append(event.delta)
            elif event.type in ("response.completed", "response.incomplete"):
                take(event.response, shown)
    shown.text = "".join(text) or shown.text  # some servers leave the output empty at a stream's end
    shown.reasoning = "".join(thought) or shown.reasoning


def take(response: Any, shown: Shown) -> None:
    shown.text = shown.reasoning = ""
    for item in response.output:
        if item.type == "message":
            shown.text += "".join(part.text for part in item.content if part.type == "output_text")
            shown.refusal += "".join(part.refusal for part in item.content if part.type == "refusal")
        elif item.type == "reasoning":
            shown.reasoning += "".join(part.text for part in [*item.summary, *(item.content or [])])
        elif item.type == "function_call":
            shown.calls.append([item.name, item.arguments])
    details = response.incomplete_details
    shown.finish = details.reason if details else response.status
    if response.usage:
        shown.usage = [response.usage.input_tokens, response.usage.output_tokens]


run(ask)

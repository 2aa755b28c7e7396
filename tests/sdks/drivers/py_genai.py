"""Google's SDK: the stream of an answer, read part by part as its `text` property does; the whole answer
where the body says `whole`."""

from functools import lru_cache
from typing import Any

from asks import Shown, run
from google import genai
from google.genai import types


@lru_cache
def client_of(base_url: str, key: str) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base_url, timeout=60_000))


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    models, body = client_of(asked["base_url"], asked["key"]).aio.models, asked["body"]
    if body.get("whole"):
        take(await models.generate_content(model=body["model"], contents="?"), shown)
        return
    stream = await models.generate_content_stream(model=body["model"], contents="?")
    async for chunk in stream:
        take(chunk, shown)


def take(chunk: Any, shown: Shown) -> None:
    for candidate in (chunk.candidates or ())[:1]:
        for part in (candidate.content.parts if candidate.content is not None else None) or ():
            if part.function_call is not None and part.function_call.name:
                shown.calls.append([part.function_call.name, part.function_call.args])
            elif part.thought:
                shown.reasoning += part.text or ""
            else:
                shown.text += part.text or ""
        if candidate.finish_reason is not None:
            shown.finish = str(candidate.finish_reason.value)
    usage = chunk.usage_metadata
    if usage is not None and usage.total_token_count is not None:
        shown.usage = [usage.prompt_token_count, usage.total_token_count - (usage.prompt_token_count or 0)]


if __name__ == "__main__":
    run(ask)

"""Google's SDK and Anthropic's, as clients of Vertex AI. An ask's name says which, and what is asked."""

from typing import Any

from anthropic import AsyncAnthropicVertex
from asks import Shown, run
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from py_anthropic import take as take_stream
from py_anthropic import take_message
from py_genai import take


def google(asked: dict[str, Any], express: bool) -> Any:
    options = types.HttpOptions(base_url=asked["base_url"], timeout=60_000)
    if express:
        return genai.Client(vertexai=True, api_key=asked["key"], http_options=options).aio.models
    credentials = Credentials(token=asked["key"])
    client = genai.Client(
        vertexai=True, project="p", location="europe-west1", credentials=credentials, http_options=options
    )
    return client.aio.models


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    owner, _, what = asked["name"].partition(" ")
    model = asked["body"]["model"]
    if owner == "anthropic":
        client = AsyncAnthropicVertex(
            region="us-east5", project_id="p", base_url=f"{asked['base_url']}/v1", access_token=asked["key"], max_retries=0,
        )  # fmt: skip
        match what:
            case "count":
                shown.usage = [(await client.messages.count_tokens(**asked["body"])).input_tokens, 0]
            case "whole":
                take_message(await client.messages.create(**asked["body"], max_tokens=1024), shown)
            case _:
                async with client.messages.stream(**asked["body"], max_tokens=1024) as stream:
                    await stream.until_done()
                    take_stream(stream, shown)
        return
    models = google(asked, owner == "express")
    match what:
        case "count":
            shown.usage = [(await models.count_tokens(model=model, contents="?")).total_tokens, 0]
        case "list":
            shown.text = ",".join([one.name async for one in await models.list()])
        case "whole":
            take(await models.generate_content(model=model, contents="?"), shown)
        case _:
            async for chunk in await models.generate_content_stream(model=model, contents="?"):
                take(chunk, shown)


run(ask)

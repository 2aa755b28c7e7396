"""The anthropic SDK beside streams: whole messages, lists of models, counts of tokens. An ask's name says
which."""

from typing import Any

from asks import Shown, run
from py_anthropic import client_of, take_message


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    client = client_of(asked["base_url"], asked["key"])
    match asked["name"].partition(":")[0]:
        case "models":
            first = await client.models.list(limit=2)
            shown.text = ",".join([model.id async for model in first])  # page after page
            shown.finish = (await client.models.retrieve(asked["body"]["model"])).id
        case "count":
            shown.usage = [(await client.messages.count_tokens(**asked["body"])).input_tokens, 0]
        case _:
            take_message(await client.messages.create(**asked["body"], max_tokens=1024), shown)


if __name__ == "__main__":
    run(ask)

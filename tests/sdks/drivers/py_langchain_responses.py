"""LangChain's ChatOpenAI over Responses: its message chunks, added up by its own addition."""

from typing import Any

from asks import Shown, run
from langchain_openai import ChatOpenAI


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    model: Any = ChatOpenAI(
        base_url=asked["base_url"], api_key=asked["key"], model=asked["body"]["model"], use_responses_api=True,
        max_retries=0, timeout=60,
    )  # fmt: skip
    whole: Any = None
    try:
        async for chunk in model.astream(asked["body"]["input"]):
            whole = chunk if whole is None else whole + chunk
    finally:
        if whole is not None:
            take(whole, shown)


def take(message: Any, shown: Shown) -> None:
    for block in message.content:
        if block.get("type") == "reasoning":
            shown.reasoning += "".join(part.get("text", "") for part in block.get("summary") or ())
        else:
            shown.text += block.get("text", "")
            shown.refusal += block.get("refusal", "")
    shown.calls = [[call.get("name") or "", call.get("args") or ""] for call in message.tool_call_chunks]
    details = message.response_metadata.get("incomplete_details") or {}
    shown.finish = details.get("reason") or message.response_metadata.get("status")
    if message.usage_metadata:
        shown.usage = [message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]]


run(ask)

"""LangChain's ChatOpenAI: its message chunks, added up by its own addition."""

from typing import Any

from asks import Shown, run
from langchain_openai import ChatOpenAI


async def ask(asked: dict[str, Any], shown: Shown) -> None:
    body = dict(asked["body"])
    tools = body.pop("tools", None)
    messages = body.pop("messages")
    model: Any = ChatOpenAI(
        base_url=asked["base_url"], api_key=asked["key"], max_retries=0, timeout=60, stream_usage=True, model=body.pop("model"),
        extra_body=body or None,
    )  # fmt: skip
    whole: Any = None
    try:
        async for chunk in (model.bind_tools(tools) if tools else model).astream(messages):
            whole = chunk if whole is None else whole + chunk
    finally:
        if whole is not None:
            take(whole, shown)


def take(message: Any, shown: Shown) -> None:
    for block in [message.content] if isinstance(message.content, str) else message.content:
        shown.text += block if isinstance(block, str) else block.get("text", "")
    shown.refusal = message.additional_kwargs.get("refusal") or ""
    shown.reasoning = message.additional_kwargs.get("reasoning_content") or ""
    shown.calls = [[call.get("name") or "", call.get("args") or ""] for call in message.tool_call_chunks]
    shown.finish = message.response_metadata.get("finish_reason")
    if message.usage_metadata:
        shown.usage = [message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]]


run(ask)

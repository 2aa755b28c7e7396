"""Estimates the tokens of prompts, and makes the requests for counting them: if no upstream of the alias
counts tokens, the estimate is the answer."""

from typing import Any

import msgspec

from sluice.model.chat import ChatRequest, Tool, text_size
from sluice.model.operations import OperationRequest

_encode = msgspec.json.Encoder().encode


def prompt_tokens(chat: ChatRequest) -> int:
    """Estimates the tokens of the prompt, including its tools; at least 1."""
    return max(chat.estimated_tokens() + sum([_size_of_tool(tool) for tool in chat.tools]) // 4, 1)


def count_request(
    chat: ChatRequest, tokens: int, estimate: bytes, wire: dict[str, Any] | None
) -> OperationRequest:
    """Returns the request for a count of the tokens of `chat`, which has about `tokens`. `wire` is the object
    that the caller sent; `estimate` answers where no target of the alias counts. Nothing is generated or
    billed, so limits of tokens do not apply."""
    return OperationRequest(
        chat.dialect,
        chat.model,
        (),
        stream=False,
        wire=wire,
        body=chat.body,
        operation="count_tokens",
        tokens=0,
        longest=tokens,
        otherwise=estimate,
        counted=chat,
        fields=chat.fields,
    )


def _size_of_tool(tool: Tool) -> int:
    schema = len(_encode(tool.parameters)) if tool.parameters is not None else 0
    return text_size(tool.name) + text_size(tool.description) + schema

"""Estimates of what a prompt has in tokens, where no upstream counts them."""

import msgspec

from sluice.model.chat import ChatRequest, Tool, text_size

_encode = msgspec.json.Encoder().encode


def prompt_tokens(chat: ChatRequest) -> int:
    """Estimates the tokens of the prompt, including its tools; at least 1."""
    return max(chat.estimated_tokens() + sum([_size_of_tool(tool) for tool in chat.tools]) // 4, 1)


def _size_of_tool(tool: Tool) -> int:
    schema = len(_encode(tool.parameters)) if tool.parameters is not None else 0
    return text_size(tool.name) + text_size(tool.description) + schema

"""Parses fields of requests in the configuration: they have the names of OpenAI's Chat Completions, whatever
callers and upstreams speak."""

from collections.abc import Mapping
from typing import Any

from sluice.frontends.openai.request import chat_of
from sluice.model.chat import ChatRequest


def chat_with(values: Mapping[str, Any]) -> ChatRequest:
    """Returns a request with these fields. Raises BadRequest for values that a caller could not send either."""
    return chat_of({"messages": [{"role": "user", "content": ""}], **values})

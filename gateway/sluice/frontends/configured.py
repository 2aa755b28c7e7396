"""Fields of requests as a configuration gives them: named as in OpenAI's Chat Completions, whatever callers and
upstreams speak."""

from collections.abc import Mapping
from typing import Any

from sluice.frontends.openai.request import chat_of
from sluice.model.chat import ChatRequest


def chat_with(values: Mapping[str, Any]) -> ChatRequest:
    """A request with these fields. Raises BadRequest for values that a caller could not give to them
    either."""
    return chat_of({"messages": [{"role": "user", "content": ""}], **values})

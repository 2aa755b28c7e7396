"""The Response object: the fields of the request that it repeats, and the state and usage of the answer.

Standard: https://platform.openai.com/docs/api-reference/responses/object
"""

from collections.abc import Mapping
from typing import Any

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.openai.errors import error_object
from sluice.model.chat import ChatRequest, Tool
from sluice.model.events import FinishReason, Usage

Value = dict[str, Any]
INCOMPLETE: Mapping[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Reasons for which an answer is incomplete; with others it is complete."""
_REPEATED = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls", "previous_response_id", "prompt",
    "prompt_cache_key", "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "temperature",
    "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
)  # fmt: skip
"""Fields of a request that its Response repeats."""


def completed_at(answer: Answer) -> int:
    """Returns when the answer was complete, in whole seconds since the epoch."""
    return answer.created + int(answer.clock() - answer.received)


def response_id(answer: Answer) -> str:
    return f"resp_{answer.id}"


def repeated(chat: ChatRequest) -> Value:
    """Returns the request's fields that a Response repeats, with OpenAI's defaults for those that were not
    given."""
    wire = chat.wire
    if wire is None:
        wire = {"tools": [_tool(tool) for tool in chat.tools]}
    given = {name: wire[name] for name in _REPEATED if wire.get(name) is not None}
    found: Value = {
        "background": False, "completed_at": None, "error": None, "incomplete_details": None, "instructions": None,
        "max_output_tokens": None, "max_tool_calls": None, "metadata": {}, "parallel_tool_calls": True,
        "previous_response_id": None, "prompt_cache_key": None, "safety_identifier": None, "service_tier": "default",
        "store": False, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0,
        "truncation": "disabled", "user": None,
    }  # fmt: skip
    text: Any = given.pop("text", {})
    reasoning: Any = given.pop("reasoning", {})
    found["text"] = {
        "format": {"type": "text"},
        "verbosity": "medium",
        **{k: v for k, v in text.items() if v is not None},
    }
    found["reasoning"] = {"effort": None, "summary": None, **reasoning}
    keep = chat.keep
    previous = keep.previous if keep is not None else ""
    return found | given | {"store": keep is not None and keep.kept, "previous_response_id": previous or None}


def _tool(tool: Tool) -> Value:
    if tool.custom:
        return {"type": "custom", "name": tool.name, "description": tool.description}
    return {
        "type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters,
        "strict": tool.strict,
    }  # fmt: skip


def usage_object(usage: Usage) -> Value:
    """Returns OpenAI's `usage` of a Response."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input,
            "cache_write_tokens": usage.written_input,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.tokens,
    }


def ended(reason: FinishReason) -> Value:
    """Returns the status of a complete answer, by its finish reason."""
    why = INCOMPLETE.get(reason)
    return {"status": "incomplete", "incomplete_details": {"reason": why}} if why else {"status": "completed"}


def failure(error: GatewayError) -> Value:
    """Returns the `error` of a failed Response."""
    fields = error_object(error)["error"]
    return {"code": fields["code"], "message": fields["message"]}

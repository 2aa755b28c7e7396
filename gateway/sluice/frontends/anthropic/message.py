"""The common part of our own streams and whole answers: a message's head, its usage, its stop reason.

Anthropic counts what was read from and written to the prompt cache apart from `input_tokens`.

Standard: https://platform.claude.com/docs/en/api/messages/create (Message, Usage)
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from sluice.frontends import Answer
from sluice.model.events import Finished, Usage, with_refusal

REASONS: Mapping[str, str] = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal",
}  # fmt: skip
OWN: Mapping[str, str] = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "content_filter",
}  # fmt: skip
"""Anthropic's stop reasons, and their meanings here: a provider's own reason is passed on if it is one of
them."""
UNREADABLE = "INVALID_JSON"
"""The member that holds arguments which are not a JSON object, as Anthropic's own pages advise
(https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming).
"""
_encode = msgspec.json.Encoder().encode


def message_head(answer: Answer, id: str, model: str) -> dict[str, Any]:
    """`id` and `model` as the upstream reported them, "" if it did not."""
    return {
        "id": id if id.startswith("msg_") else f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": model if model and answer.reveal else answer.model,
    }


def stop_of(finished: Finished, *, refused: bool = False) -> dict[str, Any]:
    """Returns `stop_reason` and `stop_sequence`. `refused`: the answer's text is a refusal."""
    native, meant = finished.native, with_refusal(finished.reason, refused)
    reason = native if OWN.get(native) == meant else REASONS[meant]
    if finished.stop_sequence and finished.reason == "stop":
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": finished.stop_sequence or None}


def usage_object(usage: Usage) -> dict[str, Any]:
    read = min(usage.cached_input, usage.input)  # xAI has been seen to report more than the prompt's tokens
    written = min(usage.written_input, usage.input - read)
    fields: dict[str, Any] = {
        "input_tokens": usage.input - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output,
    }
    if usage.written_input_1h:
        hour = min(usage.written_input_1h, written)
        fields["cache_creation"] = {
            "ephemeral_5m_input_tokens": written - hour,
            "ephemeral_1h_input_tokens": hour,
        }
    if usage.reasoning:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return fields


def citation_of(title: str, url: str, quote: str, start: int, end: int) -> dict[str, Any]:
    """Returns a source as a citation: a page of the web, or the place in a document of the request."""
    if url:
        return {
            "type": "web_search_result_location",
            "url": url,
            "title": title or None,
            "cited_text": quote,
            "encrypted_index": "",
        }
    return {
        "type": "char_location",
        "document_index": 0,
        "document_title": title or None,
        "cited_text": quote,
        "start_char_index": max(start, 0),
        "end_char_index": max(end, 0),
        "file_id": None,
    }

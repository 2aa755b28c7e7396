"""Message threads: conversations that the provider stores for minutes, so that a request has only the new
messages.

A server without threads would ignore the field `thread`, and would answer a request that continues a thread
without its earlier messages. So the field is removed if it begins a thread, since providers may lose threads
at any time; a request that continues a thread is refused, and callers then send the whole conversation.

Standard: https://platform.claude.com/docs/en/build-with-claude/message-threads
"""

from typing import Any

from sluice.errors import BadRequest, UpstreamError
from sluice.model.chat import ChatRequest


def without_thread(chat: ChatRequest) -> dict[str, Any]:
    """Returns the edit that removes `thread`. Raises BadRequest for a request that continues a thread."""
    if chat.dialect_only.startswith("thread:"):
        reason = f"{chat.dialect_only} cannot be given to this model"
        raise BadRequest(reason, param="thread", code="unsupported_parameter")
    return {"thread": None}


def of_thread(error: UpstreamError) -> UpstreamError:
    """Returns an error that says that a thread cannot be continued as a caller's error: it says nothing about
    the target's health, and no other target has the thread. Any other error is returned as it is."""
    if error.provider_code.startswith("thread_"):
        error.kind = error.code = "bad_request"
    return error

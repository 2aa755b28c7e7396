"""Message threads: conversations that the provider keeps for minutes, so that a request has only what is new.

A server that keeps none would not know of the field `thread`, and could answer a request that continues a
thread as if nothing had gone before. So it is left out where it begins a thread, which providers may lose at
any time, and such a request is refused where it continues one: callers then send the whole conversation.

Standard: https://platform.claude.com/docs/en/build-with-claude/message-threads
"""

from typing import Any

from sluice.errors import BadRequest, UpstreamError
from sluice.model.chat import ChatRequest


def without_thread(chat: ChatRequest) -> dict[str, Any]:
    """The edit of a request for a server without threads. Raises BadRequest if it continues one."""
    if chat.dialect_only.startswith("thread:"):
        reason = f"{chat.dialect_only} cannot be given to this model"
        raise BadRequest(reason, param="thread", code="unsupported_parameter")
    return {"thread": None}


def of_thread(error: UpstreamError) -> UpstreamError:
    """The error as the caller's own, if it says that a thread cannot be continued: it says nothing about the
    target's health, and no other target has the thread."""
    if error.provider_code.startswith("thread_"):
        error.kind = error.code = "bad_request"
    return error

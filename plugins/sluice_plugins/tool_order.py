"""Puts the results of tools directly behind the message that called them, as vendors require. Pure.

The Responses API, Gemini's and Ollama's let other messages stand between: what a user wrote while a tool ran, a
note of the client's in the turn that has the results, results of two calls in the order of their ends.
Anthropic, Bedrock, Cohere, Mistral and OpenAI's Chat Completions refuse such a conversation
(QwenLM/qwen-code#8161, sgl-project/sglang#29083). What stood between follows the results.

A result whose call is not in the conversation, because a client cut its beginning off, or that is another one of
a call that has its result, is told as what a user says: vendors refuse it as a result, and the conversation with
it from then on (anthropics/claude-code#6836, lidge-jun/opencodex#3420).

A call that has no result, because its client was interrupted, gets one that says so: otherwise the vendors
refuse the conversation from then on (anthropics/claude-code#1776, tidyverse/ellmer#459, livekit/agents#5092,
agno-agi/agno#6698; Gemini: google-gemini/gemini-cli#16415). Calls that the conversation ends with stay open.
"""

from collections import Counter
from collections.abc import Sequence

from sluice.model.chat import Message, Text, ToolCall

NO_RESULT = (
    "There is no result of this call: it was interrupted, or its result was lost. It may have had its effect."
)
"""The result of a call that has none."""
LOST = "The result of a tool call that is not in this conversation:"
"""What stands before a result that is of no call, or another one of a call."""


def results_first(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages, each call's results behind it, and one for each call that has none; the same object where
    they are in order and complete, as most are."""
    if _in_order(messages):
        return messages
    groups: list[list[Message]] = []
    callers: dict[str, list[Message]] = {}  # the latest group that has a call of this id
    left: dict[str, int] = {}  # calls of this id in that group that have no result so far
    for message in messages:
        if message.role == "tool":
            if left.get(message.tool_call_id):
                left[message.tool_call_id] -= 1
                callers[message.tool_call_id].append(message)
                continue
            message = Message("user", (Text(LOST), *message.parts))
        groups.append(started := [message])
        left.update(Counter([call.id for call in message.tool_calls]))
        callers.update([(call.id, started) for call in message.tool_calls])
    for group in groups:
        if group[0].tool_calls and (len(group) > 1 or group is not groups[-1]):
            group += [_missing(call) for call in _unanswered(group)]
    return [message for group in groups for message in group]


def _in_order(messages: Sequence[Message]) -> bool:
    """Returns whether before each result there are only other results, and the message that has its call; and
    whether each call has one, but those that the conversation ends with."""
    left: list[str] = []  # calls of the latest message that is no result, those without a result so far
    for message in messages:
        if message.role != "tool":
            if left:
                return False
            if message.tool_calls:
                left = [call.id for call in message.tool_calls]
        elif message.tool_call_id not in left:
            return False
        else:
            left.remove(message.tool_call_id)
    return not left or messages[-1].role != "tool"


def _unanswered(group: Sequence[Message]) -> list[ToolCall]:
    """The calls of a group's first message for which none of the others is the result."""
    results = [message.tool_call_id for message in group[1:]]
    calls = []
    for call in group[0].tool_calls:
        if call.id in results:
            results.remove(call.id)  # an id may be that of two calls
        else:
            calls.append(call)
    return calls


def _missing(call: ToolCall) -> Message:
    return Message("tool", (Text(NO_RESULT),), tool_call_id=call.id, failed=True)

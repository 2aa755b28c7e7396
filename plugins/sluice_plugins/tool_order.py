"""Moves the results of tools directly behind the message with their calls, as vendors require. Pure
functions.

The Responses API, Gemini's and Ollama's allow other messages in between: what a user wrote while a tool ran,
a client's note in the turn that has the results, results in the order in which the tools finished. Anthropic,
Bedrock, Cohere, Mistral and OpenAI's Chat Completions refuse such a conversation (QwenLM/qwen-code#8161,
sgl-project/sglang#29083). The messages in between are moved behind the results.

Two kinds of results become a user's message, since vendors would refuse them as results, and with them every
later request of the conversation (anthropics/claude-code#6836, lidge-jun/opencodex#3420): one whose call is
not in the conversation, because the client dropped its beginning, and a second result of the same call.

A call without a result, because its client was interrupted, gets a result that says so; otherwise vendors
refuse every later request of the conversation (anthropics/claude-code#1776, tidyverse/ellmer#459,
livekit/agents#5092, agno-agi/agno#6698; Gemini: google-gemini/gemini-cli#16415). Calls in the last message
are left without results.
"""

from collections import Counter
from collections.abc import Sequence

from sluice.model.chat import Message, Text, ToolCall

NO_RESULT = (
    "There is no result of this call: it was interrupted, or its result was lost. It may have had its effect."
)
"""The text of the result that is inserted for a call without a result."""
LOST = "The result of a tool call that is not in this conversation:"
"""The text before a result without a call, or a second result of a call, that becomes a user message."""


def results_first(messages: Sequence[Message]) -> Sequence[Message]:
    """Returns the messages with the results of each call behind it, and a result for each call that has none.
    Returns `messages` itself if they are in order and complete, as most are."""
    if _in_order(messages):
        return messages
    groups: list[list[Message]] = []
    callers: dict[str, list[Message]] = {}  # by call id: the latest group with such a call
    left: dict[str, int] = {}  # by call id: how many calls of that group have no result so far
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
    """Returns whether only other results stand between each result and the message with its call, and whether
    every call but those of the last message has a result."""
    left: dict[
        str, int
    ] = {}  # by id: calls without a result so far, of the latest message that is not a result
    for message in messages:
        if message.role != "tool":
            if left:
                return False
            if calls := message.tool_calls:
                left = {call.id: 1 for call in calls}
                if len(left) != len(calls):  # two calls have the same id
                    left = Counter([call.id for call in calls])
        elif not (count := left.get(message.tool_call_id)):
            return False
        elif count == 1:
            del left[message.tool_call_id]
        else:
            left[message.tool_call_id] = count - 1
    return not left or messages[-1].role != "tool"


def _unanswered(group: Sequence[Message]) -> list[ToolCall]:
    """Returns the calls of a group's first message that have no result in the group."""
    results = Counter([message.tool_call_id for message in group[1:]])  # two calls may have the same id
    calls = []
    for call in group[0].tool_calls:
        if results[call.id]:
            results[call.id] -= 1
        else:
            calls.append(call)
    return calls


def _missing(call: ToolCall) -> Message:
    return Message("tool", (Text(NO_RESULT),), tool_call_id=call.id, failed=True)

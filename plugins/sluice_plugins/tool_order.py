"""Puts the results of tools directly behind the message that called them, as vendors require. Pure.

The Responses API, Gemini's and Ollama's let other messages stand between: what a user wrote while a tool ran, a
note of the client's in the turn that has the results, results of two calls in the order of their ends.
Anthropic, Bedrock, Cohere, Mistral and OpenAI's Chat Completions refuse such a conversation
(QwenLM/qwen-code#8161, sgl-project/sglang#29083). What stood between follows the results. A result whose call
nobody made stays where it is, for the vendor to judge.
"""

from collections.abc import Sequence

from sluice.model.chat import Message


def results_first(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages, each call's results behind it; the same object where they are in order, as most are."""
    if _in_order(messages):
        return messages
    groups: list[list[Message]] = []
    callers: dict[str, list[Message]] = {}  # the latest group that has a call of this id
    for message in messages:
        group = callers.get(message.tool_call_id) if message.role == "tool" else None
        if group is not None:
            group.append(message)
            continue
        groups.append(started := [message])
        callers.update([(call.id, started) for call in message.tool_calls])
    return [message for group in groups for message in group]


def _in_order(messages: Sequence[Message]) -> bool:
    """Returns whether before each result there are only other results, and the message that has its call."""
    waiting: set[str] = set()
    for message in messages:
        if message.role != "tool":
            waiting = {call.id for call in message.tool_calls} if message.tool_calls else set()
        elif message.tool_call_id not in waiting:
            return False
    return True

"""Replaces ids of tool calls that a vendor does not accept, in calls and their results alike.

An id that the vendor accepts stays. Of any other id the valid characters are kept, and a digest of the whole
id is appended: different ids stay different, and a conversation gets the same ids in each request, which
prompt caches depend on. Some servers number calls from 0 in each answer; an id that several messages use is
replaced by a different one in each message, as vendors require. Where calls of one message share an id, the
first result belongs to the first call, and so on.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sluice.model.chat import Message, ToolCall
from sluice.model.rules import ToolIds

_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _readable(id: str, count: int) -> str:
    return f"{_UNFIT.sub('_', id)[:43]}_{_digest(id, count)[:20]}"


def _short(id: str, count: int) -> str:
    return f"{_UNFIT.sub('_', id)[:19]}_{_digest(id, count)[:20]}"


def _nine(id: str, count: int) -> str:
    number = int(_digest(id, count), 16)
    letters = []
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        letters.append(_DIGITS[digit])
    return "".join(letters)


def _digest(id: str, count: int) -> str:
    return hashlib.sha256(f"{count}:{id}".encode("utf-8", "surrogatepass")).hexdigest()


_MAKERS: dict[ToolIds, Callable[[str, int], str]] = {
    "[A-Za-z0-9_-]{1,64}": _readable,
    "[A-Za-z0-9]{9}": _nine,
    ".{1,40}": _short,
}


def fitted_ids(messages: Sequence[Message], form: ToolIds) -> Sequence[Message]:
    """Returns the messages with ids of tool calls that match `form` ("": any id), each used for one call
    only."""
    if not [True for message in messages if message.tool_calls]:
        return messages
    ids = _Ids(form)
    return [ids.message(message) for message in messages]


def fitted_wire_ids(messages: Sequence[dict[str, Any]], form: ToolIds) -> list[dict[str, Any]]:
    """Does the same as `fitted_ids` for messages in the JSON of OpenAI's dialect."""
    ids = _Ids(form)
    fitted = []
    for message in messages:
        calls, result = message.get("tool_calls"), message.get("tool_call_id")
        if calls:
            fresh = ids.calls([call["id"] for call in calls])
            message = {
                **message,
                "tool_calls": [{**call, "id": id} for call, id in zip(calls, fresh, strict=True)],
            }
        elif result is not None:
            message = {**message, "tool_call_id": ids.result(result)}
        fitted.append(message)
    return fitted


def ids_fit(messages: Sequence[Message], form: ToolIds) -> bool:
    """Returns whether all ids of tool calls match `form` ("": any id), and each is used for one call only."""
    ids = [call.id for message in messages for call in message.tool_calls]
    fits = re.compile(form or r"(?s).+").fullmatch
    return not ids or (len(set(ids)) == len(ids) and all([fits(id) for id in ids]))


def fitted_block_ids(messages: Sequence[dict[str, Any]], form: ToolIds) -> list[dict[str, Any]]:
    """Does the same as `fitted_ids` for messages in the JSON of Anthropic's dialect."""
    ids = _Ids(form)
    fitted = []
    for message in messages:
        content = message.get("content")
        if type(content) is list:
            fresh = iter(ids.calls([block["id"] for block in content if block.get("type") == "tool_use"]))
            message = {**message, "content": [_with_id(block, ids, fresh) for block in content]}
        fitted.append(message)
    return fitted


def _with_id(block: dict[str, Any], ids: "_Ids", fresh: Iterator[str]) -> dict[str, Any]:
    match block:
        case {"type": "tool_use"}:
            return {**block, "id": next(fresh)}
        case {"type": "tool_result", "tool_use_id": str(id)}:
            return {**block, "tool_use_id": ids.result(id)}
        case _:
            return block


class _Ids:
    def __init__(self, form: ToolIds) -> None:
        self._fits = re.compile(form or r"(?s).+").fullmatch
        self._make = _MAKERS.get(form, _readable)
        self._count: dict[str, int] = {}
        self._open: dict[
            str, deque[str]
        ] = {}  # by original id: new ids of calls without a result; the last one stays
        self._taken: set[str] = set()

    def message(self, message: Message) -> Message:
        if message.tool_calls:
            fresh = self.calls([call.id for call in message.tool_calls])
            pairs = zip(message.tool_calls, fresh, strict=True)
            calls = [ToolCall(id, call.name, call.arguments, call.signature) for call, id in pairs]
            return msgspec.structs.replace(message, tool_calls=tuple(calls))
        if message.role == "tool":
            id = self.result(message.tool_call_id)
            if id != message.tool_call_id:
                return msgspec.structs.replace(message, tool_call_id=id)
        return message

    def calls(self, ids: Sequence[str]) -> list[str]:
        """Returns the new ids of one message's calls."""
        made: dict[str, deque[str]] = {}
        fresh = [self._new(id) for id in ids]
        for id, new in zip(ids, fresh, strict=True):
            made.setdefault(id, deque()).append(new)
        self._open |= made
        return fresh

    def _new(self, id: str) -> str:
        count = self._count.get(id, 0)
        self._count[id] = count + 1
        made = id if not count and self._fits(id) else self._make(id, count)
        while made in self._taken:
            count += 1
            made = self._make(id, count)
        self._taken.add(made)
        return made

    def result(self, id: str) -> str:
        """Returns the new id of the call that this result belongs to."""
        calls = self._open.get(id)
        if calls is None:  # no such call is known: the vendor will refuse the result
            return id if self._fits(id) else self._make(id, 0)
        return calls.popleft() if len(calls) > 1 else calls[0]

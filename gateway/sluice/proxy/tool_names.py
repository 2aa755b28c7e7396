"""Gives tools names that a vendor accepts, and the answer's calls their own names back. Pure.

Vendors differ in what a name may be: OpenAI has 64 characters and no dots, Anthropic 128, Gemini dots and colons
but no digit first (cline/cline#11885, kaitranntt/ccs#25). A name that fits stays. Of any other the valid
characters are kept and a digest of the whole is appended, so that different names stay different, and one tool
has one name in a whole conversation (prompt caches depend on that).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

import msgspec

from sluice.backends.protocol import Decoder, WrappedDecoder
from sluice.model.chat import ChatRequest, Message, Tool, ToolCall
from sluice.model.events import StreamEvent, ToolCallStarted
from sluice.model.rules import ToolNames

_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


class NamesFitting:
    """Renames the tools of requests to one target."""

    def __init__(self, form: ToolNames) -> None:
        self._fits = re.compile(form).fullmatch

    def __call__(self, chat: ChatRequest) -> tuple[ChatRequest, Mapping[str, str]]:
        """Returns the request with fitting names, and for each changed name the original one."""
        fits = self._fits
        if all([fits(tool.name) for tool in chat.tools]) and all(
            [fits(call.name) for message in chat.messages for call in message.tool_calls]
        ):
            return chat, {}
        known = dict.fromkeys([tool.name for tool in chat.tools])
        known.update(dict.fromkeys([call.name for message in chat.messages for call in message.tool_calls]))
        names = {name: self._made(name, known) for name in known if not fits(name)}
        choice = chat.tool_choice
        fitted = msgspec.structs.replace(
            chat,
            tools=tuple([_renamed(tool, names) for tool in chat.tools]),
            tool_choice=(choice[0], names.get(choice[1], choice[1])) if isinstance(choice, tuple) else choice,
            messages=tuple([_in_message(message, names) for message in chat.messages]),
        )
        return fitted, {new: name for name, new in names.items()}

    def _made(self, name: str, taken: Iterable[str]) -> str:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        readable = _UNFIT.sub("_", name)[:50]
        if not readable[:1].isalpha():
            readable = f"t_{readable}"
        length = 8
        while (made := f"{readable}_{digest[:length]}") in taken and length < 10:
            length += 1
        return made


def _renamed(tool: Tool, names: Mapping[str, str]) -> Tool:
    new = names.get(tool.name)
    return tool if new is None else msgspec.structs.replace(tool, name=new)


def _in_message(message: Message, names: Mapping[str, str]) -> Message:
    if not any([call.name in names for call in message.tool_calls]):
        return message
    calls = [
        ToolCall(call.id, names.get(call.name, call.name), call.arguments, call.signature)
        for call in message.tool_calls
    ]
    return msgspec.structs.replace(message, tool_calls=tuple(calls))


class NamedDecoder(WrappedDecoder[Decoder]):
    """A decoder that gives the tool calls of an answer their original names back. `names`: the caller's name
    by the vendor's."""

    def __init__(self, decoder: Decoder, names: Mapping[str, str]) -> None:
        super().__init__(decoder)
        self._names = names

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self._named(self._decoder.feed(data))

    def close(self) -> list[StreamEvent]:
        return self._named(self._decoder.close())

    def _named(self, events: list[StreamEvent]) -> list[StreamEvent]:
        return [
            msgspec.structs.replace(event, name=self._names[event.name])
            if type(event) is ToolCallStarted and event.name in self._names
            else event
            for event in events
        ]

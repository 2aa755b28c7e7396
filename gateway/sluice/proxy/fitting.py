"""Adapts a request to one target by that target's rules (`sluice.model.rules`). Pure.

Both forms are adapted: the vocabulary, and the caller's own JSON object if there is one, in OpenAI's Chat
Completions or another dialect (`ChatRequest.fields` has that dialect's names). A request that no rule touches is
returned unchanged, so that its text can still be forwarded verbatim.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sluice.errors import BadRequest
from sluice.frontends.configured import chat_with
from sluice.model.chat import ChatRequest, Message, Reasoning, transcript_of
from sluice.model.rules import LIMITS, ModelRules
from sluice.wire.dataurl import normalized_url

_SAMPLING = {
    "max_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p",
    "stop": "stop", "seed": "seed", "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
    "top_k": "top_k",
}  # fmt: skip
_CHAT = {
    "tools": "tools", "tool_choice": "tool_choice", "parallel_tool_calls": "parallel_tool_calls",
    "response_format": "response_format", "reasoning_effort": "reasoning", "reasoning": "reasoning", "thinking": "reasoning",
    "cache_control": "cache",
}  # fmt: skip
_ABSENT = ChatRequest("", None, ())
VENDOR_FIELDS = frozenset({"reasoning", "thinking"})
"""Fields that other vendors have added to OpenAI's dialect. A translated request has none of them but
`reasoning_effort`.
"""
RESERVED_FIELDS = frozenset({"model", "messages", "stream", "stream_options"})
"""Fields that no rule may set or leave out."""
_IN_MESSAGES = "messages."
_OF_TOOLS = "tools."
_MARK = "cache_control"


def check_values(values: Mapping[str, Any]) -> None:
    """Raises BadRequest for configured values that a caller could not give to these fields either."""
    chat_with(values)


class Fitting:
    """One target's rules, ready to be used. `dropped` is called with the name of each given field that is
    left out. `dialect` is what the target speaks; None: what its callers speak."""

    def __init__(
        self,
        rules: ModelRules,
        dropped: Callable[[str], object] = lambda name: None,
        dialect: str | None = None,
    ) -> None:
        self._rules = rules
        self._dialect = dialect
        self._dropped = dropped
        self._drop = frozenset(name for name in rules.drop if not name.startswith((_IN_MESSAGES, _OF_TOOLS)))
        self._message_drop = frozenset(_behind(_IN_MESSAGES, rules.drop))
        self._tool_drop = frozenset(_behind(_OF_TOOLS, rules.drop))
        self._rename = {
            old: new for old, new in rules.rename.items() if old not in LIMITS
        }  # limits: the backend's names
        names = self._drop.union(self._rename, rules.cap, *rules.either)
        self._names = names.union(LIMITS) if not names.isdisjoint(LIMITS) else names
        self._sets = bool(rules.default or rules.force)
        self._default = chat_with(rules.default)
        self._force = chat_with(rules.force)
        self._sampling = tuple({_SAMPLING[name] for name in self._names if name in _SAMPLING})
        self._chat = tuple({_CHAT[name] for name in self._names if name in _CHAT})
        self._renames = any(
            role != "developer" for role in rules.roles
        )  # developers are the system in the vocabulary
        self._heats = "temperature" in self._names
        self._most_tokens = self._highest_limit()
        self._spares_texts = (
            not self._sets
            and "user" not in self._names
            and not {"system", "user", "assistant"} & rules.roles.keys()
        )
        self._in_messages = bool(rules.roles or rules.plain_images or self._message_drop)
        self._unmarks = _MARK in self._message_drop

    def __call__(self, chat: ChatRequest) -> ChatRequest:
        if (
            chat.only_texts
            and self._spares_texts
            and (not self._heats or chat.sampling.temperature is None)
            and (chat.sampling.max_tokens or 0) <= self._most_tokens
        ):
            return chat
        if chat.own_tools and self._tool_drop:
            chat = self._without_tools(chat)
        wire = chat.wire
        if wire is None or self._translates(chat):
            return (
                self._vocabulary(chat, set()) if self._sets or self._renames or self._touches(chat) else chat
            )
        if not chat.fields.as_named:
            return self._of_another(chat, wire)
        if not (
            self._sets
            or not self._names.isdisjoint(wire)
            or (self._in_messages and self._concerns(wire["messages"]))
            or (self._unmarks and _are_marked(wire))
        ):
            return chat
        dropped: set[str] = set()
        fitted = self._vocabulary(chat, dropped)
        edited = self._object(wire, fitted, dropped)
        if edited != wire:
            fitted = msgspec.structs.replace(fitted, wire=edited, body=b"")
        return fitted

    def _highest_limit(self) -> float:
        """Returns the tokens up to which a limit stays as it is; 0 where none may be given."""
        rules = self._rules
        if not self._drop.union(*rules.either).isdisjoint(LIMITS):
            return 0
        return min([most for name, most in rules.cap.items() if name in LIMITS], default=math.inf)

    def _translates(self, chat: ChatRequest) -> bool:
        """Returns whether the target gets the vocabulary, in another dialect than the caller's (which is not
        OpenAI's).
        """
        return self._dialect is not None and not chat.fields.as_named and chat.dialect != self._dialect

    def _touches(self, chat: ChatRequest) -> bool:
        """Returns whether a rule applies to a field of the vocabulary."""
        sampling, absent = chat.sampling, _ABSENT.sampling
        if sampling is not absent and [
            True for name in self._sampling if getattr(sampling, name) != getattr(absent, name)
        ]:
            return True
        return bool([True for name in self._chat if getattr(chat, name) != getattr(_ABSENT, name)])

    def _concerns(self, messages: list[dict[str, Any]]) -> bool:
        """Returns whether anything within the messages may have to change."""
        roles, images, drop = self._rules.roles, self._rules.plain_images, self._message_drop
        if drop and not drop.isdisjoint(set().union(*messages)):
            return True
        return any([m["role"] in roles or (images and type(m.get("content")) is list) for m in messages])

    def _without_tools(self, chat: ChatRequest) -> ChatRequest:
        """Removes tools of types that only the caller's dialect has."""
        left = tuple([kind for kind in chat.own_tools if kind not in self._tool_drop])
        if len(left) == len(chat.own_tools):
            return chat
        for kind in dict.fromkeys(chat.own_tools):
            if kind in self._tool_drop:
                self._dropped(_OF_TOOLS + kind)
        only, wire = chat.dialect_only, chat.wire
        if only.startswith("tool"):
            only = f"tools: a tool of type {left[0]}" if left else ""
        if wire is not None:
            wire = {
                **wire,
                "tools": [tool for tool in wire["tools"] if tool.get("type") not in self._tool_drop],
            }
        return msgspec.structs.replace(chat, own_tools=left, dialect_only=only, wire=wire, body=b"")

    # --- the caller's object

    def _of_another(self, chat: ChatRequest, wire: dict[str, Any]) -> ChatRequest:
        """Adapts a request whose JSON object is in another dialect than OpenAI's.

        A field that a rule changes to more than a number or a text is left to the backend, which then writes
        the request anew.
        """
        if not (self._sets or self._renames or self._touches(chat) or not self._names.isdisjoint(wire)):
            return chat
        dropped: set[str] = set()
        fitted = self._vocabulary(chat, dropped)
        names, unlike = chat.fields.written, chat.fields.unlike
        out: dict[str, Any] | None = dict(wire)
        for name in {**dict.fromkeys(self._names), **self._rules.default, **self._rules.force}:
            if out is not None and name not in unlike:
                out = self._rewritten(out, name, names.get(name, name), chat, fitted)
        if out == wire:
            return fitted
        if out is None and chat.dialect_only:
            raise BadRequest(
                f"{chat.dialect_only} cannot be given to this model, whose rules have the request written anew"
            )
        return msgspec.structs.replace(fitted, wire=out, body=b"")

    def _rewritten(
        self, out: dict[str, Any], name: str, here: str, chat: ChatRequest, fitted: ChatRequest
    ) -> dict[str, Any] | None:
        """Returns the object after the rules of one field, whose name in it is `here`; None if they cannot be
        applied to it.
        """
        field = _SAMPLING.get(name) or _CHAT.get(name)
        if field is None:
            return self._rewritten_unknown(out, name)
        of, was, absent = (
            (fitted.sampling, chat.sampling, _ABSENT.sampling)
            if name in _SAMPLING
            else (fitted, chat, _ABSENT)
        )
        value = getattr(of, field)
        if value != getattr(was, field):
            if not here:
                return None
            if value == getattr(absent, field):
                out = _without(out, here)
            elif isinstance(value, int | float | str):
                out = _with(out, here, value)
            elif field == "stop" and "stop" in self._rules.cap:
                out = _with(out, here, list(value))
            elif isinstance(value, Reasoning) and value.effort and chat.fields.effort:
                out = _with(out, chat.fields.effort, value.effort)
            else:
                return None
        return self._renamed_field(out, name)

    def _rewritten_unknown(self, out: dict[str, Any], name: str) -> dict[str, Any]:
        rules = self._rules
        if name in rules.default and out.get(name) is None:
            out[name] = rules.default[name]
        if name in self._drop and out.pop(name, None) is not None:
            self._dropped(name)
        out = self._renamed_field(out, name)
        if name in rules.force:
            out[name] = rules.force[name]
        return out

    def _renamed_field(self, out: dict[str, Any], name: str) -> dict[str, Any]:
        if name in self._rename and (value := out.pop(name, None)) is not None:
            out.setdefault(self._rename[name], value)
        return out

    def _object(self, wire: Mapping[str, Any], fitted: ChatRequest, dropped: set[str]) -> dict[str, Any]:
        rules = self._rules
        out = dict(wire)
        for name, value in rules.default.items():
            if out.get(name) is None and not (
                name in LIMITS and any(out.get(limit) is not None for limit in LIMITS)
            ):
                out[name] = value
        for name in [*self._drop, *self._surplus(out)]:
            if out.pop(name, None) is not None and name not in dropped:
                self._dropped(name)
        for old, new in self._rename.items():
            if (value := out.pop(old, None)) is not None:
                out.setdefault(new, value)
        for name, most in rules.cap.items():
            value = out.get(name)
            if name not in LIMITS and isinstance(value, int | float) and value > most:
                out[name] = most
            elif name == "stop" and type(value) is list and len(value) > most:
                out[name] = value[: int(most)]
        out.update(rules.force)
        if any(name in rules.cap or name in rules.force for name in LIMITS):
            self._limit(out, fitted)
        if self._in_messages:
            out["messages"] = [self._message(message) for message in out["messages"]]
        if self._unmarks and _are_marked(out):
            self._unmark(out)
        return out

    def _unmark(self, out: dict[str, Any]) -> None:
        """Takes Anthropic's marks for the prompt cache out of parts and tools, or writes them at parts as
        OpenAI does, where the model takes that."""
        own = self._rules.cache_marks if self._rules.cache_marks != _MARK else ""
        marked = False
        messages = []
        for message in out["messages"]:
            parts = message.get("content")
            if type(parts) is list and any([_MARK in part for part in parts]):
                mark = own if message["role"] != "assistant" else ""
                marked = marked or bool(mark)
                if not mark:
                    self._dropped(_IN_MESSAGES + _MARK)
                message = {**message, "content": [_marked(part, mark) for part in parts]}
            messages.append(message)
        out["messages"] = messages
        if marked:
            out.setdefault("prompt_cache_options", {"mode": "explicit"})
        if type(tools := out.get("tools")) is list and any([_MARK in tool for tool in tools]):
            out["tools"] = [_marked(tool, "") for tool in tools]

    def _limit(self, out: dict[str, Any], fitted: ChatRequest) -> None:
        """Returns one limit after the rules."""
        names = [name for name in LIMITS if name in out]
        for name in names:
            del out[name]
        if names and fitted.sampling.max_tokens is not None:
            out[names[0]] = fitted.sampling.max_tokens

    def _surplus(self, out: Mapping[str, Any]) -> list[str]:
        given = [
            [name for name in group if name not in self._drop and out.get(name) not in (None, [])]
            for group in self._rules.either
        ]
        return [name for group in given for name in group[1:]]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        if role := self._rules.roles.get(message["role"]):
            changed["role"] = role
        content = message.get("content")
        if self._rules.plain_images and type(content) is list:
            changed["content"] = [_normalized_part(part) for part in content]
        for name in (dropped := self._message_drop & message.keys()):
            self._dropped(_IN_MESSAGES + name)
        kept = {name: value for name, value in message.items() if name not in dropped} if dropped else message
        if "audio" in dropped and not (kept.get("content") or kept.get("tool_calls")):
            kept["content"] = transcript_of(message["audio"])
        return {**kept, **changed} if changed else kept

    # --- the vocabulary

    def _vocabulary(self, chat: ChatRequest, dropped: set[str]) -> ChatRequest:
        rules, sampling = self._rules, chat.sampling
        of_sampling: dict[str, Any] = {}
        of_chat: dict[str, Any] = {}
        for name in rules.default:
            self._take(name, chat, self._default, of_sampling, of_chat, only_absent=True)
        names = [*self._drop, *[name for group in rules.either for name in _second(group, chat, of_sampling)]]
        if self._translates(chat):
            names = [name for name in names if name not in VENDOR_FIELDS]
        for name in names:
            if (
                chat.fields.as_named
                and chat.wire is not None
                and name not in chat.wire
                and name not in rules.default
            ):
                continue
            if self._take(name, chat, _ABSENT, of_sampling, of_chat):
                dropped.add(name)
                self._dropped(name)
        for name, most in rules.cap.items():
            field = _SAMPLING.get(name, "")
            value: Any = of_sampling.get(field, getattr(sampling, field)) if field else None
            if field == "stop":
                if len(value) > most:
                    of_sampling[field] = value[: int(most)]
                    dropped.add(name)
                    self._dropped(name)
            elif value is not None and value > most:
                of_sampling[field] = type(value)(most)
        for name in rules.force:
            self._take(name, chat, self._force, of_sampling, of_chat)
        if self._renames:
            of_chat["messages"] = tuple([self._renamed(message) for message in chat.messages])
        if of_sampling:
            of_chat["sampling"] = msgspec.structs.replace(sampling, **of_sampling)
        return msgspec.structs.replace(chat, **of_chat) if of_chat else chat

    def _take(
        self,
        name: str,
        chat: ChatRequest,
        source: ChatRequest,
        of_sampling: dict[str, Any],
        of_chat: dict[str, Any],
        *,
        only_absent: bool = False,
    ) -> bool:
        """Moves a field over from `source`. Returns whether the chat had it."""
        field = _SAMPLING.get(name)
        of, here, there, absent = of_sampling, chat.sampling, source.sampling, _ABSENT.sampling
        if field is None:
            field = _CHAT.get(name)
            if field is None:
                return False
            of, here, there, absent = of_chat, chat, source, _ABSENT  # type: ignore[assignment]
        had = bool(getattr(here, field) != getattr(absent, field))
        if not (had and only_absent):
            of[field] = getattr(there, field)
        return had

    def _renamed(self, message: Message) -> Message:
        role = self._rules.roles.get(message.role)
        if role in ("system", "user", "assistant"):
            return msgspec.structs.replace(message, role=role)
        return message


def _second(group: Sequence[str], chat: ChatRequest, of_sampling: Mapping[str, Any]) -> list[str]:
    """Returns the names in this group behind the first that the request has, but for other names of the same
    field of the vocabulary (`thinking` and `reasoning_effort`)."""
    given = [name for name in group if _is_given(name, chat, of_sampling)]
    return [name for name in given[1:] if _CHAT.get(name, name) != _CHAT.get(given[0], given[0])]


def _is_given(name: str, chat: ChatRequest, of_sampling: Mapping[str, Any]) -> bool:
    """Returns whether the request has this field, after the rules that have changed it (`of_sampling`)."""
    if (field := _SAMPLING.get(name)) is not None:
        return of_sampling.get(field, getattr(chat.sampling, field)) is not None
    field = _CHAT.get(name)
    return field is not None and getattr(chat, field) != getattr(_ABSENT, field)


def _without(wire: dict[str, Any], place: str) -> dict[str, Any]:
    """Returns the object without the field at this path: its name, or the names of an inner object and of the
    field in it.
    """
    outer, dot, name = place.partition(".")
    if not dot:
        return {key: value for key, value in wire.items() if key != place}
    held = wire.get(outer)
    return (
        {**wire, outer: {key: value for key, value in held.items() if key != name}}
        if type(held) is dict
        else wire
    )


def _with(wire: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    outer, dot, name = place.partition(".")
    return {**wire, outer: {**(wire.get(outer) or {}), name: value}} if dot else {**wire, place: value}


def _are_marked(wire: Mapping[str, Any]) -> bool:
    """Returns whether a part of a message, or a tool, has Anthropic's mark for the prompt cache."""
    parts = [m["content"] for m in wire["messages"] if type(m.get("content")) is list]
    return any([_MARK in part for content in parts for part in content]) or any(
        [_MARK in tool for tool in wire.get("tools") or ()]
    )


def _marked(value: dict[str, Any], mark: str) -> dict[str, Any]:
    """Returns a part or tool with OpenAI's `mark` in place of Anthropic's; "": without one."""
    if _MARK not in value:
        return value
    kept = {name: inner for name, inner in value.items() if name != _MARK}
    return {**kept, mark: {"mode": "explicit"}} if mark else kept


def _normalized_part(part: dict[str, Any]) -> dict[str, Any]:
    """Normalizes the spelling of an image's data: URL in a content part."""
    match part:
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            http_url = normalized_url(url)
            return part if http_url == url else {**part, "image_url": {"url": http_url, **rest}}
        case _:
            return part


def _behind(prefix: str, names: Iterable[str]) -> list[str]:
    """Returns the rest of each name that begins with this prefix."""
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

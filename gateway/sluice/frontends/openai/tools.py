"""The tools of a Chat Completions request, and which of them the model may or must call.

Standard: https://platform.openai.com/docs/guides/function-calling
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.frontends.checks import cache_of, refused
from sluice.model.chat import Tool

_CHOICES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}
"""Mistral's name for it is "any"."""
MAX_KIND = 64
"""Characters of a type's name that are repeated in an error."""
_Choice = str | tuple[str, str] | None


class Definition(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: Any = None


class FunctionTool(msgspec.Struct):
    """Other types than "function" are the provider's own: they pass through `wire` alone."""

    type: str
    function: Definition | None = None
    cache_control: Any = None


def functions_of(tools: Sequence[FunctionTool]) -> tuple[tuple[Tool, ...], str]:
    """Returns the functions, and the first tool of another kind, which no other dialect can express."""
    found: list[Tool] = []
    only = ""
    for index, tool in enumerate(tools):
        if tool.type != "function":
            kind = tool.type if tool.type.isidentifier() and len(tool.type) <= MAX_KIND else "its own"
            only = only or f"tools[{index}]: a tool of type {kind}"
            continue
        if tool.function is None:
            raise refused(f"tools[{index}].function", "is required")
        if not tool.function.name:
            raise refused(f"tools[{index}].function.name", "must not be empty")
        cache = cache_of(tool.cache_control) or cache_of(tool.function.cache_control)
        function = tool.function
        found.append(
            Tool(function.name, function.description or "", function.parameters, cache, function.strict)
        )
    return tuple(found), only


def choice_of(choice: str | dict[str, Any], tools: tuple[Tool, ...]) -> tuple[_Choice, tuple[Tool, ...]]:
    """Returns the choice, and the remaining tools. Anthropic's objects (any, auto, none, tool) and the flat
    ones of Responses are accepted with their meaning, because clients of several APIs mix them up."""
    match choice:
        case str(word):
            if word not in _CHOICES:
                raise refused(
                    "tool_choice", "must be auto, none, required, or an object that names a function"
                )
            return _CHOICES[word], tools
        case {"type": "function", "function": {"name": str(name)}} | {
            "type": "function" | "tool",
            "name": str(name),
        } if name:
            return ("function", name), tools
        case {"type": "function" | "tool"}:
            raise refused("tool_choice.function.name", "must be a string")
        case {"type": "allowed_tools", "allowed_tools": {"tools": list(allowed)} as inner} | (
            {"type": "allowed_tools", "tools": list(allowed)} as inner
        ):
            names = {_name_of(tool) for tool in allowed}
            left = tuple([tool for tool in tools if tool.name in names])
            return "required" if inner.get("mode") == "required" else "auto", left
        case {"type": str(word)}:  # a provider's own (custom): in `wire` alone
            return _CHOICES.get(word), tools
        case _:
            raise refused("tool_choice.type", "must be a string")


def _name_of(tool: Any) -> str:
    match tool:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
        case _:
            return ""

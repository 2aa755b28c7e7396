"""Converts tools, the choice among them and the answer's format from a Responses request to the vocabulary.

A custom tool, whose input is free text or follows a grammar, becomes a function with one string `input`; the
answer's encoder makes custom calls of its calls again. Names of tools within a namespace begin with the
namespace. Tools that OpenAI runs itself (web_search, file_search, mcp, computer …) are reported, because only
an upstream of this dialect has them. Standard:
https://platform.openai.com/docs/api-reference/responses/create#responses-create-tools
"""

from typing import Any

import msgspec

from sluice.frontends.checks import check_names, refused
from sluice.frontends.responses.items import shown
from sluice.model.chat import Tool

Value = dict[str, Any]
_TOOL = frozenset({"type", "name", "description", "parameters", "strict", "format", "tools"})
_CHOICE = frozenset({"type", "name", "mode", "tools"})
_TEXT = frozenset({"format", "verbosity"})
_FORMAT = frozenset({"type", "name", "schema", "strict", "description"})
_SCHEMA = ("name", "description", "schema", "strict")


class ToolParam(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = None
    tools: "list[ToolParam] | None" = None


class Offered(msgspec.Struct):
    """The tools of a request. `own`: types of those that other vendors lack; `unsaid`: the first of them."""

    tools: list[Tool] = []
    own: list[str] = []
    unsaid: str = ""


def tools_of(given: list[ToolParam], wire: list[Value]) -> Offered:
    """Parses the tools. Raises BadRequest, whose `param` names the field: "tools[0].name"."""
    offered = Offered()
    for index, (tool, written) in enumerate(zip(given, wire, strict=True)):
        _offer(offered, tool, written, f"tools[{index}]", "")
    return offered


def _offer(offered: Offered, tool: ToolParam, written: Value, at: str, namespace: str) -> None:
    check_names(written, _TOOL, f"{at}.")
    if tool.type == "namespace" and tool.tools is not None and not namespace:
        for index, (inner, inner_written) in enumerate(zip(tool.tools, written["tools"], strict=True)):
            _offer(offered, inner, inner_written, f"{at}.tools[{index}]", _name(tool, at))
    elif tool.type == "function":
        name = within(namespace, _name(tool, at))
        offered.tools.append(
            Tool(name, tool.description or "", tool.parameters, strict=tool.strict, namespace=namespace)
        )
    elif tool.type == "custom":
        offered.tools.append(_custom(tool, within(namespace, _name(tool, at)), namespace))
    else:
        offered.own.append(tool.type)
        offered.unsaid = offered.unsaid or f"{at}: a tool of type {shown(tool.type)}"


def _name(tool: ToolParam, at: str) -> str:
    if not tool.name:
        raise refused(f"{at}.name", "is required")
    return tool.name


def within(namespace: str, name: str) -> str:
    """Returns a tool's name for models without namespaces."""
    return f"{namespace}__{name}" if namespace else name


def _custom(tool: ToolParam, name: str, namespace: str) -> Tool:
    explained = "The input of the tool, as plain text."
    match tool.format:
        case {"type": "grammar", "definition": str(grammar), **rest}:
            explained += f" It must follow this {_syntax(rest.get('syntax'))}:\n{grammar}"
    parameters = {
        "type": "object",
        "properties": {"input": {"type": "string", "description": explained}},
        "required": ["input"],
        "additionalProperties": False,
    }
    return Tool(name, tool.description or "", parameters, custom=True, namespace=namespace)


def _syntax(named: Any) -> str:
    return (
        {"lark": "Lark grammar", "regex": "regular expression"}.get(named, "grammar")
        if isinstance(named, str)
        else "grammar"
    )


def choice_of(
    choice: str | Value, tools: tuple[Tool, ...]
) -> tuple[str | tuple[str, str] | None, tuple[Tool, ...], str]:
    """Returns the choice, the remaining tools, and the part of the choice that only OpenAI understands."""
    match choice:
        case str(word):
            if word not in ("auto", "none", "required"):
                raise refused("tool_choice", "must be auto, none, required, or an object that names a tool")
            return word, tools, ""
        case {"type": str(kind)}:
            check_names(choice, _CHOICE, "tool_choice.")
        case _:
            raise refused("tool_choice.type", "must be a string")
    match choice:
        case {"type": "function" | "custom", "name": str(name)} if name:
            return ("function", _choosable(choice, tools)), tools, ""
        case {"type": "function" | "custom"}:
            raise refused("tool_choice.name", "must be a string")
        case {"type": "allowed_tools", "tools": list(allowed)}:
            names = {_choosable(tool, tools) for tool in allowed if type(tool) is dict}
            mode = "required" if choice.get("mode") == "required" else "auto"
            return mode, tuple([tool for tool in tools if tool.name in names]), ""
        case _:
            return None, tools, f"tool_choice: a tool of type {shown(kind)}"


def _choosable(choice: Value, tools: tuple[Tool, ...]) -> str:
    """Returns the name that a chosen tool has here: within its namespace, which may be missing if no other
    tool has this name."""
    name, namespace = choice.get("name"), choice.get("namespace")
    if not isinstance(name, str):
        return ""
    if isinstance(namespace, str) and namespace:
        return within(namespace, name)
    if any([tool.name == name for tool in tools]):
        return name
    inner = [tool.name for tool in tools if tool.namespace and tool.name == within(tool.namespace, name)]
    return inner[0] if len(inner) == 1 else name


def format_of(text: Value) -> Value | None:
    """Returns `text.format` as OpenAI's `response_format`; None if it is text."""
    check_names(text, _TEXT, "text.")
    wanted = text.get("format")
    if wanted is None:
        return None
    if type(wanted) is not dict or not isinstance(wanted.get("type"), str):
        raise refused("text.format.type", "must be a string")
    check_names(wanted, _FORMAT, "text.format.")
    match wanted:
        case {"type": "text"}:
            return None
        case {"type": "json_schema", "schema": dict()}:
            schema = {name: wanted[name] for name in _SCHEMA if wanted.get(name) is not None}
            return {"type": "json_schema", "json_schema": {"name": "answer", **schema}}
        case {"type": "json_schema"}:
            raise refused("text.format.schema", "must be an object")
        case _:
            return {"type": wanted["type"]}

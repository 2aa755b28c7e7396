"""Tools, the choice among them and the answer's format, from a Responses request to the vocabulary.

A custom tool, whose input is free text or follows a grammar, becomes a function with one string `input`; the answer's encoder
makes of its calls custom ones again. Tools that OpenAI runs itself (web_search, file_search, mcp, computer …) are named, for
only an upstream of this dialect has them.

Standard: https://platform.openai.com/docs/api-reference/responses/create#responses-create-tools
"""

from typing import Any

import msgspec

from sluice.frontends.checks import check_names, refused
from sluice.frontends.responses.items import shown
from sluice.model.chat import Tool

Value = dict[str, Any]
_TOOL = frozenset({"type", "name", "description", "parameters", "strict", "format"})
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


def tools_of(given: list[ToolParam], wire: list[Value]) -> tuple[tuple[Tool, ...], str]:
    """The functions among the tools, and the first tool that is none that another vendor could have."""
    found: list[Tool] = []
    unsaid = ""
    for index, (tool, written) in enumerate(zip(given, wire, strict=True)):
        at = f"tools[{index}]"
        check_names(written, _TOOL, f"{at}.")
        if tool.type not in ("function", "custom"):
            unsaid = unsaid or f"{at}: a tool of type {shown(tool.type)}"
            continue
        if not tool.name:
            raise refused(f"{at}.name", "is required")
        if tool.type == "custom":
            found.append(_custom(tool, tool.name))
        else:
            found.append(Tool(tool.name, tool.description or "", tool.parameters, strict=tool.strict))
    return tuple(found), unsaid


def _custom(tool: ToolParam, name: str) -> Tool:
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
    return Tool(name, tool.description or "", parameters, custom=True)


def _syntax(named: Any) -> str:
    return (
        {"lark": "Lark grammar", "regex": "regular expression"}.get(named, "grammar") if isinstance(named, str) else "grammar"
    )


def choice_of(choice: str | Value, tools: tuple[Tool, ...]) -> tuple[str | tuple[str, str] | None, tuple[Tool, ...], str]:
    """The choice, the tools that it leaves, and what of it only OpenAI understands."""
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
            return ("function", name), tools, ""
        case {"type": "function" | "custom"}:
            raise refused("tool_choice.name", "must be a string")
        case {"type": "allowed_tools", "tools": list(allowed)}:
            names = {tool.get("name") for tool in allowed if type(tool) is dict}
            mode = "required" if choice.get("mode") == "required" else "auto"
            return mode, tuple([tool for tool in tools if tool.name in names]), ""
        case _:
            return None, tools, f"tool_choice: a tool of type {shown(kind)}"


def format_of(text: Value) -> Value | None:
    """`text.format` as OpenAI's `response_format`, None where it is plain text."""
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

"""Converts tools and the choice among them for Converse. Pure functions.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolConfiguration.html

Converse refuses a conversation with calls if the request declares no tools, so the called tools are declared
by name. It has no field for "call no tool" and "one call at a time": for these Claude gets Anthropic's own
`tool_choice` instead of Converse's (both at once are refused, BerriAI/litellm#36536). Other models get no
tools on "none", if the conversation has no calls.
"""

from collections.abc import Sequence

from sluice.model.chat import ChatRequest, Message, Tool
from sluice_plugins.bedrock.media import Block
from sluice_plugins.tool_schemas import plain_tool


def tool_config(chat: ChatRequest, *, caches: bool, claude: bool) -> Block:
    """Returns the toolConfig of a request; {} if it has none."""
    called = _called(chat.messages)
    tools = () if chat.tool_choice == "none" and not claude and not called else chat.tools
    specs: list[Block] = []
    for tool in tools:
        specs.append(_spec(tool))
        if tool.cache is not None and caches:
            ttl = tool.cache.get("ttl")
            specs.append({"cachePoint": {"type": "default"} | ({"ttl": ttl} if ttl in ("5m", "1h") else {})})
    specs += [_spec(Tool(name)) for name in called if not tools]
    if not specs:
        return {}
    choice = _choice(chat) if chat.tools and not own_choice(chat, claude=claude) else None
    return {"tools": specs} | ({"toolChoice": choice} if choice is not None else {})


def own_choice(chat: ChatRequest, *, claude: bool) -> Block | None:
    """Returns Anthropic's tool_choice for choices that Converse lacks; None for other models and choices."""
    if not claude or not chat.tools or (chat.tool_choice != "none" and chat.parallel_tool_calls is not False):
        return None
    match chat.tool_choice:
        case "none":
            return {"type": "none"}
        case "required":
            choice: Block = {"type": "any"}
        case ("function", str(name)):
            choice = {"type": "tool", "name": name}
        case _:
            choice = {"type": "auto"}
    return choice | {"disable_parallel_tool_use": True}


def _choice(chat: ChatRequest) -> Block | None:
    match chat.tool_choice:
        case "auto":
            return {"auto": {}}
        case "required":
            return {"any": {}}
        case ("function", str(name)):
            return {"tool": {"name": name}}
        case _:
            return None


def _spec(tool: Tool) -> Block:
    description, schema = plain_tool(tool)
    described = {"description": description} if description.strip() else {}
    return {"toolSpec": {"name": tool.name, **described, "inputSchema": {"json": schema}}}


def _called(messages: Sequence[Message]) -> list[str]:
    """Returns the names of the tools that the conversation has called, each once."""
    return list(dict.fromkeys([call.name for message in messages for call in message.tool_calls]))

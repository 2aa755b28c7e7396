"""Edits the request of a caller of Anthropic's own dialect: its JSON object is sent with as few changes as
possible.

What is changed: the model's name; `stream` as the gateway needs it; `max_tokens` if the caller set none; and
what the model does not accept by its rules (`sluice.model.rules`, from `blank_stops` on):
  - `thinking` of a kind that the model lacks becomes the kind it has (`plan`), or is left out if the model cannot think;
  - an effort that it lacks becomes the next lower one, or is left out;
  - blank stop sequences are left out; ids of tool calls are mapped to a valid form;
  - earlier thinking blocks that are not Anthropic's (because another target answered) are left out: the API refuses them;
  - a budget of thinking is left out in a tool loop that has no thinking block of Anthropic's.
`extra_body` of the configuration is copied over the caller's fields.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sluice.model.chat import ChatRequest, Thought
from sluice.model.rules import ModelRules
from sluice.wire.seals import is_marked
from sluice_plugins.anthropic.thinking import LEVELS, ThinkingPlan, known_effort
from sluice_plugins.tool_ids import fitted_block_ids, ids_fit

Wire = dict[str, Any]
FITTED = frozenset({"thinking", "output_config"})
"""Fields of `extra_body` that are adapted to each request instead of copied."""


def edits_of(
    chat: ChatRequest,
    wire: Wire,
    rules: ModelRules,
    extra: Mapping[str, Any],
    *,
    plan: Callable[[], ThinkingPlan],
    default_max_tokens: int,
) -> Wire:
    """Returns the fields to change, with their new values; None removes a field. `plan` is called if the
    caller's thinking does not suit the model."""
    edits: Wire = {}
    if chat.sampling.max_tokens is None:
        edits["max_tokens"] = default_max_tokens
    if chat.only_texts and not extra:
        return edits
    lacks = _lacks_blocks(wire.get("thinking"), chat)
    if lacks or rules.thinking or rules.always_thinks or FITTED & extra.keys() or chat.reasoning is None:
        _think(chat, wire, rules, extra, plan=plan, edits=edits)
    stops = wire.get("stop_sequences")
    if not rules.blank_stops and type(stops) is list and not all([stop.strip() for stop in stops]):
        edits["stop_sequences"] = [stop for stop in stops if stop.strip()] or None
    messages = wire["messages"]
    if any([message.thoughts or message.tool_calls for message in chat.messages]) and _has_foreign(chat):
        messages = edits["messages"] = _without_foreign(messages)
    if not ids_fit(chat.messages, rules.tool_ids):
        edits["messages"] = fitted_block_ids(messages, rules.tool_ids)
    if extra:
        edits |= {name: value for name, value in extra.items() if name not in FITTED}
    return edits


def is_own(thought: Thought) -> bool:
    """Returns whether a thinking block has a signature that can be Anthropic's."""
    return thought.sealed and not is_marked(thought.signature) and not is_marked(thought.redacted)


# --- thinking


def _think(
    chat: ChatRequest,
    wire: Wire,
    rules: ModelRules,
    extra: Mapping[str, Any],
    *,
    plan: Callable[[], ThinkingPlan],
    edits: Wire,
) -> None:
    """Adds to `edits` the changes of `thinking`, and of `output_config` and `max_tokens` that depend on
    it."""
    given, config = wire.get("thinking"), wire.get("output_config")
    config = dict(config) if type(config) is dict else {}
    effort = config.get("effort")
    thinking = given
    if "thinking" in extra or (
        chat.reasoning is not None and (not _suits(given, rules) or _lacks_blocks(given, chat))
    ):
        planned = plan()
        thinking = planned.thinking
        edits["max_tokens"] = planned.max_tokens
        if planned.effort and "effort" not in config:
            config["effort"] = planned.effort
    if type(given) is dict and type(thinking) is dict and "display" in given and thinking is not given:
        thinking = {**thinking, "display": given["display"]}
    if effort is not None:
        config["effort"] = _effort(effort, chat, rules)
    if type(more := extra.get("output_config")) is dict:
        config |= more
    config = {name: value for name, value in config.items() if value is not None}
    if thinking != given:
        edits["thinking"] = thinking
    if config != (wire.get("output_config") or {}):
        edits["output_config"] = config or None


def _lacks_blocks(given: Any, chat: ChatRequest) -> bool:
    """Returns whether a budget of thinking is requested in a tool loop that another vendor began: the API
    refuses it if the message with the calls has no thinking block of its own."""
    messages = chat.messages
    if type(given) is not dict or given.get("type") != "enabled" or messages[-1].role != "tool":
        return False
    called = next((message for message in reversed(messages) if message.role != "tool"), None)
    return called is not None and not any([is_own(thought) for thought in called.thoughts])


def _suits(given: Any, rules: ModelRules) -> bool:
    """Returns whether the model accepts this `thinking`; unknown kinds are accepted."""
    kind = given.get("type") if type(given) is dict else None
    match rules.thinking, kind:
        case _, None:
            return True
        case _, "disabled":
            return not rules.always_thinks or rules.thinking_off == "disabled"
        case ("never", "enabled" | "adaptive") | ("budget", "adaptive") | ("adaptive", "enabled"):
            return False
        case _:
            return True


def _effort(effort: Any, chat: ChatRequest, rules: ModelRules) -> Any:
    """Returns the effort to send; None if the model has no efforts, or a rule has removed the requested
    one."""
    if effort not in LEVELS:  # an effort newer than this code
        return effort
    if chat.reasoning is None:
        return None
    return (
        effort
        if not rules.thinking or effort in rules.efforts
        else known_effort(effort, rules.efforts) or None
    )


# --- messages


def _has_foreign(chat: ChatRequest) -> bool:
    """Returns whether there is a thinking block or a call with another vendor's signature."""
    thoughts = any([not is_own(thought) for message in chat.messages for thought in message.thoughts])
    return thoughts or any([call.signature for message in chat.messages for call in message.tool_calls])


def _without_foreign(messages: Sequence[Wire]) -> list[Wire]:
    found = []
    for message in messages:
        content = message.get("content")
        if message.get("role") == "assistant" and type(content) is list:
            kept = [block for block in content if not _is_foreign(block)]
            if len(kept) < len(content):
                if not kept:
                    continue
                message = {**message, "content": kept}
        found.append(message)
    return found


def _is_foreign(block: Wire) -> bool:
    match block.get("type"):
        case "thinking":
            return not is_own(Thought(block["thinking"], block.get("signature") or ""))
        case "redacted_thinking":
            return not is_own(Thought(redacted=block["data"]))
        case _:
            return False

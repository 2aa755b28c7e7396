"""Servers of upstreams, and prompts, for tests of routing."""

from collections.abc import Sequence
from typing import Any

from sluice.model.chat import ChatRequest, Message, Text, Tool
from sluice.routing.health import Load
from sluice.routing.pods import Figures, Pod


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pod(
    name: str, waiting: float = 0, running: float = 0, cache: float = 0.0, *, clock: Clock, ours: int = 0
) -> Pod:
    """A server with fresh figures, and so many calls of ours in flight."""
    made = Pod(name, clock, 3.0)
    made.reported(Figures(waiting, running, cache), clock.now, 0)
    made.loads = {"m": load_of(ours)}
    return made


def load_of(calls: int) -> Load:
    load = Load()
    load.in_flight = calls
    return load


def names(pods: Sequence[Pod], order: Sequence[int]) -> str:
    return "".join(pods[at].address for at in order)


def half() -> float:
    return 0.5


def chat(*texts: str, system: str = "", tools: tuple[Tool, ...] = ()) -> ChatRequest:
    """A conversation: texts of the user and the assistant in turns."""
    roles: Any = ["user", "assistant"] * len(texts)
    messages = [Message(role, (Text(text),)) for role, text in zip(roles, texts, strict=False)]
    if system:
        messages.insert(0, Message("system", (Text(system),)))
    return ChatRequest("", None, tuple(messages), tools=tools)


LONG = "".join(f"sentence {number}. " for number in range(400))

"""What the Python drivers have in common: asks come as JSON on stdin, and each answer is a JSON line on
stdout.

A driver runs in the SDKs' own environment, so it imports nothing of the gateway and nothing of its tests.

An ask: {"name", "base_url", "key", "body"}; `body` holds model, messages, and what else the SDK shall send.
An answer: `name` and what `Shown` holds, as far as the SDK shows it.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

AT_ONCE = 16


@dataclass
class Shown:
    """`calls` are pairs of name and arguments, `usage` the input and output tokens. `error`: class, status,
    code, message."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[Any] = field(default_factory=list)
    finish: Any = None
    usage: Any = None
    error: dict[str, Any] | None = None


def failure(error: Exception) -> dict[str, Any]:
    """The error as its SDK describes it. A `status` is there only where the response had one other than
    200."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "message": said if isinstance(said, str) else str(error),
    }


def text_of(content: Any) -> str:
    """The content of a delta: text, nothing, or whatever a vendor put there, as JSON."""
    return (
        content if isinstance(content, str) else "" if content is None else json.dumps(content, default=repr)
    )


def run(ask: Callable[[dict[str, Any], Shown], Awaitable[None]]) -> None:
    """Ask everything on stdin, some at a time, and print the answers. `ask` fills `Shown`; what it raises is
    the error."""

    async def one(asked: dict[str, Any], free: asyncio.Semaphore) -> None:
        shown = Shown()
        async with free:
            try:
                await ask(asked, shown)
            except Exception as error:
                shown.error = failure(error)
        print(json.dumps({"name": asked["name"], **asdict(shown)}, default=repr), flush=True)

    async def everything() -> None:
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for asked in json.load(sys.stdin):
                group.create_task(one(asked, free))

    asyncio.run(everything())

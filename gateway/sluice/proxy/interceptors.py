"""Interceptors wrap the calls of an alias: they may answer by themselves (a cache), change the request (a
guardrail on the prompt), or watch (tracing).

They are plugins by entry point `sluice.interceptors`: a frozen msgspec Struct whose fields are its options in
the configuration, with a method `interceptor()`. An alias names those that it wants, the outermost first.
They stand within the policies: a call that waits for its turn or is refused by a limit does not reach them,
and an answer of their own is settled as a call that used nothing. Calls of aliases without interceptors go
straight to the targets.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from sluice.proxy.run import CallRun

Next = Callable[[CallRun], Coroutine[Any, Any, None]]
"""The inner part of the chain: the interceptors behind this one, then the targets. Returns when the answer is
over; raises GatewayError if there is none, or if it was cut.
"""
Interceptor = Callable[[CallRun, Next], Awaitable[None]]
"""`await interceptor(run, next)`: `await next(run)` once, or `run.reply(events)`, or raise a GatewayError.

Before `next`, `run.call.chat` may be replaced (`sluice.model.chat.with_messages`), `run.call.headers` may get
headers of the answer, and `run.writer` may be wrapped, by a `ResponseWriter` that sees the client's bytes.
After it `run.call.end` says how the call ended, and `run.text` what the client holds of the answer's text.
"""


class InterceptorKind(Protocol):
    """An interceptor with its options: what an entry point of the group names."""

    def interceptor(self) -> Interceptor:
        """Makes the one for all calls of one alias in this process (of each worker), in the event loop.

        It is kept over reloads as long as the alias names an equal one (the same plugin, place and options),
        so it may hold what is learned from calls, and tasks. If it has a method `close`, a coroutine, that is
        awaited when the last call of the last configuration that names it is over.
        """
        ...


@runtime_checkable
class Closing(Protocol):
    """An interceptor that has to end something (a task, a connection) when it is no longer used."""

    async def close(self) -> None: ...


def compose(interceptors: Sequence[Interceptor], ask: Next) -> Next:
    """Wraps `ask` in these interceptors, the first outermost."""
    for interceptor in reversed(interceptors):
        ask = _link(interceptor, ask)
    return ask


def _link(interceptor: Interceptor, following: Next) -> Next:
    async def ask(run: CallRun) -> None:
        try:
            await interceptor(run, following)
        finally:
            run.call.phase = "settling"

    return ask


def by_alias(interceptors: Mapping[str, Sequence[Interceptor]], ask: Next) -> Next:
    """Wraps `ask` in the interceptors of each chat's alias. If no alias has any, returns `ask` itself.

    Other operations bypass them: their requests have no messages, and their answers no events.
    """
    composed = {alias: compose(of_alias, ask) for alias, of_alias in interceptors.items()}
    if not composed:
        return ask

    def route(run: CallRun) -> Coroutine[Any, Any, None]:
        call = run.call
        return (composed.get(call.route.name, ask) if call.chat.generates else ask)(run)

    return route

"""Sends copies of calls to their alias's shadow target. The answers go nowhere; only the target's own metrics
count them."""

import asyncio
from collections.abc import Callable

import msgspec

from sluice.aio.scope import scope_here
from sluice.errors import GatewayError
from sluice.proxy.call import Call
from sluice.proxy.run import CallRun
from sluice.proxy.sending import Sender
from sluice.proxy.target import Target
from sluice.proxy.writer import NullWriter
from sluice.telemetry.metrics import UNCOUNTED

MAX_SHADOW_CALLS = 100
"""Shadow calls at a time; more are not sent."""


class Shadows:
    """Sends shadow calls. `runs` are those in flight. `crashed` is called with an unexpected exception and
    the id of the call."""

    def __init__(
        self, sender: Sender, chance: Callable[[], float], crashed: Callable[[Exception, str], object]
    ) -> None:
        self.runs: set[CallRun] = set()
        self._sender = sender
        self._chance = chance
        self._crashed = crashed
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, run: CallRun, target: Target) -> None:
        """Sends a copy of the call to its alias's shadow target, for the configured share of calls."""
        config = run.call.route.config.shadow
        if config is None or len(self._tasks) >= MAX_SHADOW_CALLS or self._chance() >= config.share:
            return
        call = msgspec.structs.replace(
            run.call,
            series=run.call.series.of_shadow(),
            attempts=[],
            headers=[],
            answered=None,
            ttft=None,
            phase="connecting",
            store_turn=None,
        )
        task = asyncio.create_task(self._answer(call, run, target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: Call, like: CallRun, target: Target) -> None:
        """Answers the copy, in a task and a scope of its own."""
        run = CallRun(
            call,
            NullWriter(),
            like.answer,
            scope_here(),
            clock=like.clock,
            inter_token=UNCOUNTED,
            write_idle=like.write_idle,
        )
        self.runs.add(run)
        try:
            with run.scope:
                await self._sender.attempt(run, target, call.chat, last=True)
        except GatewayError:
            pass  # the attempt is counted
        except Exception as crash:
            self._crashed(crash, call.id)
        finally:
            call.phase = "over"
            self.runs.discard(run)
            run.close()

    async def idle(self) -> None:
        """Waits until no shadow call is in flight."""
        while self._tasks:
            await asyncio.wait([*self._tasks])

    async def close(self) -> None:
        """Ends the shadow calls in flight."""
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

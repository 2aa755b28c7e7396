"""A scope of a task's work that can be ended from outside with an error, wherever the task waits.

It is `asyncio.timeout` for any reason instead of a deadline: the task is cancelled, and where that
cancellation leaves the scope it becomes the error. A cancellation from elsewhere (the client left) passes
through unchanged.
"""

import asyncio
from types import TracebackType
from typing import Any

import msgspec


class Scope(msgspec.Struct, eq=False):
    """`with scope_here() as scope:` in the task; `scope.end(error)` from anywhere else in its loop."""

    _task: asyncio.Task[Any]
    _cancelling: int  # requests to cancel the task that came before
    _error: Exception | None = None

    def end(self, error: Exception) -> None:
        """Ends the scope with this error; later calls change nothing."""
        if self._error is None and not self._task.done():
            self._error = error
            self._task.cancel()

    def __enter__(self) -> "Scope":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._error is None:
            return
        ours = self._task.uncancel() <= self._cancelling
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise self._error from None


def scope_here(loop: asyncio.AbstractEventLoop | None = None) -> Scope:
    """Returns a scope of the running task. `loop`: the running loop, if the caller has it (asking for it
    costs a system call in Python 3.11)."""
    task = asyncio.current_task(loop)
    assert task is not None, "only a task can be ended"
    return Scope(task, task.cancelling())

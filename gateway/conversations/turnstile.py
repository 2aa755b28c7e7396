"""One turn at a time per (tenant, session), in the order of asking, within one process.

A session exists here only while somebody has its turn. A turn passes from hand to hand without ever being free, so
nobody can push in between.
"""

import asyncio
from collections import deque
from types import TracebackType

from gateway.errors import Unavailable

Session = tuple[str, str]
Line = deque[asyncio.Future[None]]


class Turnstile:
    """`waiting` counts those who wait, over all sessions. `max_waiting` bounds them per session; None: unbounded."""

    def __init__(self, max_waiting: int | None = None) -> None:
        self.waiting = 0
        self._max_waiting = max_waiting
        self._lines: dict[Session, Line] = {}

    def __len__(self) -> int:
        """How many sessions have a turn under way."""
        return len(self._lines)

    def turn(self, tenant: str, session: str) -> "Turn":
        """`async with` it: entering waits for the turn; raises Unavailable where too many wait already."""
        return Turn(self, (tenant, session))

    async def wait(self, session: Session) -> None:
        line = self._lines.get(session)
        if line is None:
            self._lines[session] = deque()
            return
        if self._max_waiting is not None and len(line) >= self._max_waiting:
            raise Unavailable("Too many turns of this session are waiting")
        place = asyncio.get_running_loop().create_future()
        line.append(place)
        self.waiting += 1
        mine = False
        try:
            await place
            mine = True
        finally:
            self.waiting -= 1
            if not mine:
                self._leave(session, line, place)

    def pass_on(self, session: Session) -> None:
        """To the next in line, or the session is forgotten."""
        line = self._lines[session]
        while line:
            place = line.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._lines[session]

    def _leave(self, session: Session, line: Line, place: "asyncio.Future[None]") -> None:
        """Cancelled while waiting; or just after the turn was handed over, and then it goes to the next."""
        if place.cancelled():
            if place in line:
                line.remove(place)
        else:
            self.pass_on(session)


class Turn:
    """One wait for a session's turn, and the turn."""

    __slots__ = ("_session", "_turnstile")

    def __init__(self, turnstile: Turnstile, session: Session) -> None:
        self._turnstile = turnstile
        self._session = session

    async def __aenter__(self) -> None:
        await self._turnstile.wait(self._session)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._turnstile.pass_on(self._session)

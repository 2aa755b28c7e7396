"""Usage in this process: gone with it."""

from collections.abc import Sequence

import msgspec

from sluice.usage import Figures, Row, Subject, UsageBatch


class MemoryUsage:
    """Days by their name."""

    def __init__(self) -> None:
        self._days: dict[str, dict[Subject, Figures]] = {}
        self._latest: dict[str, int] = {}

    async def add(self, batch: UsageBatch) -> None:
        if batch.number <= self._latest.get(batch.writer, -1):
            return
        self._latest[batch.writer] = batch.number
        rows = self._days.setdefault(batch.day, {})
        for subject, figures in batch.rows:
            if (known := rows.get(subject)) is not None:
                known.add(figures)
            else:
                rows[subject] = msgspec.structs.replace(figures)

    async def of_day(self, day: str) -> Sequence[Row]:
        return [(subject, msgspec.structs.replace(figures)) for subject, figures in self._days.get(day, {}).items()]

    async def prune(self, before: str) -> None:
        for day in [day for day in self._days if day < before]:
            del self._days[day]

    async def close(self) -> None:
        pass

"""Usage in this process: gone with it."""

from collections.abc import Sequence

import msgspec

from sluice.usage import Figures, Row, Subject, UsageBatch


class MemoryUsage:
    """Days and dimensions by their names."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, str], dict[Subject, Figures]] = {}
        self._latest: dict[str, int] = {}

    async def add(self, batch: UsageBatch) -> None:
        if batch.number <= self._latest.get(batch.writer, -1):
            return
        self._latest[batch.writer] = batch.number
        rows = self._days.setdefault((batch.day, batch.dimension), {})
        for subject, figures in batch.rows:
            if (known := rows.get(subject)) is not None:
                known.add(figures)
            else:
                rows[subject] = msgspec.structs.replace(figures)

    async def of_day(self, day: str, dimension: str = "") -> Sequence[Row]:
        rows = self._days.get((day, dimension), {})
        return [(subject, msgspec.structs.replace(figures)) for subject, figures in rows.items()]

    async def prune(self, before: str, dimension: str = "") -> None:
        for day, of in [place for place in self._days if place[0] < before and dimension in ("", place[1])]:
            del self._days[day, of]

    async def close(self) -> None:
        pass

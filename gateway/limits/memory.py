"""Buckets in this process's memory. A full bucket is the same as an unknown one, so full ones are forgotten."""

import time
from collections.abc import Callable, Sequence

from gateway.limits import Claim, Verdict
from gateway.limits.bucket import SECOND, Bucket, settle, take

SWEEP = 1024
"""Buckets at least between two sweeps; the work is spread over as many new buckets as were left by the last one."""


class MemoryStore:
    """`clock` gives seconds and may step; it need not be the time of day."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = SWEEP

    def __len__(self) -> int:
        return len(self._buckets)

    def _now(self) -> int:
        return int(self._clock() * SECOND)

    async def take(self, claims: Sequence[Claim]) -> Verdict:
        now = self._now()
        verdict, changed = take(self._buckets, claims, now)
        self._keep(changed, now)
        return verdict

    async def settle(self, claims: Sequence[Claim]) -> None:
        now = self._now()
        self._keep(settle(self._buckets, claims, now), now)

    async def close(self) -> None:
        self._buckets.clear()

    def _keep(self, changed: dict[str, Bucket], now: int) -> None:
        self._buckets.update(changed)
        if len(self._buckets) >= self._sweep_at:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.full_at > now}
            self._sweep_at = max(SWEEP, 2 * len(self._buckets))

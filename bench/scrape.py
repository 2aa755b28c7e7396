"""How long a scrape takes where several workers have used several hundred aliases: python bench/scrape.py
[WORKERS] [ALIASES]

The workers' counters are filled by this process, and the supervisor's part is timed: the first text, one
after nothing has changed, and one after every series of every worker has. Milliseconds of processor time, the
best of several.
"""

import os
import random
import sys
import time
from collections.abc import Callable

from sluice.telemetry.board import Board, BoardSlot
from sluice.telemetry.merged import MergedExposition
from sluice.telemetry.metrics import CallSeries, Metrics, TargetSeries
from sluice.telemetry.table import END_REASONS

FRONTEND = "openai"


class Worker:
    """Counts in a slot what calls of all aliases count."""

    def __init__(self, board: Board, slot: int, aliases: int) -> None:
        self.metrics = metrics = Metrics("1", BoardSlot(board, slot, slot))
        self.chance = random.Random(slot)
        self.calls = [CallSeries(metrics, FRONTEND, f"alias-{n}") for n in range(aliases)]
        self.gaps = [metrics.child("inter_token_seconds", f"alias-{n}") for n in range(aliases)]
        self.targets = [TargetSeries(metrics, f"upstream-{n % 50}", f"model-{n}") for n in range(aliases)]
        self.answered = [
            metrics.child("answered", f"alias-{n}", f"upstream-{n % 50}", f"model-{n}", "1")
            for n in range(aliases)
        ]

    def call(self) -> None:
        """A call of each alias."""
        chance = self.chance
        for call, gaps, target, answered in zip(
            self.calls, self.gaps, self.targets, self.answered, strict=True
        ):
            call.requests["2xx"].value += 1
            call.ends[chance.choice(END_REASONS[:3])].value += 1
            first = chance.expovariate(3)
            call.first_token.observe(first)
            target.first_token.observe(first)
            call.duration.observe(chance.expovariate(0.2))
            call.request_overhead.observe(chance.expovariate(1e4))
            for _ in range(5):
                gaps.observe(chance.expovariate(30))
            target.per_token.observe(chance.expovariate(30))
            target.attempts["ok"].value += 1
            for kind in ("input", "output"):
                target.reported[kind].value += chance.randrange(1000)
            target.cost.value += chance.random()
            answered.value += 1


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e3


def main(workers: int = 8, aliases: int = 500) -> None:
    board = Board(1 + 4 * workers)
    Metrics("1", BoardSlot(board, 0))
    several = [Worker(board, slot, aliases) for slot in range(1, workers + 1)]
    for worker in several:
        for _ in range(10):
            worker.call()
    slots = range(workers + 1)
    merged = MergedExposition(board, lambda: [os.getpid()])
    print(f"first: {timed(lambda: merged.text(slots, slots)):.1f}")
    print(f"unchanged: {min(timed(lambda: merged.text(slots, slots)) for _ in range(7)):.1f}")
    changed = []
    for _ in range(7):
        for worker in several:
            worker.call()
        changed.append(timed(lambda: merged.text(slots, slots)))
    print(f"all changed: {min(changed):.1f} (median {sorted(changed)[3]:.1f})")
    print(f"bytes: {len(merged.text(slots, slots))}, cells: {board.used}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

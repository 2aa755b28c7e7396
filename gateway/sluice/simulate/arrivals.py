"""Generated arrivals, one by one as they are needed, so that a million of them take no memory."""

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from sluice.simulate.scenario import Arrivals, Dice, draw
from sluice.simulate.traces import MAX_TOKENS, Arrival

Pattern = Literal["even", "poisson", "bursts", "diurnal"]
PATTERNS: Mapping[str, Pattern] = {
    "even": "even",
    "poisson": "poisson",
    "bursts": "bursts",
    "diurnal": "diurnal",
}


class Drawn:
    """Draws names by their weights. If all weights are zero, each is equally likely."""

    def __init__(self, weights: Mapping[str, float], dice: Dice) -> None:
        total = sum(weights.values())
        self._names = [name for name, weight in weights.items() if weight or not total] or [""]
        self._sums = list(
            itertools.accumulate(weights[name] or 1.0 for name in self._names if name in weights)
        ) or [1.0]
        self._dice = dice

    def __call__(self) -> str:
        if len(self._names) == 1:
            return self._names[0]
        return self._names[
            bisect.bisect(self._sums, self._dice.random() * self._sums[-1], hi=len(self._names) - 1)
        ]


class Filling:
    """Completes arrivals with the alias, key and tokens of the scenario."""

    def __init__(self, of: Arrivals, aliases: Sequence[str], keys: Sequence[str], dice: Dice) -> None:
        self._of = of
        self._alias = Drawn(of.aliases or dict.fromkeys(aliases, 1.0), dice)
        self._key = Drawn(of.keys or dict.fromkeys(keys, 1.0), dice)
        self._dice = dice

    def __call__(self, arrival: Arrival) -> None:
        of, dice = self._of, self._dice
        arrival.alias = arrival.alias or self._alias()
        arrival.key = arrival.key or self._key()
        arrival.input = arrival.input or min(MAX_TOKENS, max(1, round(draw(of.input, dice))))
        arrival.output = arrival.output or min(MAX_TOKENS, max(1, round(draw(of.output, dice))))
        arrival.max_tokens = arrival.max_tokens or of.max_tokens or 0
        if arrival.max_tokens:
            arrival.output = min(arrival.output, arrival.max_tokens)
        if not arrival.session and of.sessions is not None:
            arrival.session = f"s{dice.randrange(of.sessions)}"
        if of.streamed < 1.0 and arrival.stream:
            arrival.stream = dice.random() < of.streamed


def generated(pattern: Pattern, of: Arrivals, fill: Filling, dice: Dice) -> Iterator[Arrival]:
    """Yields arrivals by their time, up to `lasts`."""
    for at in _TIMES[pattern](of, dice):
        if at >= of.lasts:
            return
        arrival = Arrival(at)
        fill(arrival)
        yield arrival


def _even(of: Arrivals, dice: Dice) -> Iterator[float]:
    for number in itertools.count():
        yield number / of.rate


def _poisson(of: Arrivals, dice: Dice) -> Iterator[float]:
    at = 0.0
    while True:
        at += dice.expovariate(of.rate)
        yield at


def _bursts(of: Arrivals, dice: Dice) -> Iterator[float]:
    """A Poisson process whose rate is switched between two by another one (Fischer and Meier-Hellstern
    1993)."""
    at, in_burst = 0.0, False
    until = dice.expovariate(1 / max(of.burst_every, 1e-9))
    while True:
        step = dice.expovariate(of.rate * (of.burst_factor if in_burst else 1.0))
        if at + step < until:
            at += step
            yield at
            continue
        at, in_burst = until, not in_burst  # memoryless: the rest of the step is drawn again
        until += dice.expovariate(1 / max(of.burst_lasts if in_burst else of.burst_every, 1e-9))


def _diurnal(of: Arrivals, dice: Dice) -> Iterator[float]:
    """The rate follows a sine from the average up; drawn by thinning (Lewis and Shedler 1979)."""
    highest, at = of.rate * (1 + of.swing), 0.0
    while True:
        at += dice.expovariate(highest)
        if dice.random() * (1 + of.swing) <= 1 + of.swing * math.sin(2 * math.pi * at / max(of.day, 1e-9)):
            yield at


_TIMES = {"even": _even, "poisson": _poisson, "bursts": _bursts, "diurnal": _diurnal}

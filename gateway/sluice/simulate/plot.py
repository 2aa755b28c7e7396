"""Draws a simulation as SVG: arrivals and their outcomes, open streams, the time to the first token, the
cost, and the number of replicas needed, each over time."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from sluice.simulate.driver import Simulated
from sluice.simulate.measured import percentile
from sluice.simulate.report import cores_over_time
from sluice.simulate.scenario import ReplicaModel

POINTS = 480
"""Maximum points of a line: each is the mean of several seconds if need be."""
LEFT, TOP, WIDTH, HEIGHT, GAP = 64, 28, 880, 110, 46
"""The geometry of panels in pixels; GAP is the distance between two."""
COLOURS = ("#1f6feb", "#d97706", "#b3261e")

Line = tuple[str, Sequence[float | None]]
"""Its name and its points; None: there is none."""


def draw_plot(simulated: Simulated, replica: ReplicaModel, path: str) -> None:
    """Writes the picture. Raises OSError."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in _picture(simulated, replica))


def _picture(simulated: Simulated, replica: ReplicaModel) -> Iterator[str]:
    end = int(simulated.seconds) + 1
    step = -(-end // POINTS)
    panels = list(_panels(simulated, replica, end, step))
    height = TOP + len(panels) * (HEIGHT + GAP)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 16} {height}" '
        'font-family="sans-serif" font-size="12">'
    )
    yield '<rect width="100%" height="100%" fill="#fff"/>'
    for number, (title, lines) in enumerate(panels):
        yield from _panel(TOP + number * (HEIGHT + GAP), title, lines, step, end)
    yield "</svg>"


def _panels(
    simulated: Simulated, replica: ReplicaModel, end: int, step: int
) -> Iterator[tuple[str, list[Line]]]:
    """Returns the title of each panel, and its lines: a point for each `step` seconds."""
    measured = simulated.measured

    def means(levels: Sequence[float]) -> list[float]:
        padded = [*levels[:end], *[0.0] * (end - len(levels))]
        return [sum(padded[at : at + step]) / len(padded[at : at + step]) for at in range(0, end, step)]

    yield (
        "requests a second, by arrival",
        [
            ("answered", means(measured.answered.levels())),
            ("429", means(measured.refused.levels())),
            ("failed", means(measured.failed.levels())),
        ],
    )
    yield "open streams", [("", means(measured.streams.levels()))]
    found: list[list[float]] = [[] for _ in range(0, end, step)]
    for at, first_token in zip(measured.first_token_at, measured.first_token, strict=True):
        found[min(int(at) // step, len(found) - 1)].append(first_token)
    for times in found:
        times.sort()
    yield (
        "seconds to the first token, by arrival",
        [
            (f"p{percent}", [percentile(times, percent) if times else None for times in found])
            for percent in (50, 95)
        ],
    )
    yield "US dollars an hour", [("", [3600 * cost for cost in means(measured.cost_over_time.levels())])]
    cores = cores_over_time(measured.requests.levels(), measured.token_rate.levels(), replica)
    yield (
        "cores in use, and replicas of one core that this needs",
        [
            ("cores", means(cores)),
            ("replicas", [max(1.0, math.ceil(mean / replica.load)) for mean in means(cores)]),
        ],
    )


def _panel(top: int, title: str, lines: Sequence[Line], step: int, end: int) -> Iterator[str]:
    highest = max((value for _, points in lines for value in points if value is not None), default=0.0)
    tick = tick_of(highest, 4)
    ceiling = max(tick, math.ceil(highest / tick) * tick)
    bottom = top + HEIGHT

    def y(value: float) -> float:
        return bottom - HEIGHT * value / ceiling

    def x(second: float) -> float:
        return LEFT + WIDTH * second / end

    yield f'<text x="{LEFT}" y="{top - 10}" font-weight="bold">{escape(title)}</text>'
    for number in range(round(ceiling / tick) + 1):
        at = y(number * tick)
        yield f'<path d="M{LEFT} {at:.1f}h{WIDTH}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number * tick:.6g}</text>'
    across = tick_of(end, 8)
    for number in range(int(end / across) + 1):
        second = number * across
        yield f'<text x="{x(second):.1f}" y="{bottom + 15}" text-anchor="middle">{second:g}s</text>'
    legend = LEFT + WIDTH
    for colour, (name, points) in zip(COLOURS, lines, strict=False):
        drawn = " ".join(
            f"{x(number * step):.1f},{y(value):.1f}"
            for number, value in enumerate(points)
            if value is not None
        )
        yield f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.3"/>'
        if name:
            yield f'<text x="{legend}" y="{top - 10}" fill="{colour}" text-anchor="end">{escape(name)}</text>'
            legend -= 12 + 7 * len(name)


def tick_of(highest: float, most: int) -> float:
    """Returns 1, 2 or 5 times a power of ten, at most `most` of which reach `highest`."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest / most))
    return next(power * times for times in (1, 2, 5, 10) if power * times * most >= highest)

"""A picture of a simulation: what came, what became of it, and how many streams were open. Needs
matplotlib."""

from typing import Any

from sluice.simulate.driver import Simulated

POINTS = 600


def draw_plot(simulated: Simulated, path: str) -> None:
    """Write the picture, in the format of the path's ending. Raises ImportError without matplotlib, OSError,
    ValueError."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = simulated.measured
    figure, (rates, streams) = pyplot.subplots(2, 1, sharex=True, figsize=(10, 6))
    end = int(simulated.seconds) + 1
    step = max(1, end // POINTS)
    for name, line in (
        ("answered", measured.answered),
        ("429", measured.refused),
        ("failed", measured.failed),
    ):
        _steps(rates, name, line.levels()[:end], step)
    rates.set_ylabel("requests/s, by arrival")
    rates.legend()
    _steps(streams, "streams", measured.streams.levels()[:end], step)
    streams.set_ylabel("open streams")
    streams.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _steps(axes: Any, name: str, levels: list[float], step: int) -> None:
    means = [sum(levels[at : at + step]) / len(levels[at : at + step]) for at in range(0, len(levels), step)]
    axes.plot([at * step for at in range(len(means))], means, label=name)

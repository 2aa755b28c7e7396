"""`sluice simulate`: simulates traffic through a configuration, in virtual time and without a gateway or
upstreams."""

import sys

import click

from sluice.commands.admin_api import fail
from sluice.commands.progress import Progress

GC_THRESHOLDS = (100_000, 20, 20)
"""Thresholds of the garbage collector, so that it runs seldom: simulated calls in flight are many objects, none of
which it could free."""


@click.command()
@click.argument("trace")
@click.option(
    "--config", "path", metavar="PATH", help="Default: as for serve. Environment variables may be unset."
)
@click.option(
    "--scenario",
    "scenario_path",
    metavar="FILE",
    help="A file of arrivals, clients, upstreams and replicas: docs/simulate.md.",
)
@click.option(
    "--alias",
    metavar="ALIAS",
    help="The alias of all calls. Default: as in the trace, or a random one for each.",
)
@click.option(
    "--rate",
    metavar="RATE",
    help="Rate of a generated trace, such as 50/s. Default: the scenario's, or 10/s.",
)
@click.option(
    "--for",
    "lasts",
    metavar="TIME",
    help="How long arrivals are generated, such as 10m. Default: the scenario's, or 10m.",
)
@click.option(
    "--replicas", type=click.IntRange(1, 1000), help="Processes of the gateway, which share their limits."
)
@click.option(
    "--seed",
    type=int,
    help="Seed of random numbers; the same seed gives the same run. Default: the scenario's, or 1.",
)
@click.option(
    "--unit",
    type=click.Choice(["s", "ms"]),
    default="s",
    show_default=True,
    help="Unit of times in the trace that are plain numbers.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0.001, max=10_000),
    default=1.0,
    show_default=True,
    help="Factor for the speed of arrivals.",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    help="Also write the figures as JSON; - writes them in place of the text.",
)
@click.option(
    "--plot",
    "plot_path",
    metavar="FILE.svg",
    help="Also draw rates, latency, cost and needed replicas over time.",
)
def simulate(
    *,
    trace: str,
    path: str | None,
    scenario_path: str | None,
    alias: str | None,
    rate: str | None,
    lasts: str | None,
    replicas: int | None,
    seed: int | None,
    unit: str,
    speed: float,
    json_path: str | None,
    plot_path: str | None,
) -> None:
    """Replay TRACE against modelled upstreams, through the gateway's own routing, limits, queues and
    breakers.

    TRACE is a file (CSV, JSON lines, or the gateway's own call records), or a generated pattern: even,
    poisson, bursts, diurnal. Prints latencies, refusals, cost, and how many replicas the traffic needs.
    """
    import gc
    import json

    from sluice.simulate.driver import simulate as run
    from sluice.simulate.plot import draw_plot
    from sluice.simulate.prepare import SimulationOptions, prepared
    from sluice.simulate.report import document, lines_of

    if plot_path is not None and not plot_path.endswith(".svg"):
        fail(f"sluice: --plot {plot_path}: it is an SVG file, name it so: load.svg")
    options = SimulationOptions(
        trace,
        path,
        scenario_path,
        alias=alias,
        rate=rate,
        lasts=lasts,
        replicas=replicas,
        seed=seed,
        unit="ms" if unit == "ms" else "s",
        speed=speed,
    )
    try:
        with Progress(f"reading {trace}"):
            ready = prepared(options)
    except ValueError as error:
        fail(f"sluice: {error}")
    for note in ready.notes:
        click.echo(f"note: {note}", err=True)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with Progress("simulating") as shown:

        def progress(calls: int, seconds: float) -> None:
            shown.doing = f"{calls} calls, {seconds:.0f} s simulated"

        simulated = run(
            ready.loaded,
            ready.scenario,
            ready.arrivals,
            began=ready.began,
            observed=ready.observed,
            progress=progress,
        )
        shown.doing = "adding up"
        found = document(simulated, ready.scenario)
    text = json.dumps(found, indent=2)
    if json_path == "-":
        click.echo(text)
    else:
        for line in lines_of(found):
            click.echo(line)
        if json_path is not None:
            with open(json_path, "w", encoding="utf-8") as file:
                file.write(text + "\n")
    if plot_path is not None:
        with Progress(f"drawing {plot_path}"):
            draw_plot(simulated, ready.scenario.replica, plot_path)
    if simulated.crashes:
        sys.exit(1)

"""From a command line to what is simulated: configuration, scenario, arrivals."""

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from sluice.config.loader import Loaded, check, load, locate
from sluice.config.problems import suggestion
from sluice.config.types import covering
from sluice.config.units import Rate, Seconds
from sluice.errors import ConfigError
from sluice.runtime.snapshot import names_of
from sluice.simulate.arrivals import PATTERNS, Filling, generated
from sluice.simulate.scenario import Scenario, dice_of, load_scenario
from sluice.simulate.traces import Arrival, RecordedAttempt, Trace, Unit, read_trace

PLACEHOLDER = "not-set-for-a-simulation-0123456789"
DAY = 86400
_NOT_SET = re.compile(r"environment variable (\w+) is not set")

T = TypeVar("T")


class SimulationOptions(msgspec.Struct, frozen=True):
    """The options of a simulation. `trace`: a file, or the name of a pattern. `alias`: what all calls of a
    file are for.

    Other options that are None are as the scenario has them.
    """

    trace: str
    config: str | None = None
    scenario: str | None = None
    rate: str | None = None
    lasts: str | None = None
    replicas: int | None = None
    seed: int | None = None
    alias: str | None = None
    unit: Unit = "s"
    speed: float = 1.0


class Prepared(msgspec.Struct, frozen=True):
    """`began`: seconds since the epoch at the first arrival. `notes`: what a reader of the figures should
    know."""

    loaded: Loaded
    scenario: Scenario
    arrivals: Iterator[Arrival]
    began: float
    observed: Sequence[RecordedAttempt]
    notes: Sequence[str]


def prepared(options: SimulationOptions) -> Prepared:
    """Raises ConfigError, OSError; ValueError for an option that cannot be read."""
    if math.isnan(options.speed):
        raise ValueError("--speed: expected a number")
    notes: list[str] = []
    loaded = _loaded(locate(options.config), notes)
    scenario = _scenario(options)
    _check_names(scenario, loaded)
    aliases = (
        [options.alias]
        if options.alias
        else [name for name in loaded.config.aliases if not name.endswith("*")]
    )
    keys = [key.id for key in loaded.config.keys if key.enabled]
    dice = dice_of(scenario.seed, "arrivals")
    arrivals = msgspec.structs.replace(scenario.arrivals, aliases={}) if options.alias else scenario.arrivals
    fill = Filling(arrivals, aliases, keys, dice)
    today = float(int(time.time()) // DAY * DAY)  # budgets and prices go by the calendar
    if options.trace in PATTERNS:
        return Prepared(
            loaded, scenario, generated(PATTERNS[options.trace], arrivals, fill, dice), today, (), notes
        )
    if not Path(options.trace).exists():
        raise ValueError(f"there is no file {options.trace}; generated traces are {', '.join(PATTERNS)}")
    trace = read_trace(options.trace, unit=options.unit)
    _complete(trace, scenario, loaded, fill=fill, options=options, notes=notes)
    return Prepared(loaded, scenario, iter(trace.arrivals), trace.began or today, trace.attempts, notes)


def _scenario(options: SimulationOptions) -> Scenario:
    scenario = load_scenario(options.scenario) if options.scenario is not None else Scenario()
    arrivals = scenario.arrivals
    if options.rate is not None:
        arrivals = msgspec.structs.replace(arrivals, rate=_option("--rate", Rate.parse, options.rate))
    if options.lasts is not None:
        arrivals = msgspec.structs.replace(arrivals, lasts=_option("--for", Seconds.parse, options.lasts))
    if options.speed != 1.0:
        arrivals = msgspec.structs.replace(arrivals, rate=Rate(arrivals.rate * options.speed))
    scenario = msgspec.structs.replace(scenario, arrivals=arrivals)
    if options.replicas is not None:
        scenario = msgspec.structs.replace(scenario, replicas=options.replicas)
    return scenario if options.seed is None else msgspec.structs.replace(scenario, seed=options.seed)


def _option(name: str, parse: Callable[[object], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _loaded(path: str, notes: list[str]) -> Loaded:
    """The configuration; variables that are not set are no hindrance: nothing is sent anywhere."""
    environ = dict(os.environ)
    problems = check(path, environ=environ).problems
    missing = {found[1] for problem in problems if (found := _NOT_SET.search(problem.message))}
    if missing:
        environ |= _stand_ins(path, environ, sorted(missing))
        notes.append(f"not set, so a placeholder stands for it: {', '.join(sorted(missing))}")
    return _without_servers(load(path, environ=environ), notes)


def _stand_ins(path: str, environ: dict[str, str], missing: Sequence[str]) -> dict[str, str]:
    """A value for each of these variables with which the configuration has fewer problems: an address of a store, a URL
    or a digest where one is wanted. A number only where it does not matter here: a limit that is not known must not be
    made up."""
    found = dict.fromkeys(missing, PLACEHOLDER)
    problems = set(check(path, environ=environ | found).problems)
    for number, name in enumerate(missing, 1):
        digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
        for text in ("memory", "http://127.0.0.1:9", digest, str(number)) if problems else ():
            left = set(check(path, environ=environ | found | {name: text}).problems)
            of_the_server = all(problem.path.startswith("server.") for problem in problems - left)
            if len(left) < len(problems) and (of_the_server or not text.isdigit()):
                found[name], problems = text, left
    return found


def _without_servers(loaded: Loaded, notes: list[str]) -> Loaded:
    """The configuration with each upstream as one, whatever servers it consists of.

    The names of servers are looked up, their metrics read and their pickers asked, and virtual time has no
    network.
    """
    upstreams = loaded.config.upstreams
    several = [name for name, upstream in upstreams.items() if upstream.pods or upstream.picker]
    if not several:
        return loaded
    notes.append(f"modelled as one each, without their `pods` or `picker`: {', '.join(sorted(several))}")
    as_one = {name: msgspec.structs.replace(upstreams[name], pods=None, picker=None) for name in several}
    config = msgspec.structs.replace(loaded.config, upstreams={**upstreams, **as_one})
    return msgspec.structs.replace(loaded, config=config)


def _check_names(scenario: Scenario, loaded: Loaded) -> None:
    """Raises ConfigError for names of the scenario that the configuration has not."""
    config = loaded.config
    labels = {f"{upstream}/{model}" for upstream, model in names_of(loaded).targets}
    known: list[tuple[str, Iterable[str], Iterable[str]]] = [
        ("upstreams", scenario.upstreams, {*config.upstreams, *labels}),
        ("arrivals.aliases", scenario.arrivals.aliases, config.aliases),
        ("arrivals.keys", scenario.arrivals.keys, [key.id for key in config.keys]),
        ("names", scenario.names.values(), config.aliases),
    ]
    problems = [
        f"scenario: {at}: the configuration has no {name}{suggestion(name, there)}"
        for at, names, there in known
        for name in names
        if name not in there and not (at.endswith("aliases") and covering(config.aliases, name))
    ]
    if problems:
        raise ConfigError(problems)


def _complete(
    trace: Trace,
    scenario: Scenario,
    loaded: Loaded,
    *,
    fill: Filling,
    options: SimulationOptions,
    notes: list[str],
) -> None:
    """Fill in what the trace does not say, by the scenario. Raises ConfigError for models that no alias
    stands for."""
    config, keys = loaded.config, {key.id for key in loaded.config.keys}
    unknown: set[str] = set()
    strangers: set[str] = set()
    for arrival in trace.arrivals:
        arrival.at /= options.speed
        arrival.alias = options.alias or scenario.names.get(arrival.alias, arrival.alias)
        if (
            arrival.alias
            and arrival.alias not in config.aliases
            and not covering(config.aliases, arrival.alias)
        ):
            unknown.add(arrival.alias)
        if arrival.key and arrival.key not in keys:
            strangers.add(arrival.key)
        fill(arrival)
    if unknown:
        some = ", ".join(sorted(unknown)[:5])
        hint = "say which are meant by --alias, or by `names` of a scenario"
        raise ConfigError([f"{options.trace}: names models that are no alias: {some}; {hint}"])
    if strangers:
        notes.append(
            f"{len(strangers)} key(s) of the trace are not in the configuration: their calls have no limits of a key"
        )
    if trace.skipped:
        notes.append(f"{trace.skipped} line(s) of the trace are no call")

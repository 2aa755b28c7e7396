"""Reads a file of prices: as strictly as the configuration, with the same messages."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from sluice.config.problems import Path as KeyPath
from sluice.config.problems import Report
from sluice.config.types import LongPrompt, Price
from sluice.config.validation import INVALID, Walk, type_info
from sluice.config.yamltext import TextPosition, YamlError, read
from sluice.errors import ConfigError
from sluice.files import read_file, reason_of
from sluice.pricing.prices import PriceList, since_of

BESIDE = Path(__file__).parents[1] / "prices.yaml"
IN_A_CLONE = Path(__file__).parents[3] / "config" / "prices.yaml"
MAX_FILE = 4 << 20


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: dict[str, Price | tuple[Price, ...]]
    snapshots: bool = False


def read_prices(path: Path) -> tuple[PriceList, Report]:
    """Returns the prices in a file, and its problems. Never raises for anything in the file."""
    report = Report(str(path))
    try:
        root = read(read_file(path, MAX_FILE))
    except YamlError as error:
        report.problem((), error.message, error.at)
        return PriceList(), report
    except OSError as error:
        report.problem((), f"cannot be read: {reason_of(error)}", TextPosition())
        return PriceList(), report
    walk = Walk(report)
    found = walk.value(root, type_info(_File))
    if found is INVALID:
        return PriceList(), report
    for section_path, section in walk.sections:
        if isinstance(section, Price):
            check_price(report, section_path, section)
    if isinstance(found.models, dict):
        check_order(report, ("models",), found.models)
    return PriceList({} if report.problems else listed(found.models), found.snapshots is True), report


def bundled_prices() -> PriceList:
    """Returns the table that comes with the gateway, in its package or in a clone. It is read again only if
    the file has changed. Raises ConfigError if it is broken."""
    path = BESIDE if BESIDE.is_file() else IN_A_CLONE
    try:
        stat = path.stat()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {reason_of(error)}"]) from None
    return _bundled(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(1)
def _bundled(path: Path, changed: int, size: int) -> PriceList:
    """`changed` and `size` are the file's, and only identify its state."""
    found, report = read_prices(path)
    if report.problems:
        raise ConfigError([str(problem) for problem in sorted(report.problems)])
    return found


def listed(models: Mapping[str, Price | tuple[Price, ...]]) -> dict[str, tuple[Price, ...]]:
    """Returns all entries of each model."""
    return {name: (prices,) if isinstance(prices, Price) else prices for name, prices in models.items()}


def check_price(report: Report, path: KeyPath, price: Price) -> None:
    """Reports a `since` that is not a date, and two rates for prompts of the same length."""
    if isinstance(price.long_prompts, tuple):
        lengths = [rates.above for rates in price.long_prompts if isinstance(rates, LongPrompt)]
        for index, length in enumerate(lengths):
            if length in lengths[:index]:
                report.problem((*path, "long_prompts", index), "other rates hold above the same length")
    if isinstance(price.since, str):
        try:
            since_of(price.since)
        except ValueError as error:
            report.problem((*path, "since"), str(error))


def check_order(report: Report, path: KeyPath, models: Mapping[str, Any]) -> None:
    """Reports several entries of one model that begin on the same day, and models without any."""
    for name, prices in models.items():
        if prices == ():
            report.problem((*path, name), "needs at least one price")
        if not isinstance(prices, tuple):
            continue
        days = [price.since for price in prices if isinstance(price, Price)]
        for index, day in enumerate(days):
            if day in days[:index]:
                report.problem((*path, name, index), "another price holds from the same day on")

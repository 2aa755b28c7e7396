"""`sluice status --watch`: prints the figures of the running gateway, one line per second."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from sluice.commands.admin_api import fail, live_events

TITLES = (
    "UTC",
    "STATE",
    "IN FLIGHT",
    "REQUESTS",
    "CALLS 5M",
    "ERRORS",
    "RETRIED",
    "P50",
    "P95",
    "TOKENS/S",
    "USD TODAY",
)
LINES_PER_TITLE = 20
"""Lines after which the titles are printed again."""


def watch(url: str | None, path: str | None) -> None:
    """Print until the stream ends (a reload, a restart), then follow the next stream, until there is none."""
    number, before = 0, -1
    while number > before:
        before = number
        for found in _overviews(url, path):
            if number % LINES_PER_TITLE == 0:
                click.echo(_line(TITLES))
            click.echo(_line(row(found)))
            number += 1
    fail("sluice: the gateway sends no figures")


def _overviews(url: str | None, path: str | None) -> Iterator[Any]:
    for name, data in live_events(url, path, "/admin/overview/live"):
        if name == "overview":
            yield data
        elif name == "problem":
            fail(f"sluice: {data['error']}")


def row(found: Any) -> tuple[str, ...]:
    """Returns the figures of one event, in the order of TITLES. Times in seconds; "-": unknown."""
    recent = found["recent"] or {}
    figures = [recent.get(name) for name in ("calls", "errors", "retried")]
    times = [recent.get(name) for name in ("first_token_p50", "first_token_p95", "tokens_per_second")]
    at = datetime.fromtimestamp(found["now"], UTC).strftime("%H:%M:%S")
    counts = [found["in_flight"], sum(found["requests"].values()), *figures]
    return at, found["status"], *(_figure(value) for value in (*counts, *times, found["cost_today_usd"]))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _line(texts: tuple[str, ...]) -> str:
    return "  ".join(text.rjust(len(title) + 1) for text, title in zip(texts, TITLES, strict=True)).rstrip()

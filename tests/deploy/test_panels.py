"""Every expression of every panel, recording rule and alert, over a night in which everything fails (faulty_night.py):
a real Prometheus that scrapes a gateway of one and of three workers has something else for it than nothing
and zeros, the faults are to be seen in it, and every alert fires. What cannot is named here, with the reason.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.faulty_night import Seen, a_night
from tests.deploy.prometheus_server import PROMETHEUS, ask_range, filled
from tests.deploy.test_prometheus import ALERTS, ALL, DASHBOARDS, queries

SECONDS = 90.0
STEP = 1.0
WINDOW = "12s"
"""$__rate_interval."""
NO_ISSUER = "keys come from the configuration, none from an issuer"
NO_TLS = "the listener has no certificate"
LOG_IS_READ = "its log is read"

QUIET: Mapping[str, str] = {"workers: Log lines dropped A": LOG_IS_READ}
"""Panels with nothing but zeros, and why."""
SILENT: Mapping[str, str] = {
    "SluiceOldestStream": "no stream lasts for an hour",
    "SluiceGuessing": "it takes 1,500 guesses within five minutes",
    "SluiceKeySet": NO_ISSUER,
    "SluiceLimitsForgotten": "the limits are in Redis, which forgets none",
    "SluiceConnectionsFull": "it takes 9,000 connections",
    "SluiceLogLost": LOG_IS_READ,
    "SluiceCertificate": NO_TLS,
}
"""Alerts that do not fire, and why."""
UNSEEN: Mapping[str, str] = {"sluice_jwks_fetches_total": NO_ISSUER}
"""Metrics of alerts that have no series, and why."""
ONE_PROCESS: Mapping[str, str] = {
    "workers: Workers started again in an hour A": "there are no workers",
    "SluiceRestarts": "the one process is the gateway",
    "sluice_worker_restarts_total": "there are no workers",
}
"""Further ones of the three where there is one process."""
OF_THE_MACHINE = {"SluiceLoopLate"}
"""Fires where a machine is busy with other things for long."""

LINES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "providers: Attempts by outcome A": (
        {"upstream": "openai", "outcome": "server_error"},
        {"upstream": "openai", "outcome": "truncated"},
        {"upstream": "anthropic", "outcome": "bad_credentials"},
        {"upstream": "gone", "outcome": "connect_error"},
    ),
    "providers: Changes of breakers in five minutes A": (
        {"upstream": "openai", "state": "open"},
        {"upstream": "gone", "state": "open"},
    ),
    "providers: Failovers A": ({"from": "openai/gpt-5-mini", "cause": "breaker_open"},),
    "providers: Recoveries of cut streams A": ({"alias": "chat", "outcome": "ok"},),
    "callers: Refused by limits A": ({"resource": "budget"}, {"resource": "streams"}),
    "callers: Refused credentials A": ({"reason": "unknown_key"},),
    "callers: Store errors A": (
        {"store": "limits", "reason": "oom"},
        {"store": "limits", "reason": "connection"},
        {"store": "usage", "reason": "connection"},
        {"store": "keys", "reason": "connection"},
        {"store": "conversations", "reason": "connection"},
    ),
    "overview: Requests by status A": ({"code": "2xx"}, {"code": "4xx"}, {"code": "5xx"}),
    "overview: How streams end A": ({"reason": "done"}, {"reason": "client_gone"}),
    "workers: Call records, by sink and what became of them A": (
        {"sink": "file", "result": "delivered"},
        {"sink": "hook", "result": "dropped"},
    ),
    "workers: Reloads in an hour A": ({"result": "invalid"}, {"result": "ok"}),
}
"""Where the faults of the night are to be seen: lines that are not zero all the time."""

Found = Sequence[Mapping[str, Any]]


def asked(seen: Seen, expr: str) -> Found:
    """The series of the whole night."""
    return ask_range(seen.server, filled(expr, WINDOW), seen.start, seen.end, STEP)


def numbers(found: Found) -> list[float]:
    """All values that are one."""
    values = (float(value) for series in found for _, value in series["values"])
    return [value for value in values if math.isfinite(value)]


def has_line(found: Found, labels: Mapping[str, str]) -> bool:
    return any(numbers([series for series in found if labels.items() <= series["metric"].items()]))


def selectors(expr: str) -> set[str]:
    """What is read: each `metric{labels}`."""
    return set(re.findall(r"\b(?:sluice[_:]|process_)[\w:]+(?:\{[^}]*\})?", expr))


def of_alerts(names: Iterable[str]) -> set[str]:
    return set(names) & set(ALERTS)


def beyond_their_axis(found: Mapping[str, Found]) -> list[str]:
    """Panels with values that their axis, from `min` to `max`, has no place for."""
    beyond = []
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            axis = panel["fieldConfig"]["defaults"]
            low, high = axis.get("min", -math.inf), axis.get("max", math.inf)
            names = [f"{file.stem}: {panel['title']} {target['refId']}" for target in panel["targets"]]
            beyond += [name for name in names if any(not low <= it <= high for it in numbers(found[name]))]
    return beyond


def test_the_lists_name_what_there_is() -> None:
    names = {name for name, _ in queries()}
    assert {*QUIET, *SILENT, *LINES, *OF_THE_MACHINE} <= names
    assert of_alerts(QUIET) == set()
    assert of_alerts(SILENT) == set(SILENT)
    assert {name for name in ONE_PROCESS if not name.startswith("sluice_")} <= names


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
@pytest.mark.skipif(os.environ.get("SLUICE_TEST_DEPLOY") != "1", reason="make test-deploy")
@pytest.mark.parametrize("workers", [1, 3])
async def test_each_panel_rule_and_alert_sees_a_bad_night(workers: int, tmp_path: Path) -> None:
    here = ONE_PROCESS if workers == 1 else {}
    async with a_night(workers, SECONDS, tmp_path / "calls.jsonl") as seen:
        found = {name: asked(seen, expr) for name, expr in queries()}  # raises if one is not answered
        recorded = {rule["record"]: asked(seen, rule["record"]) for rule in ALL if "record" in rule}
        firing = {series["metric"]["alertname"] for series in asked(seen, "ALERTS")}
        read = {selector for rule in ALL for selector in selectors(rule["expr"])}
        unseen = {selector.partition("{")[0] for selector in read if not asked(seen, selector)}

    quiet = {name for name in found if not any(numbers(found[name]))} - set(ALERTS)
    assert quiet == (set(QUIET) | {name for name in here if ": " in name})
    assert [name for name in recorded if not any(numbers(recorded[name]))] == []
    assert set(ALERTS) - firing - OF_THE_MACHINE == of_alerts({**SILENT, **here})
    assert unseen == set(UNSEEN) | {name for name in here if name.startswith("sluice_")}
    assert [
        (name, labels) for name, of in LINES.items() for labels in of if not has_line(found[name], labels)
    ] == []
    assert beyond_their_axis(found) == []

"""The script that holds the simulation against a running gateway: what is near enough, and that each of its
scenarios runs."""

import pytest

from scripts.simulate_check import cases, differences, in_virtual_time, trace_of


def test_figures_may_differ_by_ten_percent_or_by_what_is_chance() -> None:
    simulated = {"ok": 95.0, "429": 5.0, "TTFT p50": 0.42, "cost $": 1.2}
    measured = {"ok": 93.0, "429": 7.0, "TTFT p50": 0.40, "cost $": 1.0}
    found = {name: near for name, _, near in differences(simulated, measured, 100)}
    assert found == {"ok": True, "429": True, "TTFT p50": True, "cost $": False}
    assert not all(near for *_, near in differences({"429": 5.0}, {"429": 8.0}, 100))


@pytest.mark.parametrize("name", cases(1.0))
def test_each_scenario_runs_in_virtual_time(name: str) -> None:
    case = cases(20.0)[name]
    figures = in_virtual_time(case, trace_of(case, 20.0, 1), 1)
    assert figures["ok"] > 100
    assert figures["other"] == 0

"""Servers of an upstream that is several: what is read of their metrics, and which of them a call goes to."""

import pytest

from sluice.routing.pods import Figures, figures_in

VLLM = """# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="org/a} b"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:num_requests_running{engine="0",model_name="org/a} b"} 12.0
vllm:kv_cache_usage_perc{engine="0",model_name="org/a} b"} 0.25
"""
SGLANG = """sglang:num_running_reqs{model_name="m"} 7.0
sglang:num_queue_reqs{model_name="m"} 2.0
sglang:token_usage{model_name="m"} 0.5
"""


@pytest.mark.parametrize(("body", "figures"), [
    (VLLM, Figures(3, 12, 0.25)),
    (VLLM.replace("kv_cache", "gpu_cache"), Figures(3, 12, 0.25)),
    (VLLM + VLLM.replace('engine="0"', 'engine="1"').replace("0.25", "0.75"), Figures(6, 24, 0.75)),
    (VLLM.replace("\n", "\r\n"), Figures(3, 12, 0.25)),
    (VLLM.replace("3.0", "3.0 1700000000000"), Figures(3, 12, 0.25)),
    (SGLANG, Figures(2, 7, 0.5)),
    ("vllm:num_requests_waiting 1\nvllm:num_requests_running 2", Figures(1, 2)),
    ("vllm:num_requests_waiting 1\nvllm:num_requests_running 2\nvllm:kv_cache_usage_perc 7", Figures(1, 2)),
    ("", None),
    ("<html>not found</html>", None),
    ("vllm:num_requests_waiting 1\n", None),
    ("vllm:num_requests_waiting NaN\nvllm:num_requests_running 2", None),
    ("vllm:num_requests_waiting -1\nvllm:num_requests_running 2", None),
    ("vllm:num_requests_waiting +Inf\nvllm:num_requests_running 2", None),
    ("vllm:num_requests_waiting 1e300\nvllm:num_requests_running 2", None),
    ('vllm:num_requests_waiting{a="\nvllm:num_requests_running', None),
])  # fmt: skip
def test_figures_of_metrics(body: str, figures: Figures | None) -> None:
    assert figures_in(body.encode()) == figures


def test_metrics_cut_anywhere_give_figures_or_none() -> None:
    whole = VLLM.encode()
    for end in range(len(whole)):
        found = figures_in(whole[:end])
        assert found is None or (found.waiting == 3 and found.running in (1, 12))

"""Recorded arrivals: other people's formats, and the gateway's own records."""

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.errors import ConfigError
from sluice.simulate.scenario import Scenario, load_scenario
from sluice.simulate.traces import Trace, Unit, read_trace


def trace(tmp_path: Path, text: str, unit: Unit = "s") -> Trace:
    path = tmp_path / "trace"
    path.write_text(text)
    return read_trace(str(path), unit=unit)


def test_azure_s_traces_are_read(tmp_path: Path) -> None:
    found = trace(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
    )
    assert [(round(row.at, 3), row.input, row.output) for row in found.arrivals] == [
        (0.0, 374, 44),
        (4.315, 396, 109),
    ]
    assert found.began == pytest.approx(1700158546.68, abs=0.01)


def test_burstgpt_s_traces_are_read(tmp_path: Path) -> None:
    found = trace(
        tmp_path,
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,Conversation log\n",
    )
    assert [(row.at, row.alias, row.input, row.output) for row in found.arrivals] == [
        (0.0, "ChatGPT", 472, 18),
        (40.0, "GPT-4", 1087, 230),
    ]
    assert found.began == 0.0


def test_mooncake_s_traces_are_read(tmp_path: Path) -> None:
    text = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n' * 2
    found = trace(tmp_path, text + "\n", "ms")
    assert [(row.at, row.input, row.output) for row in found.arrivals] == [(0.0, 6955, 52)] * 2


def record(**fields: Any) -> str:
    return json.dumps(
        {
            "record": "call", "timestamp": "2026-11-30T12:00:10Z", "alias": "chat", "key": "web", "stream": True,
            "duration": 4.0, "tokens_in": 20, "tokens_out": 31,
            "attempts": [{"target": "a/m", "outcome": "ok", "started": 0.5, "first_token": 0.5}], **fields,
        }
    )  # fmt: skip


def test_the_gateway_s_own_records_are_read(tmp_path: Path) -> None:
    lines = [record(), record(timestamp="2026-11-30T12:00:11Z", duration=6.0), record(alias=None)]
    found = trace(tmp_path, "\n".join(lines))
    assert [row.at for row in found.arrivals] == [0.0, 1.0]  # the second ended later, and came earlier
    assert [(row.alias, row.key, row.input, row.output) for row in found.arrivals] == [
        ("chat", "web", 20, 31)
    ] * 2
    assert found.skipped == 1
    assert [(one.target, one.first_token, one.token) for one in found.attempts] == [
        ("a/m", 0.5, pytest.approx(0.1)),
        ("a/m", 0.5, pytest.approx(5 / 30)),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no call in it"),
        ("input,output\n1,2\n", "1: expected JSON lines, or CSV"),
        ("time,input\n1,2\nsoon,2\n", "3: expected a time in seconds"),
        ("time,input\n1,-2\n", "2: expected a number of tokens"),
        ("time,input\nnan,2\n", "2: expected a time that is finite"),
        ('{"time": 1}\n{"time": \n', "2: no JSON"),
        ("time\n1\n99999999\n", "--unit ms"),
        (f'{{"time": 1{"0" * 400}}}\n', "1: expected a time in seconds"),
        (f'{{"time": 1, "input": 1{"0" * 400}}}\n', "1: expected a number of tokens"),
        (f'{{"time": 1, "x": {"[" * 9999}{"]" * 9999}}}\n', "1: no JSON: nested too deeply"),
        (f"time\n{'1' * (1 << 20)}\n", "a line is longer than 1 MiB"),
        (
            f'{{"record": "call", "alias": "a", "timestamp": 1, "duration": 1{"0" * 400}}}\n',
            "1: expected a duration",
        ),
        ('{"record": "call", "alias": "a", "timestamp": 1, "duration": -1e300}\n', "1: expected a duration"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        trace(tmp_path, text)
    assert problem in str(raised.value)


def test_a_trace_of_one_endless_line_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="1: a line is longer than 1 MiB"):
        read_trace("/dev/zero")


@pytest.mark.parametrize("span", ["1" + "0" * 400, '"x"', "-1", "[1]"])
def test_an_attempt_with_an_impossible_time_is_none(tmp_path: Path, span: str) -> None:
    for first, started in ((span, "0"), ("1", span)):
        attempt = f'{{"outcome": "ok", "first_token": {first}, "started": {started}}}'
        found = trace(
            tmp_path,
            f'{{"record": "call", "alias": "a", "timestamp": 9, "duration": 1, "tokens_out": 5, "attempts": [{attempt}]}}\n',
        )
        assert (len(found.arrivals), found.attempts) == (1, [])


def test_a_scenario_is_read_as_strictly_as_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("replicas: 0\nupstreams: { a: { frist_token: 1s } }\n")
    with pytest.raises(ConfigError) as raised:
        load_scenario(str(path))
    first, second = raised.value.problems
    assert first.startswith(f"{path}:1:11: replicas: ")
    assert 'unknown key "frist_token"' in second
    assert '"first_token"' in second


def test_a_scenario_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("{}\n")
    assert load_scenario(str(path)) == Scenario()

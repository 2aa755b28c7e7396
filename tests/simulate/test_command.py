"""`sluice simulate`, as it is typed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sluice.cli import cli
from sluice.errors import ConfigError
from sluice.simulate.scenario import load_scenario

ROOT = Path(__file__).parents[2]
CONFIG = """
upstreams: { a: { backend: openai, base_url: "http://127.0.0.1:9/v1", api_key: "${A_KEY_THAT_IS_NOT_SET}" } }
aliases: { chat: { tiers: [[{ upstream: a, model: m }]] } }
keys: [{ id: web, digest: "sha256:%s", aliases: [chat] }]
""" % ("0" * 64)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    return str(path)


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *arguments])


def test_a_generated_trace_needs_no_key_no_upstream_and_no_waiting(config: str) -> None:
    found = simulate("poisson", "--config", config, "--rate", "20/s", "--for", "2m", "--json", "-")
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert 2000 < figures["calls"] < 2800
    assert figures["outcomes"] == {"ok": figures["calls"]}
    assert "A_KEY_THAT_IS_NOT_SET" in found.stderr


def test_addresses_and_digests_that_are_not_set_are_no_hindrance_but_limits_are(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    text = """
server: { listen: "127.0.0.1:${A_PORT}", admin_listen: "127.0.0.1:${B_PORT}" }
state: "${A_STORE}"
limits: { store: "${B_STORE}" }
upstreams: { a: { backend: openai, base_url: "${A_URL}/v1", api_key: "${A_KEY}" } }
aliases: { chat: { tiers: [[{ upstream: a, model: m }]] } }
keys: [{ id: a, digest: "${A_DIGEST}" }, { id: b, digest: "${B_DIGEST}", limits: { requests: { rate: 9/s } } }]
"""
    path.write_text(text)
    found = simulate("even", "--config", str(path), "--rate", "1/s", "--for", "9s")
    assert found.exit_code == 0, (found.output, found.exception)
    assert "A_DIGEST, A_KEY, A_PORT, A_STORE, A_URL, B_DIGEST, B_PORT, B_STORE" in found.stderr
    path.write_text(text.replace("9/s", '"${A_RATE}/s"'))
    refused = simulate("even", "--config", str(path), "--rate", "1/s", "--for", "9s")
    assert refused.exit_code == 1
    assert "rate" in str(refused.exception)


def test_a_recorded_trace_is_replayed_as_text_and_as_a_file(config: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "time,model,input_tokens,output_tokens\n" + "".join(f"{n},gpt-4,50,20\n" for n in range(30))
    )
    refused = simulate(str(trace), "--config", config)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, ConfigError)
    assert "--alias" in str(refused.exception)
    out = tmp_path / "out.json"
    found = simulate(str(trace), "--config", config, "--alias", "chat", "--speed", "2", "--json", str(out))
    assert found.exit_code == 0, found.output
    assert "30 calls" in found.stdout
    assert json.loads(out.read_text())["aliases"]["chat"]["calls"] == 30


def test_upstreams_of_several_servers_are_modelled_as_one(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("""
upstreams:
  pods: { backend: vllm, base_url: "http://pods.invalid:8000/v1", pods: {} }
  pool: { backend: inference_pool, base_url: "http://pool.invalid/v1", picker: { address: "picker.invalid:9002" } }
aliases:
  queued: { tiers: [{ strategy: queue_depth, targets: [{ upstream: pods, model: m }] }] }
  cached: { tiers: [{ strategy: prefix_cache, targets: [{ upstream: pods, model: n }] }] }
  picked: { tiers: [[{ upstream: pool, model: m }, { upstream: pods, model: m }]] }
keys: [{ id: web, digest: "sha256:%s", aliases: [queued, cached, picked] }]
""" % ("0" * 64))  # fmt: skip
    found = simulate("even", "--config", str(path), "--rate", "5/s", "--for", "30s", "--json", "-")
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert figures["outcomes"] == {"ok": figures["calls"]}
    assert "without their `pods` or `picker`: pods, pool" in found.stderr


def test_what_cannot_be_done_is_one_line(config: str, tmp_path: Path) -> None:
    for arguments in (("nowhere.csv",), ("poisson", "--rate", "fast"), ("even", "--speed", "nan")):
        found = simulate(*arguments, "--config", config)
        assert found.exit_code == 1
        assert len(found.stderr.splitlines()) == 1
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("upstreams: { b: {} }\n")
    found = simulate("poisson", "--config", config, "--scenario", str(scenario))
    assert isinstance(found.exception, ConfigError)
    assert "the configuration has no b" in str(found.exception)


@pytest.mark.parametrize("speed", ["inf", "1e300", "-1", "0"])
def test_a_speed_has_bounds(config: str, speed: str) -> None:
    found = simulate("even", "--speed", speed, "--config", config)
    assert (found.exit_code, "--speed" in found.stderr) == (2, True)


def test_a_picture_is_an_svg_file(config: str, tmp_path: Path) -> None:
    path = tmp_path / "load.svg"
    short = ("even", "--config", config, "--for", "30s")
    found = simulate(*short, "--plot", str(path))
    assert found.exit_code == 0, found.output
    assert path.read_text().startswith("<svg ")
    refused = simulate(*short, "--plot", str(tmp_path / "load.png"))
    assert refused.exit_code == 1
    assert refused.stderr.endswith("load.png: it is an SVG file, name it so: load.svg\n")


def test_what_the_million_is_measured_with_runs() -> None:
    million = ROOT / "bench" / "million"
    given = ("--config", str(million / "gateway.yaml"), "--scenario", str(million / "scenario.yaml"))
    found = simulate("diurnal", "--rate", "20/s", "--for", "10s", *given, "--json", "-")
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert figures["outcomes"] == {"ok": figures["calls"]}
    assert figures["cost_usd"] > 0


def test_the_example_scenario_is_a_good_one() -> None:
    load_scenario(str(ROOT / "config" / "simulation.example.yaml"))
